"""A report as of an earlier entry is the report of that moment, whatever was booked, corrected or limited since."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text

from tabkeeper.clock import VirtualClock
from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import SessionUsage
from tabkeeper.money import Money
from tabkeeper.reports.as_of import EVERYTHING, as_of_entry, as_of_instant
from tabkeeper.reports.booked import booked_lines
from tabkeeper.reports.daily import build_report, snapshot
from tabkeeper.reports.figures import Span
from tabkeeper.reports.html.page import render_html
from tabkeeper.reports.render_json import render_json

from .story import Story, config

CASES = (("UTC", "day"), ("America/New_York", "month"), ("Asia/Kathmandu", "day"))
DAY = date(2026, 11, 3)


def report(story, zone, period, **more):
    return build_report(story.ledger.reader, period=period, zone=zone, day=DAY, **more)


def fetch(story, sql):
    with story.ledger.reader.connect() as conn:
        return conn.execute(text(sql)).all()


async def test_what_was_told_can_be_told_again_after_everything_changed(golden):
    now = golden.clock.now()
    settled = (
        "SELECT id, seconds_us FROM session WHERE state = 'closed' AND provider = 'hosted' ORDER BY id DESC"
    )
    for row in fetch(golden, settled)[:10]:  # some corrections are known already
        await golden.ledger.reconciliation.compare(row.id, Figures(seconds_us=row.seconds_us + 70_000_000))
    (then,) = fetch(golden, "SELECT MAX(id) AS id FROM entry")
    told = [report(golden, zone, period, now=now, upto=then.id) for zone, period in CASES]
    today = report(golden, "UTC", "day", now=now)
    assert today.totals == told[0].totals
    assert today.holds == told[0].holds
    assert told[0].holds.open == 1
    assert told[0].watermark == then.id

    golden.clock.jump(60)
    for row in fetch(golden, settled)[5:40]:  # corrected again, or for the first time
        await golden.ledger.reconciliation.compare(row.id, Figures(seconds_us=row.seconds_us + 130_000_000))
    (still,) = fetch(golden, "SELECT id FROM session WHERE ended_at IS NULL")
    await golden.ledger.settle(still.id, SessionUsage(seconds=200.0), reason="done", state="closed")
    for tenant in ("acme", "new one"):
        await golden.session(golden.clock.now(), provider="local", tenant=tenant, platform=tenant)
    await golden.session(golden.clock.now() + timedelta(hours=30), tenant="later")
    assert report(golden, "UTC", "day", now=now).totals != told[0].totals
    for (zone, period), before in zip(CASES, told, strict=True):
        again = report(golden, zone, period, now=now, upto=then.id)
        assert render_json(again) == render_json(before)
        assert [budget.denied for budget in again.budgets if budget.name == "ever"] == [None], (
            "nobody kept it"
        )


async def test_both_databases_tell_the_same_then_and_now(ledger_url):
    clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
    ledger = await Ledger.open(config(ledger_url, budgets=[{"name": "daily", "limit": "0.25"}]), clock=clock)
    story = Story(ledger, clock)
    for number in range(8):
        when = datetime(2026, 11, 2 + number % 2, 9 + number, 20, tzinfo=UTC)
        story.at(max(when, clock.now()))
        await story.session(clock.now(), tenant=f"t{number % 3}", orphan=number == 7)
    now = clock.now()
    (then,) = fetch(story, "SELECT MAX(id) AS id FROM entry")
    told = report(story, "UTC", "day", now=now, upto=then.id)
    clock.jump(60)
    for row in fetch(story, "SELECT id FROM session ORDER BY id"):
        await ledger.reconciliation.compare(row.id, Figures(seconds_us=300_000_000))
    assert render_json(report(story, "UTC", "day", now=now, upto=then.id)) == render_json(told)
    found = report(story, "UTC", "month", now=clock.now())
    (entries,) = fetch(story, "SELECT SUM(amount_n) AS n FROM entry")
    assert found.totals.cost == Money(int(entries.n))
    assert "restated" not in render_html(found)
    assert found.budgets[0].peak is not None
    with snapshot(ledger.reader) as conn:
        lines = list(booked_lines(conn, Span.of(found.start, found.end), EVERYTHING))
    assert sum(line.amount.nanos for line in lines) == entries.n
    assert {line.entry for line in lines} == {"settle", "adjust"}
    assert await ledger.verify() == []
    await ledger.aclose()


async def test_an_entry_and_an_instant_name_the_same_moment(story):
    for minute in range(5):
        await story.session(datetime(2026, 1, 2, 10, minute * 10, tzinfo=UTC))
    entries = fetch(story, "SELECT id, recorded_at FROM entry ORDER BY id")
    with story.ledger.reader.connect() as conn:
        assert as_of_entry(conn, entries[-1].id + 1) is None
        found = as_of_entry(conn, entries[3].id)
        assert found is not None
        for moment in (found.now, found.now + timedelta(minutes=2)):
            assert as_of_instant(conn, moment).entry == entries[3].id
        assert as_of_instant(conn, datetime(2026, 1, 1, tzinfo=UTC)).entry == 0
        assert as_of_instant(conn, datetime(2026, 2, 1, tzinfo=UTC)).entry == entries[-1].id
