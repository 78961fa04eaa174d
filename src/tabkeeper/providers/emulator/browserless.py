"""Browserless, emulated: https://docs.browserless.io, its Session API. What its documents leave open is marked so."""

from __future__ import annotations

import base64
import binascii
import math
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from tabkeeper.providers.emulator.core import Emulator, Refused
from tabkeeper.providers.emulator.faults import Fault
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase

UNIT_SECONDS = 30
"""One unit pays for each started span of this."""
_TYPES: Mapping[str, tuple[type, ...]] = {
    "ttl": (int, float),
    "processKeepAlive": (int, float),
    "stealth": (bool,),
    "headless": (bool,),
    "blockAds": (bool,),
    "args": (list,),
    "browser": (str,),
    "url": (str,),
    "proxy": (dict,),
    "replay": (bool,),
    "extensions": (list,),
    "profile": (str,),
}
_BROWSERS = ("chromium", "chrome", "stealth")
_CONNECTION_SECONDS = 30.0
"""A connection that asks for nothing else is cut after this, and the session with it."""


class BrowserlessEmulator(Emulator):
    """See `Emulator`. The browser comes with the first connection and is paid for while there is one.

    Between connections the real service ends the process and keeps its data; here the browser stays, unpaid. Whether
    sessions that nobody connected to count as concurrent is undocumented: here they do, so that a create is refused
    rather than the connection after it.
    """

    kind = "browserless"
    starts_on_connect = True
    release_again: int | None = None
    """Status with which a second DELETE is answered; undocumented: None says 404."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.endpoint = secrets.token_hex(8)

    def routes(self) -> Sequence[BaseRoute]:
        """See `Emulator.routes`."""
        return [
            self.route("create", "POST", "/session", self._create),
            self.route("release", "DELETE", "/session/{id}", self._release),
            self.route("release", "DELETE", "/e/{endpoint}/session/{id}", self._release),
            self.route("usage", "GET", "/profiles", self._profiles),
            WebSocketRoute("/e/{endpoint}/session/connect/{id}", self._connect),
        ]

    def key_of(self, request: Request) -> str | None:
        """See `Emulator.key_of`: in the query, which wins, or as basic authorization without a user."""
        if token := request.query_params.get("token"):
            return token
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            return base64.b64decode(value).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return None

    def error(self, refused: Refused) -> Response:
        """See `Emulator.error`."""
        return JSONResponse({"error": refused.message}, refused.status, refused.headers)

    def refusal(self, fault: Fault) -> Refused:
        """See `Emulator.refusal`; 402 and its words are undocumented."""
        words = {
            401: "Bad or missing authentication.",
            402: "You have used all units of your plan",
            404: "Couldn't locate session for id",
            408: "Request has timed out",
            429: "Too many requests",
        }
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return Refused(fault.status, words.get(fault.status) or HTTPStatus(fault.status).phrase, headers)

    def too_many(self, running: int) -> Refused:  # noqa: ARG002 - it tells the limit alone
        """See `Emulator.too_many`: the words as in its source, with no queue."""
        return Refused(
            429,
            f"Your plan allows {self.limits.concurrent} concurrent sessions and 0 queued requests, but both limits "
            "have been reached.",
        )

    def too_fast(self, seconds: float) -> Refused:  # noqa: ARG002 - it promises no header
        """See `Emulator.too_fast`; undocumented."""
        return Refused(429, "Too many requests")

    def connect_url(self, session: EmulatedSession) -> str:
        """See `Emulator.connect_url`; the token is one that only opens this session."""
        base = self.url.replace("http", "ws", 1)
        return f"{base}/e/{self.endpoint}/session/connect/{session.id}?token={session.secret}"

    def opened_by(self, websocket: WebSocket) -> EmulatedSession | None:
        """See `Emulator.opened_by`: the session's token or an account's key; `timeout` bounds the connection."""
        session = self.sessions.get(websocket.path_params.get("id", ""))
        token = websocket.query_params.get("token")
        if session is None or not token or token not in {session.secret, *self._keys}:
            return None
        if not session.phase.over:
            try:
                seconds = float(websocket.query_params.get("timeout", "")) / 1000
            except ValueError:
                seconds = _CONNECTION_SECONDS
            age = self._clock.monotonic() - session.began
            session.seconds = min(session.seconds, age + min(seconds, self.limits.max_seconds))
        return session

    def billed_seconds(self, session: EmulatedSession) -> float:
        """See `Emulator.billed_seconds`: while somebody is connected, and as long after as the process is kept."""
        return sum(end - begin for begin, end in self._lives(session))

    def units(self) -> int:
        """Return what the account has used: a unit for each started half minute of each browser."""
        self._advance()
        lives = [life for session in self.sessions.values() for life in self._lives(session)]
        return sum(max(1, math.ceil((end - begin) / UNIT_SECONDS)) for begin, end in lives)

    def _lives(self, session: EmulatedSession) -> list[tuple[float, float]]:
        """Return from when to when the session had a browser process."""
        over = session.began + self._lasted(session)
        kept = session.request.get("processKeepAlive", 0) / 1000
        lives: list[tuple[float, float]] = []
        for begin, end in sorted((one[0], one[1]) for one in session.spells):
            until = min(end + kept, over)
            if lives and begin <= lives[-1][1]:
                lives[-1] = (lives[-1][0], max(lives[-1][1], until))
            else:
                lives.append((begin, until))
        return lives

    async def _create(self, request: Request) -> Response:
        try:
            body = await request.json()
        except JSONDecodeError:
            raise Refused(400, "Body is not valid JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "Body must be an object")
        for key, value in body.items():
            if key in _TYPES and (
                not isinstance(value, _TYPES[key]) or (isinstance(value, bool) and bool not in _TYPES[key])
            ):
                raise Refused(400, f'"{key}" is of the wrong type')
        if body.get("ttl", 0) <= 0:
            raise Refused(400, '"ttl" is required and must be greater than 0')
        if body.get("processKeepAlive", 0) < 0:
            raise Refused(400, '"processKeepAlive" must not be negative')
        if body.get("browser", "chromium") not in _BROWSERS:
            raise Refused(400, f'"browser" must be one of {", ".join(_BROWSERS)}')
        session = self.admit(
            body,
            seconds=body["ttl"] / 1000,
            keep_alive=True,
            session_id=secrets.token_hex(16),
            connect_seconds=math.inf,
        )
        token = request.query_params.get("token", "")
        stop = f"{self.url}/e/{self.endpoint}/session/{session.id}?token={token}"
        return JSONResponse(
            {
                "id": session.id,
                "connect": self.connect_url(session),
                "ttl": body["ttl"],
                "stop": stop,
                "browserQL": f"{self.url}/e/{self.endpoint}/session/bql/{session.id}?token={token}",
                "cloudEndpointId": self.endpoint,
            }
        )

    async def _release(self, request: Request) -> Response:
        session = self.find(request)
        if session.phase.over:
            raise self.refusal(Fault(on="release", do="status", status=self.release_again or 404))
        if session.connections and request.query_params.get("force") != "true":
            # The status is undocumented.
            raise Refused(409, "The session has active connections; use force=true")
        self.end(session, Phase.COMPLETED, "stopped")
        # The body is undocumented.
        return JSONResponse({"success": True})

    async def _profiles(self, request: Request) -> Response:
        try:
            limit = int(request.query_params.get("limit", "100"))
        except ValueError:
            limit = 0
        if not 1 <= limit <= 1000:
            raise Refused(400, '"limit" must be between 1 and 1000')
        # The name of the list in the answer is undocumented.
        return JSONResponse({"profiles": [], "total": 0})
