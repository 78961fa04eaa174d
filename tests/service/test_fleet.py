"""A service of a pool that processes share shows all of it, whichever of them it is."""

import asyncio

import httpx
import pytest
from playwright.async_api import async_playwright
from tests.pool.fleet import fleet, until

from tabkeeper.config import ProviderSettings, ServiceSettings
from tabkeeper.providers.chromium import find_browser
from tabkeeper.service import create_app
from tabkeeper.service.server import serving
from tabkeeper.testing import run_virtual

from .world import LOOKER, TOKENS, house


@pytest.mark.postgres
@pytest.mark.browser
@pytest.mark.xdist_group("fleet")
async def test_sessions_queue_and_jobs_of_all_processes_are_told_by_each(postgres_url):
    settings = ServiceSettings.model_validate({"tokens": TOKENS, "port": 0})
    async with (
        fleet(postgres_url, 2, max_sessions=1) as f,
        serving(create_app(f.pools[0], settings), settings) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http,
        async_playwright() as playwright,
    ):
        here, there = f.pools
        http.headers["Authorization"] = f"Bearer {LOOKER}"
        for _ in range(2):
            async with there.get_session("web", timeout=600):
                pass
        lease = await there.get_session("web", timeout=600)
        waits = asyncio.ensure_future(there.get_session("web", tenant="acme", priority=7, timeout=600))
        await until(lambda: [one.tenant for one in here.waiting()] == ["acme"])
        await there.run_job("heartbeat")
        await here.run_job("metrics")
        async with asyncio.timeout(60):
            while (told := (await http.get("/fleet")).json())["reuse"]["leases"] < 2:
                await asyncio.sleep(0.1)
        mine, other = told["members"]
        assert (mine["is_this"], other["is_this"]) == (True, False)
        assert (mine["sessions"], other["sessions"], other["leased"], other["waiting"]) == (0, 1, 1, 1)
        (session,) = told["sessions"]
        assert (session["id"], session["state"]) == (lease.session_id, "leased")
        assert session["process"] == other["name"]
        assert told["queued"] == 1
        assert (told["queue"][0]["tenant"], told["queue"][0]["priority"]) == ("acme", 7)
        limits = {one["kind"]: (one["used"], one["most"]) for one in told["limits"]}
        assert limits["pool"] == (1, 1)
        assert (told["reuse"]["leases"], told["reuse"]["reused"], told["reuse"]["reuse_rate"]) == (2, 1, 0.5)
        assert (told["providers"]["far"]["state"], told["providers"]["far"]["sessions"]) == ("closed", 1)
        minute = (await http.get("/samples")).json()[-1]
        assert (minute["leased"], minute["whole"]["leased"], minute["whole"]["queued"]) == (0, 1, 1)
        assert other["heard_at"]
        assert other["jobs"]["heartbeat"]["every_seconds"] > 0
        assert (await http.get("/now")).json()["open_sessions"] == []  # of its own it has none
        assert (await http.get("/health")).json()["capacity"] == "1/1"

        binary = find_browser("local", ProviderSettings(kind="local"))
        browser = await playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        page = await browser.new_page()
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        await page.goto(f"{url}/#token={LOOKER}")
        await page.wait_for_selector(f"#sessions tbody tr:has-text('{lease.session_id}')")
        assert await page.text_content('[data-fig="capacity"]') == "1/1"
        assert await page.text_content('[data-fig="queued"]') == "1"
        assert await page.text_content('[data-fig="reuse"]') == "50 %"
        assert await page.text_content('[data-fig="leases"]') == "2"
        assert await page.text_content("#leases-of") == "leases of the last hour"
        assert (await page.inner_text("#providers tbody")).split()[:4] == ["far", "closed", "(well)", "1/1"]
        label = await page.get_attribute("#hour .picture", "aria-label")
        assert label == "The last hour; now 1 leased, 0 idle, 1 waiting"
        assert other["name"] in await page.inner_text("#sessions tbody")
        assert "acme" in await page.inner_text("#queue tbody")
        assert await page.locator("#processes tbody tr").count() == 2
        assert "this one" in await page.inner_text("#processes tbody")
        assert await page.locator("#jobs tbody tr:has-text('heartbeat')").count() == 2
        assert wrong == []
        await browser.close()
        await lease.release()
        await (await waits).release()


def test_a_pool_of_one_process_is_told_of_by_now_alone():
    async def story(clock):
        async with house(clock) as here, here.client() as http:
            assert (await http.get("/fleet")).status_code == 404

    run_virtual(story)
