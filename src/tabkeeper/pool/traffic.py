"""How much pages receive over the network, and how long navigations take, as the browser itself tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from playwright.async_api import CDPSession, Page
from playwright.async_api import Error as PlaywrightError

log = logging.getLogger(__name__)


class Meter:
    """Counts the bytes that pages received over the network, headers included, as Chromium reports them.

    Requests of workers in other processes are not seen, so the figure is a lower bound.
    """

    def __init__(
        self,
        limit: int | None = None,
        on_limit: Callable[[], object] | None = None,
        on_navigation: Callable[[float], object] | None = None,
    ) -> None:
        self.received = 0
        """Bytes of finished and unfinished requests since the session began."""
        self._limit = limit
        self._on_limit = on_limit
        self._on_navigation = on_navigation
        self._asked: dict[str, float] = {}
        self._attaching: dict[Page, asyncio.Task[None]] = {}
        self._partial: dict[str, int] = {}

    def watch(self, page: Page) -> None:
        """Begin to count for a page (called by Playwright for every new one, popups included)."""
        if page not in self._attaching:
            self._attaching[page] = asyncio.create_task(self._attach(page), name="tabkeeper-meter")
            page.on("close", lambda closed: self._attaching.pop(closed, None))

    async def attached(self, page: Page) -> None:
        """Return when the page's requests are being counted."""
        self.watch(page)
        attaching = self._attaching.get(page)
        if attaching is None:
            return
        await asyncio.wait({attaching})
        if attaching.cancelled():
            # Nobody cancelled the caller: the session ended while the page was opening.
            raise PlaywrightError("the session ended while a page was being opened")
        attaching.result()

    async def _attach(self, page: Page) -> None:
        try:
            cdp: CDPSession = await page.context.new_cdp_session(page)
            cdp.on("Network.dataReceived", self._data)
            cdp.on("Network.loadingFinished", self._finished)
            if self._on_navigation is not None:
                cdp.on("Network.requestWillBeSent", self._sent)
            await cdp.send("Network.enable")
        except PlaywrightError as error:  # the page closed meanwhile: nothing to count
            log.debug("a page ended before it could be metered: %s", error)

    def heard(self, method: str, event: dict[str, Any]) -> None:
        """Count an event of the protocol's network domain that somebody else listens to; nonsense counts nothing."""
        size = event.get("encodedDataLength")
        if (
            not isinstance(event.get("requestId"), str)
            or not isinstance(size, int | float)
            or not size < 2**63
        ):
            return
        if method == "Network.dataReceived":
            self._data(event)
        elif method == "Network.loadingFinished":
            self._finished(event)

    def _data(self, event: dict[str, Any]) -> None:
        size = int(event.get("encodedDataLength", 0))
        self._count(size)
        self._partial[event["requestId"]] = self._partial.get(event["requestId"], 0) + size

    def _sent(self, event: dict[str, Any]) -> None:
        if event.get("type") == "Document":
            self._asked.setdefault(event["requestId"], event["timestamp"])  # a redirect keeps its id

    def _finished(self, event: dict[str, Any]) -> None:
        asked = self._asked.pop(event["requestId"], None)
        if asked is not None and self._on_navigation is not None:
            self._on_navigation(event["timestamp"] - asked)
        # The final figure includes headers; what was counted on the way is part of it.
        seen = self._partial.pop(event["requestId"], 0)
        self._count(max(0, int(event.get("encodedDataLength", 0)) - seen))

    def _count(self, size: int) -> None:
        self.received += size
        if self._limit is not None and self.received >= self._limit and self._on_limit is not None:
            tell, self._on_limit = self._on_limit, None
            tell()

    async def settle(self) -> None:
        """Wait for pages that are just being attached, so that closing them disturbs nothing."""
        if self._attaching:
            await asyncio.wait(list(self._attaching.values()))
        self._partial.clear()
        self._asked.clear()

    async def aclose(self) -> None:
        """Stop counting."""
        for task in self._attaching.values():
            task.cancel()
        if self._attaching:
            await asyncio.wait(list(self._attaching.values()))
        self._attaching.clear()
