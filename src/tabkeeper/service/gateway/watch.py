"""Watching a lease: the provider's own live view where it has one, else a page that shows what the browser draws.

It only shows; whoever has the lease's token may look.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from tabkeeper.errors import ProviderRequestError, TabkeeperError
from tabkeeper.service.access import Rooms
from tabkeeper.service.desk import Ticket
from tabkeeper.service.gateway.browser import Browser, BrowserGoneError, talking_to
from tabkeeper.service.gateway.discovery import answer_with
from tabkeeper.service.gateway.gateway import Gateway
from tabkeeper.service.gateway.wish import read_query
from tabkeeper.service.guard import refuse
from tabkeeper.service.problems import ProblemError, problem_of
from tabkeeper.service.tokens import Caller

log = logging.getLogger(__name__)

_PICTURE = {"format": "jpeg", "quality": 60, "maxWidth": 1280, "maxHeight": 1280, "everyNthFrame": 1}


class Watch:
    """The page, and the pictures for it.

    Args:
        rooms: the pool and its desk.
        gateway: knows running leases.
    """

    def __init__(self, rooms: Rooms, gateway: Gateway) -> None:
        self._rooms = rooms
        self._gateway = gateway
        folder = files("tabkeeper.service.gateway")
        self._script = (folder / "watch.js").read_text(encoding="utf-8")
        self._style = (folder / "watch.css").read_text(encoding="utf-8")

    def routes(self) -> Sequence[BaseRoute]:
        """The paths."""
        return [
            Route("/cdp/watch", self._page, methods=["GET"], include_in_schema=False),
            WebSocketRoute("/cdp/screen", _Screen(self._rooms, self._gateway)),
        ]

    async def _page(self, request: Request) -> Response:
        try:
            ticket = _ticket(self._gateway, request.scope)
            assert ticket.lease is not None
            try:
                return RedirectResponse(
                    await ticket.lease.live_view(), 303, {"Referrer-Policy": "no-referrer"}
                )
            except ProviderRequestError:
                pass  # it has none
        except (ProblemError, TabkeeperError) as error:
            return answer_with(problem_of(error, self._rooms.clock))
        lease = ticket.lease
        title = f"{lease.platform} at {lease.provider}"
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>Tabkeeper: a session, live</title>'
            f"<style>{self._style}</style><header><h1>{title}</h1>"
            '<p id="state" role="status">connecting …</p></header>'
            '<main><img id="screen" alt="What the browser shows" hidden></main>'
            f"<script>{self._script}</script></html>"
        )
        policy = (
            f"default-src 'none'; script-src '{_hash(self._script)}'; style-src '{_hash(self._style)}'; "
            "img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


class _Screen:
    """The WebSocket that the pictures come over."""

    def __init__(self, rooms: Rooms, gateway: Gateway) -> None:
        self._rooms = rooms
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            ticket = _ticket(self._gateway, scope)
            assert ticket.lease is not None
            url = ticket.lease.passage().connect_url
        except (ProblemError, TabkeeperError) as error:
            await refuse(problem_of(error, self._rooms.clock), scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        work = {
            asyncio.create_task(_show(url, send), name="tabkeeper gateway pictures"),
            asyncio.create_task(_until_left(receive), name="tabkeeper gateway watcher"),
            asyncio.create_task(_until(ticket.over), name="tabkeeper gateway lease"),
        }
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        try:
            await send({"type": "websocket.close", "code": 1000, "reason": "the lease is over"})
        except (OSError, RuntimeError):
            return  # it left first


def _ticket(gateway: Gateway, scope: Scope) -> Ticket:
    words, caller = read_query(scope["query_string"]), scope["state"]["caller"]
    assert isinstance(caller, Caller)
    if "lease" not in words:
        raise ProblemError("invalid", "say which lease, as in /cdp/watch?lease=<its token>")
    ticket = gateway.find(words["lease"], caller)
    if ticket.lease is None:
        raise ProblemError("lease-over", "it waits in the queue yet")
    return ticket


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _until(over: asyncio.Event) -> None:
    await over.wait()


async def _show(url: str, send: Send) -> None:
    """Send the newest page's pictures, one after the other, as long as the browser is there."""
    try:
        async with talking_to(url) as browser:
            await browser.call("Target.setDiscoverTargets", discover=True)
            looking = await _look_at_newest(browser, _NOTHING)
            async for event in browser.events():
                method, params = event.get("method"), event.get("params", {})
                if method == "Page.screencastFrame" and event.get("sessionId") == looking.session:
                    await send({"type": "websocket.send", "bytes": base64.b64decode(params["data"])})
                    # Only now the next one is drawn: who looks slowly sees fewer.
                    await browser.call(
                        "Page.screencastFrameAck", looking.session, sessionId=params["sessionId"]
                    )
                elif method in {"Target.targetCreated", "Target.targetDestroyed"}:
                    looking = await _look_at_newest(browser, looking)
    except (BrowserGoneError, OSError, RuntimeError):
        return
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        log.warning("a browser is not shown any more: it says what cannot be understood: %r", error)


@dataclass(frozen=True, slots=True)
class _Looking:
    target: str | None = None
    session: str | None = None


_NOTHING = _Looking()


async def _look_at_newest(browser: Browser, now: _Looking) -> _Looking:
    """Turn to the page that was opened last, if it is not the one that is looked at."""
    newest = next((one["targetId"] for one in await browser.targets() if one["type"] == "page"), None)
    if newest == now.target:
        return now
    if newest is None:
        return _NOTHING
    session = (await browser.call("Target.attachToTarget", targetId=newest, flatten=True))["sessionId"]
    await browser.call("Page.startScreencast", session, **_PICTURE)
    return _Looking(newest, session)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
