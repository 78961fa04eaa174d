"""What makes a browser look like the same visitor, as a profile has it: read from a context, put into another one."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Collection
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, Route
from playwright.async_api import Error as PlaywrightError

from tabkeeper.errors import ConfigError
from tabkeeper.profiles.state import BrowserState

_READS_INDEXED_DB = "indexed_db" in inspect.signature(BrowserContext.storage_state).parameters
"""Playwright 1.51 and later can."""
_CLOSING = 2.0
"""Seconds for a page of ours to close; one that hangs ends with its browser."""


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


def can_move_in() -> None:
    """Say whether a state can be put into a context that is there already.

    Raises:
        ConfigError: Playwright cannot do that yet.
    """
    if not hasattr(BrowserContext, "set_storage_state"):
        raise ConfigError(
            "a profile for a client of its own needs a Playwright that has BrowserContext.set_storage_state: "
            "pip install --upgrade playwright, or use session.context()"
        )


async def move_in(browser: Browser, state: BrowserState) -> None:
    """Make a browser's first context begin with what was saved; what was in it is forgotten.

    Raises:
        playwright.async_api.Error: the browser is gone.
    """
    storage: Any = state.storage
    await browser.contexts[0].set_storage_state(storage)


async def move_out(
    browser: Browser, before: BrowserState | None, origins: Collection[str], *, seconds: float
) -> BrowserState:
    """Read the state of a browser's first context, for which nobody has pages any more.

    Cookies come first: if there is no time for the storage of so many sites, it is as it was in `before`.

    Args:
        browser: connected to after that.
        before: what it began with.
        origins: where its pages were; what was saved of others is read, too.
        seconds: that visiting the origins, and reading their storage, may take each.

    Raises:
        playwright.async_api.Error: the browser is gone.
    """
    context = browser.contexts[0]
    old = [] if before is None else before.storage.get("origins", [])
    storage: Any = {"cookies": await context.cookies(), "origins": old}
    page = await context.new_page()
    try:
        # A database that cannot be read, or a page of ours that crashes, must not cost the cookies.
        with contextlib.suppress(PlaywrightError, TimeoutError):
            async with asyncio.timeout(seconds):
                await _show(page, {*origins, *(() if before is None else before.origins())})
            more: dict[str, Any] = {"indexed_db": True} if _READS_INDEXED_DB else {}
            async with asyncio.timeout(seconds):
                storage = await context.storage_state(**more)
    finally:
        with contextlib.suppress(PlaywrightError, TimeoutError):
            async with asyncio.timeout(_CLOSING):
                await page.close()
    if before is None:
        return BrowserState(storage=storage)
    return BrowserState(storage=storage, user_agent=before.user_agent, viewport=before.viewport)


async def _show(page: Page, origins: Collection[str]) -> None:
    """Go to origins with a page: Playwright reads the storage of those only at which it has seen one."""
    await page.route("**/*", _answer_emptily)  # no server is asked for one
    cdp = await page.context.new_cdp_session(page)
    await cdp.send("Network.enable")
    await cdp.send("Network.setBypassServiceWorker", {"bypass": True})
    for origin in sorted(origins):
        with contextlib.suppress(PlaywrightError):  # one that cannot be gone to has no storage either
            await page.goto(origin)


async def _answer_emptily(route: Route) -> None:
    await route.fulfill(content_type="text/html", body="<!doctype html>")
