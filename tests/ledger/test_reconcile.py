"""A provider's figures against ours: one more entry in the original window, once, and everything still adds up."""

import asyncio
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.clock import VirtualClock
from tabkeeper.ledger.comparing import SAID_KIND, Figures, Tolerance, between, bill_of
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.rates import price
from tabkeeper.money import Money

from .builders import NOON, PER_MINUTE, ask, config, lease, opened, query, used

CENT = 10_000_000
MINUTE = 60_000_000
DAILY = {"name": "daily", "limit": "0.20"}


def says(minutes=None, **more):
    return Figures(seconds_us=None if minutes is None else minutes * MINUTE, **more)


async def settled(ledger, session_id="s", seconds=60, **change):
    await ledger.hold(ask(session_id, **change))
    await ledger.activate(session_id, provider_session_id=f"p-{session_id}")
    await ledger.settle(session_id, used(seconds), reason="idle")


async def test_what_the_provider_billed_more_is_one_entry_however_often_it_is_compared(ledger_url):
    async with opened(ledger_url, budgets=[DAILY]) as ledger:
        await settled(ledger)
        first = await ledger.reconciliation.compare("s", says(3))
        again = await ledger.reconciliation.compare("s", says(3))
        assert (first.ours, first.theirs, first.adjusted) == (Money(CENT), Money(3 * CENT), True)
        assert (again.ours, again.theirs, again.adjusted) == (Money(3 * CENT), Money(3 * CENT), False)
        entries = "SELECT kind, amount_n, quality, corrects_id IS NOT NULL FROM entry ORDER BY id"
        assert query(ledger_url, entries)[1:] == [
            ("settle", CENT, "measured", 0),
            ("adjust", 2 * CENT, "provider", 1),
        ]
        assert query(ledger_url, "SELECT cost_n, seconds_us, quality FROM session") == [
            (3 * CENT, 3 * MINUTE, "provider")
        ]


async def test_many_processes_that_compare_at_once_adjust_once(ledger_url):
    ledgers = [await Ledger.open(config(ledger_url, budgets=[DAILY])) for _ in range(4)]
    await settled(ledgers[0])
    found = await asyncio.gather(
        *(one.reconciliation.compare("s", says(5)) for one in ledgers for _ in range(5))
    )
    assert sum(one.adjusted for one in found) == 1
    assert {one.theirs for one in found} == {Money(5 * CENT)}
    assert query(ledger_url, "SELECT spent_n FROM budget_window") == [(5 * CENT,)]
    assert await ledgers[0].verify() == []
    for one in ledgers:
        await one.aclose()


async def test_control_a_difference_worked_out_before_the_transaction_is_booked_many_times(ledger_url):
    async with opened(ledger_url, check=False) as ledger:
        await settled(ledger)

        async def naive():
            ((cost,),) = query(ledger_url, "SELECT cost_n FROM session")
            await asyncio.sleep(0)
            await ledger.transact(
                lambda tx: tx.run("UPDATE session SET cost_n = cost_n + :d", d=5 * CENT - cost)
            )

        await asyncio.gather(*(naive() for _ in range(5)))
        assert query(ledger_url, "SELECT cost_n FROM session") == [(21 * CENT,)]


async def test_an_adjustment_counts_in_the_day_of_the_session_not_in_that_of_the_look(ledger_url):
    clock = VirtualClock(NOON)
    async with opened(ledger_url, budgets=[DAILY], clock=clock) as ledger:
        await settled(ledger, "old")
        clock.advance(86_400)
        await settled(ledger, "new")
        await ledger.reconciliation.compare("old", says(4))
        windows = "SELECT label, spent_n FROM budget_window ORDER BY start_at"
        assert query(ledger_url, windows) == [("2026-03-04", 4 * CENT), ("2026-03-05", CENT)]
        day = await ledger.spent(start=NOON, end=NOON + timedelta(hours=1))
        assert day == Money(4 * CENT)


async def test_less_is_given_back_and_leases_bear_their_part_of_what_is_left(ledger_url):
    async with opened(ledger_url, budgets=[DAILY]) as ledger:
        await ledger.hold(ask("s"))
        ledger.record_lease(lease("s", 1, 0, 120, tenant="acme"))
        ledger.record_lease(lease("s", 2, 180, 300, tenant="beta"))
        await ledger.settle("s", used(600), reason="idle")
        shares = "SELECT cost_n FROM lease ORDER BY use_number"
        assert query(ledger_url, shares) == [(2 * CENT,), (2 * CENT,)]
        await ledger.reconciliation.compare("s", says(4))
        assert query(ledger_url, shares) == [(2 * CENT,), (CENT,)]
        assert query(ledger_url, "SELECT cost_n, idle_n FROM session") == [(4 * CENT, CENT)]
        by_tenant = "SELECT tenant, cost_n, idle_n FROM rollup_hour ORDER BY tenant"
        assert query(ledger_url, by_tenant) == [
            ("acme", 2 * CENT, 0),
            ("beta", CENT, 0),
            ("default", CENT, CENT),
        ]
        assert query(ledger_url, "SELECT spent_n, held_n FROM budget_window") == [(4 * CENT, 0)]


async def test_an_adjustment_that_passes_a_limit_is_forced_and_told_and_the_next_session_refused(ledger_url):
    async with opened(ledger_url, budgets=[DAILY, {"name": "wide", "limit": "9.00"}]) as ledger:
        await settled(ledger, seconds=600)
        await ledger.hold(ask("running"))
        await ledger.reconciliation.compare("s", says(13))
        windows = "SELECT limit_n, spent_n, held_n, forced_n FROM budget_window ORDER BY limit_n"
        assert query(ledger_url, windows) == [
            (20 * CENT, 13 * CENT, 10 * CENT, 3 * CENT),
            (900 * CENT, 13 * CENT, 10 * CENT, 0),
        ]
        told = "SELECT budget, amount_n, session_id FROM alert_event WHERE kind = 'overrun'"
        assert query(ledger_url, told) == [("daily", 3 * CENT, "s")]


async def test_a_limit_passed_is_told_also_where_an_earlier_overrun_would_cover_it(ledger_url):
    async with opened(ledger_url, budgets=[DAILY]) as ledger:
        await settled(ledger, "dear", seconds=720)
        await settled(ledger, "s", seconds=480, max_seconds=480)
        assert query(ledger_url, "SELECT spent_n, forced_n FROM budget_window") == [(20 * CENT, 2 * CENT)]
        await ledger.reconciliation.compare("s", says(9))
        await ledger.reconciliation.compare("s", says(11))
        assert query(ledger_url, "SELECT spent_n, forced_n FROM budget_window") == [(23 * CENT, 3 * CENT)]
        told = "SELECT amount_n FROM alert_event WHERE kind = 'overrun' AND session_id = 's' ORDER BY id"
        assert query(ledger_url, told) == [(CENT,), (2 * CENT,)]


async def test_a_provider_may_change_its_mind_and_come_back(ledger_url):
    async with opened(ledger_url, budgets=[DAILY]) as ledger:
        await settled(ledger)
        for minutes in (3, 1, 3):
            assert (await ledger.reconciliation.compare("s", says(minutes))).adjusted
        amounts = [amount for (amount,) in query(ledger_url, "SELECT amount_n FROM entry ORDER BY id")]
        assert amounts == [0, CENT, 2 * CENT, -2 * CENT, 2 * CENT]


async def test_a_measure_that_comes_after_the_providers_figures_changes_nothing(ledger_url):
    async with opened(ledger_url) as ledger:
        await ledger.hold(ask("s"))
        await ledger.settle_orphan("s", reason="owner died")
        await ledger.reconciliation.compare("s", says(7))
        assert (await ledger.settle("s", used(60), reason="late")).cost == Money(7 * CENT)


async def test_an_estimate_that_the_provider_confirms_is_none_any_more(ledger_url):
    clock = VirtualClock(NOON)
    async with opened(ledger_url, clock=clock) as ledger:
        await ledger.hold(ask("s"))
        clock.advance(60)
        await ledger.settle_orphan("s", reason="owner died")
        assert (await ledger.reconciliation.compare("s", says(1))).adjusted
        assert query(ledger_url, "SELECT amount_n, quality FROM entry WHERE kind = 'adjust'") == [
            (0, "provider")
        ]
        assert query(ledger_url, "SELECT quality FROM session") == [("provider",)]


async def test_what_the_provider_says_it_billed_counts_more_than_our_price_list(ledger_url):
    fee = {"kind": "cdp", "url": "ws://u.invalid", "rates": {**PER_MINUTE, "per_session": "0.03"}}
    async with opened(ledger_url, fee=fee) as ledger:
        await settled(ledger, provider="fee")
        await ledger.reconciliation.compare("s", says(2, cost=Money(5 * CENT)))
        lines = "SELECT n.kind, SUM(n.amount_n) FROM entry_line n GROUP BY n.kind HAVING SUM(n.amount_n) <> 0"
        # Two minutes explain two cents of its five; the fee is no part of what it tells.
        assert sorted(query(ledger_url, lines)) == [
            (SAID_KIND, 3 * CENT),
            ("session", 3 * CENT),
            ("time", 2 * CENT),
        ]


async def test_only_looking_leaves_no_trace(ledger_url):
    async with opened(ledger_url, budgets=[DAILY]) as ledger:
        await settled(ledger)
        seen = await ledger.reconciliation.compare("s", says(30), dry_run=True)
        assert (seen.ours, seen.theirs, seen.adjusted) == (Money(CENT), Money(30 * CENT), True)
        assert query(ledger_url, "SELECT COUNT(*) FROM entry WHERE kind = 'adjust'") == [(0,)]
        assert query(ledger_url, "SELECT COUNT(*) FROM alert_event WHERE kind = 'overrun'") == [(0,)]
        assert query(ledger_url, "SELECT COUNT(*) FROM recon_item") == [(0,)]


async def test_time_that_the_provider_takes_back_is_free_again_for_others(ledger_url):
    plan = {"kind": "cdp", "url": "ws://u.invalid", "rates": {**PER_MINUTE, "included_hours": "0.1"}}
    async with opened(ledger_url, plan=plan) as ledger:
        await settled(ledger, "a", seconds=360, provider="plan")
        await settled(ledger, "b", seconds=120, provider="plan")
        assert query(ledger_url, "SELECT cost_n FROM session ORDER BY id") == [(0,), (2 * CENT,)]
        await ledger.reconciliation.compare("a", says(4))
        await ledger.reconciliation.compare("b", says(3))
        assert query(ledger_url, "SELECT cost_n FROM session ORDER BY id") == [(0,), (CENT,)]


async def test_who_is_due_is_asked_until_figures_come_but_not_for_ever(ledger_url):
    clock = VirtualClock(NOON)
    async with opened(ledger_url, clock=clock) as ledger:
        for name in ("told", "late", "mute"):
            await settled(ledger, name)
        await ledger.hold(ask("open"))
        await ledger.hold(ask("void"))
        await ledger.void("void", reason="refused")

        async def due(**more):
            terms = {"since": NOON, "settled_for": timedelta(seconds=60), "most": 10, **more}
            return {one.session_id: one for one in await ledger.reconciliation.due("bb", **terms)}

        assert await due() == {}, "too early"
        clock.advance(60)
        first = await due()
        assert first.keys() == {"told", "late", "mute"}
        assert len(await due(most=2)) == 2
        await ledger.reconciliation.compare("told", says(1))
        for name in ("late", "mute"):
            await ledger.reconciliation.not_yet(first[name])
        assert await due() == {}
        clock.advance(61)
        later = await due()
        assert {name: one.attempts for name, one in later.items()} == {"late": 1, "mute": 1}
        await ledger.reconciliation.compare("late", says(2))
        clock.advance(90_000)
        await ledger.reconciliation.not_yet((await due())["mute"])
        clock.advance(90_000)
        assert await due() == {}
        assert (await due(again=True)).keys() == {"told", "late", "mute"}
        states = "SELECT session_id, state FROM recon_item ORDER BY session_id"
        assert query(ledger_url, states) == [("late", "compared"), ("mute", "silent"), ("told", "compared")]


async def test_the_capture_rate_tells_ours_by_theirs_for_each_provider_and_day(ledger_url):
    clock = VirtualClock(NOON)
    other = {"kind": "cdp", "url": "ws://u.invalid", "rates": PER_MINUTE}
    async with opened(ledger_url, clock=clock, other=other) as ledger:
        await settled(ledger, "a", seconds=120)
        await settled(ledger, "b", seconds=60)
        await settled(ledger, "mute", seconds=60)
        await settled(ledger, "c", provider="other")
        for name, minutes in (("a", 3), ("b", 1), ("c", 1)):
            await ledger.reconciliation.compare(name, says(minutes))
        found = await ledger.reconciliation.captured(start=NOON, end=NOON + timedelta(days=1))
        day = date(2026, 3, 4)
        assert [(one.provider, one.day, one.sessions, one.compared) for one in found] == [
            ("bb", day, 3, 2),
            ("other", day, 1, 1),
        ]
        # As we booked it ourselves, before the adjustment.
        assert [one.rate for one in found] == [0.75, 1.0]


async def test_drift_is_one_row_and_one_alert_however_often_it_is_seen(ledger_url):
    clock = VirtualClock(NOON)
    async with opened(ledger_url, clock=clock) as ledger:
        for _ in range(3):
            await ledger.drift.note("ended", "bb", "it says that s is over", session_id="s")
            await ledger.drift.note("refuses", "bb", "lists none, refuses new ones")
            clock.advance(60)
        seen = {one.kind: one for one in await ledger.drift.seen(since=NOON)}
        assert {kind: one.times for kind, one in seen.items()} == {"ended": 3, "refuses": 3}
        assert seen["ended"].last_at - seen["ended"].first_at == timedelta(seconds=120)
        assert query(ledger_url, "SELECT COUNT(*) FROM alert_event WHERE kind = 'drift'") == [(2,)]
        clock.advance(86_400)
        await ledger.drift.note("refuses", "bb", "again")
        assert query(ledger_url, "SELECT COUNT(*) FROM alert_event WHERE kind = 'drift'") == [(3,)]


CARD = config(
    "sqlite://", fee={"kind": "cdp", "url": "ws://u", "rates": {**PER_MINUTE, "per_gb": "2", "max_gb": "9"}}
)


@pytest.fixture(scope="module")
def card():
    from tabkeeper.ledger.prices import Prices

    return Prices(CARD.providers).current("fee", NOON)


@given(
    ours=st.integers(0, 10**10),
    traffic=st.integers(0, 10**10),
    says_us=st.none() | st.integers(0, 10**10),
    says_bytes=st.none() | st.integers(0, 10**10),
    cost=st.none() | st.integers(0, 10**12).map(Money),
)
def test_the_lines_between_lead_from_any_bill_to_the_other(card, ours, traffic, says_us, says_bytes, cost):
    measured = bill_of(card, Figures(), seconds_us=ours, proxy_bytes=traffic, included_left={})
    assert sum(line.amount.nanos for line in measured) == price(card, ours / 1e6, traffic).nanos
    figures = Figures(seconds_us=says_us, proxy_bytes=says_bytes, cost=cost)
    wanted = bill_of(card, figures, seconds_us=ours, proxy_bytes=traffic, included_left={})
    total = sum(line.amount.nanos for line in wanted)
    if cost is not None:
        assert total == cost.nanos
    change = between({line.kind: line for line in measured}, wanted)
    paid = sum(line.amount.nanos for line in measured)
    assert paid + sum(line.amount.nanos for line in change) == total
    assert between({line.kind: line for line in wanted}, wanted) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "passed"),
    [(100, 100, False), (100, 102, False), (100, 103, True), (5, 6, False), (100, 97, True), (0, 2, True)],
)
def test_a_tolerance_is_the_larger_of_two_allowances(ours, theirs, passed):
    tolerance = Tolerance(absolute=Money(1), relative=0.02)
    assert tolerance.is_passed(Money(ours), Money(theirs)) is passed
