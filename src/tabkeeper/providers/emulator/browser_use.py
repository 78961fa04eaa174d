"""Browser Use Cloud, emulated: https://docs.browser-use.com. What its documents leave open is marked so."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from json import JSONDecodeError, dumps, loads
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from tabkeeper.providers.emulator.core import Emulator, Refused
from tabkeeper.providers.emulator.faults import Fault
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase

MINUTE = Decimal("0.02") / 60
"""Dollars for a started minute."""
MANAGED, DIRECT = Decimal("5e-9"), Decimal("0.2e-9")
"""Dollars for a byte through a proxy of theirs, and for any other."""
_LONGEST, _USUAL = 240, 60
_WORDS = {
    401: "Invalid API key",
    402: "Insufficient credits",
    403: "API key is missing required scope: browsers",
    404: "Session not found",
    429: "Rate limit exceeded",
}


class BrowserUseEmulator(Emulator):
    """See `Emulator`. Its limits of time are Browser Use's own, whatever `limits` says.

    The time until the timeout is charged when a session starts, and what is not used returned when it ends.
    """

    kind = "browser_use"
    strangers = 404
    release_again: int | None = None
    """Status with which a second stop is answered; undocumented: None says 200 and the session."""
    credits = Decimal(100)
    """Dollars that were paid in."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.project = str(uuid.uuid4())

    def routes(self) -> Sequence[BaseRoute]:
        """See `Emulator.routes`: the same browsers in three versions of the API, the account in two."""
        found: list[BaseRoute] = []
        for version in ("v2", "v3", "v4"):
            base = f"/api/{version}"
            found += [
                self.route("create", "POST", f"{base}/browsers", self._create),
                self.route("list", "GET", f"{base}/browsers", self._list),
                self.route("get", "GET", f"{base}/browsers/{{id}}", self._get),
                self.route("release", "PATCH", f"{base}/browsers/{{id}}", self._stop),
            ]
            if version != "v4":
                found.append(self.route("usage", "GET", f"{base}/billing/account", self._account))
        return [
            *found,
            Route("/cdp/{secret}/json/version", self._discover),
            Route("/cdp/{secret}/json/version/", self._discover),
            WebSocketRoute("/cdp/{secret}", self._connect),
            WebSocketRoute("/cdp/{secret}/devtools/browser/{id}", self._connect),
        ]

    def key_of(self, request: Request) -> str | None:
        """See `Emulator.key_of`."""
        return request.headers.get("x-browser-use-api-key")

    def error(self, refused: Refused) -> Response:
        """See `Emulator.error`: FastAPI's shape; what is more than words is JSON in the message."""
        detail = loads(refused.message) if refused.message.startswith(("[", "{")) else refused.message
        return JSONResponse({"detail": detail}, refused.status, refused.headers)

    def refusal(self, fault: Fault) -> Refused:
        """See `Emulator.refusal`; the words for 401 and of a rate limit are undocumented."""
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return Refused(fault.status, _WORDS.get(fault.status) or HTTPStatus(fault.status).phrase, headers)

    def too_many(self, running: int) -> Refused:  # noqa: ARG002 - it does not say how many
        """See `Emulator.too_many`: the words as observed."""
        return Refused(
            429,
            "Too many concurrent active sessions. Please wait for one to finish, kill one, or upgrade your plan.",
        )

    def too_fast(self, seconds: float) -> Refused:  # noqa: ARG002 - no header was ever seen
        """See `Emulator.too_fast`; undocumented whether there is such a limit."""
        return Refused(429, _WORDS[429])

    def opened_by(self, websocket: WebSocket) -> EmulatedSession | None:
        """See `Emulator.opened_by`: who knows the address may."""
        return self._behind(websocket.path_params["secret"])

    def connect_url(self, session: EmulatedSession) -> str:
        """See `Emulator.connect_url`: a discovery address. Theirs is a host name; here it is a path."""
        return f"{self.url}/cdp/{session.secret}"

    def balance(self) -> Decimal:
        """Return the dollars that are left."""
        self._advance()
        return self.credits - sum(
            (self._time_cost(one) + self._proxy_cost(one) for one in self.sessions.values()), Decimal()
        )

    def _behind(self, secret: str) -> EmulatedSession | None:
        return next((one for one in self.sessions.values() if one.secret == secret), None)

    def _time_cost(self, session: EmulatedSession) -> Decimal:
        seconds = session.seconds if session.lasted is None else session.lasted
        return max(1, math.ceil(seconds / 60)) * MINUTE

    def _proxy_cost(self, session: EmulatedSession) -> Decimal:
        own = session.request.get("customProxy") is not None
        managed = session.request.get("proxyCountryCode", "us") is not None and not own
        return session.proxy_bytes * (MANAGED if managed else DIRECT)

    async def _discover(self, request: Request) -> Response:
        self._advance()
        session = self._behind(request.path_params["secret"])
        if session is None or session.phase is not Phase.RUNNING or session.haunted:
            return Response(status_code=404)
        address = f"{self.connect_url(session)}/devtools/browser/{session.id}"
        return JSONResponse(
            {
                "Browser": "Chrome",
                "Protocol-Version": "1.3",
                "webSocketDebuggerUrl": address.replace("http", "ws", 1),
            }
        )

    async def _create(self, request: Request) -> Response:
        body = await _body(request)
        _check(body)
        minutes = _USUAL if body.get("timeout") is None else body["timeout"]
        if minutes > _LONGEST:
            raise Refused(403, "Maximum session timeout is 4 hours (240 minutes).")
        if self.balance() < minutes * MINUTE:
            raise self.no_money()
        session = self.admit(body, seconds=minutes * 60, keep_alive=True, connect_seconds=math.inf)
        return JSONResponse(self._show(session), 201)

    async def _get(self, request: Request) -> Response:
        return JSONResponse(self._show(self.seen(request, self.find(request))))

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        size, number = _whole(query, "pageSize", 10, 100), _whole(query, "pageNumber", 1, None)
        wanted = query.get("filterBy")
        if wanted not in {None, "active", "stopped"}:
            raise _invalid("query", "filterBy", "Input should be 'active' or 'stopped'")
        terms = [term.partition("=") for term in query.getlist("metadata")]
        shown = [self._show(one) for one in reversed(self.listed(request))]
        shown = [
            one
            for one in shown
            if wanted in {None, one["status"]}
            and all(
                key in one["metadata"] and (not sign or one["metadata"][key] == value)
                for key, sign, value in terms
            )
        ]
        page = shown[(number - 1) * size : number * size]
        return JSONResponse({"items": page, "totalItems": len(shown), "pageNumber": number, "pageSize": size})

    async def _stop(self, request: Request) -> Response:
        session = self.find(request)
        if (await _body(request)).get("action") != "stop":
            raise _invalid("body", "action", "Input should be 'stop'")
        if session.phase.over and self.release_again is not None:
            raise self.refusal(Fault(on="release", do="status", status=self.release_again))
        self.end(session, Phase.COMPLETED, "stopped")
        return JSONResponse(self._show(self.seen(request, session)))

    async def _account(self, _: Request) -> Response:
        balance = float(self.balance())
        return JSONResponse(
            {
                "name": "Emulated",
                "totalCreditsBalanceUsd": balance,
                "monthlyCreditsBalanceUsd": 0.0,
                "additionalCreditsBalanceUsd": balance,
                "rateLimit": self.limits.concurrent,
                "concurrentSessionLimit": self.limits.concurrent,
                "activeSessionCount": len(self.running),
                "planInfo": {
                    "planName": "payg",
                    "subscriptionStatus": None,
                    "subscriptionId": None,
                    "subscriptionCurrentPeriodEnd": None,
                    "subscriptionCanceledAt": None,
                },
                "isFreeTier": False,
                "projectId": self.project,
            }
        )

    def _show(self, session: EmulatedSession) -> dict[str, Any]:
        over, asked = session.phase.over, session.request
        reachable = session.phase is Phase.RUNNING
        return {
            "id": session.id,
            "status": "stopped" if over else "active",
            "liveUrl": f"{self.url}/live/{session.secret}" if reachable else None,
            "cdpUrl": self.connect_url(session) if reachable else None,
            "timeoutAt": _text(session.created_at + timedelta(seconds=session.seconds)),
            "startedAt": _text(session.created_at),
            "finishedAt": _text(session.ended_at) if session.ended_at is not None else None,
            "proxyUsedMb": _plain(Decimal(session.proxy_bytes) / 1_000_000),
            "proxyCost": _plain(self._proxy_cost(session)),
            "browserCost": _plain(self._time_cost(session)),
            "agentSessionId": None,
            "recordingUrl": None,
            "recordingAvailable": bool(asked.get("enableRecording")),
            "metadata": asked.get("metadata") or {},
            "extensions": [],
        }


def _check(body: Mapping[str, Any]) -> None:
    timeout = body.get("timeout")
    if timeout is not None and (not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 1):
        raise _invalid("body", "timeout", "Input should be greater than or equal to 1")
    country = body.get("proxyCountryCode")
    if country is not None and not (isinstance(country, str) and re.fullmatch("[a-z]{2}", country)):
        raise _invalid("body", "proxyCountryCode", "Input should be a country code such as 'us'")
    kept = body.get("metadata") or {}
    if not isinstance(kept, dict) or len(kept) > 10 or not all(isinstance(v, str) for v in kept.values()):
        raise _invalid("body", "metadata", "Input should be a dictionary of at most 10 strings")
    for key, most in (("browserScreenWidth", 6144), ("browserScreenHeight", 3456)):
        size = body.get(key)
        if size is not None and not (isinstance(size, int) and 320 <= size <= most):
            raise _invalid("body", key, f"Input should be between 320 and {most}")
    if body.get("profileId") is not None:
        try:
            uuid.UUID(body["profileId"])
        except (ValueError, AttributeError, TypeError):
            raise _invalid("body", "profileId", "Input should be a valid UUID") from None


def _invalid(where: str, key: str, message: str) -> Refused:
    return Refused(422, dumps([{"loc": [where, key], "msg": message, "type": "value_error"}]))


def _whole(query: Mapping[str, str], key: str, usual: int, most: int | None) -> int:
    text = query.get(key, str(usual))
    number = int(text) if text.isdecimal() else 0
    if number < 1 or (most is not None and number > most):
        raise _invalid("query", key, f"Input should be between 1 and {most}")
    return number


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except JSONDecodeError:
        raise _invalid("body", "body", "JSON decode error") from None
    if not isinstance(body, dict):
        raise _invalid("body", "body", "Input should be a valid dictionary")
    return body


def _plain(number: Decimal) -> str:
    """Dollars or megabytes as text; the number of places is undocumented."""
    return f"{number.quantize(Decimal('1e-10')).normalize():f}"


def _text(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
