"""What a reviewer found out: callers, adapters and operations that misbehave must cost nobody else anything."""

import asyncio
import uuid
from typing import Any

import pytest
from sqlalchemy import text

from tabkeeper.clock import SystemClock, VirtualClock
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.errors import ConfigError, LeaseLostError, PoolClosedError, PoolError, SessionCreationError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.testing import FakeProvider, Faults, run_virtual

from .world import world


async def get(w: Any, platform: str = "web", **options: Any) -> Any:
    return await w.pool.get_session(platform, **options)


def holds(w: Any) -> dict[str, int]:
    with w.pool._ledger.reader.connect() as db:
        return dict(db.execute(text("SELECT state, count(*) FROM hold GROUP BY state")).all())


def test_an_operation_that_tidies_up_past_its_timeout_does_not_keep_its_session_from_being_closed() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock, lease_timeout="20s", max_sessions=1, rates={"per_hour": "1"}) as w:

            async def slow(_: Any) -> None:
                try:
                    await asyncio.sleep(100)
                finally:
                    await asyncio.sleep(60)

            lease = await get(w)
            using = asyncio.ensure_future(lease.use(slow, timeout=5))
            await asyncio.sleep(45)  # the use expired at 5 s, the lease at 20 s
            assert w.provider.open == []
            with pytest.raises(LeaseLostError):
                await using
            await w.pool._ledger.flush()
            assert holds(w) == {"settled": 1}

    run_virtual(story)


def test_a_wrong_max_cost_hurts_only_who_passed_it() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock) as w:
            other = asyncio.ensure_future(get(w))
            with pytest.raises(TypeError, match="max_cost"):
                await get(w, max_cost=0.05)
            await (await other).release()

    run_virtual(story)


def test_an_action_that_cannot_be_carried_out_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock, max_sessions=2) as w:
            real = w.pool._leases.grant
            broken = [True]

            def grant(*args: Any) -> None:
                if broken:
                    broken.clear()
                    raise RuntimeError("made to break")
                real(*args)

            w.pool._leases.grant = grant
            results = await asyncio.gather(get(w), get(w), return_exceptions=True)
            assert [type(r).__name__ for r in results].count("PoolError") == 1
            served = next(r for r in results if not isinstance(r, PoolError))
            await served.release()
            await (await get(w, timeout=5)).release()

    run_virtual(story)


def test_tags_of_any_kind_are_kept_as_text() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock) as w:
            await (await get(w, tags={"job": uuid.UUID(int=7), 3: None})).release()
            await (await get(w)).release()
            await w.pool._ledger.flush()
            with w.pool._ledger.reader.connect() as db:
                tags = db.execute(text("SELECT tags FROM lease ORDER BY use_number")).scalars().all()
            assert "00000000-0000-0000-0000-000000000007" in tags[0]

    run_virtual(story)


async def _bad_json(*_: Any) -> Any:
    raise ValueError("bad JSON")


def test_an_adapter_whose_create_and_list_break_costs_no_place() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock, max_sessions=1) as w:
            create, list_ = w.provider.create, w.provider.list
            w.provider.create = w.provider.list = _bad_json
            with pytest.raises((SessionCreationError, PoolError)):
                await get(w, timeout=60)
            w.provider.create, w.provider.list = create, list_
            await asyncio.sleep(60)
            await (await get(w, timeout=30)).release()

    run_virtual(story)


def test_a_close_that_raises_anything_is_tried_again() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock, max_sessions=1, rates={"per_hour": "1"}) as w:
            lease = await get(w)
            await lease.release()
            close = w.provider.close
            w.provider.close = _bad_json
            closing = asyncio.ensure_future(w.pool.close_session(lease.session_id))
            await asyncio.sleep(1)
            w.provider.close = close
            assert await closing
            assert w.provider.open == []
            await w.pool._ledger.flush()
            assert holds(w) == {"settled": 1}

    run_virtual(story)


def test_a_session_never_asked_for_is_voided_and_costs_nothing() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock, rates={"per_session": "0.10"}) as w:
            real = w.pool._ledger.hold

            async def slow_hold(ask: Any) -> Any:
                hold = await real(ask)
                await asyncio.sleep(1)
                return hold

            w.pool._ledger.hold = slow_hold
            waiting = asyncio.ensure_future(get(w))
            await asyncio.sleep(0.5)
            await w.pool.drain(grace=0)
            with pytest.raises(PoolClosedError):
                await waiting
            await asyncio.sleep(5)
            assert w.provider.calls == []
            assert holds(w) == {"voided": 1}

    run_virtual(story)


def test_a_create_may_not_outlast_the_money_held_for_it() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(
            clock,
            close_timeout="2s",
            faults=Faults(script=["hang"]),
            rates={"per_hour": "3.60"},
            budgets=[{"name": "daily", "limit": "0.02"}],
            platforms={"web": {"max_session_cost": "0.02", "create_attempts": 1}},
        ) as w:
            began = clock.monotonic()
            with pytest.raises(SessionCreationError, match="max_session_cost"):
                await get(w, timeout=100)
            assert clock.monotonic() - began <= 20
            await asyncio.sleep(5)
            with w.pool._ledger.reader.connect() as db:
                spent, forced = db.execute(text("SELECT spent_n, forced_n FROM budget_window")).one()
            assert spent <= 20_000_000
            assert forced == 0

    run_virtual(story)


def test_a_refused_max_cost_does_not_use_up_the_first_lease() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock, max_sessions=1, rates={"per_session": "0.10"}) as w:
            with pytest.raises(Exception, match="max_cost"):
                await get(w, max_cost="0.01")
            async with w.pool.get_session("web") as lease:
                assert lease.is_new
                assert str(lease.cost) == "$0.10"
            assert await w.violations() == []

    run_virtual(story)


def test_a_cap_of_no_traffic_means_that_none_of_it_is_the_providers() -> None:
    async def story(clock: VirtualClock) -> None:
        for max_gb, expected in [("0", 10_000_000), ("1", 10_000_000 + 500_000 * 8)]:
            rates = {"per_session": "0.01", "per_gb": "8.00", "max_gb": max_gb}
            async with world(clock, max_sessions=1, rates=rates) as w:
                lease = await get(w)
                meter = w.pool._sessions.running[lease.session_id].browser.meter
                meter._data({"requestId": "1", "encodedDataLength": 500_000})
                await lease.release()
                assert lease.token[1] == 1
                await w.pool.close_session(lease.session_id)
                with w.pool._ledger.reader.connect() as db:
                    assert db.execute(text("SELECT cost_n, close_reason FROM session")).one() == (
                        expected,
                        "closed by request",
                    )

    run_virtual(story)


def test_drain_returns_when_the_last_lease_has_been_cleaned_up() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock) as w:
            lease = await get(w)
            running = w.pool._sessions.running[lease.session_id]

            async def clean() -> list[str]:
                await asyncio.sleep(2)
                return []

            running.browser.used = True
            running.browser.clean = clean
            draining = asyncio.ensure_future(w.pool.drain(grace=60))
            await asyncio.sleep(1)
            began = clock.monotonic()
            await lease.release()
            await draining
            assert clock.monotonic() - began == pytest.approx(2, abs=0.1)

    run_virtual(story)


def test_a_session_closed_while_its_lease_is_cleaned_bills_the_lease() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock, max_sessions=1, rates={"per_hour": "3.60"}) as w:
            lease = await get(w)
            running = w.pool._sessions.running[lease.session_id]

            async def clean() -> list[str]:
                await asyncio.sleep(3)
                return []

            running.browser.used = True
            running.browser.clean = clean
            await asyncio.sleep(30)
            releasing = asyncio.ensure_future(lease.release())
            await asyncio.sleep(1)
            await w.pool.close_session(lease.session_id)
            await releasing
            await w.pool._ledger.flush()
            with w.pool._ledger.reader.connect() as db:
                share, uses = db.execute(
                    text("SELECT l.cost_n, s.uses FROM lease l JOIN session s ON 1=1")
                ).one()
            assert share >= 30_000_000
            assert uses == 1
            assert await w.violations() == []

    run_virtual(story)


async def test_close_with_nonsense_says_so_and_can_be_repeated(tmp_path: Any) -> None:
    settings = parse_config({"ledger": {"url": f"sqlite:///{tmp_path}/l.db"}, "platforms": {"web": {}}})
    pool = SessionPool(settings, providers={"local": FakeProvider("local", SystemClock(), latency=(0, 0))})
    await pool.open()
    with pytest.raises(ValueError, match="not a duration"):
        await pool.close("soon")
    await pool.close(grace=0)


async def test_a_pool_that_could_not_open_says_why_and_can_be_closed(tmp_path: Any) -> None:
    settings = parse_config(
        {
            "ledger": {"url": f"sqlite:///{tmp_path}/l.db"},
            "providers": {"local": {"kind": "local", "executable_path": str(tmp_path / "nothing")}},
            "platforms": {"web": {}},
        }
    )
    pool = SessionPool(settings)
    with pytest.raises(ConfigError):
        await pool.open()
    await pool.close()
    with pytest.raises(PoolClosedError, match="open the pool first"):
        pool.stats()


def test_the_commonest_slips_are_answered_with_what_to_do() -> None:
    with pytest.raises(TypeError, match="from_file"):
        SessionPool("tabkeeper.toml")  # type: ignore[arg-type]
    pool = SessionPool(PoolConfig())
    with pytest.raises(PoolClosedError, match="open the pool first"):
        _ = pool.ledger
    request = pool.get_session("web")
    with pytest.raises(AttributeError, match="not a lease yet"):
        request.new_page()
    with pytest.raises(ValueError, match="comma"):
        pool.get_session("web", max_cost="0,05")
