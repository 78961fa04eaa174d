"""Which provider gets the work, and which is left alone: stories of the real pool in virtual time, and one in real."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from pathlib import Path

import pytest

from tabkeeper.clock import SystemClock, VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.errors import BudgetExceededError, PoolError, QueueTimeoutError
from tabkeeper.money import Money
from tabkeeper.pool import plan
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers import make_provider
from tabkeeper.testing import FakeProvider, Faults, run_virtual

from .market import Market, market
from .test_pool import virtual

FEE = {"per_session": "0.01", "per_hour": "0.06"}
"""A cent, and a tenth of a cent a minute: dear at first."""
HOURLY = {"per_hour": "0.60", "increment": "1s"}
"""A cent a minute: dear in the long run. Both cost the same after 1 min 6.67 s."""
FREE: dict[str, str] = {}


def routes(m: Market, platform: str = "web") -> tuple[str, ...]:
    return m.pool.stats().routes[platform].order


# ── cheapest ────────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_cheapest_goes_by_what_the_platforms_own_sessions_are_like(clock: VirtualClock) -> None:
    async with market(
        clock, {"fee": FEE, "hourly": HOURLY}, web={"routing": "cheapest", "max_uses": 1}, session_ttl="1h"
    ) as m:
        # The prior: 30, 60, 120, 300 s. fee: 0.01 + 510 s / 4 of 0.1 ct a minute; hourly: 127.5 s of a cent a minute.
        assert m.pool.stats().routes["web"].costs == {"fee": "0.012125", "hourly": "0.02125"}
        assert await m.work(seconds=5) == "fee"
        await asyncio.sleep(1)
        assert routes(m) == ("hourly", "fee"), "a session of 6 s costs a tenth of a cent there"
        assert await m.work(seconds=250) == "hourly"
        await asyncio.sleep(1)
        assert routes(m) == ("fee", "hourly"), "the mean is two minutes now"


@virtual
async def test_what_was_learnt_outlives_the_process(clock: VirtualClock) -> None:
    await _learns_and_forgets_nothing(clock)


async def _learns_and_forgets_nothing(clock: VirtualClock) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"web": {"routing": "cheapest", "max_uses": 1}, "url": f"sqlite:///{folder}/ledger.db"}
        async with market(clock, {"fee": FEE, "hourly": HOURLY}, **settings) as m:
            assert routes(m) == ("fee", "hourly")
            await m.work(seconds=5)
            await asyncio.sleep(1)
            learnt = m.pool.stats().routes["web"]
        async with market(clock, {"fee": FEE, "hourly": HOURLY}, **settings) as m:
            assert m.pool.stats().routes["web"] == learnt
            assert routes(m) == ("hourly", "fee")


@virtual
async def test_hours_that_are_included_are_used_up_first(clock: VirtualClock) -> None:
    plan = {"per_hour": "1.20", "increment": "1m", "included_hours": "0.05"}
    async with market(
        clock, {"hourly": HOURLY, "plan": plan}, web={"routing": "cheapest", "max_uses": 1}, session_ttl="1h"
    ) as m:
        used = []
        for _ in range(4):
            used.append(await m.work(seconds=50))
            await asyncio.sleep(1)
        assert used == ["plan", "plan", "plan", "hourly"], "three minutes of the month were free"
        assert str(await m.pool.ledger.monthly_cost()) != "$0.00"


@virtual
async def test_who_cannot_be_asked_is_passed_over_whatever_it_costs(clock: VirtualClock) -> None:
    async with market(
        clock,
        {"hourly": HOURLY, "free": FREE},
        web={"routing": "cheapest", "retry_base": "10m", "retry_max": "1h"},
    ) as m:
        m.stalls["free"].faults = Faults(script=["fail"])
        assert routes(m) == ("free", "hourly")
        assert await m.work() == "hourly"


# ── escalate ────────────────────────────────────────────────────────────────────────────────────────────────────────

STEPS = {"strong": HOURLY, "local": FREE}
"""Named the dear one first: a ladder begins with the cheapest all the same."""


@virtual
async def test_blocks_take_the_next_rung_and_good_work_comes_back_down(clock: VirtualClock) -> None:
    async with market(
        clock,
        STEPS,
        web={"routing": "escalate", "escalate_after": 2, "escalate_hold": "5m", "escalate_successes": 3},
        session_ttl="1h",
        idle_timeout="1s",
    ) as m:
        assert routes(m) == ("local", "strong")
        blocked = {"success": False, "reason": "blocked"}
        assert [await m.work(**blocked) for _ in range(2)] == ["local", "local"]
        assert m.stalls["local"].count("create") == 2, "a blocked session is not used again"
        assert [await m.work() for _ in range(3)] == ["strong"] * 3
        await asyncio.sleep(200)
        assert routes(m) == ("strong", "local")
        await asyncio.sleep(100)
        assert routes(m) == ("local", "strong")
        assert await m.work() == "local"


@virtual
async def test_on_a_higher_rung_nobody_gets_a_session_of_the_lower_one(clock: VirtualClock) -> None:
    async with market(clock, STEPS, web={"routing": "escalate", "escalate_after": 1}) as m:
        first, second, third = [await m.pool.get_session("web") for _ in range(3)]
        await first.release()
        assert m.pool.stats().idle == 1
        await second.release(success=False)
        await asyncio.sleep(1)
        assert m.pool.stats().idle == 0, (
            "the idle session of the lower rung is closed, and the failed one with it"
        )
        await third.release()
        await asyncio.sleep(1)
        assert m.stalls["local"].open == []
        assert await m.work() == "strong"


@virtual
async def test_failed_creations_take_the_next_rung_too(clock: VirtualClock) -> None:
    async with market(clock, STEPS, web={"routing": "escalate", "escalate_after": 1}, idle_timeout="1s") as m:
        m.stalls["local"].faults = Faults(script=["fail"])
        assert await m.work() == "strong"
        await asyncio.sleep(60)
        assert m.pool.stats().accounts["local"].retry_in == 0
        assert await m.work() == "strong", "the breaker is closed again, the rung is not left yet"


@virtual
async def test_a_reason_needs_a_failure(clock: VirtualClock) -> None:
    async with market(clock, {"local": FREE}) as m:
        lease = await m.pool.get_session("web")
        with pytest.raises(ValueError, match="success=False"):
            await lease.release(reason="blocked")
        await lease.release(success=False, reason="captcha")


# ── thin budgets ────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_a_thin_budget_falls_back_to_the_cheaper_provider_whose_hold_still_fits(
    clock: VirtualClock,
) -> None:
    """A session may live 910 s (600 + 300 + 10), so it holds $0.91, $0.091 or nothing; the budget has a dollar."""
    dear, fair = {"per_hour": "3.60"}, {"per_hour": "0.36"}
    budget = [{"name": "daily", "limit": "1.00", "on_exceed": "fallback"}]
    async with market(clock, {"dear": dear, "fair": fair, "free": FREE}, budgets=budget) as m:
        leases = [await m.pool.get_session("web") for _ in range(4)]
        assert [lease.provider for lease in leases] == ["dear", "free", "free", "free"], (
            "0.09 are left, not 0.091"
        )
    budget[0]["limit"] = "1.10"
    async with market(clock, {"dear": dear, "fair": fair, "free": FREE}, budgets=budget) as m:
        leases = [await m.pool.get_session("web") for _ in range(4)]
        assert [lease.provider for lease in leases] == ["dear", "fair", "fair", "free"]
    async with market(clock, {"dear": dear, "fair": fair}, budgets=budget) as m:
        leases = [await m.pool.get_session("web") for _ in range(3)]
        assert [lease.provider for lease in leases] == ["dear", "fair", "fair"]
        with pytest.raises(BudgetExceededError):
            await m.pool.get_session("web")


@virtual
async def test_a_budget_of_one_provider_says_nothing_about_the_others(clock: VirtualClock) -> None:
    budget = [{"name": "small", "limit": "0.10", "provider": "fair", "on_exceed": "fallback"}]
    prices = {"fair": {"per_hour": "0.36"}, "dear": {"per_hour": "3.60"}}
    async with market(clock, prices, budgets=budget) as m:
        leases = [await m.pool.get_session("web") for _ in range(3)]
        assert [lease.provider for lease in leases] == ["fair", "dear", "dear"]


# ── what providers teach ────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_a_limit_of_sessions_is_learnt_and_carefully_tried_again(clock: VirtualClock) -> None:
    async with market(clock, {"a": FREE}, queue_timeout="10m", lease_timeout="1h", session_ttl="2h") as m:
        m.stalls["a"].most = 3
        asked = [asyncio.ensure_future(m.work(seconds=400)) for _ in range(5)]
        await asyncio.sleep(20)
        account = m.pool.stats().accounts["a"]
        assert (account.learnt_max_sessions, account.state) == (3, "closed")
        refusals = m.stalls["a"].count("too many sessions")
        assert refusals == 2
        await asyncio.sleep(330)
        assert m.stalls["a"].count("too many sessions") - refusals in range(2, 6), "30, 60, 120, 240 s apart"
        m.stalls["a"].most = 10
        await asyncio.gather(*asked)
        assert m.pool.stats().refused == 0
        assert m.stalls["a"].peak <= 5


@virtual
async def test_too_many_calls_slow_down_and_retry_after_is_obeyed(clock: VirtualClock) -> None:
    async with market(
        clock, {"a": FREE}, web={"max_uses": 1}, queue_timeout="10m", lease_timeout="1h", session_ttl="2h"
    ) as m:
        stall = m.stalls["a"]
        stall.per_minute, stall.retry_after = 6, 45.0
        await asyncio.gather(*(m.work(seconds=5) for _ in range(20)))
        first_refusal = min(at for at, verb, _ in stall.calls if verb == "too many calls")
        sent = [at for at, verb, _ in stall.calls if verb != "close" and at > first_refusal]
        assert min(sent) >= first_refusal + 45
        assert stall.count("too many calls") <= 20
        pace = m.pool.stats().accounts["a"].creates_per_minute
        assert pace is not None


@virtual
async def test_a_configured_pace_is_kept(clock: VirtualClock) -> None:
    async with market(
        clock,
        {"a": FREE},
        web={"max_uses": 1},
        accounts={"a": {"max_creates_per_minute": 6}},
        queue_timeout="10m",
    ) as m:
        stall = m.stalls["a"]
        stall.per_minute = 6
        await asyncio.gather(*(m.work(seconds=5) for _ in range(20)))
        assert stall.count("too many calls") == 0


@virtual
async def test_a_provider_that_fails_is_tried_with_one_session_before_all_rush_at_it(
    clock: VirtualClock,
) -> None:
    async with market(
        clock, {"a": FREE}, web={"create_attempts": 50}, queue_timeout="10m", latency={"a": 2.0}
    ) as m:
        stall = m.stalls["a"]
        stall.faults = Faults(create_fails=1.0)
        asked = [asyncio.ensure_future(m.work(seconds=5)) for _ in range(10)]
        await asyncio.sleep(120)
        assert m.pool.stats().accounts["a"].state != "closed"
        burst = [at for at, verb, _ in stall.calls if verb == "create"]
        assert len(burst) <= 10 + 10, "ten at first, then one at a time, ever more rarely"
        stall.faults = Faults()
        assert set(await asyncio.gather(*asked)) == {"a"}
        assert m.pool.stats().accounts["a"].state == "closed"


# ── a provider that hangs ───────────────────────────────────────────────────────────────────────────────────────────


def waits_beside(hangs: bool, most: int | None = 5) -> list[tuple[int, float]]:
    """How long callers of a good provider wait while another platform's provider hangs (or does not)."""
    waits: list[tuple[int, float]] = []

    async def story(clock: VirtualClock) -> None:
        account = {} if most is None else {"max_sessions": most}
        async with market(
            clock,
            {"bad": FREE, "good": HOURLY},
            platforms={
                "mail": {"providers": ["bad"], "max_uses": 1},
                "web": {"providers": ["good"], "max_uses": 2},
            },
            accounts={"bad": account},
            max_sessions=12,
            create_timeout="60s",
            queue_timeout="50s",
        ) as m:
            if hangs:
                m.stalls["bad"].faults = Faults(create_hangs=1.0)

            async def caller(number: int) -> None:
                for _ in range(20):
                    try:
                        lease = await m.pool.get_session("web")
                    except QueueTimeoutError:
                        waits.append((number, math.inf))
                        continue
                    waits.append((number, lease.waited.total_seconds()))
                    await asyncio.sleep(3 + number * 0.31)
                    await lease.release()

            async def victim() -> None:
                for _ in range(4):
                    try:
                        await m.work("mail", seconds=1)
                    except PoolError:
                        continue

            others = [asyncio.ensure_future(victim()) for _ in range(20)]
            await asyncio.sleep(1)
            await asyncio.gather(*(caller(n) for n in range(5)))
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    run_virtual(story)
    return sorted(waits)


def test_a_provider_that_hangs_for_a_minute_slows_nobody_at_another():
    normal, beside = waits_beside(hangs=False), waits_beside(hangs=True)
    assert len(normal) == 100
    assert max(wait for _, wait in normal) > 0, "they do wait for creations"
    assert beside == normal, "in virtual time to the instant"


def test_control_without_a_limit_of_its_own_a_hanging_provider_takes_all_places():
    assert waits_beside(hangs=True, most=None) != waits_beside(hangs=False, most=None)


async def test_in_real_time_a_server_that_never_answers_slows_nobody_at_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times are compared leniently, since machines differ, and in the benchmark `hanging`; work is counted exactly."""
    looked: list[str] = []
    obstacles = plan._obstacles
    monkeypatch.setattr(plan, "_obstacles", lambda *of: looked.append(of[1].key.platform) or obstacles(*of))
    connections: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    config = parse_config(
        {
            "pool": {
                "max_sessions": 10,
                "create_timeout": "60s",
                "close_timeout": "1s",
                "shutdown_grace": "0s",
            },
            "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"},
            "providers": {
                "bad": {
                    "kind": "steel",
                    "api_key": "x",
                    "base_url": f"http://127.0.0.1:{port}",
                    "rates": {},
                    "max_sessions": 3,
                },
                "good": {"kind": "local"},
            },
            "platforms": {"mail": {"providers": ["bad"]}, "web": {"providers": ["good"]}},
        }
    )
    bad = make_provider("bad", config.providers["bad"])
    good = FakeProvider("good", SystemClock(), latency=(0.0, 0.0))
    pool = SessionPool(config, providers={"bad": bad, "good": good})

    async def leases(number: int) -> list[float]:
        took = []
        for _ in range(number):
            began = time.perf_counter()
            lease = await pool.get_session("web")
            await lease.release()
            took.append(time.perf_counter() - began)
        return sorted(took)

    async with pool:
        normal = await leases(200)
        hanging = [asyncio.ensure_future(_get(pool)) for _ in range(10)]
        await asyncio.sleep(0.1)
        assert pool.stats().platforms["mail"].creating == 3
        looked.clear()
        beside = await leases(200)
        assert "mail" not in looked, "nobody asks again and again what cannot have changed"
        assert pool.stats().platforms["mail"].creating == 3, "they hang all the while"
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        assert beside[100] < max(10 * normal[100], 0.05)
    for connection in connections:
        connection.close()
    silent.close()
    await silent.wait_closed()


async def _get(pool: SessionPool) -> None:
    await pool.get_session("mail")


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_accounts_and_routes_are_in_the_figures(clock: VirtualClock) -> None:
    async with market(
        clock,
        {"fee": FEE, "hourly": HOURLY},
        web={"routing": "cheapest"},
        accounts={"fee": {"max_sessions": 4}},
    ) as m:
        m.stalls["fee"].faults = Faults(script=["fail"])
        await m.work()
        stats = m.pool.stats().model_dump(mode="json")
        assert stats["routes"]["web"]["order"] == ["fee", "hourly"]
        assert Money.parse(stats["routes"]["web"]["costs"]["fee"]) < Money.parse("0.02")
        assert stats["accounts"]["fee"]["max_sessions"] == 4
        assert stats["accounts"]["fee"]["last_error"] == "provider 'fee': made to fail"
