"""Faults of design section 8 with a real Chromium, a real database file and real kills, each named by its letter."""

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.async_api import Error as PlaywrightError
from sqlalchemy import text

from tabkeeper.config import PoolConfig, ProviderSettings, parse_config
from tabkeeper.errors import BudgetExceededError, LeaseLostError, SessionCreationError, SessionInUseError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.chromium import find_browser
from tabkeeper.providers.local import LocalProvider

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PAGE = "data:text/html,<title>here</title><p>hello"


def config(tmp_path: Path, *, budgets: list[dict[str, Any]] | None = None, **pool: Any) -> PoolConfig:
    return parse_config(
        {
            "pool": {"max_sessions": 2, **pool},
            "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "1.00"}}},
            "platforms": {"web": {"retry_base": "50ms"}},
            "budgets": budgets or [],
        }
    )


def local(tmp_path: Path, **settings: Any) -> LocalProvider:
    return LocalProvider("local", ProviderSettings(kind="local", **settings), state_dir=tmp_path / "state")


def browsers(tmp_path: Path) -> list[psutil.Process]:
    """Every living process that works in the test's directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if (
            str(tmp_path) in line
            and "--user-data-dir" in line
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ):
            found.append(process)
    return found


async def gone(tmp_path: Path, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while browsers(tmp_path):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def clean_verdict(pool: SessionPool) -> list[str]:
    await pool._ledger.flush()
    return [f"{v.name}: {v.meaning}" for v in await pool._ledger.verify()]


@pytest.mark.parametrize("isolation", ["context", "process"])
async def test_a_page_is_opened_and_the_next_lease_sees_nothing_of_it(tmp_path: Path, isolation: str) -> None:
    async with SessionPool(
        config(tmp_path, max_sessions=1), providers={"local": local(tmp_path, isolation=isolation)}
    ) as pool:
        async with pool.get_session("web", tenant="one") as first:
            page = await first.new_page()
            await page.goto(PAGE)
            assert await page.title() == "here"
            await (await first.context()).add_cookies(
                [{"name": "who", "value": "one", "url": "http://127.0.0.1/"}]
            )
        async with pool.get_session("web", tenant="two") as second:
            assert second.session_id == first.session_id
            assert await (await second.context()).cookies() == []
            assert (await second.context()).pages == []
            if isolation == "process":
                contexts = (await second.browser()).contexts
                assert [
                    page for context in contexts for page in context.pages if page.url != "about:blank"
                ] == []
            else:
                with pytest.raises(SessionInUseError, match='isolation = "process"'):
                    await second.browser()
        assert await clean_verdict(pool) == []
    assert await gone(tmp_path)


async def test_sessions_that_follow_each_other_in_a_shared_browser_do_not_end_each_other(
    tmp_path: Path,
) -> None:
    settings = parse_config(
        {
            "pool": {"max_sessions": 1},
            "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"},
            "platforms": {"web": {"max_uses": 1}},
        }
    )
    async with SessionPool(settings, providers={"local": local(tmp_path, isolation="context")}) as pool:
        for _ in range(8):
            async with pool.get_session("web") as lease:
                page = await lease.new_page()
                await page.goto(PAGE)
        assert pool.stats().lost == 0
        assert pool.stats().leases == 8


async def test_fault_d_chromium_killed_under_a_lease(tmp_path: Path) -> None:
    async with SessionPool(
        config(tmp_path), providers={"local": local(tmp_path, isolation="process")}
    ) as pool:
        lease = await pool.get_session("web")
        page = await lease.new_page()
        running = pool._sessions.running[lease.session_id]
        assert running.remote is not None
        assert running.remote.pid is not None

        async def work(_: Any) -> None:
            await page.goto(PAGE)
            await page.wait_for_selector("#never", timeout=60_000)

        using = asyncio.ensure_future(lease.use(work))
        await asyncio.sleep(0.05)
        os.kill(running.remote.pid, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(LeaseLostError):
            await using
        assert time.monotonic() - began < 5
        with pytest.raises(LeaseLostError):
            await lease.new_page()
        async with pool.get_session("web") as fresh:
            assert fresh.session_id != lease.session_id
            await (await fresh.new_page()).goto(PAGE)
        await lease.release()
        assert pool.stats().lost == 1
        assert await clean_verdict(pool) == []


async def test_fault_d_no_request_ever_gets_a_browser_that_was_killed_while_idle(tmp_path: Path) -> None:
    async with SessionPool(
        config(tmp_path), providers={"local": local(tmp_path, isolation="process")}
    ) as pool:
        for _ in range(3):
            async with pool.get_session("web") as lease:
                running = pool._sessions.running[lease.session_id]
                assert running.remote is not None
                pid = running.remote.pid
                assert pid is not None
            os.kill(pid, signal.SIGKILL)
            # The kernel, not our event loop, says when it is dead: the loop has had no chance to hear of it.
            psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=0.3)
            async with pool.get_session("web") as fresh:
                assert fresh.session_id != lease.session_id
                await (await fresh.new_page()).goto(PAGE)


async def test_fault_d_a_raw_page_in_a_with_block_ends_in_lease_lost(tmp_path: Path) -> None:
    async with SessionPool(
        config(tmp_path), providers={"local": local(tmp_path, isolation="process")}
    ) as pool:
        with pytest.raises(LeaseLostError) as caught:
            async with pool.get_session("web") as lease:
                page = await lease.new_page()
                running = pool._sessions.running[lease.session_id]
                assert running.remote is not None
                assert running.remote.pid is not None
                os.kill(running.remote.pid, signal.SIGKILL)
                await page.wait_for_selector("#never", timeout=20_000)
        assert isinstance(caught.value.__cause__, PlaywrightError)


async def test_a_session_in_use_goes_to_a_more_important_caller_and_its_holder_is_told(
    tmp_path: Path,
) -> None:
    async with SessionPool(
        config(tmp_path, max_sessions=1, evict_in_use=True, queue_timeout="60s"),
        providers={"local": local(tmp_path, isolation="process")},
    ) as pool:
        with pytest.raises(LeaseLostError, match="higher priority") as caught:
            async with pool.get_session("web") as lost:
                page = await lost.new_page()
                await page.goto(PAGE)
                async with pool.get_session("web", priority=1) as urgent:
                    assert await (await urgent.new_page()).evaluate("6 * 7") == 42
                    await page.wait_for_selector("#never", timeout=60_000)
        assert caught.value.reason == "evicted in use"
        async with pool.get_session("web", session_id=lost.session_id) as again:
            assert again.is_new, "it is another than the one asked for"
            assert again.session_id == urgent.session_id, "and the one that idles now is as good"
        assert pool.stats().evicted_in_use == 1
        assert await clean_verdict(pool) == []


async def test_fault_e_a_browser_that_fails_to_start_once_at_cap_one(tmp_path: Path) -> None:
    real = find_browser("local", ProviderSettings(kind="local"))
    wrapper = tmp_path / "sometimes-chromium"
    wrapper.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        if [ ! -e {tmp_path}/failed-once ]; then touch {tmp_path}/failed-once; echo "made to fail" >&2; exit 7; fi
        exec {real} "$@"
        """)
    )
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    provider = local(tmp_path, executable_path=wrapper)
    async with SessionPool(config(tmp_path, max_sessions=1), providers={"local": provider}) as pool:
        async with pool.get_session("web") as lease:
            await (await lease.new_page()).goto(PAGE)
        assert (tmp_path / "failed-once").exists()
        assert pool._view.providers["local"].gate.breaker.failures == 0
        assert await clean_verdict(pool) == []


async def test_fault_h_a_page_that_never_closes_costs_its_session_but_not_its_place(tmp_path: Path) -> None:
    async with SessionPool(
        config(tmp_path, max_sessions=1, clean_timeout="300ms"),
        providers={"local": local(tmp_path, isolation="process")},
    ) as pool:
        lease = await pool.get_session("web")
        page = await lease.new_page()
        await page.goto(PAGE)
        running = pool._sessions.running[lease.session_id]
        assert running.remote is not None
        assert running.remote.pid is not None
        for process in [
            psutil.Process(running.remote.pid),
            *psutil.Process(running.remote.pid).children(True),
        ]:
            process.suspend()  # nothing it is asked will ever be answered
        began = time.monotonic()
        await lease.release()
        async with pool.get_session("web") as fresh:
            assert fresh.session_id != lease.session_id
            await (await fresh.new_page()).goto(PAGE)
        assert time.monotonic() - began < 15
        assert await clean_verdict(pool) == []
    assert await gone(tmp_path)


OWNER = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests_pool_faults import config, local
from tabkeeper.pool.pool import SessionPool

async def main():
    where = Path({where!r})
    provider = local(where, isolation="process")
    real = provider.create
    async def create(spec):
        if {moment!r} == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        remote = await real(spec)
        os.kill(os.getpid(), signal.SIGKILL)  # created, but nobody has written it down
        return remote
    provider.create = create
    async with SessionPool(config(where), providers={{"local": provider}}) as pool:
        await pool.get_session("web")

asyncio.run(main())
"""


@pytest.mark.kill
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_fault_c_kill_between_create_and_record(tmp_path: Path, moment: str) -> None:
    loader = tmp_path / "lib"
    loader.mkdir()
    (loader / "tests_pool_faults.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    code = OWNER.format(tests=str(loader), where=str(tmp_path), moment=moment)
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    async with SessionPool(config(tmp_path), providers={"local": local(tmp_path)}) as pool:
        assert await gone(tmp_path)
        with pool._ledger.reader.connect() as db:
            row = db.execute(text("SELECT state, quality, cost_n, close_reason FROM session")).one()
            held = db.execute(text("SELECT count(*) FROM hold WHERE state = 'open'")).scalar_one()
        assert row.state in {"closed", "lost"}
        assert (row.quality, row.close_reason) == ("estimate", "owner died")
        assert row.cost_n > 0
        assert held == 0
        assert await clean_verdict(pool) == []


async def test_fault_j_a_hundred_requests_against_a_budget_for_three(tmp_path: Path) -> None:
    # A session may live ttl + lease + close = 60 s, so at $1 an hour the worst case is 1.67 cents: three fit.
    settings = config(
        tmp_path,
        budgets=[{"name": "daily", "limit": "0.051"}],
        max_sessions=100,
        session_ttl="30s",
        lease_timeout="20s",
        close_timeout="10s",
    )
    async with SessionPool(settings, providers={"local": local(tmp_path)}) as pool:

        async def ask() -> Any:
            return await pool.get_session("web", timeout=30)

        results = await asyncio.gather(*(ask() for _ in range(100)), return_exceptions=True)
        leases = [r for r in results if not isinstance(r, BaseException)]
        errors = [r for r in results if isinstance(r, BudgetExceededError)]
        assert (len(leases), len(errors)) == (3, 97)
        assert str(errors[0]).startswith(
            'Budget "daily" has $0.000999999 left of $0.051 ($0.00 spent, $0.050000001 held)'
        )
        for lease in leases:
            await (await lease.new_page()).goto(PAGE)
            await lease.release()
        assert await clean_verdict(pool) == []


async def test_a_file_that_is_no_program_is_refused_at_once_and_by_name(tmp_path: Path) -> None:
    nonsense = tmp_path / "chromium"
    nonsense.write_bytes(b"\x7fNOT A PROGRAM")
    nonsense.chmod(0o755)
    provider = local(tmp_path, executable_path=nonsense)
    began = time.monotonic()
    async with SessionPool(config(tmp_path), providers={"local": provider}) as pool:
        with pytest.raises(
            SessionCreationError, match=r"chromium is no program that can be run.*executable_path"
        ):
            await pool.get_session("web", timeout=20)
    assert time.monotonic() - began < 10


async def test_a_session_whose_address_was_given_away_is_not_reused(tmp_path: Path) -> None:
    async with SessionPool(
        config(tmp_path, max_sessions=1), providers={"local": local(tmp_path, isolation="process")}
    ) as pool:
        async with pool.get_session("web") as first:
            assert first.connect_url.startswith("ws://127.0.0.1:")
        async with pool.get_session("web") as second:
            assert second.session_id != first.session_id


async def test_the_address_of_a_shared_browser_is_not_given_away(tmp_path: Path) -> None:
    async with SessionPool(config(tmp_path), providers={"local": local(tmp_path)}) as pool:
        async with pool.get_session("web") as lease:
            with pytest.raises(SessionInUseError, match='isolation = "process"'):
                _ = lease.connect_url


async def test_contexts_whose_opening_was_cancelled_are_closed(tmp_path: Path) -> None:
    async with SessionPool(config(tmp_path, max_sessions=2), providers={"local": local(tmp_path)}) as pool:
        async with pool.get_session("web") as keeper:  # keeps the shared browser alive
            await keeper.new_page()
            for _ in range(5):
                async with pool.get_session("web") as lease:
                    opening = asyncio.ensure_future(lease.context())
                    await asyncio.sleep(0.001)
                    opening.cancel()
                    await asyncio.gather(opening, return_exceptions=True)
            browser = await pool._sessions.running[keeper.session_id].browser._connection.browser()
            assert len(browser.contexts) == 2  # the browser's own, and the keeper's


def drivers() -> list[psutil.Process]:
    """Playwright's processes of this test run."""
    found = []
    for process in psutil.Process().children():
        # A child that has ended meanwhile has no command line.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "run-driver" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.kill
async def test_when_playwrights_own_process_dies_pages_open_again_soon(tmp_path: Path) -> None:
    async with SessionPool(
        config(tmp_path, max_sessions=1), providers={"local": local(tmp_path, isolation="process")}
    ) as pool:
        async with pool.get_session("web") as lease:
            await lease.new_page()
        (driver,) = drivers()
        driver.kill()
        driver.wait(30)
        failures = 0
        for _ in range(3):
            try:
                async with pool.get_session("web") as lease:
                    await (await lease.new_page()).goto(PAGE)
            except (LeaseLostError, PlaywrightError):
                failures += 1
        assert failures <= 1
