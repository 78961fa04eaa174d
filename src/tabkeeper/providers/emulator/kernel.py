"""Kernel, emulated: https://www.kernel.sh/docs/api-reference. What its documents leave open is marked so."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from tabkeeper.providers.emulator.core import Answer, Emulator, Refused
from tabkeeper.providers.emulator.faults import Fault, Verb
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase

STANDBY_SECONDS = 5.0
"""So long after the last connection a browser is active, and billed; then it stands by for nothing."""
_SHORTEST, _LONGEST, _USUAL = 10, 259200, 60
_REGIONS = ("us-east", "us-west", "eu-west", "ap-southeast")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_TAG = re.compile(r"[A-Za-z0-9 _.:/=+@-]{0,256}")
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    429: "rate_limit_exceeded",
    500: "internal_error",
    529: "capacity_exhausted",
}
_WORDS = {
    401: "Invalid or missing API key",
    404: "browser session not found",
    429: "Too many requests",
    529: "No browser capacity available; try again later",
}


class KernelEmulator(Emulator):
    """See `Emulator`. Its limits of time are Kernel's own, whatever `limits` says: only idle sessions are ended.

    Beside the API it keeps one project, whose id is `project`.
    """

    kind = "kernel"
    strangers = 401
    release_again: int | None = 404
    """Status with which a second delete is answered; undocumented whether it is this; None says 204."""
    names_limit = True
    """Whether a refusal for too many sessions says so; undocumented. Else it is a bare 429 without Retry-After."""
    settle_seconds = 0.0
    """For this long after its end a session's usage is pending."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.project = secrets.token_hex(12)

    def routes(self) -> Sequence[BaseRoute]:
        """See `Emulator.routes`."""
        return [
            self.route("create", "POST", "/browsers", self._create),
            self.route("list", "GET", "/browsers", self._list),
            self.route("get", "GET", "/browsers/{id}", self._get),
            self.route("any", "PATCH", "/browsers/{id}", self._update),
            self.route("release", "DELETE", "/browsers/{id}", self._delete),
            self.route("usage", "GET", "/org/limits", self._limits),
            WebSocketRoute("/browser/cdp", self._connect),
        ]

    def key_of(self, request: Request) -> str | None:
        """See `Emulator.key_of`."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return key if scheme == "Bearer" else None

    def error(self, refused: Refused) -> Response:
        """See `Emulator.error`; of the codes, only that of 400 is documented."""
        code = refused.headers.get("code") or _CODES.get(refused.status, "error")
        headers = {key: value for key, value in refused.headers.items() if key != "code"}
        return JSONResponse({"code": code, "message": refused.message}, refused.status, headers)

    def refusal(self, fault: Fault) -> Refused:
        """See `Emulator.refusal`; the words are undocumented."""
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return Refused(
            fault.status, _WORDS.get(fault.status) or HTTPStatus(fault.status).phrase.lower(), headers
        )

    def no_money(self) -> Refused:
        """See `Emulator.no_money`: the status is documented, code and words are not."""
        return Refused(403, "Spending cap reached for this organization", {"code": "spending_cap_reached"})

    def too_many(self, running: int) -> Refused:
        """See `Emulator.too_many`; undocumented."""
        if not self.names_limit:
            return Refused(429, _WORDS[429])
        message = f"Concurrent browser session limit reached ({running}/{self.limits.concurrent})"
        return Refused(429, message, {"code": "concurrency_limit_exceeded"})

    def too_fast(self, seconds: float) -> Refused:
        """See `Emulator.too_fast`: whole seconds, as documented."""
        return Refused(
            429, _WORDS[429], {"retry-after": str(max(1, math.ceil(seconds))), **self._pace(left=0)}
        )

    def billed_seconds(self, session: EmulatedSession) -> float:
        """See `Emulator.billed_seconds`: time with a connection and five seconds more; with a GPU all of it."""
        lasted = self._lasted(session)
        if session.request.get("gpu"):
            return lasted
        end, seen, active = session.began + lasted - session.surplus, session.began, 0.0
        for start, stop in [[session.began, session.began], *sorted(session.spells)]:
            begin, until = max(start, seen), min(stop + STANDBY_SECONDS, end)
            if until > begin:
                active += until - begin
                seen = until
        return active + session.surplus

    def opened_by(self, websocket: WebSocket) -> EmulatedSession | None:
        """See `Emulator.opened_by`."""
        secret = websocket.query_params.get("jwt", "")
        return next((one for one in self.sessions.values() if one.secret == secret), None)

    def connect_url(self, session: EmulatedSession) -> str:
        """See `Emulator.connect_url`."""
        return f"{self.url.replace('http', 'ws', 1)}/browser/cdp?jwt={session.secret}"

    def find(self, request: Request) -> EmulatedSession:
        """See `Emulator.find`: by id or by name, and what is over only if it is asked for."""
        wanted = request.path_params["id"]
        session = self.sessions.get(wanted) or self._named(wanted)
        if session is None or (session.phase.over and request.query_params.get("include_deleted") != "true"):
            raise self.refusal(Fault(on="get", do="status", status=404))
        return session

    def _named(self, name: str) -> EmulatedSession | None:
        return next((one for one in self.running if one.request.get("name") == name), None)

    async def _answer(self, verb: Verb, request: Request, answer: Answer) -> Response:
        if request.headers.get("x-kernel-project-id", self.project) != self.project:
            raise Refused(404, "Project not found or inactive", {"code": "project_not_found"})
        return await super()._answer(verb, request, answer)

    async def _create(self, request: Request) -> Response:
        body = await _body(request)
        seconds = body.get("timeout_seconds", _USUAL)
        if not isinstance(seconds, int) or isinstance(seconds, bool) or not _SHORTEST <= seconds <= _LONGEST:
            raise Refused(400, f"timeout_seconds must be between {_SHORTEST} and {_LONGEST}")
        if body.get("region", _REGIONS[0]) not in _REGIONS:
            raise Refused(400, f"region must be one of {', '.join(_REGIONS)}")
        if body.get("gpu") and body.get("headless"):
            raise Refused(400, "gpu requires headless=false")
        self._check_labels(body)
        if body.get("proxy") is not None and len(body["proxy"].keys() & {"mode", "id", "name"}) != 1:
            raise Refused(400, "proxy: provide exactly one of mode, id, or name")
        session = self.admit(
            body,
            seconds=seconds,
            keep_alive=True,
            session_id=secrets.token_hex(12),
            connect_seconds=math.inf,
            idle=True,
        )
        left = self.limits.creates_per_minute - len(self._created)
        return JSONResponse(self._show(session), 200, self._pace(left=left))

    def _check_labels(self, body: Mapping[str, Any]) -> None:
        name = body.get("name")
        if name and not _NAME.fullmatch(name):
            raise Refused(400, "name must be 1-255 letters, numbers, dots, underscores, or hyphens")
        if name and self._named(name) is not None:
            raise Refused(409, "a browser session with this name already exists")
        tags = body.get("tags") or {}
        if len(tags) > 50 or not all(
            isinstance(text, str) and _TAG.fullmatch(text) for pair in tags.items() for text in pair
        ):
            raise Refused(400, "tags: up to 50 pairs of letters, numbers, spaces and _.:/=+-@")

    async def _get(self, request: Request) -> Response:
        return JSONResponse(self._show(self.seen(request, self.find(request))))

    async def _update(self, request: Request) -> Response:
        session = self.find(request)
        body = await _body(request)
        self._check_labels(body)
        session.request = {**session.request, **body}
        return JSONResponse(self._show(session))

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        try:
            limit, offset = int(query.get("limit", "20")), int(query.get("offset", "0"))
        except ValueError:
            limit = offset = -1
        if not 1 <= limit <= 100 or offset < 0:
            raise Refused(400, "limit must be between 1 and 100, offset 0 or more")
        status = query.get("status", "all" if query.get("include_deleted") == "true" else "active")
        if status not in {"active", "deleted", "all"}:
            raise Refused(400, "status must be active, deleted or all")
        wanted = {key[5:-1]: value for key, value in query.items() if key.startswith("tags[")}
        found = [
            self._show(one)
            for one in reversed(self.listed(request))
            if status == "all" or one.phase.over == (status == "deleted")
        ]
        found = [
            one
            for one in found
            if wanted.items() <= one.get("tags", {}).items()
            and query.get("region", one["region"]) == one["region"]
            and query.get("query", "") in f"{one['session_id']} {one.get('name', '')}"
        ]
        more = len(found) > offset + limit
        headers = {
            "x-limit": str(limit),
            "x-offset": str(offset),
            "x-has-more": str(more).lower(),
            "x-next-offset": str(offset + limit if more else 0),
        }
        return JSONResponse(found[offset : offset + limit], 200, headers)

    async def _delete(self, request: Request) -> Response:
        try:
            session = self.find(request)
        except Refused:
            if request.path_params["id"] not in self.sessions or self.release_again == 404:
                raise
            if self.release_again is None:
                return Response(status_code=204)
            raise self.refusal(Fault(on="release", do="status", status=self.release_again)) from None
        self.end(session, Phase.COMPLETED, "deleted")
        return Response(status_code=204)

    async def _limits(self, _: Request) -> Response:
        used = len(self.running)
        return JSONResponse(
            {
                "max_concurrent_sessions": self.limits.concurrent,
                "concurrent_sessions_used": used,
                "concurrent_sessions_available": max(0, self.limits.concurrent - used),
                "default_project_max_concurrent_sessions": None,
                "auth_connections_used": 0,
                "max_auth_connections": None,
                "min_health_check_interval_seconds": 60,
                "vaults_used": 0,
                "max_vaults": None,
            }
        )

    def _pace(self, *, left: int) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(self.limits.creates_per_minute),
            "x-ratelimit-remaining": str(left),
        }

    def _show(self, session: EmulatedSession) -> dict[str, Any]:
        asked = session.request
        headless = asked.get("headless", False)
        shown = {
            "session_id": session.id,
            "created_at": _text(session.created_at),
            "cdp_ws_url": self.connect_url(session),
            "webdriver_ws_url": f"{self.url.replace('http', 'ws', 1)}/browser/webdriver/session?jwt={session.secret}",
            "base_url": f"{self.url}/browser/kernel",
            "headless": headless,
            "stealth": asked.get("stealth", False),
            "gpu": asked.get("gpu", False),
            "memory": asked.get("memory", "1GiB" if headless else "8GiB"),
            "region": asked.get("region", _REGIONS[0]),
            "timeout_seconds": int(session.seconds),
        }
        if not headless:
            shown["browser_live_view_url"] = f"{self.url}/browser/live?jwt={session.secret}"
        for key in ("name", "tags", "proxy", "viewport", "start_url", "kiosk_mode", "profile"):
            if asked.get(key):
                shown[key] = asked[key]
        if session.ended_at is not None:
            settled = session.ended_at + timedelta(seconds=self.settle_seconds - session.surplus)
            ready = self._clock.now() >= settled
            shown["deleted_at"] = _text(session.ended_at)
            shown["usage_status"] = "ready" if ready else "pending"
            if ready:
                shown["usage"] = {"uptime_ms": round(self.billed_seconds(session) * 1000)}
        return shown


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except JSONDecodeError:
        raise Refused(400, "request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "request body must be an object")
    return body


def _text(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
