"""Whoever has a browser next finds nothing of those before: looked for by tenants who plant all that can be planted."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from tabkeeper.config import ProviderSettings, parse_config
from tabkeeper.pool.browser import SessionBrowser
from tabkeeper.pool.lease import Lease
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.local import LocalProvider

from .site import site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
PARTS = {"context": 32, "process": 8} if PROOF else {"context": 1, "process": 1}
"""Of each kind of isolation; apart, so that a run that is broken off has shown something.

Most share one browser by contexts, for that is where a leak would be; a process has a directory of its own besides.
"""
SEQUENCES = 25 if PROOF else 2
"""Of each part."""
LEASES = 3
GROUPS = {"context": "browser", "process": "browser-process" if PROOF else "browser"}
"""At full count both kinds run at once; in the suite all browsers take turns."""
TENANTS = ("acme", "beta", "zorg")

PLANT = """async (mark) => {
    document.cookie = `${mark}=1; max-age=9999`;
    localStorage.setItem(mark, '1');
    await new Promise((done, failed) => {
        const opening = indexedDB.open(mark, 1);
        opening.onerror = () => failed(opening.error);
        opening.onsuccess = () => { opening.result.close(); done(); };
    });
    await (await caches.open(mark)).put('/kept', new Response(mark));
    await navigator.serviceWorker.register('/worker.js');
    await navigator.serviceWorker.ready;
}"""
LOOK = """async () => [
    ...document.cookie.split('; ').filter(Boolean).map((c) => 'cookie ' + c),
    ...Object.keys(localStorage).map((k) => 'storage ' + k),
    ...(await indexedDB.databases()).map((d) => 'database ' + d.name),
    ...(await caches.keys()).map((k) => 'cache ' + k),
    ...(await navigator.serviceWorker.getRegistrations()).map(() => 'service worker'),
    ...((await navigator.permissions.query({name: 'geolocation'})).state === 'granted' ? ['permission'] : []),
]"""


def pool_on(folder: Path, isolation: str) -> SessionPool:
    config = parse_config(
        {
            "ledger": {"url": f"sqlite:///{folder}/books.db"},
            "platforms": {"web": {}},
            # Generous times: a machine that is busy with other things is no dirty session.
            "pool": {"max_sessions": 1, "clean_timeout": "2m", "close_timeout": "2m", "queue_timeout": "5m"},
        }
    )
    settings = ProviderSettings(kind="local", isolation=isolation)
    return SessionPool(
        config, providers={"local": LocalProvider("local", settings, state_dir=folder / "state")}
    )


async def plant(page: Page, address: str, mark: str) -> None:
    await page.context.grant_permissions(["geolocation"], origin=address)
    await page.goto(address)
    await page.evaluate(PLANT, mark)


async def quietly(page: Page, address: str, mark: str) -> None:
    """Plant what no list of cookies, contexts or targets shows afterwards."""
    await page.goto(address)
    await page.evaluate("(mark) => localStorage.setItem(mark, '1')", mark)


async def look(page: Page, address: str) -> list[str]:
    await page.goto(address)
    return await page.evaluate(LOOK)


async def look_everywhere(lease: Lease, page: Page, address: str, whole: bool) -> list[str]:
    """What a curious tenant finds: in a page of its own, and if it has the whole browser, in all there is."""
    found = await look(page, address)
    if whole:
        browser = await lease.browser()
        others: list[BrowserContext] = [c for c in browser.contexts if c is not page.context]
        found += [f"foreign context {len(others)}"] if len(others) > 1 else []
        for context in others:
            found += [f"foreign cookie {cookie['name']}" for cookie in await context.cookies()]
            found += [f"foreign page {other.url}" for other in context.pages if other.url != "about:blank"]
    return found


async def in_its_context(lease: Lease, page: Page, address: str, mark: str) -> None:
    await plant(page, address, mark)


async def in_a_page_left_open(lease: Lease, page: Page, address: str, mark: str) -> None:
    other = await page.context.new_page()
    await plant(other, address, mark)


async def in_a_context_of_its_own(lease: Lease, page: Page, address: str, mark: str) -> None:
    context = await (await lease.browser()).new_context()
    await plant(await context.new_page(), address, mark)


async def in_the_default_context(lease: Lease, page: Page, address: str, mark: str) -> None:
    own = (await lease.browser()).contexts[0]
    other = await own.new_page()
    await quietly(other, address, mark)
    await other.close()


async def in_the_browser_s_own_page(lease: Lease, page: Page, address: str, mark: str) -> None:
    own = (await lease.browser()).contexts[0]
    first = own.pages[0] if own.pages else await own.new_page()
    await quietly(first, address, mark)
    await first.goto("about:blank")


async def as_a_cookie_of_the_default_context(lease: Lease, page: Page, address: str, mark: str) -> None:
    own = (await lease.browser()).contexts[0]
    await own.add_cookies([{"name": mark, "value": "1", "url": address}])


async def over_cdp(lease: Lease, page: Page, address: str, mark: str) -> None:
    cdp = await (await lease.browser()).new_browser_cdp_session()
    made = await cdp.send("Target.createBrowserContext")
    await cdp.send("Target.createTarget", {"url": address, "browserContextId": made["browserContextId"]})


TAME: list[Callable[..., Any]] = [in_its_context, in_a_page_left_open]
WILD: list[Callable[..., Any]] = [
    *TAME,
    in_a_context_of_its_own,
    in_the_default_context,
    in_the_browser_s_own_page,
    as_a_cookie_of_the_default_context,
    over_cdp,
]


@pytest.mark.proof
@pytest.mark.timeout(1800 if PROOF else 120)
@pytest.mark.parametrize(
    ("isolation", "part"),
    [
        pytest.param(kind, part, marks=pytest.mark.xdist_group(GROUPS[kind]))
        for kind, parts in PARTS.items()
        for part in range(parts)
    ],
)
async def test_three_tenants_in_random_order_never_see_each_other(
    isolation, part: int, tmp_path: Path, record_property
):
    chance, whole = Random(f"{isolation} {part}"), isolation == "process"
    reused = 0
    async with site() as address, pool_on(tmp_path, isolation) as pool:
        for sequence in range(SEQUENCES):
            for number in range(LEASES):
                tenant = chance.choice(TENANTS)
                ways = chance.sample(WILD if whole else TAME, 1 if chance.random() < 0.7 else 2)
                async with pool.get_session("web", tenant=tenant) as lease:
                    reused += not lease.is_new
                    page = await lease.new_page()
                    found = await look_everywhere(lease, page, address, whole)
                    assert not found, f"sequence {sequence}, lease {number}: {tenant} found {found}"
                    for way in ways:
                        await way(lease, page, address, f"{tenant}-{number}")
        stats = pool.stats()
        assert reused == stats.reused
        assert reused >= SEQUENCES // 2, "else nothing was proved about reuse"
        assert whole or not stats.dirty
    record_property("sequences", SEQUENCES)
    record_property("leases", SEQUENCES * LEASES)
    record_property("leases on a session used before", reused)
    record_property("sessions closed as not clean", stats.dirty)
    record_property("things of other tenants found", 0)


WELL = {in_its_context, in_a_page_left_open, in_a_context_of_its_own}


@pytest.mark.parametrize("way", WILD, ids=lambda way: way.__name__)
async def test_what_cannot_be_undone_costs_the_session_and_is_counted(way, tmp_path: Path):
    async with site() as address, pool_on(tmp_path, "process") as pool:
        async with pool.get_session("web", tenant="acme") as lease:
            page = await lease.new_page()
            await way(lease, page, address, "mark")
        async with pool.get_session("web", tenant="zorg") as lease:
            page = await lease.new_page()
            assert await look_everywhere(lease, page, address, whole=True) == []
            assert lease.is_new == (pool.stats().dirty == 1)
            if way in WELL:
                assert not lease.is_new, "what can be undone is undone"
            elif way is not over_cdp:
                assert lease.is_new


async def test_control_without_cleaning_the_next_tenant_finds_it_all(tmp_path: Path, monkeypatch):
    async def look_away(_: SessionBrowser) -> list[str]:
        return []

    monkeypatch.setattr(SessionBrowser, "clean", look_away)
    async with site() as address, pool_on(tmp_path, "process") as pool:
        async with pool.get_session("web", tenant="acme") as lease:
            page = await lease.new_page()
            for way in (in_its_context, in_the_default_context, as_a_cookie_of_the_default_context):
                await way(lease, page, address, "mark")
        async with pool.get_session("web", tenant="zorg") as lease:
            page = await lease.new_page()
            found = " ".join(await look_everywhere(lease, page, address, whole=True))
            assert "foreign context" in found
            assert "foreign cookie mark" in found
            assert "foreign page" in found


@pytest.mark.parametrize("isolation", ["context", "process"])
async def test_an_identity_stays_logged_in_from_lease_to_lease_and_nobody_else_is(isolation, tmp_path: Path):
    config = parse_config({"ledger": {"url": f"sqlite:///{tmp_path}/books.db"}, "platforms": {"web": {}}})
    settings = ProviderSettings(kind="local", isolation=isolation)
    provider = LocalProvider("local", settings, state_dir=tmp_path / "state")
    async with site() as address, SessionPool(config, providers={"local": provider}) as pool:

        async def visit(login: str = "", **wanted) -> str:
            async with pool.get_session("web", **wanted) as lease:
                page = await lease.new_page()
                await page.goto(address)
                if login:
                    await page.evaluate("(who) => { document.cookie = `who=${who}` }", login)
                context = await lease.context()
                assert len(context.pages) == 1, "pages of earlier leases are closed"
                return await page.evaluate("document.cookie")

        assert await visit("ada", identity="ada") == "who=ada"
        assert await visit(identity="ada") == "who=ada"
        assert await visit(identity="ada", tenant="zorg") == ""
        assert await visit(identity="bob") == ""
        assert await visit() == ""
        assert await visit(identity="ada") == "who=ada"
        async with pool.get_session("web", identity="ada") as lease:
            with pytest.raises(ValueError, match="open already"):
                await lease.context(user_agent="x")
