"""A profile over the gateway, in real Chromium: the first context begins logged in, and what it becomes is saved."""

import json
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright
from tests.profiles.site import site
from tests.profiles.test_restoring import LOOK, PLANT
from websockets.exceptions import InvalidStatus

from tabkeeper.client import RemotePool
from tabkeeper.vault import new_key

from .house import MAIN, Parrot, house

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.browser,
    pytest.mark.xdist_group("gateway"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    async with house(
        f"sqlite:///{folder}/books.db",
        pool={"max_sessions": 2, "clean_timeout": "60s"},
        security={"keys": [new_key()]},
        platforms={"web": {}, "many": {"identity": "shared"}},
        service={"grace": "0s"},
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def playwright():
    async with async_playwright() as running:
        yield running


async def over(here) -> None:
    await here.until(lambda: not any(one.state == "leased" for one in here.sessions()), 60)


async def visit(here, playwright, address, query, plant=None) -> list[str]:
    """See what a client's first context knows of a site, and have it know something else."""
    browser = await playwright.chromium.connect_over_cdp(here.address(query))
    [context] = browser.contexts
    page = await context.new_page()
    seen = await look(page, address)
    if plant is not None:
        await page.evaluate(PLANT, plant)
    await browser.close()
    await over(here)
    return seen


async def look(page, address) -> list[str]:
    await page.goto(address)
    return (await page.evaluate(LOOK))[:3]


async def test_logins_outlive_the_session_whoever_opens_the_next_one(here, playwright):
    acme, zorg = uuid4().hex, uuid4().hex
    mine = f"platform=web&tenant={acme}&profile=shop.example"
    wanted = {"tenant": acme, "profile": "shop.example"}
    async with site() as shop, site() as other:
        browser = await playwright.chromium.connect_over_cdp(here.address(mine))
        page = await browser.contexts[0].new_page()
        assert await look(page, shop) == ["", "", ""]
        await page.evaluate(PLANT, "first")
        # Storage of a site that no page shows at the end is saved, too.
        await page.evaluate("url => { location.href = url }", other)
        await page.wait_for_url(other)
        await page.evaluate("localStorage.id = 'passing'")
        await page.close()
        await browser.close()
        await here.until(lambda: not here.sessions())  # what is in its first context is nobody else's

        async with here.pool.get_session("web", **wanted) as lease:
            page = await lease.new_page()
            assert await look(page, other) == ["first", "passing", ""], "a cookie is for all ports"
            assert await look(page, shop) == ["first"] * 3
            await page.evaluate(PLANT, "second")

        browser = await playwright.chromium.connect_over_cdp(here.address(mine))
        page = await browser.contexts[0].new_page()
        assert await look(page, shop) == ["second"] * 3
        await page.evaluate(PLANT, "spoilt")
        cdp = await browser.new_browser_cdp_session()
        await cdp.send("Tabkeeper.release", {"success": False, "reason": "blocked"})
        await over(here)
        await browser.close()

        assert await visit(here, playwright, shop, mine.replace(acme, zorg)) == ["", "", ""]
        async with (
            RemotePool(here.url, token=MAIN) as pool,
            pool.get_session("web", timeout=60, **wanted) as session,
        ):
            with pytest.raises(ValueError, match="takes no options"):
                await session.context(locale="de")
            assert await look(await session.new_page(), shop) == ["second"] * 3, "a failure saves nothing"


async def test_an_identity_with_a_profile_is_logged_in_again_in_its_next_browser(here, playwright):
    mine = f"platform=web&tenant={uuid4()}&identity=ada&profile=shop.example"
    async with site() as address:
        await visit(here, playwright, address, mine, "first")
        [session] = here.sessions()
        assert await visit(here, playwright, address, mine, "second") == ["first"] * 3
        assert here.sessions() == [session], "it keeps its browser"
        await here.pool.close_session(session.id)
        assert await visit(here, playwright, address, mine) == ["second"] * 3
        await here.pool.close_session(here.sessions()[0].id)


async def test_what_cannot_be_is_refused_before_the_upgrade(here, sqlite_url):
    for query, status, words in [
        ("platform=web&profile=https://shop.example", 422, "without https://"),
        ("platform=many&identity=ada&profile=shop.example", 409, "leave out profile"),
    ]:
        with pytest.raises(InvalidStatus) as told:
            async with here.connect(query):
                pass
        response = told.value.response
        assert (response.status_code, words in json.loads(response.body)["detail"]) == (status, True), query
    async with house(sqlite_url, parrot=Parrot()) as keyless:
        with pytest.raises(InvalidStatus) as told:
            async with keyless.connect("platform=web&profile=shop.example"):
                pass
        assert told.value.response.status_code == 422
