"""A report adds up to the journal, to the last nano-dollar, whatever the zone."""

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from tabkeeper.clock import VirtualClock
from tabkeeper.ledger.instants import micros
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.windows import window_of_date
from tabkeeper.money import ZERO, Money
from tabkeeper.reports.books import Books
from tabkeeper.reports.daily import build_report
from tabkeeper.reports.parquet import write_parquet
from tabkeeper.reports.render_csv import COLUMNS, cells_table, render_csv
from tabkeeper.reports.render_json import read_json, render_json
from tabkeeper.reports.report import Usage

from .story import Story, config

ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Eucla", "Pacific/Kiritimati"]
DAYS = [date(2026, 10, 30), date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 2), date(2026, 11, 3)]


def report(story, zone="UTC", day=None, period="day"):
    return build_report(story.ledger.reader, period=period, zone=zone, now=story.clock.now(), day=day)


def journal(story, window):
    """The window's sums, straight from entries, sessions and leases."""
    bounds = {"a": micros(window.start), "b": micros(window.end)}
    with story.ledger.reader.connect() as conn:
        cost, sessions = conn.execute(
            text(
                "SELECT COALESCE(SUM(amount_n), 0), COALESCE(SUM(kind = 'settle'), 0) FROM entry "
                "WHERE effective_at >= :a AND effective_at < :b"
            ),
            bounds,
        ).one()
        idle, rounding, seconds = conn.execute(
            text(
                "SELECT COALESCE(SUM(idle_n), 0), COALESCE(SUM(rounding_n), 0), COALESCE(SUM(seconds_us), 0) "
                "FROM session WHERE created_at >= :a AND created_at < :b"
            ),
            bounds,
        ).one()
        leases, shares = conn.execute(
            text(
                "SELECT COUNT(*), COALESCE(SUM(l.cost_n), 0) FROM lease l JOIN session s ON s.id = l.session_id "
                "WHERE s.created_at >= :a AND s.created_at < :b AND s.ended_at IS NOT NULL"
            ),
            bounds,
        ).one()
    assert idle + shares == cost
    return cost, sessions, idle, rounding, seconds / 1e6, leases


def figures(found):
    totals = found.totals
    return (
        totals.cost.nanos, totals.sessions, totals.idle.nanos, totals.rounding.nanos,
        pytest.approx(totals.session_seconds), totals.leases,
    )  # fmt: skip


def total(parts, name):
    values = [getattr(part, name) for part in parts]
    return Money(sum(value.nanos for value in values)) if isinstance(values[0], Money) else sum(values)


@pytest.mark.parametrize("zone", ZONES)
async def test_every_day_and_the_month_equal_the_journal(golden, zone):
    whole = 0
    for day in DAYS:
        found = report(golden, zone, day)
        assert figures(found) == journal(golden, window_of_date("day", zone, day))
        whole += found.totals.cost.nanos
    assert whole > 0
    for month in (date(2026, 10, 1), date(2026, 11, 1)):
        assert figures(report(golden, zone, month, "month")) == journal(
            golden, window_of_date("month", zone, month)
        )


@pytest.mark.parametrize("zone", ZONES)
async def test_every_breakdown_adds_up_to_the_totals(golden, zone):
    for period, day in (("day", DAYS[2]), ("month", DAYS[1]), ("month", DAYS[3])):
        found = report(golden, zone, day, period)
        for parts in (found.cells, found.platforms, found.providers, found.tenants):
            for name in Usage.model_fields:
                assert total(parts, name) == pytest.approx(getattr(found.totals, name)), name
        assert total(found.components, "amount") == found.totals.cost
        if found.timeline:
            assert total(found.timeline, "cost") == found.totals.cost
            assert total(found.timeline, "sessions") == found.totals.sessions
        assert bool(found.timeline) == (zone in {"UTC", "America/New_York", "Pacific/Kiritimati"})


async def test_the_pieces_of_broken_hours_count_every_column_as_the_hours_do(golden):
    """The same span, once by whole hours and once as if it were one broken hour."""
    from tabkeeper.reports import figures as queries
    from tabkeeper.reports.figures import Span

    span = Span.of(datetime(2026, 10, 31, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC))

    class Broken(Span):
        whole_hours = whole_days = Span(0, 0)
        broken_ends = [span]

    broken = Broken(span.start, span.end)
    with golden.ledger.reader.connect() as conn:
        hours = queries.usage_by_cell(conn, span)
        assert hours
        assert queries.usage_by_cell(conn, broken) == hours
        assert queries.lines_by_cell(conn, broken) == queries.lines_by_cell(conn, span)
        assert queries.cost(conn, broken) == queries.cost(conn, span)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", "2026-11-01", 25),
        ("America/New_York", "2026-03-08", 23),
        ("Asia/Kathmandu", "2026-11-01", 24),
    ],
)
async def test_a_day_is_as_long_as_its_clock_says(golden, zone, day, hours):
    found = report(golden, zone, date.fromisoformat(day))
    assert found.hours == hours
    assert len(found.timeline) == (hours if zone == "America/New_York" else 0)
    assert found.end - found.start == timedelta(hours=hours)


async def test_a_session_at_midnight_belongs_to_the_day_that_begins(story):
    midnight = datetime(2026, 11, 1, 4, tzinfo=UTC)
    await story.session(midnight - timedelta(microseconds=1), seconds=30)
    await story.session(midnight, seconds=90)
    story.at(midnight + timedelta(days=3))
    costs = [
        report(story, "America/New_York", date(2026, 10, 31 + n) if n == 0 else date(2026, 11, n)).totals.cost
        for n in (0, 1)
    ]
    assert costs == [Money.parse("0.007"), Money.parse("0.013")]


async def test_json_csv_and_parquet_come_to_the_same_totals_in_every_column(golden, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = report(golden, "America/New_York", DAYS[2])
    write_parquet(cells_table(found), tmp_path / "day.parquet")
    columns = parquet.read_table(tmp_path / "day.parquet").to_pydict()
    document = json.loads(render_json(found))
    rows = list(csv.DictReader(io.StringIO(render_csv(found))))
    assert len(rows) == len(document["cells"]) == len(columns["cost"]) > 3
    for name, total in document["totals"].items():
        # Lengths of time are floats: single cells are exact, sums of them to the nanosecond.
        for cells in (
            [Decimal(str(cell[name])) for cell in document["cells"]],
            [Decimal(row[name]) for row in rows],
            [Decimal(str(value)) for value in columns[name]],
        ):
            assert round(sum(cells), 9) == round(Decimal(str(total)), 9), name
    assert sum(columns["leased_cost"]) == (found.totals.cost - found.totals.idle).dollars
    assert tuple(rows[0]) == COLUMNS
    for name in ("cost", "idle", "rounding", "failed"):
        assert sum(Decimal(row[name]) for row in rows) == getattr(found.totals, name).dollars
    assert sum(Decimal(row["billed_seconds"]) for row in rows) == Decimal(str(found.billed_seconds))
    assert all(Decimal(row["leased_cost"]) + Decimal(row["idle"]) == Decimal(row["cost"]) for row in rows)
    for name in ("sessions", "leases", "reused", "failed_leases", "failed_sessions", "bytes"):
        assert sum(int(row[name]) for row in rows) == getattr(found.totals, name)
    assert {row["label"] for row in rows} == {"2026-11-01"}


async def test_a_session_of_two_tenants_divides_leases_by_who_leased_and_the_rest_by_who_had_it_created(
    story,
):
    await story.session(
        datetime(2026, 2, 1, tzinfo=UTC), seconds=150, leases=((0.0, 40.0), (70.0, 130.0)), tenant="one",
        lease_tenants=("one", "two"),
    )  # fmt: skip
    one, two = csv.DictReader(io.StringIO(render_csv(report(story, day=date(2026, 2, 1)))))
    names = (
        "tenant",
        "cost",
        "leased_cost",
        "idle",
        "leases",
        "leased_seconds",
        "sessions",
        "billed_seconds",
    )
    assert [one[name] for name in names] == ["one", "0.013", "0.007", "0.006", "1", "40.0", "1", "180.0"]
    assert [two[name] for name in names] == ["two", "0.006", "0.006", "0.00", "1", "60.0", "0", "0.0"]


async def test_on_the_first_day_of_use_the_month_is_not_expected_below_the_day(story):
    begin = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    await story.session(begin)
    story.at(begin + timedelta(hours=1))
    day, month = report(story).forecasts
    assert day.run_rate == Money(day.spent.nanos * 29 // 2), "14 hours and a half are left"
    assert month.run_rate == Money(day.spent.nanos * (29 + 2 * 24 * 9) // 2)


async def test_a_tenant_cannot_smuggle_a_formula_into_a_spreadsheet(story):
    await story.session(datetime(2026, 2, 1, tzinfo=UTC), tenant="=1+1")
    (row,) = csv.DictReader(io.StringIO(render_csv(report(story, day=date(2026, 2, 1)))))
    assert row["tenant"] == "'=1+1"


async def test_json_parses_back_to_the_same_report(golden):
    found = report(golden, "Asia/Kolkata", DAYS[2], "month")
    text_form = render_json(found)
    assert read_json(text_form) == found
    assert f'"cost": "{found.totals.cost.text()}"' in text_form
    assert '"schema_version": 1' in text_form
    with pytest.raises(ValueError):
        read_json(text_form.replace('"schema_version": 1', '"schema_version": 2'))


async def test_failures_estimates_reuse_and_waits_are_told(golden):
    found = report(golden, "UTC", DAYS[2])
    with golden.ledger.reader.connect() as conn:
        bounds = {"a": micros(found.start), "b": micros(found.end)}
        estimates = conn.execute(
            text(
                "SELECT COUNT(*), SUM(cost_n) FROM session "
                "WHERE quality = 'estimate' AND created_at >= :a AND created_at < :b"
            ),
            bounds,
        ).one()
    assert (found.quality.estimated_sessions, found.quality.estimated_cost.nanos) == tuple(estimates)
    assert found.quality.estimated_sessions > 0
    assert found.totals.failed_sessions > 0
    assert ZERO < found.totals.failed < found.totals.cost
    assert 0 < found.totals.reuse_rate < 1
    assert found.totals.average_wait == pytest.approx(0.25)
    assert found.billed_seconds > found.totals.session_seconds


async def test_open_holds_are_shown_with_the_oldest(golden):
    holds = report(golden).holds
    assert holds.open == 1
    assert holds.amount == Money.parse("0.061")
    assert golden.clock.now() - holds.oldest_at == timedelta(minutes=10)


async def test_budgets_show_the_present_window_and_what_was_refused(golden):
    daily, month = (report(golden, "America/New_York", DAYS[2], period) for period in ("day", "month"))
    budgets = {budget.name: budget for budget in daily.budgets}
    assert list(budgets) == ["acme", "daily", "ever"]
    assert budgets["daily"].label == "2026-11-01"
    assert budgets["daily"].spent == daily.totals.cost, "same zone, same day, whole pool"
    assert budgets["daily"].denied > 0
    assert budgets["daily"].used > 0.7
    assert budgets["acme"].scope == "tenant acme"
    assert budgets["ever"].resets_at is None
    assert budgets["ever"].spent == sum((report(golden, "UTC", d).totals.cost for d in DAYS), ZERO)
    over_month = next(budget for budget in month.budgets if budget.name == "daily")
    assert over_month.label == "2026-11-03", "the window of the present"
    assert over_month.windows == 3
    assert over_month.denied_in_period >= budgets["daily"].denied


async def test_the_previous_period_is_whole_and_up_to_the_same_point(story):
    await story.session(datetime(2026, 5, 1, 6, 15, tzinfo=UTC))
    await story.session(datetime(2026, 5, 1, 6, 45, tzinfo=UTC))
    await story.session(datetime(2026, 5, 2, 1, tzinfo=UTC))
    story.at(datetime(2026, 5, 2, 6, 30, tzinfo=UTC))
    found = report(story)
    assert found.is_open
    one = found.totals.cost
    assert (found.previous.label, found.previous.cost, found.previous.to_date) == (
        "2026-05-01",
        one + one,
        one,
    )
    assert found.delta == ZERO
    closed = report(story, day=date(2026, 5, 1))
    assert not closed.is_open
    assert (closed.previous.cost, closed.previous.to_date, closed.delta) == (ZERO, None, one + one)
    assert closed.forecasts == ()


async def test_an_empty_ledger_gives_an_empty_report():
    clock = VirtualClock()
    ledger = await Ledger.open(config(), clock=clock)
    books = Books(ledger, clock=clock)
    for period in ("day", "month"):
        found = await books.report(period=period)
        assert found.totals == Usage()
        assert found.cells == ()
        assert found.holds.open == 0
        assert all(part.p50 is None for part in found.forecasts)
        assert render_csv(found).count("\n") == 1
    assert await books.daily_cost() == ZERO
    await ledger.aclose()


async def test_books_answer_for_today_and_for_any_date(golden):
    books = Books(golden.ledger, timezone="Asia/Kolkata", clock=golden.clock)
    assert await books.daily_cost() == (await books.report()).totals.cost
    assert await books.daily_cost(DAYS[2]) == report(golden, "Asia/Kolkata", DAYS[2]).totals.cost
    assert await books.monthly_cost(DAYS[1]) == report(golden, "Asia/Kolkata", DAYS[1], "month").totals.cost
    assert await books.verify() == []


async def test_a_ledger_in_memory_can_be_reported_on_while_it_is_written():
    clock = VirtualClock(datetime(2026, 6, 1, tzinfo=UTC))
    ledger = await Ledger.open(config(), clock=clock)
    story = Story(ledger, clock)
    await story.session(datetime(2026, 6, 1, 1, tzinfo=UTC))
    books = Books(ledger, clock=clock)
    assert await books.monthly_cost() == Money.parse("0.013")
    await story.session(datetime(2026, 6, 1, 2, tzinfo=UTC))
    assert await books.monthly_cost() == Money.parse("0.026")
    await ledger.aclose()


async def test_a_free_pool_still_shows_its_usage(story):
    await story.session(datetime(2026, 2, 1, tzinfo=UTC), provider="local", seconds=3600)
    found = report(story, day=date(2026, 2, 1))
    assert found.totals.cost == ZERO
    assert (found.totals.sessions, found.totals.leases) == (1, 1)
    assert found.totals.session_seconds == 3600
    assert found.billed_seconds == 3600
    assert [part.kind for part in found.components] == ["time"]
