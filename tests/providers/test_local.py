"""Local Chromium: launches that fail, what a shared browser keeps apart, and how one is found and started."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import ConfigError, ProviderUnavailableError
from tabkeeper.providers import chromium, make_provider, rundir
from tabkeeper.providers.cdp import CdpProvider
from tabkeeper.providers.chromium import find_browser, flags
from tabkeeper.providers.devtools import DevTools
from tabkeeper.providers.local import LocalProvider
from tabkeeper.providers.watchdog import birth

LOCAL = ProviderSettings(kind="local")
HUNG = """trap '' TERM; sh -c "trap '' TERM; sleep 60; true" & echo $$ $! > "$0.pids"; wait; wait"""
"""Never gets ready, has a child that bears no sign of where it belongs, and neither hears SIGTERM."""


pytestmark = pytest.mark.usefixtures("whole_browser")


@pytest.fixture
def site() -> Iterator[str]:
    """A page that tells what cookies it got."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (self.headers.get("Cookie") or "none").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def ranks_of(pid: int) -> list[int]:
    """How nice each thread of a process is."""
    return [os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir(f"/proc/{pid}/task")]


@pytest.fixture
async def provider_with(state_dir: Path) -> AsyncIterator[Callable[..., LocalProvider]]:
    made = []

    def make(executable: Path | None = None, isolation: str = "context", **more) -> LocalProvider:
        settings = ProviderSettings(kind="local", executable_path=executable, isolation=isolation)
        made.append(LocalProvider("local", settings, **{"state_dir": state_dir, **more}))
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()


# -- launches ---------------------------------------------------------------------------------------------------


async def test_a_browser_that_ends_at_once_is_told_with_its_last_words(
    provider_with, fake_browser, state_dir, losses, tools
):
    broken = fake_browser("echo 'dbus is missing' >&2; echo 'no libnss3.so here' >&2; exit 127")
    provider = provider_with(broken)
    await provider.start(losses)
    with pytest.raises(ProviderUnavailableError, match=r"status 127.*no libnss3\.so here") as caught:
        await provider.create(tools.spec())
    assert "dbus" not in str(caught.value)
    assert list(state_dir.glob("run-*/*/data")) == []
    assert losses.told == []


async def test_a_sandbox_that_the_machine_forbids_is_told_with_what_to_do(
    provider_with, fake_browser, state_dir, losses, tools
):
    provider = provider_with(fake_browser("echo 'FATAL: No usable sandbox!' >&2; exit 1"))
    await provider.start(losses)
    with pytest.raises(ProviderUnavailableError, match="set sandbox = false"):
        await provider.create(tools.spec())


async def test_a_launch_that_takes_too_long_is_ended_for_all_who_wait(
    provider_with, fake_browser, state_dir, losses, tools
):
    hung = fake_browser(HUNG)
    provider = provider_with(hung, launch_seconds=0.1)
    await provider.start(losses)
    creating = (provider.create(tools.spec(f"s{i}")) for i in range(3))
    for error in await asyncio.gather(*creating, return_exceptions=True):
        assert isinstance(error, ProviderUnavailableError)
        assert "not ready within 0.1 s" in str(error)
    assert gone(state_dir, tools, pids_of(hung))


@pytest.mark.parametrize("isolation", ["context", "process"])
async def test_a_launch_cancelled_in_the_middle_leaves_nothing(
    provider_with, fake_browser, state_dir, losses, tools, isolation
):
    stubborn = fake_browser(HUNG)
    provider = provider_with(stubborn, isolation)
    await provider.start(losses)
    creating = asyncio.create_task(provider.create(tools.spec()))
    async with asyncio.timeout(5):
        while len(pids := pids_of(stubborn)) < 2:
            await asyncio.sleep(0.01)
    assert all(birth(pid) for pid in pids), "control: the browser and its child are up"
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert gone(state_dir, tools, pids)


async def test_aclose_in_the_middle_of_a_launch_ends_it_and_tells_the_caller(
    provider_with, fake_browser, state_dir, losses, tools
):
    hung = fake_browser(HUNG)
    provider = provider_with(hung)
    await provider.start(losses)
    creating = asyncio.create_task(provider.create(tools.spec()))
    async with asyncio.timeout(5):
        while len(pids := pids_of(hung)) < 2:
            await asyncio.sleep(0.01)
    await provider.aclose()
    with pytest.raises(ProviderUnavailableError, match="closed"):
        await creating
    assert gone(state_dir, tools, pids)
    assert tools.processes_of(state_dir) == [], "the watchdog too"
    assert list(state_dir.iterdir()) == []


@pytest.mark.browser
async def test_a_launch_that_failed_once_does_not_spoil_the_next(
    provider_with, fake_browser, state_dir, losses, tools
):
    # Fault e, the provider's half.
    real = find_browser("local", LOCAL)
    once = fake_browser(f'test -e "$0.tried" && exec {real} "$@"; touch "$0.tried"; exit 1')
    provider = provider_with(once)
    await provider.start(losses)
    with pytest.raises(ProviderUnavailableError):
        await provider.create(tools.spec())
    await provider.create(tools.spec())
    assert provider.alive("s1")


# -- a shared browser -------------------------------------------------------------------------------------------


@pytest.mark.browser
async def test_two_contexts_do_not_see_each_others_cookies(shared, site, tools):
    made = [await shared.create(tools.spec(name)) for name in ("a", "b")]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(made[0].connect_url)
        mine, other = await browser.new_context(), await browser.new_context()
        await mine.add_cookies([{"name": "who", "value": "mine", "url": site}])
        for context, seen in ((mine, "who=mine"), (other, "none")):
            page = await context.new_page()
            await page.goto(site)
            assert await page.text_content("body") == seen
        assert await other.cookies() == []
        await browser.close()


@pytest.mark.browser
async def test_a_context_costs_nothing_but_what_is_opened_in_it(shared, tools):
    made = await shared.create(tools.spec())
    async with DevTools(made.connect_url) as tool:
        context = (await tool.call("Target.createBrowserContext"))["browserContextId"]
        await tool.call("Target.createTarget", url="about:blank", browserContextId=context)
        found = (await tool.call("Target.getTargets", filter=[{}]))["targetInfos"]
        await tool.call("Target.disposeBrowserContext", browserContextId=context)
    mine = sorted(one["type"] for one in found if one.get("browserContextId") == context)
    assert mine == ["page", "tab"], "no address bar, no side panel"


@pytest.mark.browser
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how nice a thread is")
async def test_what_a_browser_draws_never_goes_before_everybody_else(shared, state_dir, tools):
    # Root's Chromium would draw at nice -8, before the pool and all who use it.
    made = await shared.create(tools.spec())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(made.connect_url)
        page = await (await browser.new_context()).new_page()
        await page.screenshot()
        ranks = [rank for one in tools.browsers_of(state_dir) for rank in ranks_of(one.pid)]
        await browser.close()
    assert len(ranks) > 20, "control: the threads of several processes"
    assert min(ranks) >= os.nice(0), sorted(ranks)


@pytest.mark.browser
@pytest.mark.kill
async def test_contexts_end_with_the_connection_that_made_them_however_it_ends(shared, tools):
    # Fault i for Playwright: also when its driver is killed.
    made = await shared.create(tools.spec())
    playwright = await async_playwright().start()
    browser = await playwright.chromium.connect_over_cdp(made.connect_url)
    await (await browser.new_context()).new_page()
    assert len(await contexts_of(made.connect_url)) == 1, "control: it is there while the client is"
    await browser.close()
    await no_contexts(made.connect_url)
    browser = await playwright.chromium.connect_over_cdp(made.connect_url)
    await (await browser.new_context()).new_page()
    await playwright.stop()
    await no_contexts(made.connect_url)


@pytest.mark.browser
async def test_what_other_clients_leave_is_swept_and_what_is_in_use_stays(shared, tools):
    made = await shared.create(tools.spec())
    async with DevTools(made.connect_url) as stranger:
        left = (await stranger.call("Target.createBrowserContext"))["browserContextId"]
        await stranger.call("Target.createTarget", url="about:blank", browserContextId=left)
        await stranger.call("Target.createTarget", url="about:blank")  # in the default context
        empty = (await stranger.call("Target.createBrowserContext"))["browserContextId"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(made.connect_url)
        page = await (await browser.new_context()).new_page()
        assert len(await contexts_of(made.connect_url)) == 3
        await shared.sweep("s1")
        assert await page.evaluate("1 + 1") == 2
        await browser.close()
    assert empty in await contexts_of(made.connect_url), "somebody might be about to open a page there"
    # Nobody is left after this session, so nothing may be left either; the browser itself lingers.
    await shared.close("s1")
    assert await contexts_of(made.connect_url) == []
    again = await shared.create(tools.spec("s2"))
    assert again.pid == made.pid


@pytest.mark.browser
async def test_a_shared_browser_without_sessions_ends_after_a_while(provider_with, state_dir, losses, tools):
    provider = provider_with(linger_seconds=0.05)
    await provider.start(losses)
    one = await provider.create(tools.spec("s1"))
    await provider.create(tools.spec("s2"))
    await provider.close("s1")
    await asyncio.sleep(0.05)
    assert provider.alive("s2"), "control: it has a session"
    await provider.close("s2")
    async with asyncio.timeout(5):
        while tools.browsers_of(state_dir):
            await asyncio.sleep(0.02)
    assert losses.told == [], "nobody lost anything"
    assert (await provider.create(tools.spec("s3"))).pid != one.pid


@pytest.mark.browser
@pytest.mark.kill
async def test_a_shared_browser_that_hangs_is_given_up_when_its_last_session_closes(
    shared, tools, monkeypatch
):
    monkeypatch.setattr("tabkeeper.providers.local._SWEEP_SECONDS", 0.1)
    monkeypatch.setattr("tabkeeper.providers.browser._TERM_SECONDS", 0.1)
    made = await shared.create(tools.spec("s1"))
    os.kill(made.pid, signal.SIGSTOP)
    with pytest.raises(ProviderUnavailableError, match="does not answer"):
        await shared.sweep("s1")
    await shared.close("s1")
    again = await shared.create(tools.spec("s2"))
    assert again.pid != made.pid


@pytest.mark.browser
@pytest.mark.kill
async def test_every_session_of_a_killed_shared_browser_is_told_though_one_hearer_fails(
    provider_with, state_dir, tools, caplog
):
    told = []

    def hear(session_id: str, reason: str) -> None:
        told.append(session_id)
        if session_id == "a":
            raise RuntimeError("a hearer with a bug")

    provider = provider_with()
    await provider.start(hear)
    made = [await provider.create(tools.spec(name)) for name in ("a", "b")]
    os.kill(made[0].pid, signal.SIGKILL)
    async with asyncio.timeout(2):
        while len(told) < 2:
            await asyncio.sleep(0.01)
    await provider.aclose()
    assert sorted(told) == ["a", "b"]
    assert "a hearer with a bug" in caplog.text
    assert made[0].connect_url not in caplog.text


# -- finding and starting ---------------------------------------------------------------------------------------


async def test_a_missing_browser_is_one_clear_error_that_says_how_to_install_one(
    tmp_path, losses, monkeypatch
):
    for variable in ("TABKEEPER_CHROMIUM", "PLAYWRIGHT_BROWSERS_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    provider = LocalProvider("mine", LOCAL, state_dir=tmp_path / "state")
    with pytest.raises(
        ConfigError, match=r"^provider 'mine'.*`playwright install chromium`.*`apt-get install chrom"
    ):
        await provider.start(losses)
    [check] = [c for c in await provider.check() if not c.ok]
    assert check.name == "browser"
    assert "playwright install chromium" in check.advice


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_browsers_are_looked_for_in_order(tmp_path):
    env = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}
    on_path = program(tmp_path / "bin/google-chrome")
    assert find_browser("local", LOCAL, env) == on_path
    cache = tmp_path / ".cache/ms-playwright"
    for revision in (999, 1200):
        newest = program(cache / f"chromium-{revision}/chrome-linux64/chrome")
        program(cache / f"chromium-{revision}/INSTALLATION_COMPLETE")
    program(cache / "chromium-1300/chrome-linux64/chrome")  # the download was interrupted
    assert find_browser("local", LOCAL, env) == newest
    env["TABKEEPER_CHROMIUM"] = str(program(tmp_path / "by-variable"))
    assert find_browser("local", LOCAL, env) == tmp_path / "by-variable"
    settings = ProviderSettings(kind="local", executable_path=program(tmp_path / "by-setting"))
    assert find_browser("local", settings, env) == tmp_path / "by-setting"


@pytest.mark.parametrize("key", ["TABKEEPER_CHROMIUM", "providers.mine.executable_path"])
def test_a_named_browser_that_is_not_there_is_not_replaced_in_silence(tmp_path, key):
    wrong = tmp_path / "no-such-browser"
    env = {"TABKEEPER_CHROMIUM": str(wrong)} if key.isupper() else {}
    settings = LOCAL if env else ProviderSettings(kind="local", executable_path=wrong)
    with pytest.raises(ConfigError, match=f"^{key}: .*no-such-browser is not a program"):
        find_browser("mine", settings, env)


def test_the_sandbox_is_on_unless_told_otherwise_or_root(monkeypatch, caplog):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--no-sandbox" not in flags("local", LOCAL)
    assert "--no-sandbox" in flags("local", ProviderSettings(kind="local", sandbox=False))
    assert caplog.records == []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--no-sandbox" in flags("local", LOCAL)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_flags_of_ones_own_are_added_but_cannot_take_the_lifeline_away(monkeypatch):
    mine = flags("local", ProviderSettings(kind="local", args=("--lang=de", "--disable-features=Foo")))
    assert mine[-1] == "--lang=de"
    [off] = [f for f in mine if f.startswith("--disable-features=")]
    assert off.endswith(",Foo")
    with pytest.raises(ConfigError, match=r"^providers\.local\.args: --user-data-dir=/x is set by Tabkeeper"):
        flags("local", ProviderSettings(kind="local", args=("--user-data-dir=/x",)))


def test_little_shared_memory_is_not_used(monkeypatch):
    monkeypatch.setattr(chromium, "shared_memory_bytes", lambda: 64 * 2**20)
    assert "--disable-dev-shm-usage" in flags("local", LOCAL)


def test_our_own_settings_do_not_reach_the_browser():
    assert chromium.environment({"PATH": "/bin", "TABKEEPER_PROVIDERS__X__URL": "wss://key"}) == {
        "PATH": "/bin"
    }


def test_a_state_directory_that_others_may_enter_is_closed_to_them(tmp_path):
    tmp_path.chmod(0o777)
    rundir.prepare(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="not a directory of this user"):
        rundir.prepare(link)


async def test_a_state_directory_that_cannot_be_made_is_a_clear_error(
    provider_with, tmp_path, fake_browser, losses
):
    (tmp_path / "file").touch()
    provider = provider_with(fake_browser(""), state_dir=tmp_path / "file" / "state")
    with pytest.raises(ProviderUnavailableError, match="its state directory cannot be used"):
        await provider.start(losses)
    assert "state directory" in [c.name for c in await provider.check() if not c.ok]


def test_each_kind_gets_its_adapter():
    assert isinstance(make_provider("local", LOCAL), LocalProvider)
    assert isinstance(make_provider("far", ProviderSettings(kind="cdp", url="ws://127.0.0.1:1")), CdpProvider)


def pids_of(fake: Path) -> list[int]:
    file = Path(f"{fake}.pids")
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def gone(state_dir: Path, tools, pids: list[int]) -> bool:
    assert pids
    return (
        not any(birth(pid) for pid in pids)
        and not tools.browsers_of(state_dir)
        and not list(state_dir.glob("run-*/*/data"))
    )


async def contexts_of(url: str) -> list[str]:
    async with DevTools(url) as browser:
        found: list[str] = (await browser.call("Target.getBrowserContexts"))["browserContextIds"]
        return found


async def no_contexts(url: str) -> None:
    async with asyncio.timeout(3):
        while await contexts_of(url):
            await asyncio.sleep(0.02)
