"""Steel, emulated: https://docs.steel.dev/api-reference. What its documents leave open is marked so."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

from tabkeeper.providers.emulator.core import Emulator, Refused
from tabkeeper.providers.emulator.faults import Fault
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase

_STATUS = {
    Phase.PENDING: "live",
    Phase.RUNNING: "live",
    Phase.COMPLETED: "released",
    Phase.TIMED_OUT: "released",
    Phase.FAILED: "failed",
}
_REASONS = {Phase.COMPLETED: "user_requested", Phase.TIMED_OUT: "timeout", Phase.FAILED: "browser_crashed"}


class SteelEmulator(Emulator):
    """See `Emulator`. A session goes on when its connection ends."""

    kind = "steel"
    strangers = 502
    release_again: int | None = None
    """Status with which a second release is answered; undocumented: None says 200 and success."""
    tells_token = False
    """Whether addresses of browsers hold a token of their own, as since September 2026; else clients add the key."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.project = str(uuid.uuid4())

    def routes(self) -> Sequence[BaseRoute]:
        """See `Emulator.routes`."""
        return [
            self.route("create", "POST", "/v1/sessions", self._create),
            self.route("list", "GET", "/v1/sessions", self._list),
            self.route("release", "POST", "/v1/sessions/release", self._release_all),
            self.route("get", "GET", "/v1/sessions/{id}", self._get),
            self.route("release", "POST", "/v1/sessions/{id}/release", self._release),
        ]

    def key_of(self, request: Request) -> str | None:
        """See `Emulator.key_of`."""
        return request.headers.get("steel-api-key")

    def error(self, refused: Refused) -> Response:
        """See `Emulator.error`."""
        body = {"error": HTTPStatus(refused.status).phrase, "message": refused.message}
        return JSONResponse(body, refused.status, refused.headers)

    def refusal(self, fault: Fault) -> Refused:
        """See `Emulator.refusal`; the words for 402, 404 and 429 are undocumented."""
        words = {
            401: "Invalid Steel API Key",
            402: "Insufficient credits",
            404: "Session not found",
            429: "Too many requests",
            503: "No browser capacity available right now. Safe to retry.",
        }
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return Refused(fault.status, words.get(fault.status) or HTTPStatus(fault.status).phrase, headers)

    def too_many(self, running: int) -> Refused:
        """See `Emulator.too_many`; undocumented."""
        return Refused(429, f"Concurrent session limit for your plan reached ({running})")

    def too_fast(self, seconds: float) -> Refused:  # noqa: ARG002 - the documents promise no header
        """See `Emulator.too_fast`; undocumented."""
        return Refused(429, "Rate limit exceeded")

    def opened_by(self, websocket: WebSocket) -> EmulatedSession | None:
        """See `Emulator.opened_by`: an id, with a key or a token."""
        query = websocket.query_params
        session = self.sessions.get(query.get("sessionId", ""))
        key = query.get("apiKey")
        valid = bool(key) and (not self._keys or key in self._keys)
        return session if session and (valid or query.get("token") == session.secret) else None

    def connect_url(self, session: EmulatedSession) -> str:
        """See `Emulator.connect_url`."""
        token = f"&token={session.secret}" if self.tells_token else ""
        return f"{self.url.replace('http', 'ws', 1)}/connect?sessionId={session.id}{token}"

    async def _create(self, request: Request) -> Response:
        try:
            body = await request.json()
        except JSONDecodeError:
            raise Refused(400, "Body is not valid JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "body must be object")
        timeout = body.get("timeout", int(self.limits.default_seconds * 1000))
        if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout <= 0:
            raise Refused(400, "body/timeout must be integer")
        if timeout > self.limits.max_seconds * 1000:
            raise Refused(400, f"body/timeout must be <= {self.limits.max_seconds * 1000:g}")
        session_id = body.get("sessionId")
        if session_id is not None:
            try:
                uuid.UUID(session_id)
            except (ValueError, AttributeError, TypeError):
                raise Refused(400, 'body/sessionId must match format "uuid"') from None
            if session_id in self.sessions:
                raise Refused(400, "A session with this id exists already")
        session = self.admit(body, seconds=timeout / 1000, keep_alive=True, session_id=session_id)
        return JSONResponse(self._show(session), 201)

    async def _get(self, request: Request) -> Response:
        return JSONResponse(self._show(self.seen(request, self.find(request))))

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        try:
            limit = int(query.get("limit", "50"))
        except ValueError:
            limit = 0
        if not 1 <= limit <= 100:
            raise Refused(400, "querystring/limit must be between 1 and 100")
        status = query.get("status")
        shown = [self._show(one) for one in reversed(self.listed(request))]
        shown = [one for one in shown if status in {None, one["status"]}]
        total = len(shown)
        ids = [one["id"] for one in shown]
        cursor = query.get("cursorId")
        if cursor is not None:
            shown = shown[ids.index(cursor) + 1 :] if cursor in ids else []
        page = shown[:limit]
        more = len(shown) > limit
        answer = {"sessions": page, "nextCursor": page[-1]["id"] if more else None}
        return JSONResponse(answer | ({"totalCount": total} if status is not None else {}))

    async def _release(self, request: Request) -> Response:
        session = self.find(request)
        if session.phase.over and self.release_again is not None:
            raise self.refusal(Fault(on="release", do="status", status=self.release_again))
        self.end(session, Phase.COMPLETED, "released")
        return JSONResponse({"success": True, "message": "Session released successfully"})

    async def _release_all(self, _: Request) -> Response:
        for session in self.running:
            self.end(session, Phase.COMPLETED, "released")
        return JSONResponse({"success": True, "message": "All sessions released successfully"})

    def _show(self, session: EmulatedSession) -> dict[str, Any]:
        request = session.request
        proxied = bool(request.get("useProxy") or request.get("proxyUrl"))
        return {
            "id": session.id,
            "createdAt": session.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "status": _STATUS[session.phase],
            "releaseReason": _REASONS.get(session.phase),
            "duration": int(self._lasted(session) * 1000),
            "timeout": int(session.seconds * 1000),
            "creditsUsed": 0,
            "eventCount": 0,
            "proxyBytesUsed": session.proxy_bytes,
            "proxySource": ("external" if request.get("proxyUrl") else "steel") if proxied else None,
            "dimensions": request.get("dimensions", {"width": 1920, "height": 1080}),
            "optimizeBandwidth": {},
            "headless": False,
            "fullscreen": False,
            "isSelenium": False,
            "solveCaptcha": request.get("solveCaptcha", False),
            "projectId": request.get("projectId", self.project),
            "region": request.get("region", "us-east"),
            "stealthConfig": {},
            "debugConfig": {"interactive": True, "systemCursor": True},
            "deviceConfig": {"device": "desktop"},
            "browserMode": "standard",
            "websocketUrl": self.connect_url(session),
            "debugUrl": f"{self.url}/v1/sessions/{session.id}/player",
            "sessionViewerUrl": f"{self.url}/sessions/{session.id}",
        }
