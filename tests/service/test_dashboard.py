"""The dashboard in a real Chromium that is leased from the pool it shows, and pages that mean the service harm."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from tabkeeper.config import ProviderSettings, ServiceSettings, parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.local import LocalProvider
from tabkeeper.service import create_app
from tabkeeper.service.server import serving

from .world import MAIN, TOKENS

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@asynccontextmanager
async def served(folder, *, open_=False):
    config = parse_config(
        {
            "ledger": {"url": f"sqlite:///{folder}/books.db"},
            "pool": {"max_sessions": 2, "keep": "fixed"},
            "platforms": {"web": {}, "shop": {"max_sessions": 1}},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "1.00", "per_session": "0.001"}}},
            "budgets": [{"name": "daily", "limit": "5.00", "thresholds": [0.001]}],
        }
    )
    provider = LocalProvider(
        "local",
        ProviderSettings(kind="local", args=("--host-resolver-rules=MAP rebound.example 127.0.0.1",)),
        state_dir=folder / "state",
    )
    settings = ServiceSettings.model_validate({"tokens": [] if open_ else TOKENS, "port": 0})
    pool = SessionPool(config, providers={"local": provider}, jobs=False)
    async with serving(create_app(pool, settings, open_=open_), settings) as url:
        yield pool, url


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


COLOURS = """() => Object.fromEntries(['page', 'card', 'ink', 'dim', 'accent', 'bad'].map((name) => {
    const value = getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
    return [name, value.length === 4 ? '#' + [...value.slice(1)].map((c) => c + c).join('') : value];
}))"""


STICKS_OUT = """() => ['body', '.card', '.tile'].flatMap((name) => [...document.querySelectorAll(name)])
    .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent.slice(0, 40))"""


async def test_figures_on_the_page_equal_those_of_the_api_and_a_keyboard_is_enough(tmp_path, caplog):
    caplog.set_level("DEBUG", logger="tabkeeper")
    async with (
        served(tmp_path) as (pool, url),
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {MAIN}"}, timeout=60) as http,
    ):
        async with pool.get_session("web", timeout=60) as viewer:
            ended = (await http.post("/leases", json={"platform": "shop", "tenant": "acme"})).json()
            await http.request("DELETE", f"/leases/{ended['id']}", json={"success": True})
            assert (await http.delete(f"/sessions/{ended['session_id']}")).status_code == 204
            held = (await http.post("/leases", json={"platform": "shop", "ttl": 900})).json()
            waits = (
                await http.post("/leases", json={"platform": "shop", "wait": 0, "timeout": 600, "ttl": 900})
            ).json()
            page = await viewer.new_page()
            asked, wrong = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)

            await page.goto(f"{url}/#token={MAIN}")
            await page.wait_for_selector("#live.is-live")
            now, money = (await http.get("/now")).json(), (await http.get("/money")).json()
            assert await page.text_content('[data-fig="capacity"]') == now["capacity"] == "2/2"
            assert await page.text_content('[data-fig="queued"]') == str(now["queued"]) == "1"
            assert await page.text_content('[data-fig="leases"]') == str(now["leases"])
            rows = await page.locator("#sessions tbody tr").all_inner_texts()
            assert sorted(row.split()[0] for row in rows) == sorted(one["id"] for one in now["open_sessions"])
            assert {row.split()[4] for row in rows} == {"leased"}
            queue = await page.inner_text("#queue tbody")
            assert now["queue"][0]["blocked_by"] in queue
            assert waits["id"] in queue
            assert "2 leased" in (await page.get_attribute("#places", "aria-label") or "")
            await page.wait_for_selector('[data-fig="day.cost"]:has-text("$")')
            cost = money["day"]["totals"]["cost"]
            assert float(cost) > 0
            assert await page.text_content('[data-fig="day.cost"]') == f"${cost}"

            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement.className") == "skip"
            await page.get_by_role("link", name="Money").focus()
            await page.keyboard.press("Enter")
            await page.wait_for_selector('nav a[aria-current]:has-text("Money")')
            (budget,) = (await http.get("/budgets")).json()
            told = await page.inner_text("#budgets")
            for name in ("spent", "held", "left", "limit"):
                assert f"${budget[name]}" in told, (name, told)
            quiet = await page.locator("#budgets .fine").all_inner_texts()
            decimals = [budget[name].partition(".")[2] for name in ("spent", "held", "left", "limit")]
            assert quiet == [below[4:] for below in decimals if len(below) > 4], "what is below 0.01 ¢"
            assert await page.locator("#spend .picture canvas").count() == 1
            assert f"${cost}" in (await page.get_attribute("#spend .picture", "aria-label") or "")
            tenants = await page.inner_text("#by-tenants tbody")
            for one in money["day"]["tenants"]:
                assert f"{one['name']}\t${one['cost']}" in tenants

            await page.get_by_role("link", name=money["day"]["label"], exact=True).click()
            await page.wait_for_url(f"{url}/reports/day/{money['day']['label']}.html")
            assert "Cost of" in (await page.text_content("h1") or "")
            await page.go_back()
            await page.wait_for_selector("#live.is-live")

            await page.get_by_role("link", name="History").click()
            await page.get_by_role("link", name=ended["session_id"]).click()
            await page.wait_for_selector("#facts dd")
            story = (await http.get(f"/sessions/{ended['session_id']}/story")).json()
            assert "closed by request" in await page.inner_text("#explained")
            booked = await page.inner_text("#bookings tbody")
            assert all(f"${one['amount']}" in booked for one in story["bookings"])
            assert f"lease {ended['id']}" in await page.inner_text("#leases tbody")

            await page.get_by_role("link", name="Alerts").click()
            await page.wait_for_selector("#alert-list tbody td:has-text('has reached')")
            alerts = (await http.get("/alerts")).json()
            shown = await page.inner_text("#alert-list tbody")
            assert all(one["text"] in shown for one in alerts)
            assert (
                await page.get_by_role("table", name="Latest alerts").get_by_role("row").count()
                == len(alerts) + 1
            )

            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme)
                found = await page.evaluate(COLOURS)
                for ink in ("ink", "dim", "accent", "bad"):
                    assert contrast(found[ink], found["card"]) >= 4.5, (scheme, ink)
                    assert contrast(found[ink], found["page"]) >= 4.5, (scheme, ink)
            await page.set_viewport_size({"width": 320, "height": 844})
            for name in ("Now", "Money", "History", "Alerts"):
                await page.get_by_role("link", name=name).click()
                await page.wait_for_selector(f"#page-{name.lower()}:not([hidden]) tbody tr", state="attached")
                assert await page.evaluate(STICKS_OUT) == []
            await page.get_by_role("link", name="Now").click()
            row = page.get_by_role("table", name="Open sessions").get_by_role("row").nth(1)
            assert "leased" in await row.get_by_role("cell").nth(4).inner_text()

            await page.get_by_role("button", name="Log out").click()
            await page.wait_for_selector("#page-login:not([hidden])")
            assert await page.evaluate("fetch('/now').then((answer) => answer.status)") == 401
            assert wrong == [
                "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
            ]
            assert [one for one in asked if not one.startswith(url)] == []
            await http.delete(f"/leases/{waits['id']}")
            await http.delete(f"/leases/{held['id']}")
    for secret in (MAIN, held["token"], waits["token"]):
        assert secret not in caplog.text


EVIL = """async (service) => {
    const tries = {};
    const attempt = async (name, work) => {
        try { tries[name] = await work(); } catch (error) { tries[name] = 'failed'; }
    };
    const body = JSON.stringify({platform: 'shop'});
    await attempt('read', () => fetch(service + '/sessions').then((answer) => answer.text()));
    await attempt('json', () => fetch(service + '/leases',
        {method: 'POST', body, headers: {'Content-Type': 'application/json'}}).then((answer) => answer.text()));
    await attempt('form', () => fetch(service + '/leases',
        {method: 'POST', body, mode: 'no-cors'}).then((sent) => sent.type));
    await attempt('events', () => new Promise((done) => {
        const source = new EventSource(service + '/events');
        source.onopen = () => { source.close(); done('open'); };
        source.onerror = () => { source.close(); done('refused'); };
    }));
    await attempt('frame', () => new Promise((done) => {
        const frame = document.createElement('iframe');
        frame.src = service + '/';
        frame.onload = () => { try { done(String(frame.contentDocument !== null)); } catch (e) { done('blocked'); } };
        document.body.append(frame);
    }));
    return tries;
}"""


async def test_a_page_in_a_leased_browser_can_neither_read_nor_command_a_service_that_needs_no_token(
    tmp_path,
):
    async def evil_site(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<body>evil</body>"
        )
        await writer.drain()
        writer.close()

    evil = await asyncio.start_server(evil_site, "127.0.0.1", 0)
    port = evil.sockets[0].getsockname()[1]
    async with served(tmp_path, open_=True) as (pool, url):
        async with pool.get_session("web", timeout=60) as lease:
            page = await lease.new_page()
            for name in ("127.0.0.1", "rebound.example"):
                await page.goto(f"http://{name}:{port}/")
                tries = await page.evaluate(EVIL, url)
                assert tries["read"] == tries["json"] == "failed"
                assert tries["events"] == "refused"
                assert tries["form"] in {"opaque", "failed"}
                assert tries["frame"] in {"blocked", "false"}
            # The name of the evil page now leads to the service itself: DNS rebinding.
            rebound = url.replace("127.0.0.1", "rebound.example")
            answer = await page.goto(f"{rebound}/sessions")
            assert answer is not None
            assert answer.status == 403
            post = (
                "fetch('/leases', {method: 'POST', body: '{\"platform\": \"shop\"}'}).then((a) => a.status)"
            )
            assert await page.evaluate(post) == 403
            assert pool.stats().leases == 1
            assert pool.waiting() == []
            answer = await page.goto(f"{url}/")
            assert answer is not None
            assert answer.status == 200
    evil.close()
    await evil.wait_closed()
