"""What a pool says of one session, and what a reopened pool remembers of the traffic before it was closed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from tabkeeper.cli.app import run
from tabkeeper.clock import VirtualClock
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.errors import ConfigError
from tabkeeper.money import Money
from tabkeeper.pool.gaps import Gaps, PastLease
from tabkeeper.pool.model import Lane, Session, Verdict
from tabkeeper.pool.pool import SessionPool
from tabkeeper.testing import FakeProvider, run_virtual

from .world import world

RATES = {"per_session": "0.02", "per_hour": "3.60"}  # twenty seconds cost the fee


async def traffic(pool: SessionPool, *, gap: float, leases: int = 12) -> None:
    for _ in range(leases):
        lease = await pool.get_session("web")
        await asyncio.sleep(10)
        await lease.release()
        await asyncio.sleep(gap)


def test_an_idle_session_is_explained_with_the_figures_of_its_verdict() -> None:
    async def story(clock: VirtualClock) -> None:
        async with world(clock, rates=RATES, keep="value", cold_start_cost="0.005") as here:
            await traffic(here.pool, gap=6)
            lease = await here.pool.get_session("web")
            leased = await here.pool.explain(lease.session_id)
            assert (leased.state, leased.until) == ("leased", lease.deadline)
            await lease.release()
            await asyncio.sleep(1)
            told = await here.pool.explain(lease.session_id)
            assert told.kept is not None
            assert told.state == "idle"
            assert told.until == told.kept.until
            assert told.kept.until is not None
            assert told.kept.until > clock.now()
            assert (told.kept.fee, told.kept.cold_start) == (Money.parse("0.02"), Money.parse("0.005"))
            assert told.kept.per_hour == Money.parse("3.60")
            assert 5 < told.kept.gap_seconds < 8
            assert told.kept.gaps_seen > 8
            for words in ("kept until", "fee of $0.02", "$0.005 as cold_start_cost", "An hour costs $3.60"):
                assert words in str(told)

    run_virtual(story)


def test_a_closed_session_is_explained_from_the_ledger_by_pool_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    async def story(clock: VirtualClock) -> str:
        pool = a_pool(clock, tmp_path)
        async with pool:
            await traffic(pool, gap=6, leases=4)
            lease = await pool.get_session("web")
            await lease.release()
            await asyncio.sleep(600)  # nobody comes
            told = await pool.explain(lease.session_id)
            assert told.closed_at is not None
            assert told.closed_at < clock.now()
            assert told.reason == "idle"
            assert "the next lease was expected to cost" in str(told)
            with pytest.raises(ConfigError, match="no session 'nobody'"):
                await pool.explain("nobody")
            return lease.session_id

    session_id = run_virtual(story)
    config = tmp_path / "tabkeeper.toml"
    config.write_text('[ledger]\nurl = "sqlite:///books.db"\n[platforms.web]\n', encoding="utf-8")
    assert run(["explain", "session", session_id]) == 0
    said = capsys.readouterr().out
    assert f"Session {session_id} (web at local) was closed at 2026-" in said
    assert "nobody needed it" in said
    assert run(["explain", "session", "nobody"]) == 2


def test_a_running_session_is_explained_to_other_processes_by_its_owners_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "tabkeeper.toml"
    config.write_text('[ledger]\nurl = "sqlite:///books.db"\n[platforms.web]\n', encoding="utf-8")

    async def story(clock: VirtualClock) -> None:
        pool = a_pool(clock, tmp_path)
        async with pool:
            await traffic(pool, gap=6, leases=4)
            lease = await pool.get_session("web")
            await lease.release()
            await asyncio.sleep(1)
            await pool.run_job("heartbeat")
            assert run(["explain", "session", lease.session_id]) == 0
            said = capsys.readouterr().out
            assert str(await pool.explain(lease.session_id)) in said
            assert "kept until" in said
            assert "last heartbeat" in said

    run_virtual(story)


# ── what is remembered ────────────────────────────────────────────────────────────────────────────────────────────


def a_pool(clock: VirtualClock, folder: Path, *, file: str = "books.db") -> SessionPool:
    config: PoolConfig = parse_config(
        {
            "pool": {"max_sessions": 2},
            "ledger": {"url": f"sqlite:///{folder / file}"},
            "platforms": {"web": {}},
            "providers": {"local": {"kind": "local", "rates": RATES}},
        }
    )
    provider = FakeProvider("local", clock, rng=Random(1), latency=(1.0, 1.0))
    return SessionPool(config, providers={"local": provider}, clock=clock, rng=Random(1), inline_ledger=True)


def verdict(pool: SessionPool, clock: VirtualClock) -> Verdict:
    """What the pool would decide of a session that becomes idle now."""
    now = clock.monotonic()
    session = Session(
        id="s",
        lane=Lane("web"),
        provider="local",
        tenant="default",
        created_at=now - 30,
        fresh_until=now + 1e6,
    )
    return pool._view.keeper.decide(session, now)


def test_a_reopened_pool_decides_as_the_old_one_would(tmp_path: Path) -> None:
    async def story(clock: VirtualClock) -> None:
        old = a_pool(clock, tmp_path)
        async with old:
            empty = verdict(old, clock)
            await traffic(old, gap=6, leases=6)
            await traffic(old, gap=90, leases=6)
        before = verdict(old, clock)
        assert before.gaps_seen > 8
        assert abs(before.chance - empty.chance) > 0.05, "else there was nothing to remember"
        reopened = a_pool(clock, tmp_path)
        async with reopened:
            after = verdict(reopened, clock)
        for figure in ("until", "gaps_seen", "chance", "fresh", "expected", "gap", "level"):
            assert getattr(after, figure) == pytest.approx(getattr(before, figure), rel=1e-4), figure
        stranger = a_pool(clock, tmp_path, file="others.db")
        async with stranger:
            assert verdict(stranger, clock).chance == pytest.approx(empty.chance)

    run_virtual(story)


def test_a_lease_that_took_no_time_leaves_nothing_running_behind() -> None:
    gaps, lane = Gaps(), Lane("web")
    gaps.replay(PastLease(lane, at, at, at) for at in (-30.0, -20.0, -10.0))
    assert gaps.level(lane) == 0
    assert gaps.seen(lane, 0) > 1.9
