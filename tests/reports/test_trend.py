"""Seven days side by side agree with seven reports, and say nothing about days that nobody saw."""

import io
import json
from datetime import UTC, date, datetime, timedelta

import pytest
from rich.console import Console

from tabkeeper.money import ZERO, Money
from tabkeeper.reports.daily import build_report
from tabkeeper.reports.render_json import read_json, render_json
from tabkeeper.reports.render_table import WIDTH, print_report
from tabkeeper.reports.render_trend import has_trend, trend_table
from tabkeeper.reports.report import Trend, TrendDay, TrendRow
from tabkeeper.reports.trend import change

ONE = Money.parse("0.013")
"""Cost of the story's usual session."""


def report(story, zone="UTC", day=None, period="day"):
    return build_report(story.ledger.reader, period=period, zone=zone, now=story.clock.now(), day=day)


def page_of(found, width=WIDTH):
    page = io.StringIO()
    print_report(found, Console(file=page, width=width, color_system=None))
    return page.getvalue()


def table_of(found):
    """The lines of the trend alone, from its heading to its caption."""
    lines = page_of(found).splitlines()
    first = next(n for n, text in enumerate(lines) if text.startswith(("Platform by day", "Sessions by day")))
    return [text.rstrip() for text in lines[first : lines.index(" " * WIDTH, first)]]


@pytest.mark.parametrize(
    "zone", ["UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Kiritimati"]
)
async def test_every_day_agrees_with_the_report_of_that_day(golden, zone):
    """In New York a day of 25 hours is among them; in India and Nepal midnight falls inside an hour of UTC."""
    found = report(golden, zone, date(2026, 11, 3)).trend
    assert [day.label for day in found.days] == [
        "2026-10-28", "2026-10-29", "2026-10-30", "2026-10-31", "2026-11-01", "2026-11-02", "2026-11-03",
    ]  # fmt: skip
    compared = 0
    for n, day in enumerate(found.days):
        alone = report(golden, zone, date.fromisoformat(day.label))
        assert (day.start, day.end) == (alone.start, alone.end)
        if found.total.costs[n] is None:
            assert alone.cells == ()
            continue
        assert found.total.costs[n] == alone.totals.cost
        assert found.total.sessions[n] == alone.totals.sessions
        shown = {row.name: (row.costs[n], row.sessions[n]) for row in found.platforms}
        for group in alone.platforms:
            assert shown.pop(group.name) == (group.cost, group.sessions)
            compared += 1
        assert set(shown.values()) <= {(ZERO, 0)}
    assert compared >= 6
    assert sum(row.total.nanos for row in found.platforms) == found.total.total.nanos > 0


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 11, 4), [24, 24, 24, 25, 24, 24, 24]), (date(2026, 3, 10), [24] * 4 + [23, 24, 24])]
)  # fmt: skip
async def test_a_week_in_which_clocks_change_has_a_longer_or_a_shorter_day(story, day, hours):
    days = report(story, "America/New_York", day).trend.days
    assert [(part.end - part.start) / timedelta(hours=1) for part in days] == hours
    assert [part.end for part in days[:-1]] == [part.start for part in days[1:]]


async def test_days_before_the_first_session_are_dashes_and_idle_days_cost_nothing(story):
    await story.session(datetime(2026, 5, 3, 12, tzinfo=UTC))
    await story.session(datetime(2026, 5, 5, 12, tzinfo=UTC), platform="maps")
    found = report(story, day=date(2026, 5, 5))
    assert found.trend.total.costs == (None, None, None, None, ONE, ZERO, ONE)
    assert [row.costs[4:] for row in found.trend.platforms] == [(ZERO, ZERO, ONE), (ONE, ZERO, ZERO)]
    heading, _, maps, web, total, caption = table_of(found)
    assert heading.split()[3:] == [
        "Wed", "29", "Thu", "30", "Fri", "1", "Sat", "2", "Sun", "3", "Mon", "4", "Tue", "5", "Total", "Change", "Days",
    ]  # fmt: skip
    assert maps.split() == ["maps", "-", "-", "-", "-", "$0", "$0", "$0.0130", "$0.0130", "······█"]
    assert web.split() == ["web", "-", "-", "-", "-", "$0.0130", "$0", "$0", "$0.0130", "-100%", "····█··"]
    assert total.split()[-3:] == ["$0.0260", "+100%", "····█·█"]
    assert caption == (
        "Change: Tue 5 so far against the mean of the 2 days before. - is a day that the ledger has not seen."
    )


@pytest.mark.parametrize(
    ("minute", "costs"),
    [(29, (None, None, None, None, None, ONE, ZERO)), (31, (None, None, None, None, None, None, ONE))],
)
async def test_a_ledger_that_began_in_the_hour_of_an_indian_midnight_knows_on_which_side(
    story, minute, costs
):
    """Midnight of 2026-05-05 in India is 18:30 UTC, in the middle of the ledger's first hour."""
    await story.session(datetime(2026, 5, 4, 18, minute, tzinfo=UTC))
    assert report(story, "Asia/Kolkata", date(2026, 5, 5)).trend.total.costs == costs


async def test_a_hold_without_a_bill_beside_a_broken_midnight_makes_no_row(story):
    await story.session(datetime(2026, 5, 4, 18, 10, tzinfo=UTC), platform="still-open", settled=False)
    assert report(story, "Asia/Kolkata", date(2026, 5, 5)).trend.platforms == ()


async def test_an_open_month_ends_with_today_and_a_closed_one_with_its_last_day(golden):
    now_open = report(golden, "America/New_York", date(2026, 11, 20), "month").trend
    closed = report(golden, "America/New_York", date(2026, 10, 1), "month").trend
    assert now_open.days[-1].label == "2026-11-03"
    assert closed.days[-1].label == "2026-10-31"
    assert closed == report(golden, "America/New_York", date(2026, 10, 31)).trend
    assert now_open == report(golden, "America/New_York").trend


async def test_days_to_come_are_dashes_and_have_no_change(story):
    await story.session(datetime(2026, 5, 3, 12, tzinfo=UTC))
    found = report(story, day=date(2026, 5, 5)).trend
    assert found.total.costs[-3:] == (ONE, None, None)
    assert found.total.change is None


async def test_an_empty_ledger_has_seven_unseen_days_and_no_table(story):
    found = report(story)
    assert found.trend.total.costs == (None,) * 7
    assert (found.trend.platforms, found.trend.total.total, found.trend.total.change) == ((), ZERO, None)
    assert "by day" not in page_of(found)


async def test_the_first_days_of_the_calendar_have_fewer_days_before_them(story):
    assert [day.label for day in report(story, day=date(1, 1, 3)).trend.days] == ["0001-01-03"]


async def test_a_free_pool_counts_its_sessions(story):
    for day in (4, 4, 5):
        await story.session(datetime(2026, 5, day, 12, tzinfo=UTC), provider="local")
    heading, _, web, total, _ = table_of(report(story, day=date(2026, 5, 5)))
    assert heading.startswith("Sessions by day")
    assert "Change" not in heading
    assert web.split() == ["web", "-", "-", "-", "-", "-", "2", "1", "3", "·····█▅"]
    assert total.split()[1:] == web.split()[1:]


async def test_json_keeps_exact_costs_and_tells_unseen_from_free(golden):
    found = report(golden, "Asia/Kathmandu", date(2026, 11, 1))
    text = render_json(found)
    assert read_json(text) == found
    trend = json.loads(text)["trend"]
    assert trend["total"]["costs"] == [
        None if cost is None else cost.text() for cost in found.trend.total.costs
    ]
    assert None in trend["total"]["costs"]
    assert Money.parse(trend["total"]["costs"][-1]) == found.totals.cost


async def test_a_report_written_before_there_was_a_trend_can_still_be_read(golden):
    old = json.loads(render_json(report(golden)))
    del old["trend"]
    found = read_json(json.dumps(old))
    assert found.trend == Trend()
    assert "by day" not in page_of(found)


@pytest.mark.parametrize(
    ("costs", "told"),
    [
        (["1", "1", "1.12"], "+12%"), (["2", "1"], "-50%"), (["1", "0"], "-100%"), ([None, "1", "3"], "+200%"),
        (["0.5", "1.5", "1"], "0%"), (["1000", "999.999"], "0%"), (["1", "50"], "+4,900%"),
        (["0", "0", "1"], None), ([None, None, "1"], None), (["1", None], None), (["1"], None),
    ],
)  # fmt: skip
def test_change_is_the_last_day_against_the_mean_of_known_days_before(costs, told):
    assert change([None if cost is None else Money.parse(cost) for cost in costs]) == told


def made_up(*platforms):
    first = datetime(2026, 11, 15, tzinfo=UTC)
    starts = [first + timedelta(days=n) for n in range(7)]
    rows = tuple(
        TrendRow(name=name, costs=costs, sessions=(1,) * 7, total=sum(costs, ZERO), change=change(costs))
        for name, costs in platforms
    )
    costs = tuple(sum(day, ZERO) for day in zip(*(row.costs for row in rows), strict=True))
    return Trend(
        days=tuple(TrendDay(label=f"{at:%Y-%m-%d}", start=at, end=at + timedelta(days=1)) for at in starts),
        platforms=rows,
        total=TrendRow(
            name="total", costs=costs, sessions=(len(rows),) * 7, total=sum(costs, ZERO), change=change(costs)
        ),
    )


def drawn(trend):
    assert has_trend(trend)
    page = io.StringIO()
    Console(file=page, width=WIDTH, color_system=None).print(
        trend_table(trend, datetime(2026, 12, 1, tzinfo=UTC))
    )
    return page.getvalue()


@pytest.mark.parametrize("dearest", ["0.004", "0.0999", "9.9994", "99.99", "999.99", "98765.43", "998765.43"])
def test_no_amount_is_cut_off_within_100_columns(dearest):
    week = (Money.parse(dearest),) * 6
    trend = made_up(
        ("a-platform-with-a-long-name", (*week, ZERO)),
        ("tiny", (Money(1),) * 6 + (Money(99),)),
    )
    page = drawn(trend)
    assert max(map(len, page.splitlines())) <= WIDTH
    for text in page.splitlines()[2:-1]:
        assert "…" not in text[22:], "only names are shortened"
        assert "$" in text
    assert "<$" in page, "a small cost is not shown as nothing"
    assert "+9,800%" in page


def test_many_platforms_end_in_a_row_of_others_that_keeps_the_sum():
    page = drawn(made_up(*((f"p{n:02d}", (Money.parse("1"),) * 7) for n in range(25))))
    others = next(text for text in page.splitlines() if "(16 others)" in text)
    assert others.split()[2:] == ["$16.00"] * 7 + ["$112.00", "0%", "███████"]
    assert "p09" not in page
