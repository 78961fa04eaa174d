"""Who may talk to the service at all: looked at before anything else, for HTTP and WebSockets alike.

It refuses requests for a name that is not the service's (DNS rebinding), from web pages of other origins (CSRF), with
no valid token, and with too much to say. What it lets through has its `Caller` in the scope's state.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tabkeeper.config import ServiceSettings
from tabkeeper.service.keyring import Keyring
from tabkeeper.service.problems import MEDIA_TYPE, ProblemError
from tabkeeper.service.tokens import ANYBODY, Caller

COOKIE = "tabkeeper_session"
"""Of a dashboard that was logged in with a token."""

PUBLIC = frozenset({"/", "/health", "/openapi.json", "/login"})
"""Paths that need no token: they tell nothing that has to be kept."""
PUBLIC_FOLDER = "/assets/"

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}


class Guard:
    """ASGI middleware around the whole service.

    Args:
        app: what it guards.
        settings: names, origins, sizes.
        keyring: who has a token.
        logins: whose cookie it is; None if nobody's.
        holders: whose lease token it is; None if nobody's.
        open_: let everybody in who comes without a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServiceSettings,
        keyring: Keyring,
        logins: Callable[[str], Caller | None],
        holders: Callable[[str], Caller | None],
        open_: bool,
    ) -> None:
        self._app = app
        self._settings = settings
        self._keyring = keyring
        self._logins = logins
        self._holders = holders
        self._open = open_
        self._names = {"localhost", settings.host.lower(), *(name.lower() for name in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a problem."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        if (under := self._settings.path) and f"{scope['path']}/".startswith(f"{under}/"):
            scope = {**scope, "path": scope["path"].removeprefix(under)}
        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            self._check_origin(scope, headers)
            scope.setdefault("state", {})["caller"] = await self._caller(scope, headers)
            if scope["type"] == "http" and not scope["path"]:
                await _lead_to(f"{under}/", send)  # the page's own links begin where it ends
                return
            if scope["type"] == "http":
                receive = await self._body(headers, receive)
                send = _hardened(scope, send)
        except ProblemError as problem:
            await refuse(problem, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """A page whose name was made to lead here is told apart by that name; addresses cannot be rebound."""
        found = _HOST.fullmatch(headers.get("host", ""))
        if len(headers.getlist("host")) != 1 or found is None:
            raise ProblemError("bad-request", "exactly one valid Host header is needed")
        name = found[1].lower()
        if name in self._names:
            return
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            raise ProblemError(
                "forbidden",
                f"this service does not answer for {name!r}; add it to service.hosts if it should",
            ) from None

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Browsers say which page a request comes from; programs say nothing."""
        origin = headers.get("origin")
        if origin is not None:
            scheme, _, name = origin.partition("://")
            own = scheme in {"http", "https"} and name.lower() == headers["host"].lower()
            if not own and origin not in self._settings.origins:
                raise ProblemError("forbidden", "pages of other origins may not call this service")
            return
        if headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
            looks = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in {"", "/"}
            if not (looks and headers.get("sec-fetch-mode") == "navigate"):
                raise ProblemError("forbidden", "pages of other origins may not call this service")

    async def _caller(self, scope: Scope, headers: Headers) -> Caller | None:
        token = _token_of(scope, headers)
        if token is not None:
            caller = await self._keyring.find(token)
            if caller is None:
                raise ProblemError("unauthorized", "the token is not known")
            return caller
        if is_gateway(scope["path"]) and (lease := _in_query(scope, b"lease")) is not None:
            holder = self._holders(lease)
            if holder is not None and await self._keyring.is_good(holder):
                return holder
        for cookie in cookies_of(headers):
            caller = self._logins(cookie)
            if caller is not None and await self._keyring.is_good(caller):
                return caller
        if self._open:
            return ANYBODY
        if not is_public(scope["path"]):
            raise ProblemError("unauthorized", "send the header 'Authorization: Bearer <token>'")
        return None

    async def _body(self, headers: Headers, receive: Receive) -> Receive:
        """Read the body, which must be small and come soon, so that nothing behind this waits for it."""
        most = self._settings.max_body
        too_large = ProblemError("too-large", f"a request's body may have {most} bytes")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise ProblemError("bad-request", "Content-Length is not a number")
        if len(length) > len(str(most)) or int(length) > most:
            raise too_large
        body = b""
        try:
            async with asyncio.timeout(self._settings.header_timeout.total_seconds()):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        break
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body"):
                        message = {"type": "http.request", "body": body, "more_body": False}
                        break
        except TimeoutError:
            raise ProblemError("too-slow", "the request's body did not come in time") from None
        read = [message]

        async def replay() -> Message:
            return read.pop() if read else await receive()

        return replay


def is_public(path: str) -> bool:
    """Whether a path needs no token."""
    return path in PUBLIC or not path or path.startswith(PUBLIC_FOLDER)


def cookies_of(headers: Headers) -> list[str]:
    """Return the dashboard's cookies: a browser also sends that of a service above this one's path."""
    parts = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return [value for name, _, value in parts if name == COOKIE]


def _token_of(scope: Scope, headers: Headers) -> str | None:
    said = headers.get("authorization")
    if said is not None:
        kind, _, token = said.partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise ProblemError("unauthorized", "send the header 'Authorization: Bearer <token>'")
        return token.strip()
    return _in_query(scope, b"token") if is_gateway(scope["path"]) else None


def is_gateway(path: str) -> bool:
    """Whether CDP clients connect here, many of which can set no header: their token may stand in the query."""
    return path.startswith(("/cdp", "/json", "/devtools"))


def _in_query(scope: Scope, wanted: bytes) -> str | None:
    for part in scope["query_string"].split(b"&"):
        name, _, value = part.partition(b"=")
        if name == wanted and value:
            return unquote_to_bytes(value).decode("latin-1")
    return None


def _hardened(scope: Scope, send: Send) -> Send:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            more = dict(_SECURITY_HEADERS)
            if not scope["path"].startswith(PUBLIC_FOLDER):
                more["Cache-Control"] = "no-store"
            message["headers"] = [
                *message["headers"],
                *(
                    (name.encode(), value.encode())
                    for name, value in more.items()
                    if name.lower().encode() not in names
                ),
            ]
        await send(message)

    return send_more


async def _lead_to(where: str, send: Send) -> None:
    await send({"type": "http.response.start", "status": 308, "headers": [(b"location", where.encode())]})
    await send({"type": "http.response.body", "body": b""})


async def refuse(problem: ProblemError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem: an HTTP request, or a WebSocket before it is accepted."""
    body = json.dumps(problem.document()).encode()
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers().items()),
        *((name.lower().encode(), value.encode()) for name, value in _SECURITY_HEADERS.items()),
    ]
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": problem.kind})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": problem.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
