"""The other way in: clients that ask over HTTP for a browser's WebSocket address, as DevTools endpoints answer it.

Nothing is leased here; the address that is told leads to the same admission. Puppeteer asks at the root, Playwright
with a slash at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

import tabkeeper
from tabkeeper.service.access import Rooms
from tabkeeper.service.gateway.browser import BrowserGoneError, talking_to
from tabkeeper.service.gateway.gateway import Gateway
from tabkeeper.service.gateway.wish import order_of, read_query
from tabkeeper.service.problems import MEDIA_TYPE, ProblemError, problem_of
from tabkeeper.service.tokens import Caller

_SHOWN = frozenset(
    {"page", "iframe", "service_worker", "shared_worker", "worker", "webview", "background_page"}
)


class Discovery:
    """What ``/json`` and its like answer.

    Args:
        rooms: the pool and its desk.
        gateway: knows running leases.
    """

    def __init__(self, rooms: Rooms, gateway: Gateway) -> None:
        self._rooms = rooms
        self._gateway = gateway

    def routes(self) -> Sequence[BaseRoute]:
        """The paths, each with and without a slash at the end."""
        return [
            Route(f"{root}/json{path}{end}", answer, methods=["GET"], include_in_schema=False)
            for root in ("", "/cdp")
            for path, answer in (("/version", self._version), ("/list", self._list), ("", self._list))
            for end in ("", "/")
        ]

    async def _version(self, request: Request) -> Response:
        try:
            words, caller = read_query(request.scope["query_string"]), _caller_of(request)
            if "lease" in words:
                self._gateway.find(words["lease"], caller)
            else:
                order_of(words, caller, self._rooms.pool.config)
        except ProblemError as problem:
            return answer_with(problem)
        scheme = "wss" if request.url.scheme == "https" else "ws"
        query = f"?{urlencode(words)}" if words else ""
        return JSONResponse(
            {
                "Browser": f"Tabkeeper/{tabkeeper.__version__}",
                "Protocol-Version": "1.3",
                "webSocketDebuggerUrl": f"{scheme}://{request.headers['host']}{self._rooms.settings.path}/cdp{query}",
            }
        )

    async def _list(self, request: Request) -> Response:
        """List what runs in the browser of a lease; who names none has none."""
        try:
            words = read_query(request.scope["query_string"])
            if "lease" not in words:
                return JSONResponse([])
            ticket = self._gateway.find(words["lease"], _caller_of(request))
            if ticket.lease is None:
                return JSONResponse([])
            url = ticket.lease.passage().connect_url
            async with talking_to(url) as browser:
                found = await browser.targets()
        except BrowserGoneError as error:
            return answer_with(ProblemError("provider-failed", str(error)))
        except Exception as error:  # noqa: BLE001 - a problem of ours, not of the client's
            return answer_with(problem_of(error, self._rooms.clock))
        return JSONResponse([_shown(one) for one in found if one["type"] in _SHOWN])


def _shown(target: dict[str, Any]) -> dict[str, str]:
    names = {"id": "targetId", "type": "type", "title": "title", "url": "url"}
    return {"description": ""} | {name: str(target.get(key, "")) for name, key in names.items()}


def _caller_of(request: Request) -> Caller:
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller), "the guard lets nobody in without"
    return caller


def answer_with(problem: ProblemError) -> Response:
    """Answer an HTTP request with a problem."""
    return JSONResponse(problem.document(), problem.status, problem.headers(), media_type=MEDIA_TYPE)
