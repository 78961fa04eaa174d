"""The health of sessions: the score's arithmetic, and what the pool does about it, in virtual time."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.clock import VirtualClock
from tabkeeper.pool.health import MB, SAMPLES, Health, Limits, Probe
from tabkeeper.pool.model import Check, State
from tabkeeper.providers.base import RemoteSession
from tabkeeper.testing import run_virtual

from .builders import Table, platform_rules, pool_rules
from .world import World, world

WELL = Probe(answered=True)
LIMITS = Limits()


# ── the score ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_errors_lower_the_score_and_passed_checks_lift_it_back_up_to_one():
    health = Health()
    for kind, left in (("timeout", 0.8), ("network", 0.7), ("other", 0.4)):
        health.hurt(kind)
        assert health.score == pytest.approx(left)
    assert health.is_sick(LIMITS)
    assert [(health.judge(WELL, LIMITS), health.score) for _ in range(3)] == [("", 0.7), ("", 1.0), ("", 1.0)]


def test_no_answer_is_the_end_whatever_the_score_was():
    health = Health()
    assert health.judge(Probe(answered=False, detail="no answer within 10 s"), LIMITS).startswith("unhealthy")
    assert health.score == 0.0
    assert health.judge(WELL, LIMITS), "a verdict is not taken back"


@pytest.mark.parametrize(
    ("memories", "declines"),
    [
        ([260, 500], False),
        ([490, 501], True),
        ([60, 199], False),  # much more, but little
        ([60, 201], True),
        ([150, 299], False),
        ([150, 301], True),
    ],
)
def test_memory_is_held_against_the_limit_and_against_the_sessions_own_first(memories, declines):
    health = Health()
    reasons = [health.judge(Probe(answered=True, memory=m * MB), LIMITS) for m in memories]
    assert bool(reasons[-1]) is declines, reasons


def test_navigations_are_held_against_the_sessions_own_first_ones():
    health = Health()
    for seconds in [0.5] * SAMPLES + [1.4] * SAMPLES:
        health.navigated(seconds)
    assert health.decline(LIMITS) == "", "slower, but not three times"
    for seconds in [1.9] * SAMPLES:
        health.navigated(seconds)
    assert health.decline(LIMITS) == "", "three times as slow, but fast enough for anybody"
    for seconds in [2.5] * (SAMPLES // 2):
        health.navigated(seconds)
    assert health.decline(LIMITS) == "", "a few slow pages are not a slow browser"
    health.navigated(2.5)
    assert health.decline(LIMITS) == "slow: navigations take 2.5 s, 0.5 s at first"


@given(st.lists(st.sampled_from(["timeout", "network", "other", "check"])))
def test_the_score_stays_between_none_and_all(events):
    health = Health()
    for event in events:
        before = health.score
        if event == "check":
            health.judge(WELL, LIMITS)
            assert health.score >= before
        else:
            health.hurt(event)
            assert health.score <= before
        assert 0 <= health.score <= 1


# ── the plan ────────────────────────────────────────────────────────────────────────────────────────────────────────


def stale_table() -> Table:
    return Table(
        pool_rules(
            {"shop": platform_rules(stale_after=40.0, idle_timeout=70.0)}, max_sessions=1, check_timeout=30.0
        )
    )


def test_a_stale_session_is_checked_before_anybody_gets_it():
    table = stale_table()
    table.ask()
    session = table.ready()
    table.settle()
    table.release(session)
    table.pass_time(39)
    assert session.state is State.IDLE
    table.pass_time(1)
    assert isinstance(table.log[-1], Check)
    request = table.ask()
    assert request.id not in table.fate, "it waits for the check"
    table.checked()
    table.settle()
    assert table.fate[request.id] == "granted"


def test_a_loop_that_is_late_does_not_lend_a_stale_session():
    table = stale_table()
    table.ask()
    session = table.ready()
    table.settle()
    table.release(session)
    table.settle()
    table.clock.advance(50)
    request = table.ask()
    assert request.id not in table.fate
    assert session.state is State.UNHEALTHY


def test_a_check_keeps_no_session_longer_than_it_was_wanted():
    table = stale_table()
    table.ask()
    session = table.ready()
    table.settle()
    table.release(session)
    table.pass_time(40)
    until = session.keep_until
    table.checked()
    assert session.keep_until == until == 70.0
    table.pass_time(30)
    assert (session.state, session.reason) == (State.DRAINING, "idle")


def test_a_check_that_never_ends_costs_the_session_not_the_pool():
    table = stale_table()
    table.ask()
    session = table.ready()
    table.settle()
    table.release(session)
    table.pass_time(40)
    request = table.ask(timeout=100)
    table.pass_time(30)
    assert (session.state, session.reason) == (State.DRAINING, "unhealthy")
    table.closed(session)
    table.settle()
    assert request.covered_by is table.ready()
    assert not table.board.checked(session, ok=True), "too late"


# ── the pool ────────────────────────────────────────────────────────────────────────────────────────────────────────


def lying(w: World) -> None:
    """Let the provider take all its sessions to run, but answer no more questions about them."""

    async def silent(provider_session_id: str) -> RemoteSession:
        await asyncio.sleep(10**6)
        raise AssertionError

    w.provider.get = silent  # type: ignore[method-assign]


def test_a_session_that_does_not_answer_is_replaced_and_nobody_gets_it_meanwhile():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, max_sessions=1, idle_timeout="10m", session_ttl="30m") as w:
            async with w.pool.get_session("web") as first:
                pass
            lying(w)
            looking = asyncio.create_task(w.pool.run_job("health"))
            await asyncio.sleep(2)
            assert w.pool.stats().unhealthy == 1
            began = clock.monotonic()
            async with w.pool.get_session("web", timeout=60) as second:
                assert second.session_id != first.session_id
                assert 8 <= clock.monotonic() - began <= 10, "10 s for an answer, 1 s for a new session"
            assert (await looking).last_result == "ok"
            stats = w.pool.stats().health
            assert (stats.checks, stats.checks_failed) == (1, 1)
            assert await w.violations() == []

    run_virtual(story)


def test_a_leased_session_is_only_asked_for_its_pulse():
    async def story(clock: VirtualClock) -> None:
        async with world(clock) as w:
            async with w.pool.get_session("web") as lease:
                lying(w)
                await w.pool.run_job("health")
                assert w.pool.stats().leased == 1
                w.provider.sessions["local-1"].ended_at = clock.monotonic()  # and no event tells
                await w.pool.run_job("health")
                assert w.pool.stats().leased == 0
                assert "lost" in repr(lease)

    run_virtual(story)


def test_a_session_past_its_prime_is_checked_in_time_and_leased_again():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, idle_timeout="1h", session_ttl="10m") as w:
            async with w.pool.get_session("web") as first:
                pass
            await asyncio.sleep(481)
            assert w.pool.stats().health.checks == 1
            async with w.pool.get_session("web") as again:
                assert again.session_id == first.session_id
            w.provider.sessions["local-1"].ended_at = clock.monotonic()
            async with w.pool.get_session("web") as other:
                assert other.session_id != first.session_id

    run_virtual(story)


def test_a_score_that_sank_low_recovers_check_by_check():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, max_sessions=1) as w:
            lease = await w.pool.get_session("web")
            running = w.pool._sessions.running[lease.session_id]
            for _ in range(3):
                running.health.hurt("other")
            assert running.health.score == pytest.approx(0.1)
            await lease.release()
            assert w.pool.stats().unhealthy == 1
            async with w.pool.get_session("web") as again:
                assert again.session_id == lease.session_id
                assert running.health.score == pytest.approx(0.7)
            assert w.pool.stats().health.recovered == 1

    run_virtual(story)


def test_quiet_sessions_are_kept_alive_without_being_used():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, jobs=True, idle_timeout="1h", session_ttl="1h") as w:
            async with w.pool.get_session("web"):
                pass
            used = clock.now()
            await asyncio.sleep(299)
            (before,) = w.pool.stats().open_sessions
            assert before.last_refresh is None
            await asyncio.sleep(62)
            (after,) = w.pool.stats().open_sessions
            assert after.last_refresh is not None
            assert after.last_refresh - used >= timedelta(minutes=5)
            assert after.last_used == before.last_used == used
            await asyncio.sleep(300)
            assert w.pool.stats().health.refreshes == 2

    run_virtual(story)


def test_most_sessions_are_cleaned_at_first_try_and_the_figure_says_so():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, max_sessions=20, idle_timeout="30s") as w:
            w.provider.faults.close_fails = 0.03
            for _ in range(10):
                await asyncio.gather(*(use(w) for _ in range(20)))
                await asyncio.sleep(60)
            cleaning = w.pool.stats().cleaning
            assert cleaning.closes == 200
            assert 0 < cleaning.retried < 20
            assert cleaning.first_try_rate == 1 - cleaning.retried / 200
            assert w.pool.stats().sessions == 0

    async def use(w: World) -> None:
        async with w.pool.get_session("web"):
            await asyncio.sleep(1)

    run_virtual(story)
