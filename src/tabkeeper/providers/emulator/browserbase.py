"""Browserbase, emulated: https://docs.browserbase.com/reference/api. What its documents leave open is marked so."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from json import JSONDecodeError, dumps
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from tabkeeper.providers.emulator.core import Emulator, Refused
from tabkeeper.providers.emulator.faults import Fault
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase

_STATUS = {
    Phase.PENDING: "PENDING",
    Phase.RUNNING: "RUNNING",
    Phase.COMPLETED: "COMPLETED",
    Phase.TIMED_OUT: "TIMED_OUT",
    Phase.FAILED: "ERROR",
}
_REGIONS = ("us-west-2", "us-east-1", "eu-central-1", "ap-southeast-1")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "projectId": (str,),
    "timeout": (int,),
    "keepAlive": (bool,),
    "region": (str,),
    "proxies": (bool, list),
    "proxySettings": (dict,),
    "userMetadata": (dict,),
    "extensionId": (str,),
    "browserSettings": (dict,),
}
_NAMES = {bool: "boolean", str: "string", dict: "object", list: "array", int: "integer"}
_QUERY = re.compile(r"user_metadata((?:\['[^']*'\])+):'([^']*)'")


class BrowserbaseEmulator(Emulator):
    """See `Emulator`. Beside the API it keeps one project, whose id is `project`."""

    kind = "browserbase"
    release_again: int | None = None
    """Status with which a second release is answered; undocumented: None says 200 and the session."""
    tells_address = True
    """Whether reading a session tells its `connectUrl`; documented as optional."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.project = str(uuid.uuid4())
        self._founded = self._clock.now()

    def routes(self) -> Sequence[BaseRoute]:
        """See `Emulator.routes`."""
        return [
            self.route("create", "POST", "/v1/sessions", self._create),
            self.route("list", "GET", "/v1/sessions", self._list),
            self.route("get", "GET", "/v1/sessions/{id}", self._get),
            self.route("release", "POST", "/v1/sessions/{id}", self._release),
            self.route("get", "GET", "/v1/sessions/{id}/debug", self._debug),
            self.route("usage", "GET", "/v1/projects", self._projects),
            self.route("usage", "GET", "/v1/projects/{id}", self._project),
            self.route("usage", "GET", "/v1/projects/{id}/usage", self._usage),
        ]

    def key_of(self, request: Request) -> str | None:
        """See `Emulator.key_of`."""
        return request.headers.get("x-bb-api-key")

    def error(self, refused: Refused) -> Response:
        """See `Emulator.error`: Fastify's shape."""
        body = {
            "statusCode": refused.status,
            "error": HTTPStatus(refused.status).phrase,
            "message": refused.message,
        }
        return JSONResponse(body, refused.status, refused.headers)

    def refusal(self, fault: Fault) -> Refused:
        """See `Emulator.refusal`; the words for 401, 403, 404 and 429 are undocumented."""
        words = {
            401: "Unauthorized: invalid API key",
            402: "Free plan browser minutes limit reached. Please upgrade your account at "
            "https://browserbase.com/plans",
            403: "Forbidden",
            404: "Session not found",
            429: "Rate limit exceeded",
        }
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return Refused(fault.status, words.get(fault.status) or HTTPStatus(fault.status).phrase, headers)

    def too_many(self, running: int) -> Refused:
        """See `Emulator.too_many`: the words as observed."""
        return Refused(
            429,
            f"You've exceeded your max concurrent sessions limit (limit {self.limits.concurrent}, currently "
            f"{running}). Please contact support to increase your limit.",
        )

    def too_fast(self, seconds: float) -> Refused:
        """See `Emulator.too_fast`; the headers are documented, the words are not."""
        wait = str(max(1, round(seconds)))
        limit = str(self.limits.creates_per_minute)
        headers = {
            "x-ratelimit-limit": limit,
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": wait,
            "retry-after": wait,
        }
        return Refused(429, f"Rate limit exceeded: {limit} sessions per minute", headers)

    async def _create(self, request: Request) -> Response:
        body = await self._body(request)
        for key, value in body.items():
            if key not in _TYPES:
                continue
            # In JSON true is no number, though Python thinks so.
            if not isinstance(value, _TYPES[key]) or (isinstance(value, bool) and bool not in _TYPES[key]):
                raise Refused(400, f"body/{key} must be {_NAMES[_TYPES[key][0]]}")
        seconds = body.get("timeout", self.limits.default_seconds)
        if seconds < self.limits.min_seconds:
            raise Refused(400, f"body/timeout must be >= {self.limits.min_seconds:g}")
        if seconds > self.limits.max_seconds:
            raise Refused(400, f"body/timeout must be <= {self.limits.max_seconds:g}")
        if body.get("region", _REGIONS[0]) not in _REGIONS:
            raise Refused(400, "body/region must be equal to one of the allowed values")
        if body.get("projectId", self.project) != self.project:
            raise self.refusal(Fault(on="create", do="status", status=403))
        if len(dumps(body.get("userMetadata", {}), separators=(",", ":"))) > 512:
            raise Refused(400, "body/userMetadata must not be larger than 512 characters")
        session = self.admit(body, seconds=seconds, keep_alive=body.get("keepAlive", False))
        return JSONResponse({**self._show(session), **self._secrets(session)}, 201)

    async def _get(self, request: Request) -> Response:
        session = self.seen(request, self.find(request))
        more = self._secrets(session) if self.tells_address and not session.phase.over else {}
        return JSONResponse({**self._show(session), **more})

    async def _list(self, request: Request) -> Response:
        status = request.query_params.get("status")
        if status is not None and status not in _STATUS.values():
            raise Refused(400, "querystring/status must be equal to one of the allowed values")
        wanted = _question(request.query_params.get("q"))
        shown = [self._show(one) for one in reversed(self.listed(request)) if wanted(one.request)]
        return JSONResponse([one for one in shown if status in {None, one["status"]}])

    async def _release(self, request: Request) -> Response:
        session = self.find(request)
        body = await self._body(request)
        if body.get("status") != "REQUEST_RELEASE":
            raise Refused(400, "body/status must be equal to one of the allowed values")
        if body.get("projectId", self.project) != self.project:
            raise self.refusal(Fault(on="release", do="status", status=403))
        if session.phase.over and self.release_again is not None:
            raise self.refusal(Fault(on="release", do="status", status=self.release_again))
        self.end(session, Phase.COMPLETED, "released")
        return JSONResponse(self._show(self.seen(request, session)))

    async def _debug(self, request: Request) -> Response:
        session = self.find(request)
        if session.phase.over:
            raise self.refusal(Fault(on="get", do="status", status=404))
        inspector = f"{self.url}/devtools-fullscreen/inspector.html?debug=true&key={session.secret}"
        return JSONResponse(
            {
                "debuggerFullscreenUrl": inspector,
                "debuggerUrl": inspector.replace("devtools-fullscreen", "devtools"),
                "wsUrl": self.connect_url(session),
                "pages": [],
            }
        )

    async def _projects(self, _: Request) -> Response:
        return JSONResponse([self._show_project()])

    async def _project(self, request: Request) -> Response:
        self._check_project(request)
        return JSONResponse(self._show_project())

    async def _usage(self, request: Request) -> Response:
        self._check_project(request)
        bill = self.bill()
        return JSONResponse({"browserMinutes": bill.minutes, "proxyBytes": bill.proxy_bytes})

    def _check_project(self, request: Request) -> None:
        if request.path_params["id"] != self.project:
            raise Refused(404, "Project not found")

    async def _body(self, request: Request) -> dict[str, Any]:
        if not request.headers.get("content-type", "").startswith("application/json"):
            if await request.body():
                raise Refused(415, "Unsupported Media Type")
            return {}
        try:
            body = await request.json()
        except JSONDecodeError:
            # An empty body that is said to be JSON is an error, too.
            raise Refused(400, "Body is not valid JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "body must be object")
        return body

    def _show(self, session: EmulatedSession) -> dict[str, Any]:
        shown = {
            "id": session.id,
            "projectId": self.project,
            "status": _STATUS[session.phase],
            "createdAt": _text(session.created_at),
            "updatedAt": _text(session.updated_at),
            "startedAt": _text(session.created_at),
            "expiresAt": _text(session.created_at + timedelta(seconds=session.seconds)),
            "proxyBytes": session.proxy_bytes,
            "keepAlive": session.keep_alive,
            "region": session.request.get("region", _REGIONS[0]),
            "userMetadata": session.request.get("userMetadata", {}),
        }
        if session.ended_at is not None:
            shown["endedAt"] = _text(session.ended_at)
        context = session.request.get("browserSettings", {}).get("context")
        if context:
            shown["contextId"] = context["id"]
        return shown

    def _secrets(self, session: EmulatedSession) -> dict[str, str]:
        return {
            "connectUrl": self.connect_url(session),
            "seleniumRemoteUrl": f"{self.url}/webdriver",
            "signingKey": session.secret,
        }

    def _show_project(self) -> dict[str, Any]:
        return {
            "id": self.project,
            "createdAt": _text(self._founded),
            "updatedAt": _text(self._founded),
            "name": "Emulated project",
            "ownerId": str(uuid.UUID(int=1)),
            "defaultTimeout": int(self.limits.default_seconds),
            "concurrency": self.limits.concurrent,
        }


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _question(text: str | None) -> Callable[[Mapping[str, Any]], bool]:
    """Return the test that a metadata query stands for: one path, equal to one text."""
    if text is None:
        return lambda _: True
    found = _QUERY.fullmatch(text)
    if found is None:
        raise Refused(400, "querystring/q is not a valid query")
    path, wanted = re.findall(r"\['([^']*)'\]", found[1]), found[2]

    def fits(body: Mapping[str, Any]) -> bool:
        value: Any = body.get("userMetadata", {})
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return isinstance(value, str) and value == wanted

    return fits
