"""What people see: aligned, within 100 columns, readable without colour."""

import io
from datetime import UTC, date, datetime, timedelta

import pytest
from rich.console import Console

from tabkeeper.money import ZERO, Money
from tabkeeper.reports.daily import build_report
from tabkeeper.reports.render_table import WIDTH, bar, budget_table, money_column, print_report, spark
from tabkeeper.reports.report import BudgetFigures, CostReport, Group, Previous, Usage


def shown(found, width=WIDTH):
    page = io.StringIO()
    print_report(found, Console(file=page, width=width, color_system=None))
    return page.getvalue()


def report(story, zone="America/New_York", day=None, period="day"):
    return build_report(story.ledger.reader, period=period, zone=zone, now=story.clock.now(), day=day)


@pytest.mark.parametrize("period", ["day", "month"])
async def test_the_whole_story_is_told_within_100_columns(golden, period):
    found = report(golden, day=date(2026, 11, 1), period=period)
    page = shown(found)
    assert max(map(len, page.splitlines())) <= WIDTH
    assert max(map(len, shown(found, 200).splitlines())) <= WIDTH, "wider terminals do not tear it apart"
    for words in (
        "Cost of Sunday 1 November 2026" if period == "day" else "Cost of November 2026",
        "America/New_York", "UTC", "Platform", "Provider", "Tenant", "Component", "Paid for, not used", "idle",
        "rounding", "failures", "Budget", "Refused", "Reuse", "Average wait", "Browser hours", "Held now: $0.061",
        "are estimates", "A session counts, whole, in the hour", "acme counts only tenant acme", "entry ",
        "Hours leased", "Leases and their cost count for who leased",
    ):  # fmt: skip
        assert words in page, words
    assert ("25 hours (clocks change)" in page) == (period == "day")


async def test_an_open_period_says_what_is_left_and_that_history_is_short(golden):
    page = shown(report(golden))
    assert "open, " in page
    assert "Not enough history for a forecast: 3 closed days of 7 needed." in page
    assert "Run-rate" in page
    assert "of which" in page


async def test_one_of_a_thing_is_not_many_and_a_day_without_cost_before_is_told_as_such(story):
    await story.session(datetime(2026, 5, 1, 6, 15, tzinfo=UTC), leases=((0.0, 10.0), (20.0, 30.0)))
    await story.session(datetime(2026, 5, 2, 9, tzinfo=UTC), settled=False)
    first = shown(report(story, "UTC", date(2026, 5, 1)))
    assert "1 lease " in first
    assert "$0.00 on 04-30" in first
    assert "Before: no session in 2026-04-30." in first
    assert "$0.00 in 2026-04" in shown(report(story, "UTC", date(2026, 5, 1), "month"))
    second = shown(report(story, "UTC"))
    assert "Before: $0.0130 for 1 session in 2026-05-01" in second
    assert "for 1 open session;" in second
    assert "1 sessions" not in first + second


async def test_a_future_day_has_not_begun(golden):
    page = shown(report(golden, day=date(2027, 1, 1)))
    assert "not begun" in page
    assert "Nothing was settled in this period." in page


async def test_a_free_pool_is_told_by_its_hours(story):
    await story.session(datetime(2026, 2, 1, 12, tzinfo=UTC), provider="local", seconds=3600)
    await story.session(datetime(2026, 2, 1, 13, tzinfo=UTC), provider="local", platform="maps", seconds=1200)
    page = shown(report(story, "UTC", date(2026, 2, 1)))
    assert "All of it ran where nothing is charged" in page
    assert " 75%" in page
    assert "Sessions by hour" in page
    assert "1.33 h" in page


async def test_zones_off_the_hour_go_without_a_timeline_and_say_so(golden):
    page = shown(report(golden, "Asia/Kathmandu", date(2026, 11, 1)))
    assert "No timeline" in page
    assert "2026-10-31 18:15 to 2026-11-01 18:15 UTC" in page


def test_many_tenants_end_in_a_row_of_others_that_keeps_the_sum():
    groups = tuple(Group(name=f"t{n:02d}", cost=Money.parse("1"), sessions=1) for n in range(25))
    now = datetime(2026, 1, 2, tzinfo=UTC)
    found = CostReport(
        period="day", label="2026-01-01", timezone="UTC", start=now - timedelta(days=1), end=now, hours=24, now=now,
        is_open=False, totals=Usage(cost=Money.parse("25"), sessions=25), previous=Previous(label="2025-12-31"),
        tenants=groups,
    )  # fmt: skip
    page = shown(found)
    assert "(16 others)" in page
    assert "$16.00" in page
    assert "t09" not in page


def test_money_in_a_column_has_one_number_of_places_and_never_hides_an_amount():
    assert money_column([Money.parse("1234.5"), Money.parse("0.25"), None]) == ["$1,234.50", "$0.25", "-"]
    assert money_column([Money.parse("1.23456"), ZERO, Money.parse("-0.5")]) == [
        "$1.2346",
        "$0.0000",
        "-$0.5000",
    ]
    assert money_column([Money.parse("5"), Money(1)]) == ["$5.000000000", "$0.000000001"]
    assert money_column([Money.parse("5"), Money.parse("0.00002")]) == ["$5.00000", "$0.00002"]
    assert money_column([]) == []


@pytest.mark.parametrize(
    ("spent", "held", "drawn"),
    [
        (0, 0, "··········"), (0.5, 0, "█████·····"), (0.5, 0.2, "█████▒▒···"),
        (1, 0, "██████████"), (3, 1, "██████████"),
        (0.001, 0, "█·········"), (0.9, 0.9, "█████████▒"), (0, 0.001, "··········"),
    ],
)  # fmt: skip
def test_bars_fill_to_their_end_and_not_beyond(spent, held, drawn):
    assert bar(spent, held, 10) == drawn


def test_sparks_show_nothing_as_a_dot_and_the_most_as_a_full_block():
    assert spark([0, 1, 50, 100]) == "·▂▅█"
    assert spark([]) == ""
    assert spark([0, 0]) == "··"


def test_a_budget_beyond_its_limit_says_how_far_and_why():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    budget = BudgetFigures(
        name="daily", scope="provider steel", period="day", timezone="UTC", mode="soft", label="2026-01-01",
        starts_at=now, resets_at=now + timedelta(days=1), limit=Money.parse("10"), spent=Money.parse("12.5"),
        forced=Money.parse("2.5"), denied=3, windows=2, denied_in_period=5,
    )  # fmt: skip
    page = io.StringIO()
    Console(file=page, width=WIDTH, color_system=None).print(budget_table([budget]))
    for words in (
        "daily (soft)",
        "██████████████ 125%",
        "counts only provider steel",
        "$2.50 came in without",
        "5 refused",
    ):
        assert words in page.getvalue(), words
