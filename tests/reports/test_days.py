"""Every local day gets its report, once: over a year, in zones whose clocks do odd things, and from many processes."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import create_engine, text

from tabkeeper.clock import VirtualClock
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.money import ZERO
from tabkeeper.reports.books import Books
from tabkeeper.reports.days import DayReports
from tabkeeper.reports.render_json import read_json
from tabkeeper.testing import run_virtual

DAY = timedelta(days=1)
PROOF = bool(os.environ.get("TABKEEPER_PROOF"))
PROCESSES = 8 if PROOF else 3
STEP = 1 if PROOF else 6
"""Hours between two ticks."""
DAYS = 370 if PROOF else 120
ODD_ZONES = [
    ("US/Pacific", datetime(2026, 1, 1, 20, tzinfo=UTC), ()),  # cron skips 9 March 2026 here
    ("Africa/Cairo", datetime(2026, 1, 1, 12, tzinfo=UTC), ()),  # 24 April 2026 begins at 01:00
    ("Pacific/Apia", datetime(2011, 10, 1, 20, tzinfo=UTC), ("2011-12-30",)),  # a day that never was
    ("America/Sao_Paulo", datetime(2018, 1, 1, 12, tzinfo=UTC), ()),  # 4 November 2018 began at 01:00
    ("Australia/Lord_Howe", datetime(2026, 1, 1, 2, tzinfo=UTC), ()),  # clocks change by half an hour
    ("UTC", datetime(2026, 1, 1, 12, tzinfo=UTC), ()),
]


def config(url: str = "sqlite://", zone: str = "UTC") -> PoolConfig:
    return parse_config(
        {
            "ledger": {"url": url, "timezone": zone},
            "platforms": {"web": {}},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "1.00"}}},
        }
    )


def reports(ledger: Ledger, clock: VirtualClock, zone: str, *, tell: bool = False, **more) -> DayReports:
    books = Books(ledger, timezone=zone, clock=clock)
    return DayReports(ledger, books, zone=zone, clock=clock, tell=tell, **more)


def days_of(ledger: Ledger) -> list[str]:
    with ledger.reader.connect() as connection:
        return list(connection.execute(text("SELECT day FROM report_run ORDER BY ends_at")).scalars())


def every_day(first: date, number: int, without: tuple[str, ...] = ()) -> list[str]:
    return [day for n in range(number) if (day := (first + n * DAY).isoformat()) not in without]


async def a_session(ledger: Ledger, name: str) -> None:
    await ledger.hold(
        HoldRequest(session_id=name, platform="web", provider="local", tenant="t", max_seconds=600)
    )
    await ledger.activate(name, provider_session_id=name)
    await ledger.settle(name, SessionUsage(seconds=360.0), reason="idle")


@pytest.mark.parametrize(("zone", "start", "without"), ODD_ZONES if PROOF else ODD_ZONES[:3])
def test_no_day_of_a_year_is_skipped_and_none_is_reported_twice(zone, start, without):
    async def story(clock: VirtualClock) -> None:
        ledger = await Ledger.open(config(zone=zone), clock=clock, inline=True)
        closing = reports(ledger, clock, zone)
        first = start.astimezone(ZoneInfo(zone)).date()
        for _ in range(DAYS * 24 // STEP):
            await closing.run()
            clock.advance(STEP * 3600)
        days = days_of(ledger)
        assert days == every_day(first, len(days) + len(without), without)
        assert len(days) >= DAYS - 2
        await ledger.aclose()

    run_virtual(story, VirtualClock(start))


def test_after_a_long_absence_all_days_are_made_up_for():
    async def story(clock: VirtualClock) -> None:
        ledger = await Ledger.open(config(), clock=clock, inline=True)
        closing = reports(ledger, clock, "UTC")
        await closing.run()
        clock.advance(50 * 86400)
        for _ in range(4):
            await closing.run()
        assert days_of(ledger) == every_day(date(2026, 1, 1), 50)
        await ledger.aclose()

    run_virtual(story)


def test_a_report_is_kept_as_it_was_and_told_once():
    async def story(clock: VirtualClock) -> None:
        ledger = await Ledger.open(config(), clock=clock, inline=True)
        closing = reports(ledger, clock, "UTC", tell=True)
        await a_session(ledger, "one")
        clock.advance(86400)
        assert await closing.run() == "wrote 2026-01-01"
        assert await closing.run() == "ok"
        books = Books(ledger, timezone="UTC", clock=clock)
        kept = await books.kept_report(date(2026, 1, 1))
        assert kept is not None
        assert (kept.label, kept.totals.cost.text(), kept.is_open) == ("2026-01-01", "0.10", False)
        assert await books.kept_report(date(2026, 1, 2)) is None
        ((event, _),) = await ledger.alerts.recent(10)
        assert event.kind == "daily_report"
        assert event.detail == "2026-01-01 (UTC) cost $0.10 for 1 session and 0 leases"
        await ledger.aclose()

    run_virtual(story)


def test_pages_are_left_in_a_folder_and_are_the_same_whoever_writes_them_whenever(tmp_path: Path):
    async def story(clock: VirtualClock) -> None:
        ledger = await Ledger.open(config(), clock=clock, inline=True)
        folder = tmp_path / "pages"
        closing = reports(ledger, clock, "UTC", folder=folder)
        for day in range(31):
            await a_session(ledger, f"s{day}")
            clock.advance(86400)
        for _ in range(2):
            await closing.run()
        named = [*every_day(date(2026, 1, 1), 31), "2026-01"]
        assert sorted(file.stem for file in folder.iterdir()) == sorted(named)
        month = (folder / "2026-01.html").read_bytes()
        assert b"Cost of January 2026" in month
        assert b"$3.10" in month
        clock.advance(3600)
        await ledger.reconciliation.compare("s30", Figures(seconds_us=999_000_000))
        before = {name: (folder / f"{name}.html").read_bytes() for name in ("2026-01-31", "2026-01")}
        for name in before:
            (folder / f"{name}.html").unlink()
        await reports(ledger, clock, "UTC", folder=folder).run()
        assert {name: (folder / f"{name}.html").read_bytes() for name in before} == before
        clock.advance(86400)
        await closing.run()
        (changed,) = (await Books(ledger, timezone="UTC", clock=clock).report(date(2026, 2, 1))).restated
        assert (changed.day, changed.sessions, changed.reported.text()) == ("2026-01-31", 1, "0.10")
        assert changed.amount > ZERO
        await ledger.aclose()

    run_virtual(story)


def test_a_day_waits_for_its_sessions_but_not_for_ever():
    async def story(clock: VirtualClock) -> None:
        ledger = await Ledger.open(config(), clock=clock, inline=True)
        closing = reports(ledger, clock, "UTC")
        clock.advance(86400 - 60)
        await ledger.hold(
            HoldRequest(session_id="late", platform="web", provider="local", tenant="t", max_seconds=600)
        )
        clock.advance(120)
        assert await closing.run() == "ok", "its cost is not known yet"
        clock.advance(300)
        await ledger.settle("late", SessionUsage(seconds=360.0), reason="idle")
        assert await closing.run() == "wrote 2026-01-01"
        await ledger.hold(
            HoldRequest(session_id="stuck", platform="web", provider="local", tenant="t", max_seconds=600)
        )
        clock.advance(86400)
        assert await closing.run() == "ok"
        clock.advance(3600)
        assert await closing.run() == "wrote 2026-01-02"
        await ledger.aclose()

    run_virtual(story)


WRITER = """
import asyncio, sys
from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.money import ZERO
from tabkeeper.reports.books import Books
from tabkeeper.reports.days import DayReports

async def main():
    clock = SystemClock()
    ledger = await Ledger.open(parse_config({"ledger": {"url": sys.argv[1]}, "platforms": {"web": {}}}))
    closing = DayReports(ledger, Books(ledger, timezone="UTC", clock=clock), zone="UTC", clock=clock, tell=True)
    for _ in range(3):
        await closing.run()
    await ledger.aclose()

asyncio.run(main())
"""


@pytest.mark.slow
def test_of_many_processes_that_close_the_same_days_each_day_is_written_by_one(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/ledger.db"

    async def begin() -> None:
        ledger = await Ledger.open(config(url))
        await ledger.aclose()

    asyncio.run(begin())
    engine = create_engine(url)
    with engine.begin() as connection:
        ago = int((datetime.now(UTC) - 30 * DAY).timestamp() * 1_000_000)
        connection.execute(text("UPDATE process SET started_at = :ago"), {"ago": ago})
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url]) for _ in range(PROCESSES)]
    assert [writer.wait(100) for writer in writers] == [0] * PROCESSES
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT day, report FROM report_run ORDER BY day")).all()
        told = connection.execute(
            text("SELECT COUNT(*) FROM alert_event WHERE kind = 'daily_report'")
        ).scalar()
    engine.dispose()
    days = [row.day for row in rows]
    assert len(days) == len(set(days)) == told
    assert 30 <= len(days) <= 31
    assert all(read_json(row.report).label == row.day for row in rows)
