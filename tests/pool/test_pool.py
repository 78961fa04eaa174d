"""Stories of the pool, told in virtual time with the real pool and the real ledger."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import text

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import (
    BudgetExceededError,
    ConfigError,
    LeaseLostError,
    PoolClosedError,
    QueueFullError,
    QueueTimeoutError,
    SessionCreationError,
    SessionTimeoutError,
)
from tabkeeper.testing import Faults, run_virtual

from .world import world


def virtual(story: Callable[[VirtualClock], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a story in virtual time."""

    def test() -> None:
        run_virtual(story)

    test.__name__ = story.__name__
    test.__doc__ = story.__doc__
    return test


@virtual
async def test_a_released_session_is_reused(clock: VirtualClock) -> None:
    async with world(clock) as w:
        first = await w.pool.get_session("web")
        await first.release()
        second = await w.pool.get_session("web")
        assert second.session_id == first.session_id
        assert (first.is_new, second.is_new) == (True, False)
        assert second.token == (first.session_id, 2)


@virtual
async def test_the_with_form_releases_and_counts_failure(clock: VirtualClock) -> None:
    async with world(clock) as w:
        with pytest.raises(ZeroDivisionError):
            async with w.pool.get_session("web"):
                _ = 1 / 0
        async with w.pool.get_session("web") as lease:
            assert not lease.is_new
        assert w.pool.stats().leased == 0


@virtual
async def test_the_second_caller_waits_for_the_first(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1) as w:
        first = await w.pool.get_session("web")
        second = asyncio.ensure_future(_get(w, "web"))
        await asyncio.sleep(20)
        assert not second.done()
        await first.release()
        lease = await second
        assert lease.session_id == first.session_id
        assert lease.waited.total_seconds() == 20


async def _get(w: Any, platform: str = "web", **options: Any) -> Any:
    return await w.pool.get_session(platform, **options)


@virtual
async def test_many_requests_never_create_more_sessions_than_they_need(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=10) as w:
        leases = await asyncio.gather(*(_get(w) for _ in range(4)))
        assert len(w.provider.sessions) == 4
        await asyncio.gather(*(lease.release() for lease in leases))
        again = await asyncio.gather(*(_get(w) for _ in range(4)))
        assert len(w.provider.sessions) == 4
        await asyncio.gather(*(lease.release() for lease in again))


@virtual
async def test_a_session_created_for_one_waiter_serves_the_best_waiter(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, latency=(5, 5)) as w:
        low = asyncio.ensure_future(_get(w, priority=0))
        await asyncio.sleep(1)
        high = asyncio.ensure_future(_get(w, priority=5))
        lease = await high
        assert not low.done()
        await lease.release()
        assert (await low).session_id == lease.session_id


@virtual
async def test_higher_priority_first_then_first_come(clock: VirtualClock) -> None:
    order: list[str] = []

    async def work(w: Any, name: str, priority: int) -> None:
        async with w.pool.get_session("web", priority=priority):
            order.append(name)
            await asyncio.sleep(1)

    async with world(clock, max_sessions=1) as w:
        holder = await _get(w)
        jobs = []
        for name, priority in [("a0", 0), ("b0", 0), ("c5", 5), ("d1", 1), ("e5", 5)]:
            jobs.append(asyncio.ensure_future(work(w, name, priority)))
            await asyncio.sleep(0.1)
        await holder.release()
        await asyncio.gather(*jobs)
    assert order == ["c5", "e5", "d1", "a0", "b0"]


@virtual
async def test_fault_n_a_steady_high_priority_stream_does_not_starve_a_low_request(
    clock: VirtualClock,
) -> None:
    async def stream(w: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(120):
                group.create_task(job(w))
                await asyncio.sleep(1)

    async def job(w: Any) -> None:
        async with w.pool.get_session("web", priority=3, timeout=300):
            await asyncio.sleep(2)

    async with world(clock, max_sessions=1) as w:
        streaming = asyncio.ensure_future(stream(w))
        await asyncio.sleep(5)
        async with w.pool.get_session("web", priority=0, timeout=60) as lease:
            assert lease.waited.total_seconds() < 60
        await streaming


@virtual
async def test_fault_n_control_without_ageing_the_low_request_starves(clock: VirtualClock) -> None:
    async def job(w: Any) -> None:
        async with w.pool.get_session("web", priority=3, timeout=300):
            await asyncio.sleep(2)

    async with world(clock, max_sessions=1, aging="365d") as w:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(job(w))
            low = asyncio.ensure_future(_get(w, priority=0, timeout=60))
            for _ in range(70):
                group.create_task(job(w))
                await asyncio.sleep(1)
        with pytest.raises(QueueTimeoutError):
            await low


@virtual
async def test_a_platform_without_sessions_does_not_starve_beside_a_busy_one(clock: VirtualClock) -> None:
    async def job(w: Any) -> None:
        async with w.pool.get_session("busy", timeout=500):
            await asyncio.sleep(2)

    async with world(clock, max_sessions=1, platforms={"busy": {}, "rare": {}}) as w:
        async with asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(job(w))
            await asyncio.sleep(30)
            for _ in range(60):
                group.create_task(job(w))
            async with w.pool.get_session("rare", timeout=500, priority=1) as lease:
                # 30 jobs are left of those that came 30 s earlier; then it is a step ahead of the rest.
                assert lease.waited.total_seconds() < 2 * 60 + 20


@virtual
async def test_tenants_share_by_weight_within_a_priority(clock: VirtualClock) -> None:
    order: list[str] = []

    async def work(w: Any, tenant: str) -> None:
        async with w.pool.get_session("web", tenant=tenant, timeout=500):
            order.append(tenant)
            await asyncio.sleep(1)

    async with world(clock, max_sessions=1, tenants={"big": {"weight": 2}}) as w:
        holder = await _get(w)
        jobs = [asyncio.ensure_future(work(w, "small")) for _ in range(6)]
        jobs += [asyncio.ensure_future(work(w, "big")) for _ in range(6)]
        await asyncio.sleep(1)
        await holder.release()
        await asyncio.gather(*jobs)
    assert order[:9].count("big") == 6
    assert order[:9].count("small") == 3


@virtual
async def test_a_tenants_limit_holds_and_others_pass(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=3, tenants={"acme": {"max_sessions": 1}}) as w:
        one = await _get(w, tenant="acme")
        two = asyncio.ensure_future(_get(w, tenant="acme"))
        other = await _get(w, tenant="zoo")
        await asyncio.sleep(10)
        assert not two.done()
        await one.release()
        await (await two).release()
        await other.release()


@virtual
async def test_the_error_of_a_timeout_says_what_was_in_the_way(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1) as w:
        lease = await _get(w)
        began = clock.monotonic()
        with pytest.raises(QueueTimeoutError) as caught:
            await w.pool.get_session("web", timeout=7)
        assert clock.monotonic() - began == pytest.approx(7)
        assert "platform 'web'" in str(caught.value)
        assert "within 7.0 s (place 1 in its queue)" in str(caught.value)
        assert "has all 1 sessions it may" in str(caught.value)
        await lease.release()


@virtual
async def test_past_max_queued_a_request_is_refused_at_once(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, max_queued=2) as w:
        lease = await _get(w)
        waiting = [asyncio.ensure_future(_get(w)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match=r"2 requests wait.*max_queued"):
            await w.pool.get_session("web")
        await lease.release()
        for task in waiting:
            await (await task).release()


@virtual
async def test_fault_g_a_cancelled_requester_leaves_its_session_to_the_next(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, latency=(5, 5)) as w:
        first = asyncio.ensure_future(_get(w))
        await asyncio.sleep(2)
        first.cancel()
        second = asyncio.ensure_future(_get(w))
        lease = await second
        assert lease.waited.total_seconds() == 3
        assert len(w.provider.sessions) == 1
        await lease.release()


@virtual
async def test_fault_g_a_timed_out_requester_leaves_an_idle_session(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, latency=(5, 5)) as w:
        with pytest.raises(QueueTimeoutError, match="still being created"):
            await w.pool.get_session("web", timeout=2)
        await asyncio.sleep(4)
        assert w.pool.stats().idle == 1
        await asyncio.sleep(100)
        assert w.pool.stats().sessions == 0


def test_fault_g_cancelling_at_every_moment_loses_no_session() -> None:
    for hops in range(12):

        async def story(clock: VirtualClock, hops: int = hops) -> None:
            async with world(clock, max_sessions=1) as w:
                lease = await _get(w)
                waiter = asyncio.ensure_future(_get(w))
                await asyncio.sleep(1)
                releasing = asyncio.ensure_future(lease.release())
                for _ in range(hops):
                    await asyncio.sleep(0)
                waiter.cancel()
                await releasing
                result = (await asyncio.gather(waiter, return_exceptions=True))[0]
                if not isinstance(result, asyncio.CancelledError):
                    await result.release()
                async with w.pool.get_session("web", timeout=1) as again:
                    assert again.session_id == lease.session_id
                await asyncio.sleep(0.5)
                assert w.pool.stats().leased == 0

        run_virtual(story)


@virtual
async def test_fault_e_a_launch_that_fails_once_at_cap_one_gives_the_place_back(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, faults=Faults(script=["fail"])) as w:
        async with w.pool.get_session("web") as lease:
            assert lease.is_new
        assert [verb for _, verb, _ in w.provider.calls] == ["create", "create"]


@virtual
async def test_after_create_attempts_the_requester_gets_the_providers_error(clock: VirtualClock) -> None:
    async with world(clock, faults=Faults(create_fails=1.0)) as w:
        with pytest.raises(
            SessionCreationError, match=r"after 3 attempts; last: provider 'local': made to fail"
        ):
            await w.pool.get_session("web")
        assert len(w.provider.calls) == 3
        assert w.pool.stats().sessions == 0


@virtual
async def test_fault_a_a_lost_create_answer_is_found_by_label_and_adopted(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, faults=Faults(script=["unanswered"])) as w:
        async with w.pool.get_session("web"):
            assert len(w.provider.open) == 1
        assert len(w.provider.sessions) == 1
        await asyncio.sleep(120)
        assert w.provider.open == []
        assert await w.violations() == []


@virtual
async def test_fault_f_double_late_and_reclaimed_releases_do_not_touch_the_next_holder(
    clock: VirtualClock,
) -> None:
    async with world(clock, max_sessions=1, lease_timeout="30s") as w:
        first = await _get(w)
        await first.release()
        second = await _get(w)
        await first.release()
        assert w.pool.stats().leased == 1
        await asyncio.sleep(31)
        with pytest.raises(LeaseLostError, match="its time was up"):
            await second.new_page()
        third = await _get(w)
        await second.release()
        await first.release()
        assert w.pool.stats().leased == 1
        assert third.session_id != second.session_id
        await third.release()
        assert w.pool.stats().reclaimed == 1


@virtual
async def test_a_leak_is_reported_with_the_place_that_took_the_lease(clock: VirtualClock) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("tabkeeper.pool.leasing").addHandler(handler)
    try:
        async with world(clock, leak_after="20s", lease_timeout="60s") as w:
            lease = await w.pool.get_session("web")
            await asyncio.sleep(25)
            assert w.pool.stats().leaks == 1
            await asyncio.sleep(40)
            assert w.pool.stats().reclaimed == 1
            assert lease.token[1] == 1
    finally:
        logging.getLogger("tabkeeper.pool.leasing").removeHandler(handler)
    assert [
        r for r in records if "has been held for 20 s" in r.getMessage() and "test_pool.py:" in r.getMessage()
    ]


@virtual
async def test_fault_q_a_jump_of_the_wall_clock_expires_nothing(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, lease_timeout="60s") as w:
        lease = await _get(w)
        waiting = asyncio.ensure_future(_get(w, timeout=50))
        for jump in (86_400.0, -7 * 86_400.0):
            clock.jump(jump)
            await asyncio.sleep(10)
            assert not waiting.done()
            assert w.pool.stats().leased == 1
        await lease.release()
        await (await waiting).release()
        assert await w.violations() == []


@virtual
async def test_an_idle_session_is_closed_after_its_time(clock: VirtualClock) -> None:
    async with world(clock, idle_timeout="60s") as w:
        await (await _get(w)).release()
        await asyncio.sleep(59)
        assert w.pool.stats().idle == 1
        await asyncio.sleep(2)
        assert w.pool.stats().sessions == 0


@virtual
async def test_at_the_cap_one_idle_session_of_another_platform_makes_room(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=3, platforms={"a": {}, "b": {}}) as w:
        leases = [await _get(w, "a") for _ in range(3)]
        for lease in leases:
            await lease.release()
            await asyncio.sleep(1)
        async with w.pool.get_session("b"):
            assert w.pool.stats().platforms["a"].sessions == 2
        assert leases[0].session_id not in w.pool._view.sessions


@virtual
async def test_a_closing_session_keeps_its_place_until_confirmed_or_ten_seconds_passed(
    clock: VirtualClock,
) -> None:
    async with world(clock, max_sessions=1, close_latency=(25, 25)) as w:
        lease = await _get(w)
        assert await asyncio.wait_for(_close_soon(w, lease.session_id), 0.1) is None
        began = clock.monotonic()
        again = await w.pool.get_session("web", timeout=60)
        assert clock.monotonic() - began == pytest.approx(10 + 1)  # close_timeout, then a creation
        await again.release()
        await asyncio.sleep(40)


async def _close_soon(w: Any, session_id: str) -> None:
    w.pool._board.end(w.pool._view.sessions[session_id], "test")


@virtual
async def test_use_times_out_with_a_clear_error_and_lowers_health(clock: VirtualClock) -> None:
    async def forever(_: Any) -> None:
        await asyncio.sleep(10**6)

    async with world(clock, max_sessions=1, platforms={"web": {"use_timeout": "5s"}}) as w:
        lease = await _get(w)
        with pytest.raises(SessionTimeoutError, match=r"took longer than 5 s.*use_timeout"):
            await lease.use(forever)
        with pytest.raises(ZeroDivisionError):
            await lease.use(_fail)
        assert w.pool._sessions.running[lease.session_id].health.score == pytest.approx(0.5)
        with pytest.raises(ZeroDivisionError):
            await lease.use(_fail)
        await lease.release()
        async with w.pool.get_session("web") as checked:
            assert checked.session_id == lease.session_id, "it passed a check"
            assert w.pool._sessions.running[lease.session_id].health.score == pytest.approx(0.5)


async def _fail(_: Any) -> None:
    _ = 1 / 0


@virtual
async def test_fault_d_the_holder_of_a_dead_session_is_told_and_the_next_gets_a_live_one(
    clock: VirtualClock,
) -> None:
    async def forever(_: Any) -> None:
        await asyncio.sleep(10**6)

    async with world(
        clock, max_sessions=1, lease_timeout="20m", platforms={"web": {"use_timeout": "10m"}}
    ) as w:
        lease = await _get(w)
        using = asyncio.ensure_future(lease.use(forever))
        await asyncio.sleep(3)
        w.provider.kill(lease.session_id)
        with pytest.raises(LeaseLostError, match="browser died"):
            await using
        assert clock.monotonic() < 6
        async with w.pool.get_session("web") as fresh:
            assert fresh.session_id != lease.session_id
        await lease.release()


@virtual
async def test_a_session_found_dead_at_the_moment_of_granting_is_replaced(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1) as w:
        lease = await _get(w)
        await lease.release()
        w.provider.sessions["local-1"].ended_at = clock.monotonic()  # nobody was told
        async with w.pool.get_session("web") as fresh:
            assert fresh.session_id != lease.session_id


@virtual
async def test_closing_tells_waiters_and_ends_everything_within_its_bound(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, shutdown_grace="5s") as w:
        lease = await _get(w)
        waiting = asyncio.ensure_future(_get(w))
        await asyncio.sleep(1)
        began = clock.monotonic()
        await w.pool.close()
        assert clock.monotonic() - began <= 5 + 20
        with pytest.raises(PoolClosedError):
            await waiting
        with pytest.raises(LeaseLostError):
            await lease.new_page()
        with pytest.raises(PoolClosedError):
            await w.pool.get_session("web")
        await lease.release()


@virtual
async def test_closing_while_sessions_are_created_leaves_none(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=2, latency=(30, 30)) as w:
        waiting = [asyncio.ensure_future(_get(w)) for _ in range(3)]
        await asyncio.sleep(2)
        await w.pool.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, PoolClosedError) for result in results)


@virtual
async def test_drain_lets_running_leases_finish(clock: VirtualClock) -> None:
    async with world(clock) as w:
        lease = await _get(w)
        draining = asyncio.ensure_future(w.pool.drain(grace=60))
        await asyncio.sleep(10)
        assert not draining.done()
        await lease.release()
        await draining
        assert clock.monotonic() == pytest.approx(11)


@virtual
async def test_sessions_can_be_released_and_closed_by_id(clock: VirtualClock) -> None:
    async with world(clock) as w:
        lease = await _get(w)
        assert await w.pool.release_session(lease.session_id)
        assert not await w.pool.release_session(lease.session_id)
        assert await w.pool.close_session(lease.session_id)
        assert not await w.pool.close_session(lease.session_id)
        assert w.pool.stats().sessions == 0


@virtual
async def test_max_duration_ends_a_lease_early_and_may_not_exceed_the_platforms(clock: VirtualClock) -> None:
    async with world(clock, lease_timeout="60s") as w:
        lease = await _get(w, max_duration=5)
        assert (lease.deadline - clock.now()).total_seconds() == pytest.approx(5)
        await asyncio.sleep(6)
        assert w.pool.stats().reclaimed == 1
        with pytest.raises(ValueError, match="at most 60 s"):
            await w.pool.get_session("web", max_duration=61)


@virtual
async def test_a_lease_ends_before_it_costs_more_than_its_cap(clock: VirtualClock) -> None:
    rates = {"per_session": "0.01", "per_hour": "3.60"}
    async with world(clock, max_sessions=1, rates=rates) as w:
        lease = await _get(w, max_cost="0.03")  # a cent for the session, one tenth for each started second
        await asyncio.sleep(15)
        assert str(lease.cost) == "$0.026"
        assert (lease.deadline - clock.now()).total_seconds() == pytest.approx(4, abs=0.01)
        await asyncio.sleep(10)
        with pytest.raises(LeaseLostError):
            await lease.new_page()
        with pytest.raises(BudgetExceededError, match="max_cost"):
            await w.pool.get_session("web", max_cost="0.0001")


@virtual
async def test_a_session_that_took_longer_than_its_time_to_live_still_serves_once(
    clock: VirtualClock,
) -> None:
    async with world(clock, max_sessions=1, latency=(10, 10), session_ttl="5s") as w:
        async with w.pool.get_session("web") as lease:
            assert lease.is_new
        assert len(w.provider.sessions) == 1


@virtual
async def test_sessions_that_cannot_live_long_enough_to_start_are_given_up_with_advice(
    clock: VirtualClock,
) -> None:
    async with world(
        clock,
        latency=(10, 10),
        close_timeout="1s",
        rates={"per_hour": "3.60"},
        platforms={"web": {"max_session_cost": "0.005"}},
    ) as w:
        with pytest.raises(SessionCreationError, match="max_session_cost"):
            await w.pool.get_session("web", timeout=200)
        assert len(w.provider.calls) == 3
        await asyncio.sleep(30)
        assert w.provider.open == []


@virtual
async def test_a_session_ends_before_it_costs_more_than_its_cap(clock: VirtualClock) -> None:
    async with world(
        clock,
        max_sessions=1,
        close_timeout="2s",
        lease_timeout="10m",
        rates={"per_hour": "3.60"},
        platforms={"web": {"max_session_cost": "0.05"}},
    ) as w:
        lease = await _get(w)
        assert (lease.deadline - clock.now()).total_seconds() == pytest.approx(50 - 2 - 1, abs=0.1)
        await asyncio.sleep(60)
        with pytest.raises(LeaseLostError):
            await lease.new_page()
        await w.pool._ledger.flush()
        with w.pool._ledger.reader.connect() as db:
            assert db.execute(text("SELECT max(cost_n) FROM session")).scalar_one() <= 50_000_000


@virtual
async def test_the_cost_of_a_lease_stands_still_after_its_release(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, rates={"per_hour": "3.60"}) as w:
        lease = await _get(w)
        await asyncio.sleep(10)
        await lease.release()
        before = lease.cost
        assert str(before) == "$0.011"
        await asyncio.sleep(20)
        assert lease.cost == before
        await w.pool.close_session(lease.session_id)
        assert lease.cost == before


@virtual
async def test_unknown_platforms_and_priorities_and_tags_of_ours_are_refused_with_advice(
    clock: VirtualClock,
) -> None:
    async with world(clock, platforms={"linkedin": {}}, priorities=[-5, 5]) as w:
        with pytest.raises(ConfigError, match="did you mean 'linkedin'"):
            await w.pool.get_session("linkedn")
        with pytest.raises(ValueError, match=r"priority 6 is outside -5\.\.5"):
            await w.pool.get_session("linkedin", priority=6)
        with pytest.raises(ValueError, match="must not begin with 'tabkeeper/'"):
            await w.pool.get_session("linkedin", tags={"tabkeeper/platform": "other"})


@virtual
async def test_a_session_serves_at_most_max_uses_leases(clock: VirtualClock) -> None:
    async with world(clock, max_sessions=1, platforms={"web": {"max_uses": 2}}) as w:
        ids = []
        for _ in range(4):
            async with w.pool.get_session("web") as lease:
                ids.append(lease.session_id)
        assert ids[0] == ids[1] != ids[2] == ids[3]
