"""Hyperbrowser, emulated: https://hyperbrowser.ai/docs/api-reference. What its documents leave open is marked so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from tabkeeper.providers.emulator.core import Emulator, Refused
from tabkeeper.providers.emulator.faults import Fault
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase

_STATUS = {
    Phase.PENDING: "active",
    Phase.RUNNING: "active",
    Phase.COMPLETED: "closed",
    Phase.TIMED_OUT: "closed",
    Phase.FAILED: "error",
}
_REGIONS = ("us", "us-central", "us-east", "us-west", "europe-west", "asia-south", "us-dev")
_LONGEST_MINUTES = 720
_ECHOED = (
    *("useUltraStealth", "useStealth", "useProxy", "solveCaptchas", "adblock", "trackers", "annoyances"),
    *("screen", "profile", "staticIpId", "enableWebRecording", "viewOnlyLiveView", "acceptCookies"),
)
"""What of a create's parameters a session tells later; nothing of it can hold a label."""


class HyperbrowserEmulator(Emulator):
    """See `Emulator`. That a session goes on when its connection ends is not documented."""

    kind = "hyperbrowser"
    keeps_labels = False
    release_again: int | None = None
    """Status with which a second stop is answered; by the documents it is no error: None says 200 and success."""
    credits_per_hour = Decimal(100)
    credits_per_gb = Decimal(10000)
    """What a session costs; neither is documented."""
    credit_limit = 10000

    def routes(self) -> Sequence[BaseRoute]:
        """See `Emulator.routes`."""
        return [
            self.route("create", "POST", "/api/session", self._create),
            self.route("list", "GET", "/api/sessions", self._list),
            self.route("usage", "GET", "/api/sessions/active-count", self._count),
            self.route("get", "GET", "/api/session/{id}", self._get),
            self.route("release", "PUT", "/api/session/{id}/stop", self._stop),
            self.route("get", "PUT", "/api/session/{id}/extend-session", self._extend),
            self.route("usage", "GET", "/api/team/credit-info", self._credit_info),
        ]

    def key_of(self, request: Request) -> str | None:
        """See `Emulator.key_of`."""
        return request.headers.get("x-api-key")

    def error(self, refused: Refused) -> Response:
        """See `Emulator.error`; some errors also have a code."""
        code = {"code": "SESSION_NOT_ACTIVE"} if refused.status == HTTPStatus.CONFLICT else {}
        return JSONResponse({"message": refused.message, **code}, refused.status, refused.headers)

    def refusal(self, fault: Fault) -> Refused:
        """See `Emulator.refusal`; of these only 404 and 409 are documented."""
        words = {
            401: "Invalid API key",
            402: "Insufficient credits",
            404: "Session not found",
            409: "Session is not active",
            429: "Too many requests",
        }
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return Refused(fault.status, words.get(fault.status) or HTTPStatus(fault.status).phrase, headers)

    def too_many(self, running: int) -> Refused:
        """See `Emulator.too_many`; undocumented."""
        return Refused(429, f"Maximum number of concurrent sessions reached ({running})")

    def too_fast(self, seconds: float) -> Refused:  # noqa: ARG002 - the documents promise no header
        """See `Emulator.too_fast`; undocumented."""
        return Refused(429, "Too many requests")

    def connect_url(self, session: EmulatedSession) -> str:
        """See `Emulator.connect_url`: the token is a session's own."""
        return (
            f"{self.url.replace('http', 'ws', 1)}/connect?sessionId={session.id}&signingKey={session.secret}"
        )

    def credits(self, session: EmulatedSession) -> tuple[Decimal, Decimal]:
        """Return what a session costs in credits: for its time, and for its traffic."""
        time = self.credits_per_hour * Decimal(str(self._lasted(session))) / 3600
        return round(time, 6), self.credits_per_gb * session.proxy_bytes / 10**9

    async def _create(self, request: Request) -> Response:
        body = await _body(request)
        minutes = body.get("timeoutMinutes", self.limits.default_seconds / 60)
        if not isinstance(minutes, int | float) or not 1 <= minutes <= _LONGEST_MINUTES:
            raise Refused(400, f"timeoutMinutes must be between 1 and {_LONGEST_MINUTES}")
        if body.get("region", _REGIONS[0]) not in _REGIONS:
            raise Refused(400, "region is invalid")
        if body.get("proxyState") and body.get("proxyCity"):
            raise Refused(400, "proxyState and proxyCity exclude each other")
        session = self.admit(body, seconds=minutes * 60, keep_alive=True, connect_seconds=math.inf)
        return JSONResponse(self._detail(session))

    async def _get(self, request: Request) -> Response:
        return JSONResponse(self._detail(self.seen(request, self.find(request))))

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        try:
            page, limit = int(query.get("page", "1")), int(query.get("limit", "10"))
        except ValueError:
            page = limit = 0
        status = query.get("status")
        if page < 1 or limit < 1 or status not in {None, "close-error", *_STATUS.values()}:
            raise Refused(400, "page, limit or status is invalid")
        shown = [self._show(one) for one in reversed(self.listed(request))]
        shown = [one for one in shown if status in {None, one["status"]}]
        answer = {"sessions": shown[(page - 1) * limit : page * limit], "totalCount": len(shown)}
        return JSONResponse({**answer, "page": page, "perPage": limit})

    async def _count(self, _: Request) -> Response:
        return JSONResponse({"activeSessionsCount": len(self.running)})

    async def _stop(self, request: Request) -> Response:
        session = self.find(request)
        if session.phase.over and self.release_again is not None:
            raise self.refusal(Fault(on="release", do="status", status=self.release_again))
        self.end(session, Phase.COMPLETED, "stopped")
        return JSONResponse({"success": True})

    async def _extend(self, request: Request) -> Response:
        """Add to the session's end; that it is not counted from now on is not documented."""
        session = self.find(request)
        minutes = (await _body(request)).get("durationMinutes")
        if not isinstance(minutes, int | float) or minutes < 1:
            raise Refused(400, "durationMinutes must be at least 1")
        if session.phase.over:
            raise self.refusal(Fault(on="get", do="status", status=409))
        session.seconds += minutes * 60
        return JSONResponse({"success": True})

    async def _credit_info(self, _: Request) -> Response:
        used = math.ceil(sum(sum(self.credits(one)) for one in self.sessions.values()))
        limit = used if self.out_of_money else self.credit_limit
        return JSONResponse({"usage": used, "limit": limit, "remaining": limit - used})

    def _show(self, session: EmulatedSession) -> dict[str, Any]:
        over = session.phase.over
        time, proxy = self.credits(session) if over else (None, None)
        total = None if time is None or proxy is None else time + proxy
        return {
            "id": session.id,
            "teamId": "team-1",
            "status": _STATUS[session.phase],
            "createdAt": _text(session.created_at),
            "updatedAt": _text(session.updated_at),
            "startTime": _epoch(session.created_at),
            "endTime": _epoch(session.ended_at) if session.ended_at else None,
            "duration": int(self._lasted(session)) if over else None,
            "sessionUrl": f"{self.url}/sessions/{session.id}",
            "proxyDataConsumed": str(session.proxy_bytes),
            "launchState": {key: session.request[key] for key in _ECHOED if key in session.request},
            "creditsUsed": _plain(total),
            "creditBreakdown": {
                "creditsUsed": _plain(total),
                "browserTimeCreditsUsed": _plain(time),
                "proxyDataCreditsUsed": _plain(proxy),
            },
        }

    def _detail(self, session: EmulatedSession) -> dict[str, Any]:
        return {
            **self._show(session),
            "wsEndpoint": self.connect_url(session) if session.phase is Phase.RUNNING else None,
            "webdriverEndpoint": f"{self.url}/webdriver",
            "computerActionEndpoint": f"{self.url}/computer-action",
            "liveUrl": f"{self.url}/live?token={session.secret}",
            "liveDomain": self.url,
            "token": session.secret,
        }


async def _body(request: Request) -> Mapping[str, Any]:
    try:
        body = await request.json()
    except JSONDecodeError:
        raise Refused(400, "Body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "Body must be an object")
    return body


def _plain(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _epoch(moment: datetime) -> str:
    return str(round(moment.timestamp() * 1000))
