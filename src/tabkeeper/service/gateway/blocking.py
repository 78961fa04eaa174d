"""Keeps a client's pages from loading what is to be blocked, in contexts and pages that the client opens itself.

A connection of our own attaches to every page and frame before it runs, and the browser asks it about such requests
only. What the client does with requests of its pages is its own affair and goes on beside this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from tabkeeper.config import ResourceKind
from tabkeeper.pool.trackers import TRACKERS
from tabkeeper.service.gateway.browser import Browser, BrowserGoneError, talking_to

log = logging.getLogger(__name__)

_ATTACH: dict[str, Any] = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
_PAGES = frozenset({"page", "iframe"})


class Blocking:
    """What watches over the pages of one lease, from `begin` to `aclose`."""

    def __init__(self, stack: AsyncExitStack, browser: Browser, kinds: Sequence[ResourceKind]) -> None:
        self._stack = stack
        self._browser = browser
        self._patterns = _patterns(kinds)
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def begin(cls, url: str, kinds: Sequence[ResourceKind]) -> Self:
        """Connect to a browser and attach to what is in it.

        Raises:
            BrowserGoneError: it does not answer.
        """
        async with AsyncExitStack() as stack:
            browser = await stack.enter_async_context(talking_to(url))
            await browser.call("Target.setAutoAttach", **_ATTACH)
            blocking = cls(stack.pop_all(), browser, kinds)
        blocking._task = asyncio.create_task(blocking._watch(), name="tabkeeper gateway blocking")
        return blocking

    async def aclose(self) -> None:
        """Let go of all pages."""
        assert self._task is not None
        self._task.cancel()
        [ended] = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(ended, Exception):
            log.error("what a client's pages loaded was not blocked any more", exc_info=ended)
        await self._stack.aclose()

    async def _watch(self) -> None:
        try:
            async for event in self._browser.events():
                await self._follow(event)
        except BrowserGoneError as error:
            log.warning("pages load what is to be blocked: %s", error)

    async def _follow(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Target.attachedToTarget":
                await self._attached(params["sessionId"], params["targetInfo"]["type"])
            case "Fetch.requestPaused":
                await self._browser.tell(
                    "Fetch.failRequest",
                    event.get("sessionId"),
                    requestId=params["requestId"],
                    errorReason="BlockedByClient",
                )

    async def _attached(self, session: str, kind: str) -> None:
        if kind in _PAGES:
            await self._browser.tell("Fetch.enable", session, patterns=self._patterns)
            # The requests of a service worker are nobody's page's.
            await self._browser.tell("Network.setBypassServiceWorker", session, bypass=True)
        await self._browser.tell("Target.setAutoAttach", session, **_ATTACH)
        await self._browser.tell("Runtime.runIfWaitingForDebugger", session)


def _patterns(kinds: Sequence[ResourceKind]) -> list[dict[str, str]]:
    found = [{"resourceType": kind.capitalize()} for kind in kinds if kind != "trackers"]
    if "trackers" in kinds:
        found += [{"urlPattern": f"*://{host}/*"} for one in sorted(TRACKERS) for host in (one, f"*.{one}")]
    return found
