"""How a session is reached: one Playwright connection per browser, fresh contexts per lease, bytes counted.

The only room of the pool that knows Playwright. It decides nothing about sessions; it says whether one is clean.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Collection
from typing import Any

from playwright.async_api import (
    Browser,
    BrowserContext,
    CDPSession,
    Page,
    Playwright,
    Route,
    async_playwright,
)
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from tabkeeper.pool.health import Trouble
from tabkeeper.pool.spans import span
from tabkeeper.pool.traces import Belongings, belongings, context_id, remaining
from tabkeeper.pool.trackers import is_tracker
from tabkeeper.profiles.state import BrowserState
from tabkeeper.providers.base import ProxySpec

log = logging.getLogger(__name__)

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


_READS_INDEXED_DB = "indexed_db" in inspect.signature(BrowserContext.storage_state).parameters
"""Playwright 1.51 and later can."""


async def browser_state(context: BrowserContext, before: BrowserState | None) -> BrowserState:
    """Read what makes a context look like the same visitor; what no open page tells is taken from `before`.

    Raises:
        playwright.async_api.Error: the context or its browser is gone.
    """
    more: dict[str, Any] = {"indexed_db": True} if _READS_INDEXED_DB else {}
    storage: Any = await context.storage_state(**more)
    user_agent, viewport = (None, None) if before is None else (before.user_agent, before.viewport)
    if context.pages:
        page = context.pages[0]
        user_agent = str(await page.evaluate("navigator.userAgent"))
        size = page.viewport_size
        viewport = None if size is None else {"width": size["width"], "height": size["height"]}
    return BrowserState(storage=storage, user_agent=user_agent, viewport=viewport)


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

    def __init__(self, driver: Driver, connect_url: str, *, shared: bool) -> None:
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
        with span("connect"):
            return await self._reach()

    async def _reach(self) -> Browser:
        playwright = await self._driver.playwright()
        try:
            browser = await playwright.chromium.connect_over_cdp(self._connect_url)
        except PlaywrightError as error:
            if type(error).__name__ != "TargetClosedError":
                raise
            self._driver.forget(playwright)  # its process has died
            playwright = await self._driver.playwright()
            browser = await playwright.chromium.connect_over_cdp(self._connect_url)
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

    def to(self, connect_url: str, *, shared: bool) -> Connection:
        """Return the connection to a browser; nothing is connected yet."""
        if not shared:
            return Connection(self.driver, connect_url, shared=False)
        known = self._shared.get(connect_url)
        if known is None:
            # A browser that was restarted has a new address: forget those that nobody listens to any more.
            self._shared = {url: c for url, c in self._shared.items() if c.in_use}
            known = self._shared[connect_url] = Connection(self.driver, connect_url, shared=True)
        return known

    async def aclose(self) -> None:
        """Stop Playwright."""
        await self.driver.aclose()


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
