"""What a task of the demo does with its page: look around on a site for its time, and check what it reads there.

It knows no pool: a page is all it needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from playwright.async_api import Page

from tabkeeper.demo.site import ARTICLES, ITEMS, headline, item_name, item_price, receipt
from tabkeeper.demo.trace import Task

_LOOK_SECONDS = 0.25
"""How long it looks at a page before it goes on."""


class WrongPageError(Exception):
    """A page did not say what it must."""


async def visit(page: Page, task: Task, base: str) -> int:
    """Work on the demo's own site for about ``task.seconds``; returns the number of pages seen.

    Raises:
        WrongPageError: a page was not what it must be.
    """
    clock = asyncio.get_running_loop().time
    until, seen, number = clock() + task.seconds, 0, task.number
    while not seen or clock() < until:
        number += 1
        match task.platform:
            case "shop":
                await _buy(page, base, 1 + number % ITEMS)
            case "news":
                await _read(page, base, 1 + number % ARTICLES)
            case _:
                await _register(page, base, f"{task.tenant}{number}")
        seen += 2
        await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, until - clock())))
    return seen


async def visit_own(page: Page, task: Task, urls: Sequence[str]) -> int:
    """Open the user's pages in turn for about ``task.seconds``; returns the number of pages seen."""
    clock = asyncio.get_running_loop().time
    until, seen = clock() + task.seconds, 0
    while not seen or clock() < until:
        await page.goto(urls[(task.number + seen) % len(urls)], wait_until="load")
        seen += 1
        await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, until - clock())))
    return seen


async def _buy(page: Page, base: str, item: int) -> None:
    await page.goto(f"{base}/shop")
    await page.get_by_role("link", name=item_name(item), exact=True).click()
    _expect(await page.locator(".price").inner_text(), item_price(item))


async def _read(page: Page, base: str, article: int) -> None:
    await page.goto(f"{base}/news")
    await page.get_by_role("link", name=headline(article), exact=True).click()
    await page.wait_for_url(f"**/news/{article}")
    _expect(await page.locator("h1").inner_text(), headline(article))


async def _register(page: Page, base: str, name: str) -> None:
    await page.goto(f"{base}/portal")
    await page.get_by_label("Name").fill(name)
    await page.get_by_role("button", name="Register").click()
    _expect(await page.locator("#receipt").inner_text(), receipt(name))


def _expect(found: str, wanted: str) -> None:
    if found != wanted:
        raise WrongPageError(f"the page says {found!r} instead of {wanted!r}")
