"""Real clients, unmodified, through the gateway to real Chromium: each by one address."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from .house import MAIN, call, house

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.browser,
    pytest.mark.xdist_group("gateway"),
]

CLIENTS = Path(__file__).parent / "clients"
LEASES = 100 if os.environ.get("TABKEEPER_PROOF") == "1" else 2
REPORT = b"twelve bytes"
PAGE = b"""<!doctype html><title>shop</title><a download href=/report.txt>report</a><input type=file>
<p id=uploaded></p><script>
document.querySelector("input").onchange = async ({ target: { files: [one] } }) => {
  document.querySelector("#uploaded").textContent = `${one.name} ${(await one.text()).length}`;
};
</script>"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site():
    async def answer(reader, writer):
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        except asyncio.IncompleteReadError:  # a connection for later
            writer.close()
            return
        kind, body = ("text/plain", REPORT) if path.startswith(b"/report") else ("text/html", PAGE)
        extra = "Content-Disposition: attachment\r\n" if body is REPORT else ""
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{extra}Content-Length: {len(body)}\r\nConnection: close\r\n"
        writer.write(f"{head}\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    async with house(
        f"sqlite:///{folder}/books.db",
        open_=True,
        pool={"max_sessions": 2, "clean_timeout": "60s"},
        service={"grace": "2s"},
        platforms={"web": {}, "lean": {"block": ["image"]}},
        gateway={"platform": "web"},
    ) as running:
        yield running


async def run(*command: str, env: dict[str, str] | None = None) -> list[dict]:
    """Run a client and return what it saw."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=CLIENTS, env=env
    )
    try:
        out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return json.loads(out.decode().splitlines()[-1])


async def idle(here):
    await here.until(lambda: not any(one.state == "leased" for one in here.sessions()))


SEEN = {"title": "shop", "download": len(REPORT), "uploaded": "up.txt 5", "contexts": 4, "cookies": 1}


async def test_playwright_for_python_by_both_addresses(here, site, tmp_path):
    started = here.pool.stats().creations
    async with async_playwright() as playwright:
        for number in range(LEASES):
            address = here.address("platform=web&priority=5")
            browser = await playwright.chromium.connect_over_cdp(
                address if number % 2 else address.replace("ws://", "http://")
            )
            page = await (await browser.new_context()).new_page()
            await page.goto(site)
            assert len(await page.screenshot()) > 500
            async with page.expect_download() as download:
                await page.click("a[download]")
            await (await download.value).save_as(tmp_path / "report")
            assert (tmp_path / "report").read_bytes() == REPORT
            await page.set_input_files(
                "input", {"name": "up.txt", "mimeType": "text/plain", "buffer": b"12345"}
            )
            await page.wait_for_function("document.querySelector('#uploaded').textContent === 'up.txt 5'")
            others = [await browser.new_context() for _ in range(3)]
            await others[0].add_cookies([{"name": "mine", "value": "1", "url": site}])
            for one in others:
                await (await one.new_page()).goto(site)
            assert [len(await one.cookies()) for one in others] == [1, 0, 0]
            await browser.close()
            await idle(here)
    assert here.pool.stats().creations - started <= 1, (
        "what the clients did was undone, so one browser served all"
    )
    rows = await here.usage()
    assert [row["outcome"] for row in rows] == ["ok"] * LEASES
    least = 4 * len(PAGE)
    assert all(row["bytes"] > least for row in rows), "what pages received is in the ledger"


@pytest.mark.skipif(
    shutil.which("node") is None or not (CLIENTS / "node_modules").is_dir(),
    reason="no clients in Node: run scripts/clients",
)
@pytest.mark.parametrize("client", ["playwright.mjs", "puppeteer.mjs"])
async def test_clients_in_node_by_both_addresses(here, site, client):
    seen = await run("node", client, here.address("platform=web"), site, str(LEASES))
    assert len(seen) == LEASES
    for one in seen:
        assert one.pop("picture") > 500
        assert one == SEEN
    await idle(here)
    assert {one.state for one in here.sessions()} == {"idle"}, "no session is spent by what they did"


async def test_a_spider_of_scrapy_playwright(here, site):
    """It connects once and opens its contexts in that one browser."""
    pages = LEASES * 3
    seen = await run(sys.executable, "crawl.py", here.address("platform=web"), site, str(pages))
    assert len(seen) == pages
    assert all(one["title"] == "shop" and one["picture"] > 500 for one in seen)
    await idle(here)


@pytest.mark.skipif(
    not (CLIENTS / ".venv").is_dir(),
    reason="no browser-use: run scripts/clients browser-use (make proof does)",
)
async def test_browser_use_reads_a_page(here, site):
    """It works in the browser's first context, so the session does not outlive its lease."""
    leases = min(LEASES, 10)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "ANONYMIZED_TELEMETRY": "false",
        "BROWSER_USE_LOGGING_LEVEL": "result",
    }
    python = str(CLIENTS / ".venv" / "bin" / "python")
    seen = await run(python, "browse.py", here.address("platform=web"), site, str(leases), env=environment)
    assert len(seen) == leases
    for one in seen:
        assert one["url"] == site
        assert "report" in one["read"]
        assert one["picture"] > 500
    await idle(here)


async def test_the_client_of_browser_use(here, site):
    from cdp_use.client import CDPClient

    async with here.http(None) as http:
        # As browser-use asks: the path that it was given, and this.
        found = (await http.get(f"/cdp/json/version?platform=web&token={MAIN}")).json()
    async with CDPClient(found["webSocketDebuggerUrl"]) as client:
        made = await client.send.Target.createTarget(params={"url": site})
        attached = await client.send.Target.attachToTarget(
            params={"targetId": made["targetId"], "flatten": True}
        )
        await client.send.Page.enable(session_id=attached["sessionId"])
        told = await client.send.Runtime.evaluate(
            params={"expression": "1 + 1"}, session_id=attached["sessionId"]
        )
        assert told["result"]["value"] == 2
    await idle(here)


async def test_a_browser_whose_first_context_was_used_serves_nobody_else(here, site):
    async with here.connect("platform=web") as client:
        about = await call(client, "Tabkeeper.lease")
        await call(client, "Target.createTarget", url=site)
    await here.until(lambda: about["sessionId"] not in {one.id for one in here.sessions()})


async def test_what_a_vanished_client_left_is_swept_before_the_next_lease(here, site):
    """As with a killed Puppeteer: its contexts would stay, and the next client would find them."""
    client = await here.connect("platform=web&grace=100ms").__aenter__()
    about = await call(client, "Tabkeeper.lease")
    for _ in range(3):
        context = (await call(client, "Target.createBrowserContext"))["browserContextId"]
        await call(client, "Target.createTarget", url=site, browserContextId=context)
    client.transport.abort()
    await client.wait_closed()
    await idle(here)
    async with here.connect(f"platform=web&session_id={about['sessionId']}") as client:
        assert (await call(client, "Tabkeeper.lease"))["sessionId"] == about["sessionId"], "it was kept"
        assert (await call(client, "Target.getBrowserContexts"))["browserContextIds"] == []
        assert [
            one for one in (await call(client, "Target.getTargets"))["targetInfos"] if one["type"] == "page"
        ] == []
    await idle(here)


async def test_who_comes_back_finds_the_pages_as_they_were(here, site):
    """Playwright's contexts end with its connection; here they end with the lease."""
    async with async_playwright() as playwright:
        client = await here.connect("platform=web&grace=30s").__aenter__()
        about = await call(client, "Tabkeeper.lease")
        context = (await call(client, "Target.createBrowserContext", disposeOnDetach=True))[
            "browserContextId"
        ]
        await call(client, "Target.createTarget", url=f"{site}?mine", browserContextId=context)
        client.transport.abort()
        await client.wait_closed()
        browser = await playwright.chromium.connect_over_cdp(
            here.address(f"lease={about['token']}", token="")
        )
        assert [page.url for one in browser.contexts for page in one.pages] == [f"{site}?mine"]
        await browser.close()
    await idle(here)


async def test_each_client_sees_its_own_targets_only_and_json_list_shows_no_more(here, site):
    async with here.connect("platform=web") as one, here.connect("platform=web") as two, here.http() as http:
        tokens = []
        for name, client in ("one", one), ("two", two):
            context = (await call(client, "Target.createBrowserContext"))["browserContextId"]
            await call(client, "Target.createTarget", url=f"{site}?{name}", browserContextId=context)
            tokens.append((await call(client, "Tabkeeper.lease"))["token"])
        for name, client, token in ("one", one, tokens[0]), ("two", two, tokens[1]):
            found = (await call(client, "Target.getTargets"))["targetInfos"]
            assert [t["url"] for t in found if t["type"] == "page"] == [f"{site}?{name}"]
            for path in ("/cdp/json/list", "/cdp/json", "/json/list/"):
                listed = (await http.get(path, params={"lease": token})).json()
                assert [t["url"] for t in listed] == [f"{site}?{name}"]
        assert (await http.get("/json/list")).json() == []
        assert (await http.get("/json/list", params={"lease": "none"})).status_code == 404
        async with here.http("tk_" + "a" * 43) as acme:
            assert (await acme.get("/json/list", params={"lease": tokens[0]})).status_code == 404
    await idle(here)


async def test_what_is_to_be_blocked_is_never_asked_for_in_pages_frames_and_popups(here):
    """Also where the client looks at requests itself; the control is the same browser without a word of it."""
    asked, made = [], []

    async def answer(reader, writer):
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        except asyncio.IncompleteReadError:
            writer.close()
            return
        asked.append(path)
        other = f"http://localhost:{port}/frame"  # another site than 127.0.0.1, so in a process of its own
        kind, body = {
            "/": ("html", f"<link rel=stylesheet href=1.css><img src=1.png><iframe src={other}></iframe>"),
            "/frame": ("html", "<img src=2.png>"),
            "/popup": ("html", "<img src=3.png>"),
        }.get(path, ("css", ""))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/{kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
        writer.write(f"{head}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, async_playwright() as playwright:
        for query, routed, pictures in (
            ("platform=web&block=image,trackers", False, 0),
            ("platform=lean", True, 0),
            ("platform=lean&block=", True, 3),
        ):
            asked.clear()
            browser = await playwright.chromium.connect_over_cdp(here.address(query))
            context = await browser.new_context()
            page = await context.new_page()
            if routed:
                await context.route("**/*", lambda route: route.continue_())
            await page.goto(f"http://127.0.0.1:{port}/")
            async with page.expect_popup() as popup:
                await page.evaluate("void open('/popup')")
            await (await popup.value).wait_for_load_state()
            await browser.close()
            assert {"/", "/frame", "/popup", "/1.css"} <= set(asked)
            assert sum(path.endswith(".png") for path in asked) == pictures, (query, asked)
            await idle(here)
            made.append(here.pool.stats().creations)
    assert made[2] == made[1], "nothing of it stays: the session served the next one"


async def test_an_identity_stays_logged_in_in_its_browser_s_first_context(here, site):
    """Its pages are closed; another identity, and who is none, is told nothing of it."""
    ada, bob = f"&identity={uuid4()}", f"&identity={uuid4()}"
    async with async_playwright() as playwright:
        seen = []
        for who in (ada, ada, bob, ""):
            browser = await playwright.chromium.connect_over_cdp(here.address(f"platform=web{who}"))
            [context] = browser.contexts
            found = [cookie["value"] for cookie in await context.cookies()]
            pages = [page for page in context.pages if page.url.startswith(site)]
            page = await context.new_page()
            await page.goto(site)
            found.append(await page.evaluate("localStorage.name ?? ''"))
            await page.evaluate(f"document.cookie = 'who={who}; max-age=999'; localStorage.name = '{who}'")
            seen.append((found, len(pages)))
            await browser.close()
            await idle(here)
    nobody = ([""], 0)
    assert seen == [nobody, ([ada, ada], 0), nobody, nobody]


async def test_a_session_can_be_watched_by_whoever_has_the_lease_s_token(here, site):
    async with async_playwright() as playwright, here.connect("platform=web") as client:
        about = await call(client, "Tabkeeper.lease")
        context = (await call(client, "Target.createBrowserContext"))["browserContextId"]
        await call(client, "Target.createTarget", url=site, browserContextId=context)
        # Watched from a browser that is leased, too; its first context sees no more than anybody.
        browser = await playwright.chromium.connect_over_cdp(here.address("platform=web"))
        page = await (await browser.new_context()).new_page()
        problems = []
        page.on("pageerror", lambda error: problems.append(error))
        await page.goto(f"{here.url}{about['watch']}")
        await page.get_by_text("live", exact=True).wait_for()
        width = await page.evaluate("document.getElementById('screen').naturalWidth")
        assert width > 100
        assert problems == []
        assert (await page.goto(f"{here.url}/cdp/watch?lease=nobody&token={MAIN}")).status == 404
        await browser.close()
    await idle(here)


@pytest.mark.parametrize(("kind", "reusable"), [("browserbase", False), ("browser_use", True)])
async def test_hosted_browsers_are_reached_in_the_same_way(tmp_path, kind, reusable):
    """Also where the provider's address is not a WebSocket's, and where a session ends with its last connection."""
    from tabkeeper.providers.emulator import KINDS, Limits, serving

    async with serving(KINDS[kind](Limits(concurrent=2, creates_per_minute=9), keys=["k" * 20])) as emulator:
        provider = {"kind": kind, "api_key": "k" * 20, "base_url": emulator.url, "rates": {}}
        async with house(
            f"sqlite:///{tmp_path}/books.db",
            providers={"local": provider},
            platforms={"web": {"keep": "always"}},
            service={"grace": "20s"},
        ) as here:
            client = await here.connect("platform=web").__aenter__()
            about = await call(client, "Tabkeeper.lease")
            context = (await call(client, "Target.createBrowserContext"))["browserContextId"]
            await call(client, "Target.createTarget", url="data:text/html,mine", browserContextId=context)
            client.transport.abort()
            await client.wait_closed()
            async with here.connect(f"lease={about['token']}") as client:
                found = (await call(client, "Target.getTargets"))["targetInfos"]
                assert "data:text/html,mine" in [t["url"] for t in found]
                if kind == "browserbase":
                    async with here.http() as http:
                        told = await http.get(about["watch"])
                        assert told.status_code == 303, "to the provider's own live view"
            await idle(here)
            if reusable:
                assert [one.state for one in here.sessions()] == ["idle"]
                [row] = await here.usage()
                assert row["outcome"] == "ok"
            else:
                await here.until(lambda: not here.sessions())


async def test_a_browser_that_dies_under_its_client_is_told_by_the_close_code(here):
    import os
    import signal

    async with here.connect("platform=web") as client:
        about = await call(client, "Tabkeeper.lease")
        os.kill(here.pool._sessions.running[about["sessionId"]].remote.pid, signal.SIGKILL)
        await client.wait_closed()
        assert client.close_code == 4002
    await here.until(lambda: about["sessionId"] not in {one.id for one in here.sessions()})


async def test_a_refusal_says_why_in_the_client_s_own_error(here):
    async with async_playwright() as playwright:
        with pytest.raises(PlaywrightError, match=r"422|401"):
            await playwright.chromium.connect_over_cdp(here.address("platform=nowhere"))
        with pytest.raises(PlaywrightError, match="401"):
            await playwright.chromium.connect_over_cdp(here.address("platform=web", token="tk_wrong"))
