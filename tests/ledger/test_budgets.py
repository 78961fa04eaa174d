"""Budgets: who is refused, who is told, and what happens when limits or days change."""

from datetime import UTC, datetime, timedelta

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import BudgetExceededError
from tabkeeper.money import Money

from .builders import NOON, ask, config, lease, opened, query, used


async def test_the_refusal_carries_every_fact(ledger_url):
    budget = {"name": "daily", "limit": "0.25", "timezone": "America/New_York", "on_exceed": "wait"}
    async with opened(ledger_url, budgets=[budget], clock=VirtualClock(NOON)) as ledger:
        await ledger.hold(ask("a"))
        await ledger.hold(ask("b"))
        await ledger.settle("a", used(60), reason="idle")
        await ledger.hold(ask("c"))
        with pytest.raises(BudgetExceededError) as refused:
            await ledger.hold(ask("d"))
        error = refused.value
        assert (error.budget, error.on_exceed) == ("daily", "wait")
        assert (error.limit, error.spent) == (Money.parse("0.25"), Money.parse("0.01"))
        assert (error.held, error.needed) == (Money.parse("0.20"), Money.parse("0.10"))
        assert str(error) == (
            'Budget "daily" has $0.04 left of $0.25 ($0.01 spent, $0.20 held) and a session of "web" at bb '
            "may cost $0.10; resets 2026-03-05 00:00 EST. Raise it; or make holds smaller with a shorter "
            "session_ttl or lease_timeout, or with max_session_cost"
        )
        # A refusal leaves nothing behind but its count.
        assert query(ledger_url, "SELECT denied FROM budget_window") == [(1,)]
        assert query(ledger_url, "SELECT COUNT(*) FROM session WHERE id = 'd'") == [(0,)]


@pytest.mark.parametrize(
    ("scope", "outside"),
    [
        ({"platform": "web"}, {"platform": "maps"}),
        ({"provider": "bb"}, {"provider": "other"}),
        ({"tenant": "acme"}, {"tenant": "globex"}),
    ],
    ids=["platform", "provider", "tenant"],
)
async def test_a_budget_counts_only_its_scope(sqlite_url, scope, outside):
    other = {"kind": "cdp", "url": "ws://u.invalid", "rates": {"per_hour": "0.60"}}
    async with opened(sqlite_url, budgets=[{"name": "n", "limit": "0.10", **scope}], other=other) as ledger:
        await ledger.hold(ask("a", tenant="acme"))
        with pytest.raises(BudgetExceededError):
            await ledger.hold(ask("b", tenant="acme"))
        await ledger.hold(ask("c", **{"tenant": "acme", **outside}))


async def test_one_refusal_rolls_back_all_scopes(ledger_url):
    budgets = [
        {"name": "wide", "limit": "5.00"},
        {"name": "narrow", "limit": "0.15", "platform": "web"},
        {"name": "late", "limit": "5.00", "period": "month"},
    ]
    async with opened(ledger_url, budgets=budgets) as ledger:
        await ledger.hold(ask("a"))
        with pytest.raises(BudgetExceededError, match="narrow"):
            await ledger.hold(ask("b"))
        held = query(ledger_url, "SELECT DISTINCT held_n FROM budget_window")
        assert held == [(100_000_000,)]


async def test_a_soft_budget_only_counts(ledger_url):
    async with opened(ledger_url, budgets=[{"name": "soft", "limit": "0.15", "mode": "soft"}]) as ledger:
        for i in range(3):
            await ledger.hold(ask(str(i)))
            await ledger.settle(str(i), used(600), reason="idle")
        assert query(ledger_url, "SELECT spent_n, denied FROM budget_window") == [(300_000_000, 0)]
        assert _told(ledger_url, "spent") == [500_000, 800_000, 1_000_000]


async def test_each_crossing_is_told_once_whatever_goes_up_and_down(ledger_url):
    budget = {"name": "daily", "limit": "1.00", "thresholds": [0.1, 0.2, 0.3]}
    async with opened(ledger_url, budgets=[budget]) as ledger:
        for i in range(12):
            await ledger.hold(ask(f"a{i}"))
            await (
                ledger.void(f"a{i}", reason="no")
                if i % 2
                else ledger.settle(f"a{i}", used(120), reason="idle")
            )
        assert query(ledger_url, "SELECT spent_n FROM budget_window") == [(120_000_000,)]
        assert _told(ledger_url, "committed") == [100_000, 200_000]
        assert _told(ledger_url, "spent") == [100_000]


async def test_the_first_refusal_of_a_window_is_told_once(ledger_url):
    async with opened(ledger_url, budgets=[{"name": "daily", "limit": "0.10"}]) as ledger:
        await ledger.hold(ask("a"))
        for i in range(3):
            with pytest.raises(BudgetExceededError):
                await ledger.hold(ask(f"b{i}"))
        assert query(ledger_url, "SELECT COUNT(*) FROM alert_event WHERE kind = 'denied'") == [(1,)]
        assert query(ledger_url, "SELECT denied FROM budget_window") == [(3,)]


async def test_a_changed_limit_keeps_what_was_spent_and_records_what_it_uncovers(ledger_url):
    async with opened(ledger_url, budgets=[{"name": "daily", "limit": "0.50"}]) as ledger:
        for i in range(4):
            await ledger.hold(ask(str(i)))
        await ledger.apply_budgets(config(ledger_url, budgets=[{"name": "daily", "limit": "0.25"}]).budgets)
        window = "SELECT limit_n, held_n, forced_n FROM budget_window"
        assert query(ledger_url, window) == [(250_000_000, 400_000_000, 150_000_000)]
        assert await ledger.verify() == []
        with pytest.raises(BudgetExceededError):
            await ledger.hold(ask("more"))
        await ledger.apply_budgets(config(ledger_url, budgets=[{"name": "daily", "limit": "0.50"}]).budgets)
        await ledger.hold(ask("more"))
        assert query(ledger_url, "SELECT COUNT(*) FROM budget") == [(3,)]


async def test_another_process_obeys_a_new_limit_with_its_next_hold(ledger_url):
    old, new = [{"name": "daily", "limit": "0.50"}], [{"name": "daily", "limit": "0.15"}]
    async with opened(ledger_url, budgets=old) as ledger:
        await ledger.hold(ask("a"))
        async with opened(ledger_url, budgets=new):
            with pytest.raises(BudgetExceededError, match=r"of \$0.15"):
                await ledger.hold(ask("b"))


async def test_a_retired_budget_refuses_nobody_but_still_takes_its_settlements(ledger_url):
    async with opened(ledger_url, budgets=[{"name": "daily", "limit": "0.10"}]) as ledger:
        await ledger.hold(ask("a"))
        await ledger.apply_budgets(())
        await ledger.hold(ask("b"))
        await ledger.settle("a", used(60), reason="idle")
        assert query(ledger_url, "SELECT held_n, spent_n FROM budget_window") == [(0, 10_000_000)]


async def test_looking_changes_no_budget_and_registers_nobody(ledger_url):
    async with opened(ledger_url, budgets=[{"name": "daily", "limit": "0.10"}]) as ledger:
        async with opened(ledger_url, observe=True):
            pass
        await ledger.hold(ask("a"))
        assert query(ledger_url, "SELECT COUNT(*) FROM process") == [(1,)]
        with pytest.raises(BudgetExceededError):
            await ledger.hold(ask("b"))


async def test_fault_l_a_session_counts_on_the_day_it_was_held_though_the_day_changes(ledger_url):
    clock = VirtualClock(datetime(2026, 3, 8, 4, 59, tzinfo=UTC))  # a minute to midnight in New York
    budget = {"name": "daily", "limit": "0.10", "timezone": "America/New_York"}
    async with opened(ledger_url, budgets=[budget], clock=clock) as ledger:
        await ledger.hold(ask("yesterday's"))
        clock.advance(120)
        await ledger.hold(ask("today's"))
        await ledger.settle("yesterday's", used(120), reason="idle")
        windows = "SELECT label, held_n, spent_n, end_at - start_at FROM budget_window ORDER BY start_at"
        day = 3_600_000_000
        # The 8th of March 2026 has 23 hours there: clocks go forward.
        assert query(ledger_url, windows) == [
            ("2026-03-07", 0, 20_000_000, 24 * day),
            ("2026-03-08", 100_000_000, 0, 23 * day),
        ]


@pytest.mark.parametrize(
    ("zone", "start", "days"),
    [
        ("America/New_York", datetime(2026, 10, 31, tzinfo=UTC), 3),  # 25 hours
        ("Africa/Cairo", datetime(2026, 4, 23, tzinfo=UTC), 3),  # midnight does not exist
        ("Asia/Kathmandu", datetime(2028, 2, 28, tzinfo=UTC), 3),  # 45 minutes off the hour, leap day
    ],
)
async def test_fault_l_every_session_of_odd_days_falls_into_exactly_one_window(sqlite_url, zone, start, days):
    clock = VirtualClock(start)
    budgets = [
        {"name": p, "limit": "100", "timezone": zone, "period": p} for p in ("day", "week", "month", "total")
    ]
    async with opened(sqlite_url, budgets=budgets, clock=clock, inline=True) as ledger:
        count = 0
        while clock.now() < start + timedelta(days=days):
            await ledger.hold(ask(str(count)))
            await ledger.settle(str(count), used(60), reason="idle")
            count += 1
            clock.advance(1807)
        total = "SELECT b.period, SUM(w.spent_n) FROM budget_window w JOIN budget b ON b.id = w.budget_id GROUP BY 1"
        assert {row[1] for row in query(sqlite_url, total)} == {count * 10_000_000}
        half = start + timedelta(hours=30, minutes=45)
        sides = await ledger.spent(start=start, end=half), await ledger.spent(start=half, end=clock.now())
        assert sides[0] + sides[1] == Money(count * 10_000_000)


async def test_fault_q_a_clock_that_jumps_back_breaks_nothing(ledger_url):
    clock = VirtualClock(NOON)
    async with opened(ledger_url, budgets=[{"name": "daily", "limit": "1.00"}], clock=clock) as ledger:
        await ledger.hold(ask("a"))
        clock.jump(-7200)
        ledger.record_lease(lease("a", start=0, end=30))
        assert (await ledger.settle_orphan("a", reason="lost")).cost == Money.parse("0.01")
        clock.jump(+90_000)
        await ledger.hold(ask("b"))
        await ledger.settle("b", used(60), reason="idle")


def _told(url, metric):
    sql = "SELECT share_ppm FROM alert_event WHERE kind = 'threshold' AND metric = :m ORDER BY share_ppm"
    return [row[0] for row in query(url, sql, m=metric)]
