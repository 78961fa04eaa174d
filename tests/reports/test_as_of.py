"""A report as of an earlier entry is the report of that moment, whatever was booked, corrected or limited since."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text

from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.types import SessionUsage
from tabkeeper.reports.as_of import as_of_entry, as_of_instant
from tabkeeper.reports.daily import build_report
from tabkeeper.reports.render_json import render_json

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
