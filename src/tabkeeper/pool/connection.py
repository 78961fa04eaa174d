"""One Playwright connection for each browser, made on first use, and one Playwright process for the pool."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from playwright.async_api import Browser, BrowserContext, CDPSession, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError

from tabkeeper.pool.spans import span
from tabkeeper.pool.traces import Belongings, belongings

log = logging.getLogger(__name__)


class Driver:
    """Playwright's own process, started when the first lease wants a page and shared by the pool's sessions."""

    def __init__(self) -> None:
        self._starting: asyncio.Task[Playwright] | None = None

    @property
    def _broken(self) -> bool:
        assert self._starting is not None
        return self._starting.cancelled() or self._starting.exception() is not None

    def forget(self, playwright: Playwright) -> None:
        """Its process has ended: start another when next needed."""
        task = self._starting
        if task is not None and task.done() and not self._broken and task.result() is playwright:
            self._starting = None

    async def playwright(self) -> Playwright:
        """Return the running driver."""
        if self._starting is None or (self._starting.done() and self._broken):
            self._starting = asyncio.create_task(async_playwright().start(), name="tabkeeper-playwright")
        return await asyncio.shield(self._starting)

    async def aclose(self) -> None:
        """Stop the driver."""
        if self._starting is not None:
            starting, self._starting = self._starting, None
            await (await starting).stop()


class Connection:
    """One Playwright connection to one browser. Sessions that share a browser share it, too.

    Two connections to one browser would see each other's pages: Playwright shows contexts it did not make as part of
    the default one.
    """

    def __init__(
        self, driver: Driver, connect_url: str, *, shared: bool, about: Mapping[str, str] | None = None
    ) -> None:
        self._about = about or {}
        self._driver = driver
        self._shared = shared
        self._connect_url = connect_url
        self._connecting: asyncio.Task[Browser] | None = None
        self._listeners: list[Callable[[str], None]] = []
        self.given: set[BrowserContext] = set()
        """Contexts that were there before us."""
        self.cdp: CDPSession | None = None
        """To the browser itself; None if it does not let us look."""
        self.at_first: Belongings | None = None
        """What there was before us, where the browser is one session's alone."""
        self.touched = ""
        """What somebody did in a context that was there before us; it cannot be undone with certainty."""

    @property
    def made(self) -> Browser | None:
        """The connected browser, if anybody has connected yet and it worked."""
        task = self._connecting
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    @property
    def in_use(self) -> bool:
        """Whether a session listens."""
        return bool(self._listeners)

    def listen(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost` if the connection drops while somebody wants it."""
        self._listeners.append(on_lost)

    async def browser(self) -> Browser:
        """Connect on first use, and again after a failure."""
        if self._connecting is None or (self._connecting.done() and self.made is None):
            self._connecting = asyncio.create_task(self._connect(), name="tabkeeper-connect")
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not connecting.cancelled() or (task is not None and task.cancelling()):
                raise
            # Nobody cancelled the caller: the session ended while it was being connected to.
            raise PlaywrightError("the session ended while it was being connected to") from None

    async def _connect(self) -> Browser:
        with span("connect", **self._about):
            return await self._reach()

    @asynccontextmanager
    async def visit(self, seconds: float) -> AsyncIterator[Browser]:
        """Connect for a moment, beside whoever else is connected; nobody listens for the end of this connection.

        Args:
            seconds: for connecting, and for hanging up.

        Raises:
            playwright.async_api.Error: it cannot be reached in time.
        """
        browser = await self._dial(seconds)
        try:
            yield browser
        finally:
            # One that hangs would be waited for without end; its connection ends with the session's browser.
            with contextlib.suppress(PlaywrightError, TimeoutError):
                async with asyncio.timeout(seconds):
                    await browser.close()

    async def _dial(self, seconds: float | None = None) -> Browser:
        limit = None if seconds is None else seconds * 1000
        playwright = await self._driver.playwright()
        try:
            return await playwright.chromium.connect_over_cdp(self._connect_url, timeout=limit)
        except PlaywrightError as error:
            if type(error).__name__ != "TargetClosedError":
                raise
            self._driver.forget(playwright)  # its process has died
            playwright = await self._driver.playwright()
            return await playwright.chromium.connect_over_cdp(self._connect_url, timeout=limit)

    async def _reach(self) -> Browser:
        browser = await self._dial()
        self.given = set(browser.contexts)
        await self._look_around(browser)
        browser.on("disconnected", lambda _: self._disconnected(browser))
        return browser

    async def _look_around(self, browser: Browser) -> None:
        for context in self.given:
            context.on("page", lambda _: self._touch("a page was opened in the default context"))
            for page in context.pages:
                page.on("framenavigated", lambda _: self._touch("the browser's own page was used"))
        try:
            self.cdp = await browser.new_browser_cdp_session()
            self.at_first = None if self._shared else await belongings(self.cdp)
        except PlaywrightError as error:
            self.cdp = self.at_first = None
            log.debug("this browser does not tell what is in it: %s", error)

    def _touch(self, what: str) -> None:
        self.touched = what

    def _disconnected(self, browser: Browser) -> None:
        if self.made is not browser:
            return  # we ended it ourselves, and whoever listens by now is on the next one
        for on_lost in list(self._listeners):
            on_lost("browser disconnected")

    async def check(self) -> None:
        """Tell the listeners if the connection is dead; Playwright says nothing when its own process dies."""
        browser = self.made
        if browser is None:
            return
        try:
            await (await browser.new_browser_cdp_session()).detach()
        except PlaywrightError:
            self._disconnected(browser)

    async def ping(self) -> None:
        """Make the connected browser answer.

        Raises:
            playwright.async_api.Error: it does not.
        """
        assert self.made is not None
        cdp = await self.made.new_browser_cdp_session()
        await cdp.send("Browser.getVersion")
        await cdp.detach()

    async def release(self, on_lost: Callable[[str], None]) -> None:
        """Stop listening; the last one to do so ends the connection, and with it the contexts made through it."""
        if on_lost in self._listeners:
            self._listeners.remove(on_lost)
        if self._listeners or self._connecting is None:
            return
        task, self._connecting = self._connecting, None
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await task.result().close()


class Connections:
    """The connections of one pool: one for each browser."""

    def __init__(self) -> None:
        self.driver = Driver()
        self._shared: dict[str, Connection] = {}

    def to(self, connect_url: str, *, shared: bool, about: Mapping[str, str] | None = None) -> Connection:
        """Return the connection to a browser; nothing is connected yet. `about` is what traces tell of it."""
        if not shared:
            return Connection(self.driver, connect_url, shared=False, about=about)
        known = self._shared.get(connect_url)
        if known is None:
            # A browser that was restarted has a new address: forget those that nobody listens to any more.
            self._shared = {url: c for url, c in self._shared.items() if c.in_use}
            known = self._shared[connect_url] = Connection(self.driver, connect_url, shared=True, about=about)
        return known

    async def aclose(self) -> None:
        """Stop Playwright."""
        await self.driver.aclose()
