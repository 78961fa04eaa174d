"""A profile over the gateway, in real Chromium: the first context begins logged in, and what it becomes is saved."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, async_playwright
from playwright.async_api import Error as PlaywrightError
from tests.profiles.site import site
from tests.profiles.test_restoring import LOOK, PLANT
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus

from tabkeeper.client import RemotePool
from tabkeeper.clock import VirtualClock
from tabkeeper.errors import LeaseLostError
from tabkeeper.pool.connection import Connection, Driver
from tabkeeper.pool.moving import move_out
from tabkeeper.pool.profiled import Profiled
from tabkeeper.profiles.state import BrowserState
from tabkeeper.service.gateway import browser, seat
from tabkeeper.service.gateway.browser import BrowserGoneError
from tabkeeper.service.gateway.visited import Visited
from tabkeeper.vault import new_key

from .house import MAIN, Parrot, call, house

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


async def saved(here, tenant):
    [profile] = [one for one in await here.pool._parts.profiles.all() if one.key.tenant == tenant]
    return profile


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


async def test_only_the_clients_own_word_counts_against_a_profile(here, playwright):
    # Three failures in a row would retire it, and its login would be gone.
    mine = f"platform=web&tenant={uuid4()}&profile=shop.example"
    async with site() as address:
        await visit(here, playwright, address, mine, "first")
        for _ in range(3):
            async with here.connect(mine) as socket:
                socket.transport.abort()
            await over(here)
        assert await visit(here, playwright, address, mine) == ["first"] * 3
        for _ in range(3):
            async with here.connect(mine) as socket:
                await call(socket, "Tabkeeper.release", success=False, reason="blocked")
            await over(here)
        assert await visit(here, playwright, address, mine) == ["", "", ""], "control: it was retired"


async def test_a_session_that_cannot_be_swept_costs_the_session_not_the_profile(
    here, playwright, monkeypatch
):
    async def hangs(*_, **__):
        raise TimeoutError

    mine = f"platform=web&tenant={uuid4()}&profile=shop.example"
    async with site() as address:
        with monkeypatch.context() as patch:
            patch.setattr(seat, "close_what_came", hangs)
            await visit(here, playwright, address, mine, "first")
        assert await visit(here, playwright, address, mine) == ["first"] * 3


async def test_the_browser_of_an_identity_has_one_profile_at_a_time(here, playwright):
    ada = f"platform=web&tenant={uuid4()}&identity=ada"

    async def refusal(query) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as told:
            async with here.connect(query):
                pass
        await over(here)
        return told.value.response.status_code, json.loads(told.value.response.body)["detail"]

    async with site() as address:
        await visit(here, playwright, address, f"{ada}&profile=a.example", "saved")
        await here.pool.close_session(here.sessions()[0].id)
        await visit(here, playwright, address, ada, "live")  # no profile: what is in it is nobody's to save
        status, detail = await refusal(f"{ada}&profile=a.example")
        assert (status, "without a profile" in detail) == (409, True), detail
        assert await visit(here, playwright, address, f"{ada}&profile=b.example") == ["live"] * 3, (
            "one that has nothing saved yet begins with what is there"
        )
        status, detail = await refusal(f"{ada}&profile=a.example")
        assert (status, "b.example" in detail) == (409, True), detail
        await here.pool.close_session(here.sessions()[0].id)
        assert await visit(here, playwright, address, f"{ada}&profile=a.example") == ["saved"] * 3
        await here.pool.close_session(here.sessions()[0].id)


async def test_with_too_little_time_cookies_are_saved_and_storage_stays_as_it_was(here):
    before = BrowserState(storage={"cookies": [], "origins": [{"origin": "https://kept.example"}]})
    async with here.pool.get_session("web") as lease:
        context = (await lease.browser()).contexts[0]
        await context.add_cookies([{"name": "id", "value": "1", "url": "https://shop.example"}])
        state = await move_out(await lease.browser(), before, {"https://shop.example"}, seconds=0)
    assert [one["value"] for one in state.storage["cookies"]] == ["1"]
    assert state.origins() == ["https://kept.example"]


async def test_storage_that_cannot_be_read_does_not_cost_the_cookies(here, monkeypatch):
    async def cannot(*_, **__):
        raise PlaywrightError("Unable to serialize IndexedDB")

    monkeypatch.setattr(BrowserContext, "storage_state", cannot)
    async with here.pool.get_session("web") as lease:
        context = (await lease.browser()).contexts[0]
        await context.add_cookies([{"name": "id", "value": "1", "url": "https://shop.example"}])
        state = await move_out(await lease.browser(), None, (), seconds=20)
    assert [one["value"] for one in state.storage["cookies"]] == ["1"]


async def test_a_playwright_that_cannot_restore_is_told_of_and_the_profile_is_left_alone(
    here, playwright, monkeypatch
):
    tenant = uuid4().hex
    mine = f"platform=web&tenant={tenant}&profile=shop.example"
    async with site() as address:
        await visit(here, playwright, address, mine, "first")
        before = await saved(here, tenant)
        with monkeypatch.context() as patch:
            patch.delattr(BrowserContext, "set_storage_state")
            for _ in range(3):
                with pytest.raises(InvalidStatus) as told:
                    async with here.connect(mine):
                        pass
                assert "pip install --upgrade playwright" in json.loads(told.value.response.body)["detail"]
                await over(here)
        after = await saved(here, tenant)
        assert (after.uses, after.failures) == (before.uses, 0)
        assert await visit(here, playwright, address, mine) == ["first"] * 3


async def test_a_lease_that_ends_while_its_profile_is_fetched_gives_the_right_to_write_back():
    given_back = []
    holding = SimpleNamespace(
        id="l1",
        over="",
        visit=None,
        profile="shop",
        session=SimpleNamespace(id="s1", lease_ends=60.0, lane=None),
    )
    holding.session.lane = SimpleNamespace(platform="web", identity=None)

    class Slow:
        async def begin(self, *_):
            holding.over = "ok"  # meanwhile
            return SimpleNamespace(key="shop", state=None, may_write=True)

        async def left(self, visit, **_):
            given_back.append(visit.key)

    with pytest.raises(LeaseLostError):
        await Profiled(Slow(), VirtualClock(), patience=1).options(holding)
    assert (given_back, holding.visit) == (["shop"], None)


async def test_sites_are_those_of_the_first_contexts_pages_not_of_what_is_framed_in_them():
    class Told:
        async def events(self):
            for kind, url, context in [
                ("page", "https://shop.example/cart", "FIRST"),
                ("iframe", "https://ads.example/", "FIRST"),
                ("page", "about:blank", "FIRST"),
                ("page", "https://aside.example/", "ITS OWN"),
            ]:
                yield {
                    "method": "Target.targetInfoChanged",
                    "params": {"targetInfo": {"type": kind, "url": url, "browserContextId": context}},
                }

    visited = Visited(AsyncExitStack(), Told(), {"ITS OWN"})
    await asyncio.sleep(0)
    await visited.aclose()
    assert visited.origins == {"https://shop.example"}


async def test_a_lease_that_ends_while_its_browser_is_made_ready_leaves_nobody_listening(monkeypatch):
    told, restoring, restored = [], asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def talking(*_):
        yield None

    async def restore():
        restoring.set()
        await restored.wait()

    async def leave():
        told.append("left")

    class Listening:
        origins = ()

        @classmethod
        async def begin(cls, *_):
            told.append("listens")
            return cls()

        async def aclose(self):
            told.append("hung up")

    async def nothing_yet(_):
        return seat.Inventory(frozenset(), frozenset(), frozenset())

    monkeypatch.setattr(seat, "talking_to", talking)
    monkeypatch.setattr(seat, "Visited", Listening)
    monkeypatch.setattr(seat.Inventory, "of", nothing_yet)
    passage = SimpleNamespace(
        connect_url="", has_profile=True, is_home=False, is_shared=False, outlives_connections=True,
        restore=restore, leave=leave,
    )  # fmt: skip
    one = seat.Seat(SimpleNamespace(session_id="s1"), passage, sweep_seconds=1, ping=1)
    readying = asyncio.create_task(one.ready())
    await restoring.wait()
    parting = asyncio.create_task(one.farewell(success=False, judged=False))
    await asyncio.sleep(0)
    restored.set()
    await parting
    with pytest.raises(BrowserGoneError, match="the lease is over"):
        await readying
    assert told == ["listens", "hung up", "left"]


async def test_a_session_is_not_vouched_for_while_a_client_is_being_connected(monkeypatch):
    # The next lease, of another tenant, would have it, and the client's first commands would go to that.
    dialled, told = asyncio.Event(), []

    async def dialling(*_, **__):
        await dialled.wait()
        return SimpleNamespace(close=hung_up)

    async def hung_up():
        told.append("hung up")

    async def swept(_):
        told.append("swept")
        return True

    passage = SimpleNamespace(
        connect_url="", has_profile=False, is_home=False, vouch=lambda: told.append("vouched")
    )
    one = seat.Seat(SimpleNamespace(session_id="s1"), passage, sweep_seconds=1, ping=1)
    monkeypatch.setattr(seat, "dial_wire", dialling)
    monkeypatch.setattr(seat.Seat, "_sweep", swept)

    async def enter():
        async with one.connection():
            told.append("let in")

    entering = asyncio.create_task(enter())
    await asyncio.sleep(0)
    parting = asyncio.create_task(one.farewell(success=True, judged=True))
    for _ in range(5):
        await asyncio.sleep(0)
    assert told == []
    dialled.set()
    with pytest.raises(BrowserGoneError, match="the lease is over"):
        await entering
    await parting
    assert told == ["hung up", "swept", "vouched"]
    with pytest.raises(BrowserGoneError, match="the lease is over"):
        await enter()


async def test_a_browser_that_answers_no_question_is_given_up(monkeypatch):
    monkeypatch.setattr(browser, "_ANSWERING", 0.05)

    async def deaf(socket):
        async for _ in socket:
            pass

    async with serve(deaf, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with browser.talking_to(f"ws://127.0.0.1:{port}/") as one:
            with pytest.raises(BrowserGoneError, match=r"did not answer Target\.getTargets"):
                await one.targets()


async def test_what_was_retired_does_not_come_back_by_an_identitys_browser(here, playwright):
    ada = f"platform=web&tenant={uuid4()}&identity=ada&profile=shop.example"
    async with site() as address:
        await visit(here, playwright, address, ada, "first")
        assert await visit(here, playwright, address, ada, "second") == ["first"] * 3
        [kept] = here.sessions()
        profiles = here.pool._parts.profiles
        [key] = [one.key for one in await profiles.all() if one.key.tenant in ada]
        await profiles.retire(key)
        with pytest.raises(InvalidStatus) as told:
            async with here.connect(ada):
                pass
        assert "was replaced or retired" in json.loads(told.value.response.body)["detail"]
        await here.until(lambda: kept not in here.sessions())
        assert await visit(here, playwright, address, ada) == ["", "", ""]
        await here.pool.close_session(here.sessions()[0].id)


async def test_a_browser_that_accepts_and_says_nothing_is_visited_for_a_bounded_time():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        driver = Driver()
        try:
            with pytest.raises(PlaywrightError, match="Timeout"):
                async with Connection(driver, f"ws://127.0.0.1:{port}/", shared=False).visit(0.2):
                    pass
        finally:
            await driver.aclose()


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
