"""One session's money, from hold to settlement, on both databases."""

from datetime import timedelta

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import BudgetExceededError, IdempotencyConflictError, LedgerError, NoPriceError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Quality
from tabkeeper.money import ZERO, Money

from .builders import NOON, ask, config, lease, moved, opened, query, used

DAILY = {"name": "daily", "limit": "0.25"}


async def test_a_session_is_held_at_its_worst_case_and_settled_at_its_cost(ledger_url):
    async with opened(ledger_url, budgets=[DAILY], clock=VirtualClock(NOON)) as ledger:
        hold = await ledger.hold(ask())
        assert hold.amount == Money.parse("0.10")
        assert hold.max_seconds == 600
        assert hold.expires_at > NOON + timedelta(seconds=600)
        assert query(ledger_url, "SELECT held_n, spent_n FROM budget_window") == [(100_000_000, 0)]
        await ledger.activate("s", provider_session_id="theirs", pid=7, pid_started=8.5)
        settlement = await ledger.settle("s", used(61), reason="idle")
        assert settlement.cost == Money.parse("0.02")
        assert query(ledger_url, "SELECT held_n, spent_n, forced_n FROM budget_window") == [
            (0, 20_000_000, 0)
        ]
        row = query(ledger_url, "SELECT provider_session_id, pid, state, close_reason, quality FROM session")
        assert row == [("theirs", 7, "closed", "idle", "measured")]
        assert await ledger.spent(start=NOON, end=NOON + timedelta(hours=1)) == Money.parse("0.02")


async def test_what_is_asked_twice_is_done_once(ledger_url):
    async with opened(ledger_url, budgets=[DAILY], clock=VirtualClock(NOON)) as ledger:
        assert await ledger.hold(ask()) == await ledger.hold(ask())
        first = await ledger.settle("s", used(61), reason="idle")
        assert await ledger.settle("s", used(61), reason="idle") == first
        assert query(ledger_url, "SELECT COUNT(*) FROM entry") == [(2,)]
        assert query(ledger_url, "SELECT held_n, spent_n FROM budget_window") == [(0, 20_000_000)]


async def test_a_key_used_for_something_else_is_refused_by_name(ledger_url):
    async with opened(ledger_url, clock=VirtualClock(NOON)) as ledger:
        await ledger.hold(ask())
        with pytest.raises(IdempotencyConflictError, match=r"another platform.*hold:s"):
            await ledger.hold(ask(platform="maps"))
        with pytest.raises(IdempotencyConflictError, match="max_seconds"):
            await ledger.hold(ask(max_seconds=599))
        await ledger.settle("s", used(), reason="idle")
        with pytest.raises(IdempotencyConflictError, match="settle:s"):
            await ledger.settle("s", used(3600), reason="idle")
        with pytest.raises(IdempotencyConflictError, match="settled already"):
            await ledger.void("s", reason="no")
        with pytest.raises(IdempotencyConflictError, match="settled already"):
            await ledger.hold(ask())


async def test_a_void_gives_everything_back_and_may_be_repeated(ledger_url):
    async with opened(ledger_url, budgets=[DAILY], clock=VirtualClock(NOON)) as ledger:
        await ledger.hold(ask())
        for _ in range(2):
            await ledger.void("s", reason="provider refused")
        await ledger.void("never heard of", reason="nothing to do")
        assert query(ledger_url, "SELECT held_n, spent_n FROM budget_window") == [(0, 0)]
        with pytest.raises(IdempotencyConflictError, match="voided"):
            await ledger.settle("s", used(), reason="it ran after all")


async def test_settling_what_was_never_held_is_an_error(ledger_url):
    async with opened(ledger_url) as ledger:
        with pytest.raises(LedgerError, match="no hold"):
            await ledger.settle("nobody", used(), reason="?")


async def test_shares_of_leases_and_idle_time_add_up_to_the_cost(ledger_url):
    async with opened(ledger_url, clock=VirtualClock(NOON)) as ledger:
        await ledger.hold(ask())
        ledger.record_state(moved())
        ledger.record_lease(lease(number=1, start=1, end=61, tenant="acme"))
        ledger.record_lease(lease(number=2, start=70, end=179, tenant="globex", outcome="failed"))
        settlement = await ledger.settle("s", used(301), reason="idle")
        shares = query(ledger_url, "SELECT cost_n FROM lease ORDER BY use_number")
        # Minutes 1 and 2 were begun under acme, minute 3 under globex, 4 to 6 under nobody.
        assert shares == [(20_000_000,), (10_000_000,)]
        assert settlement.cost == Money.parse("0.06")
        assert settlement.idle == Money.parse("0.03")
        assert settlement.rounding.nanos == pytest.approx(59 * 10_000_000 / 60, abs=1)
        rollup = query(
            ledger_url, "SELECT tenant, cost_n, failed_n, leases, failures FROM rollup_hour ORDER BY tenant"
        )
        assert rollup == [
            ("acme", 20_000_000, 0, 1, 0),
            ("default", 30_000_000, 0, 0, 0),
            ("globex", 10_000_000, 10_000_000, 1, 1),
        ]
        assert query(ledger_url, "SELECT uses, failures FROM session") == [(2, 1)]
        assert query(ledger_url, "SELECT new FROM session_event") == [("idle",)]


async def test_an_overrun_is_booked_in_full_and_told(ledger_url):
    async with opened(ledger_url, budgets=[DAILY], clock=VirtualClock(NOON)) as ledger:
        await ledger.hold(ask())
        await ledger.settle("s", used(3600), reason="the provider closed late")
        window = query(ledger_url, "SELECT held_n, spent_n, forced_n FROM budget_window")
        assert window == [(0, 600_000_000, 500_000_000)]
        assert query(ledger_url, "SELECT session_id FROM alert_event WHERE kind = 'overrun'") == [("s",)]


async def test_an_orphan_is_settled_by_what_cannot_be_disproved_but_never_above_its_hold(ledger_url):
    clock = VirtualClock(NOON)
    async with opened(ledger_url, budgets=[DAILY], clock=clock) as ledger:
        await ledger.hold(ask("young"))
        clock.advance(130)
        assert (await ledger.settle_orphan("young", reason="owner died")).cost == Money.parse("0.03")
        await ledger.hold(ask("old"))
        clock.advance(86_400)
        assert (await ledger.settle_orphan("old", reason="owner died")).cost == Money.parse("0.10")
        # The owner was alive after all and knows better: still one bill, corrected.
        assert (await ledger.settle("old", used(60), reason="late")).cost == Money.parse("0.01")
        assert (await ledger.settle("old", used(60), reason="late")).cost == Money.parse("0.01")
        assert query(ledger_url, "SELECT id, quality FROM session ORDER BY id") == [
            ("old", "measured"),
            ("young", "estimate"),
        ]
        assert query(ledger_url, "SELECT kind, amount_n FROM entry WHERE session_id = 'old' ORDER BY id") == [
            ("hold", 0),
            ("settle", 100_000_000),
            ("adjust", -90_000_000),
        ]
        with pytest.raises(IdempotencyConflictError):
            await ledger.settle("old", used(61), reason="late")


async def test_a_cap_on_the_session_shortens_its_life_or_refuses_it(ledger_url):
    async with opened(ledger_url, clock=VirtualClock(NOON)) as ledger:
        hold = await ledger.hold(ask("a", max_session_cost=Money.parse("0.035")))
        assert hold.max_seconds == 180
        assert hold.amount == Money.parse("0.03")
        with pytest.raises(BudgetExceededError, match="max_session_cost") as error:
            await ledger.hold(ask("b", max_session_cost=Money.parse("0.009")))
        assert error.value.needed == Money.parse("0.01")


async def test_fault_k_what_has_no_price_or_no_worst_case_is_refused_never_free(ledger_url):
    unknown = {"kind": "cdp", "url": "ws://unused.invalid"}
    uncapped = {**unknown, "rates": {"per_hour": "0.60", "per_gb": "8"}}
    capped = {**unknown, "rates": {"per_hour": "0.60", "per_gb": "8", "max_gb": "0.5"}}
    async with opened(ledger_url, unknown=unknown, uncapped=uncapped, capped=capped) as ledger:
        with pytest.raises(NoPriceError, match=r"providers\.unknown\.rates"):
            await ledger.hold(ask(provider="unknown"))
        with pytest.raises(NoPriceError, match="max_gb"):
            await ledger.hold(ask(provider="uncapped"))
        with pytest.raises(NoPriceError, match="not in the configuration"):
            await ledger.hold(ask(provider="nobody"))
        assert query(ledger_url, "SELECT COUNT(*) FROM session") == [(0,)]
        assert (await ledger.hold(ask(provider="capped"))).amount == Money.parse("4.10")


async def test_local_chromium_is_free_and_no_budget_stops_it(ledger_url):
    async with opened(ledger_url, budgets=[{"name": "daily", "limit": "0.01"}]) as ledger:
        assert (await ledger.hold(ask(provider="local"))).amount == ZERO
        assert (await ledger.settle("s", used(3600), reason="done")).cost == ZERO


async def test_included_hours_are_used_up_once_a_month(ledger_url):
    rates = {"per_hour": "0.60", "increment": "1m", "included_hours": "0.05"}
    clock = VirtualClock(NOON)
    async with opened(
        ledger_url, plan={"kind": "cdp", "url": "ws://u.invalid", "rates": rates}, clock=clock
    ) as ledger:
        costs = []
        for i in range(3):
            await ledger.hold(ask(f"s{i}", provider="plan"))
            costs.append((await ledger.settle(f"s{i}", used(120), reason="idle")).cost)
        assert costs == [ZERO, Money.parse("0.01"), Money.parse("0.02")]
        clock.advance(31 * 86_400)
        await ledger.hold(ask("next", provider="plan"))
        assert (await ledger.settle("next", used(120), reason="idle")).cost == ZERO


async def test_a_price_change_leaves_running_sessions_their_price(ledger_url):
    clock = VirtualClock(NOON)
    async with opened(ledger_url, clock=clock) as ledger:
        await ledger.hold(ask("before"))
        dear = {"kind": "cdp", "url": "ws://u.invalid", "rates": {"per_hour": "6.00", "increment": "1m"}}
        clock.advance(5)
        async with opened(ledger_url, clock=clock, bb=dear) as newer:
            assert (await newer.hold(ask("after"))).amount == Money.parse("1.00")
            assert (await newer.settle("before", used(60), reason="idle")).cost == Money.parse("0.01")
            assert (await newer.settle("after", used(60), reason="idle")).cost == Money.parse("0.10")


async def test_the_estimate_and_the_proof_of_a_traffic_bill(ledger_url):
    rates = {"per_hour": "0.60", "increment": "1m", "per_gb": "8", "max_gb": "0.5"}
    async with opened(ledger_url, gb={"kind": "cdp", "url": "ws://u.invalid", "rates": rates}) as ledger:
        await ledger.hold(ask(provider="gb"))
        ledger.record_lease(lease(start=0, end=60, provider="gb", bytes_received=10))
        usage = used(120, proxy_bytes=125_000_000, quality=Quality.PROVIDER)
        settlement = await ledger.settle("s", usage, reason="idle")
        assert settlement.cost == Money.parse("1.02")
        # Half of what the meter of time added was the lease's, so half of the bill is.
        assert settlement.idle == Money.parse("0.51")


async def test_a_card_shows_the_price_in_force_and_closing_twice_is_fine(ledger_url):
    ledger = await Ledger.open(config(ledger_url))
    assert ledger.price_card("bb").plan == "bb"
    await ledger.owners.heartbeat({"queued": 3})
    assert query(ledger_url, "SELECT snapshot FROM process") == [('{"queued": 3}',)]
    await ledger.aclose()
    await ledger.aclose()
    assert query(ledger_url, "SELECT COUNT(*) FROM process WHERE ended_at IS NOT NULL") == [(1,)]
