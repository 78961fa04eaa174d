"""Where the pages of a client were, so that the storage of these sites can be saved with its profile.

A browser does not tell for which sites it keeps storage, so a connection of our own listens to where its pages go. It
attaches to none of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from typing import Any, Self
from urllib.parse import urlsplit

from tabkeeper.service.gateway.browser import Browser, talking_to

log = logging.getLogger(__name__)

_MOST = 500
"""Sites that are remembered; one page could go to any number of them."""
_PAGES = frozenset({"page"})
"""What frames of other sites keep is kept apart for each page around them, and is not part of a profile."""


class Visited:
    """What listens during one lease, from `begin` to `aclose`."""

    def __init__(self, stack: AsyncExitStack, browser: Browser, others: AbstractSet[str]) -> None:
        self._stack = stack
        self._others = others
        self._browser = browser
        self._task = asyncio.create_task(self._listen(), name="tabkeeper gateway visited")
        self.origins: set[str] = set()
        """Such as ``https://example.com``."""

    @classmethod
    async def begin(cls, url: str, others: AbstractSet[str]) -> Self:
        """Connect to a browser.

        Args:
            url: its address.
            others: contexts that are not the first one, as they come and go; their pages do not count.

        Raises:
            BrowserGoneError: it does not answer.
        """
        async with AsyncExitStack() as stack:
            browser = await stack.enter_async_context(talking_to(url))
            await browser.call("Target.setDiscoverTargets", discover=True)
            return cls(stack.pop_all(), browser, others)

    async def aclose(self) -> None:
        """Listen no more."""
        self._task.cancel()
        [ended] = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(ended, Exception):
            log.error("where a client's pages were is not known any more", exc_info=ended)
        await self._stack.aclose()

    async def _listen(self) -> None:
        async for event in self._browser.events():
            self._heard(event.get("method"), event.get("params"))

    def _heard(self, method: object, params: Any) -> None:
        if method not in {"Target.targetCreated", "Target.targetInfoChanged"} or not isinstance(params, dict):
            return
        target = params.get("targetInfo")
        if not isinstance(target, dict) or target.get("browserContextId") in self._others:
            return
        if target.get("type") in _PAGES and len(self.origins) < _MOST:
            origin = _origin_of(str(target.get("url")))
            if origin is not None:
                self.origins.add(origin)


def _origin_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"http", "https"} and parts.netloc else None
