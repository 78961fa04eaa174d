"""Anchor Browser, emulated: https://docs.anchorbrowser.io/api-reference. What its documents leave open is marked so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from tabkeeper.providers.emulator.core import Emulator, Refused
from tabkeeper.providers.emulator.faults import Fault
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase

_STATUS = {
    Phase.PENDING: "running",
    Phase.RUNNING: "running",
    Phase.COMPLETED: "completed",
    Phase.TIMED_OUT: "completed",
    Phase.FAILED: "failed",
}
_PER_MINUTE = Decimal("0.09") / 60
_PER_GB = Decimal(8)
_PAGES = (10, 20, 50)


class AnchorEmulator(Emulator):
    """See `Emulator`. A session goes on when its connection ends, until it was left alone for its idle time."""

    kind = "anchor"
    strangers = 401
    release_again: int | None = 401
    """Status with which the release of a session that is over is answered; None says 200. 401 is documented for
    unknown ids only."""
    tells_key = True
    """Whether the address in a create's answer holds the account's key; both have been seen."""
    wraps = True
    """Whether reading a session wraps it in `data`; older documents show it bare."""
    tags_as_object = False
    """Whether reading a session tells its tags as an object, as its schema says, rather than as a list."""
    over_word: str | None = None
    """Another word for a status that means the end; none is documented as the only one."""

    def routes(self) -> Sequence[BaseRoute]:
        """See `Emulator.routes`."""
        return [
            self.route("create", "POST", "/v1/sessions", self._create),
            self.route("list", "GET", "/v1/sessions", self._history),
            self.route("list", "GET", "/v1/sessions/all/status", self._list),
            self.route("release", "DELETE", "/v1/sessions/all", self._release_all),
            self.route("usage", "GET", "/v1/sessions/history", self._analytics),
            self.route("get", "GET", "/v1/sessions/{id}", self._get),
            self.route("release", "DELETE", "/v1/sessions/{id}", self._release),
            self.route("get", "GET", "/v1/sessions/{id}/pages", self._pages),
            self.route("usage", "GET", "/v1/billing", self._billing),
            WebSocketRoute("/", self._connect),
        ]

    def key_of(self, request: Request) -> str | None:
        """See `Emulator.key_of`."""
        return request.headers.get("anchor-api-key")

    def error(self, refused: Refused) -> Response:
        """See `Emulator.error`."""
        body = {"error": {"code": refused.status, "message": refused.message}}
        return JSONResponse(body, refused.status, refused.headers)

    def refusal(self, fault: Fault) -> Refused:
        """See `Emulator.refusal`."""
        words = {
            401: "Invalid API Key",
            402: "Insufficient credits to allocate a new browser",
            403: "Project cost limit reached",
            404: "Session not found",
            429: "Session creation rate limit exceeded.",
        }
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return Refused(fault.status, words.get(fault.status) or HTTPStatus(fault.status).phrase, headers)

    def too_many(self, running: int) -> Refused:
        """See `Emulator.too_many`; undocumented: status, words, and that no header tells when to come again."""
        return Refused(429, f"Maximum number of concurrent browsers reached ({running})")

    def too_fast(self, seconds: float) -> Refused:
        """See `Emulator.too_fast`: headers of the eighth draft on rate limits."""
        policy, wait = f'"{self.limits.creates_per_minute}-in-1min"', math.ceil(seconds)
        return Refused(
            429,
            "Session creation rate limit exceeded.",
            {
                "ratelimit": f"{policy}; r=0; t={wait}",
                "ratelimit-policy": f"{policy}; q={self.limits.creates_per_minute}; w=60",
                "retry-after": str(wait),
            },
        )

    def opened_by(self, websocket: WebSocket) -> EmulatedSession | None:
        """See `Emulator.opened_by`: a key and an id. A key alone starts, and bills, another session."""
        query = websocket.query_params
        key = query.get("apiKey")
        if not key or (self._keys and key not in self._keys):
            return None
        if "sessionId" in query:
            return self.sessions.get(query["sessionId"])
        try:
            return self._admit({})
        except Refused:
            return None

    def connect_url(self, session: EmulatedSession) -> str:
        """See `Emulator.connect_url`; the key is added for who asked with it."""
        return f"{self.url.replace('http', 'ws', 1)}?sessionId={session.id}"

    def credits(self, session: EmulatedSession) -> Decimal:
        """Return what a session is billed, in credits of a dollar: started minutes and proxy traffic."""
        minutes = max(1, math.ceil(self._lasted(session) / 60))
        return minutes * _PER_MINUTE + _PER_GB * session.proxy_bytes / 10**9

    async def _create(self, request: Request) -> Response:
        try:
            body = await request.json()
        except JSONDecodeError:
            raise Refused(400, "Body is not valid JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "body must be object")
        session = self._admit(body)
        key = "&" + urlencode({"apiKey": self.key_of(request) or ""}) if self.tells_key else ""
        return JSONResponse(
            {
                "data": {
                    "id": session.id,
                    "cdp_url": self.connect_url(session) + key,
                    "live_view_url": self._watch(session),
                }
            }
        )

    def _admit(self, body: dict[str, Any]) -> EmulatedSession:
        config, browser = body.get("session", {}), body.get("browser", {})
        if not isinstance(config, dict) or not isinstance(browser, dict):
            raise Refused(400, "session and browser must be objects")
        tags, proxy = config.get("tags", []), config.get("proxy", {})
        if not isinstance(tags, list) or not all(isinstance(one, str) for one in tags):
            raise Refused(400, "session.tags must be an array of strings")
        if proxy and not isinstance(proxy.get("active"), bool):
            raise Refused(400, "session.proxy.active is required")
        if browser.get("captcha_solver", {}).get("active") and not proxy.get("active"):
            raise Refused(400, "CAPTCHA solver requires proxy to be active.")
        timeout = config.get("timeout", {})
        return self.admit(
            body,
            seconds=_seconds(timeout, "max_duration", 20),
            keep_alive=True,
            connect_seconds=math.inf,
            idle_seconds=_seconds(timeout, "idle_timeout", 5),
        )

    async def _get(self, request: Request) -> Response:
        session = self.seen(request, self.find(request))
        tags = self._tags(session)
        shown = {
            "session_id": session.id,
            "team_id": "team_1",
            "duration": int(self._lasted(session)),
            "status": self._status(session),
            "credits_used": float(self.credits(session)) if session.phase.over else 0,
            "configuration": session.request,
            "playground": False,
            "proxy_bytes": session.proxy_bytes,
            "tokens": {},
            "steps": 0,
            "tags": {str(at): tag for at, tag in enumerate(tags)} if self.tags_as_object else tags,
            "created_at": _text(session),
        }
        return JSONResponse({"data": shown} if self.wraps else shown)

    async def _list(self, request: Request) -> Response:
        wanted = _wanted(request)
        items = [
            {
                "session_id": one.id,
                "status": self._status(one),
                "tags": self._tags(one),
                "created_at": _text(one),
            }
            for one in self.listed(request)
            if not one.phase.over and wanted <= set(self._tags(one))
        ]
        return JSONResponse({"data": {"count": len(items), "items": items}})

    async def _history(self, request: Request) -> Response:
        query = request.query_params
        try:
            page, limit = int(query.get("page", "1")), int(query.get("limit", "10"))
        except ValueError:
            page = limit = 0
        if page < 1 or limit not in _PAGES:
            raise Refused(400, "page must be at least 1 and limit one of 10, 20, 50")
        wanted, status = _wanted(request), query.get("status")
        found = [
            one
            for one in self.listed(request)
            if wanted <= set(self._tags(one)) and status in {None, self._status(one)}
        ]
        if query.get("sort_order", "asc") == "desc":
            found.reverse()
        answer = {
            "sessions": [self._show(one) for one in found[(page - 1) * limit : page * limit]],
            "total": len(found),
            "page": page,
            "total_pages": math.ceil(len(found) / limit),
        }
        return JSONResponse({"data": answer})

    async def _analytics(self, request: Request) -> Response:
        """Days only, and sessions count on the day on which they were created: neither is documented."""
        query = request.query_params
        if query.get("granularity", "day") != "day":
            raise Refused(400, "this emulator knows days only")
        first, last = query.get("from_date", "")[:10], query.get("to_date", "")[:10] or "9"
        days: dict[str, list[EmulatedSession]] = {}
        for one in self.sessions.values():
            day = one.created_at.date().isoformat()
            if first <= day <= last:
                days.setdefault(day, []).append(one)
        data = [{"date": day, **self._sums(found)} for day, found in sorted(days.items())]
        totals = self._sums([one for found in days.values() for one in found])
        summary = {
            "total_sessions": totals["session_count"],
            "total_session_hours": totals["session_hours"],
            "total_proxy_bytes": totals["proxy_bytes"],
            "total_credits_used": totals["credits_used"],
        }
        pages = {
            "current_page": 1,
            "total_pages": 1,
            "total_records": len(data),
            "has_next": False,
            "has_prev": False,
        }
        return JSONResponse({"data": data, "summary": summary, "pagination": pages})

    def _sums(self, sessions: Sequence[EmulatedSession]) -> dict[str, float]:
        return {
            "session_count": len(sessions),
            "session_hours": sum(self.billed_seconds(one) for one in sessions) / 3600,
            "proxy_bytes": sum(one.proxy_bytes for one in sessions),
            "credits_used": float(sum((self.credits(one) for one in sessions if one.phase.over), Decimal(0))),
        }

    async def _release(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["id"])
        if session is None:
            raise Refused(401, "Invalid API Key or browser session ID")
        if session.phase.over and self.release_again is not None:
            raise Refused(self.release_again, "Invalid API Key or browser session ID")
        self.end(session, Phase.COMPLETED, "released")
        return JSONResponse({"data": {"status": "success"}})

    async def _release_all(self, _: Request) -> Response:
        for session in self.running:
            self.end(session, Phase.COMPLETED, "released")
        return JSONResponse({"data": {"status": "success"}})

    async def _pages(self, request: Request) -> Response:
        session = self.find(request)
        if session.phase.over:
            raise self.refusal(Fault(on="get", do="status", status=404))
        page = {
            "id": "1",
            "title": "",
            "url": "about:blank",
            "frontend_url": f"{self._watch(session)}&pageId=1",
        }
        return JSONResponse({"data": {"count": 1, "items": [page]}})

    async def _billing(self, _: Request) -> Response:
        used = sum((self.credits(one) for one in self.sessions.values()), Decimal(0))
        included = Decimal(50)
        return JSONResponse(
            {
                "data": {
                    "credits": 0.0 if self.out_of_money else float(included - used),
                    "credits_used": float(used),
                    "included_credits": float(included),
                    "billing_period": f"{self._clock.now():%Y-%m}",
                    "tier": "monthly_starter",
                    "gifts_balance": 0,
                    "max_concurrent_browsers": self.limits.concurrent,
                    "cost_limit": None,
                }
            }
        )

    def _show(self, session: EmulatedSession) -> dict[str, Any]:
        config = session.request.get("session", {})
        return {
            "id": session.id,
            "status": self._status(session),
            "tags": self._tags(session),
            "headless": session.request.get("browser", {}).get("headless", {}).get("active", False),
            "recording": config.get("recording", {}).get("active", True),
            "used_credits": str(self.credits(session)) if session.phase.over else "N/A",
            "proxy_bytes": session.proxy_bytes,
            "proxy_type": config.get("proxy", {}).get("type"),
            "steps": 0,
            "duration": int(self._lasted(session)),
            "created_at": _text(session),
            "user_configuration": session.request,
            "task_initiated": False,
            "task_executions_count": 0,
            "api_key_name": "emulated",
            "browser_ip": "192.0.2.10",
            "domains": [],
        }

    def _status(self, session: EmulatedSession) -> str:
        return (session.phase.over and self.over_word) or _STATUS[session.phase]

    def _tags(self, session: EmulatedSession) -> list[str]:
        return list(session.request.get("session", {}).get("tags", []))

    def _watch(self, session: EmulatedSession) -> str:
        return f"{self.url}/live?sessionId={session.id}"


def _seconds(timeout: Any, key: str, default: int) -> float:
    minutes = timeout.get(key, default) if isinstance(timeout, dict) else None
    if not isinstance(minutes, int) or isinstance(minutes, bool) or (minutes < 1 and minutes != -1):
        raise Refused(400, f"session.timeout.{key} must be a number of minutes, or -1")
    return math.inf if minutes == -1 else minutes * 60


def _wanted(request: Request) -> set[str]:
    return {one for one in request.query_params.get("tags", "").split(",") if one}


def _text(session: EmulatedSession) -> str:
    return session.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
