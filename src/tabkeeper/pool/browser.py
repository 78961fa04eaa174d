"""What one session's leases open in its browser: fresh contexts, or one that stays, and what is left of them.

With `connection`, `traffic` and `traces` the only rooms of the pool that know Playwright. It decides nothing about
sessions; it says whether one is clean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, Route
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from tabkeeper.pool.connection import Connection
from tabkeeper.pool.health import Trouble
from tabkeeper.pool.traces import belongings, context_id, remaining
from tabkeeper.pool.trackers import is_tracker
from tabkeeper.pool.traffic import Meter
from tabkeeper.profiles.state import ProfileKey
from tabkeeper.providers.base import ProxySpec

_PAUSES = (0.01, 0.05, 0.2, 0.5)
"""Seconds between looks for what a lease left, before it is taken to stay."""


def trouble(error: BaseException) -> Trouble:
    """Sort an error that an operation on a page raised, for the session's health."""
    if isinstance(error, TimeoutError | PlaywrightTimeoutError):
        return "timeout"
    if isinstance(error, ConnectionError) or (isinstance(error, PlaywrightError) and "net::" in str(error)):
        return "network"
    return "other"


def is_browser_error(error: BaseException | None) -> bool:
    """Say whether Playwright raised it, as it does when a browser ends under its user."""
    return isinstance(error, PlaywrightError)


def _playwright_proxy(proxy: ProxySpec) -> dict[str, str]:
    told = {"server": proxy.server}
    return told | {"username": proxy.username, "password": proxy.password} if proxy.username else told


class SessionBrowser:
    """What one session's leases open: contexts and pages, and the bytes these load.

    Args:
        connection: to the session's browser.
        shared: other sessions use the same browser.
        on_lost: called once if the connection drops while we want it.
        meter: counts what is received.
        proxy: what every context of a lease goes through.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        shared: bool,
        on_lost: Callable[[str], None],
        meter: Meter,
        proxy: ProxySpec | None = None,
    ) -> None:
        self._connection = connection
        self._on_lost = on_lost
        self._contexts: set[BrowserContext] = set()
        self._opening: set[asyncio.Future[BrowserContext]] = set()
        self._home: BrowserContext | None = None
        self._home_id: str | None = None
        self._home_lock = asyncio.Lock()
        self._proxy = proxy
        self.home_profile: ProfileKey | None = None
        """Whose saved state the browser's first context began with, or is to be saved as."""
        self.home_source: str | None = None
        """Which saved state that was, or became."""
        self.home_used = False
        """Whether a client had that context without a profile."""
        self.shared = shared
        self.used = False
        """Whether anybody has connected, so that there may be something to clean."""
        self.meter = meter
        connection.listen(on_lost)

    async def browser(self) -> Browser:
        """Return the Playwright browser, connecting on first use.

        Raises:
            playwright.async_api.Error: the session cannot be reached.
        """
        self.used = True
        return await self._connection.browser()

    @property
    def connected(self) -> bool:
        """Whether somebody has connected, and nothing is known against it."""
        browser = self._connection.made
        return browser is not None and browser.is_connected()

    def visit(self, seconds: float) -> AbstractAsyncContextManager[Browser]:
        """Connect for a moment, within some seconds, as nobody's lease: what is done there is not cleaned up here.

        Raises:
            playwright.async_api.Error: the session cannot be reached.
        """
        return self._connection.visit(seconds)

    async def ping(self) -> None:
        """Make the connected browser answer; raises as `browser` does."""
        await self._connection.ping()

    async def new_context(self, block: Collection[str], options: dict[str, Any]) -> BrowserContext:
        """Open a clean context that blocks what is to be blocked and counts what it loads."""
        if block:
            options.setdefault("service_workers", "block")  # a worker's requests pass no route
        context = await self._open_context(options)
        if block:
            blocked = frozenset(block)

            async def decide(route: Route) -> None:
                request = route.request
                unwanted = request.resource_type in blocked or (
                    "trackers" in blocked and is_tracker(request.url)
                )
                await (route.abort("blockedbyclient") if unwanted else route.fallback())

            await context.route("**/*", decide)
        context.on("page", self.meter.watch)
        return context

    @property
    def has_home(self) -> bool:
        """Whether there is a context that stays."""
        return self._home is not None

    async def home(self, block: Collection[str], options: dict[str, Any]) -> BrowserContext:
        """Return the context that stays between the leases of one identity; the first of them opens it."""
        async with self._home_lock:
            if self._home is None:
                self._home_id = None
                opened = self._home = await self.new_context(block, options)
                opened.on("close", self._home_closed)
            return self._home

    def _home_closed(self, context: BrowserContext) -> None:
        if self._home is context:
            self._home = None

    async def _open_context(self, options: dict[str, Any]) -> BrowserContext:
        if self._proxy is not None:
            if "proxy" in options:
                raise ValueError("the session goes through its own proxy for its life; leave out proxy=")
            options = options | {"proxy": _playwright_proxy(self._proxy)}
        opening = asyncio.ensure_future((await self.browser()).new_context(**options))
        # The browser opens it also if the caller is cancelled, and somebody must close it then.
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(opening)
        except PlaywrightError:
            await self._connection.check()
            raise

    def _opened(self, opening: asyncio.Future[BrowserContext]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is None:
            self._contexts.add(opening.result())

    async def new_page(self, context: BrowserContext) -> Page:
        """Open a page whose bytes are counted from its first request on."""
        page = await context.new_page()
        await self.meter.attached(page)
        return page

    async def clean(self) -> list[str]:
        """Close what leases opened, then look; return what is left of them all the same, in a few words each.

        With anything left nobody else should get the session. The context that stays for an identity does not count.
        """
        browser = self._connection.made
        if browser is None or not browser.is_connected():
            return ["the connection is gone"] if self.used else []
        if self._opening:
            await asyncio.wait(list(self._opening))
        await self.meter.settle()
        # In a browser of the session's own, whatever is in it came from its leases.
        contexts = set(self._contexts) if self.shared else set(browser.contexts) - self._connection.given
        home = self._home
        if home is not None:
            self._home_id = await context_id(home) or self._home_id
        closing = [context for context in contexts if context is not home]
        ids = [
            found for context in closing if self.shared and (found := await context_id(context)) is not None
        ]
        for context in closing:
            await context.close()
        self._contexts.clear()
        if home is not None:
            self._contexts.add(home)
            for page in list(home.pages):
                await page.close()
        left = await self._look(ids)
        for pause in _PAUSES:
            if not left:
                break
            await asyncio.sleep(pause)  # what runs in a context ends a moment after it
            left = await self._look(ids)
        return left

    async def _look(self, ids: list[str]) -> list[str]:
        connection = self._connection
        if connection.cdp is None:
            return self._strange_pages()
        if self.shared:
            return await remaining(connection.cdp, ids)
        assert connection.at_first is not None
        await connection.cdp.send("Browser.resetPermissions")
        stays = [] if self._home_id is None else [self._home_id]
        found = await belongings(connection.cdp, without=stays)
        if self._home is not None and not stays:
            new = found.contexts - connection.at_first.contexts
            if len(new) == 1:  # it has never had a page to tell its id by
                self._home_id = next(iter(new))
                found = await belongings(connection.cdp, without=new)
        return found.beyond(connection.at_first) + self._strange_pages()

    def _strange_pages(self) -> list[str]:
        if self.shared:
            return []
        if self._connection.touched:
            return [self._connection.touched]
        pages = [page for context in self._connection.given for page in context.pages]
        return ["a page in the default context"] if any(page.url != "about:blank" for page in pages) else []

    async def aclose(self) -> None:
        """End the session's use of the connection."""
        try:
            await self.meter.aclose()
            if self.shared and self._contexts and self._connection.made is not None:
                for context in list(self._contexts):
                    await context.close()
        finally:
            await self._connection.release(self._on_lost)
