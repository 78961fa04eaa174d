"""Reports after a reconciliation: restated to the last unit in every zone, and they say so."""

import io
from datetime import date

import pytest
from rich.console import Console
from sqlalchemy import text

from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.instants import micros
from tabkeeper.money import Money
from tabkeeper.reports.daily import build_report
from tabkeeper.reports.render_table import print_report

ZONES = ("UTC", "America/New_York", "Asia/Kathmandu")  # the last one's days begin inside an hour of UTC
DAY = date(2026, 11, 1)


def report(story, zone, period="day"):
    return build_report(story.ledger.reader, period=period, zone=zone, now=story.clock.now(), day=DAY)


def rows(story, sql, **values):
    with story.ledger.reader.connect() as conn:
        return conn.execute(text(sql), values).all()


@pytest.fixture
async def adjusted(golden):
    """Every settled session of the golden ledger, billed otherwise by its provider."""
    sql = "SELECT s.id, s.seconds_us FROM session s JOIN hold h ON h.session_id = s.id WHERE h.state = 'settled'"
    for number, row in enumerate(rows(golden, sql)):
        seconds = max(0, row.seconds_us + (number % 5 - 1) * 45_000_000)
        await golden.ledger.reconciliation.compare(row.id, Figures(seconds_us=seconds))
    return golden


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("period", ["day", "month"])
async def test_a_restated_report_still_adds_up_to_the_entries(adjusted, zone, period):
    found = report(adjusted, zone, period)
    span = {"a": micros(found.start), "b": micros(found.end)}
    within = "effective_at >= :a AND effective_at < :b"
    ((entries,),) = rows(adjusted, f"SELECT SUM(amount_n) FROM entry WHERE {within}", **span)
    assert found.totals.cost == Money(int(entries))
    for parts in (found.platforms, found.providers, found.tenants):
        assert sum(part.cost.nanos for part in parts) == entries
    assert sum(part.amount.nanos for part in found.components) == entries
    (corrected,) = rows(
        adjusted,
        f"SELECT COUNT(DISTINCT session_id) AS n, SUM(amount_n) AS cost, MAX(recorded_at) AS at FROM entry "
        f"WHERE kind = 'adjust' AND {within}",
        **span,
    )
    assert corrected.n > 10
    quality = found.quality
    assert (quality.adjusted_sessions, quality.adjusted_cost) == (corrected.n, Money(int(corrected.cost)))
    assert micros(quality.adjusted_at) == corrected.at


async def test_the_report_says_that_it_was_adjusted_since(golden):
    def page():
        out = io.StringIO()
        print_report(report(golden, "UTC"), Console(file=out, width=100, color_system=None))
        return out.getvalue()

    assert "Adjusted since" not in page()
    before = report(golden, "UTC").totals.cost
    sql = "SELECT id, seconds_us FROM session WHERE provider = 'hosted' AND created_at >= :a AND state = 'closed'"
    one, *_ = rows(golden, sql, a=micros(report(golden, "UTC").start))
    found = await golden.ledger.reconciliation.compare(
        one.id, Figures(seconds_us=one.seconds_us + 600_000_000)
    )
    change = found.theirs - found.ours
    assert report(golden, "UTC").totals.cost == before + change
    assert f"Adjusted since: 1 session by +{change}" in " ".join(page().split())
