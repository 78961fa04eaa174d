"""Which closed local days have no report yet, and the reports of those that have: one row a day, whoever writes it.

The question is put to the database and never to a timer: schedulers skip days whose midnight a clock change removes.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text

from tabkeeper.ledger.budgets import tell
from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.ledger.windows import Window, windows_between

_FURTHEST = timedelta(days=400)
"""Days further back get no report."""
_LOOK_BACK = timedelta(days=40)
"""Gaps are looked for this far before the latest report."""
_EVER = 2**63 - 1
_PATIENCE = timedelta(hours=1)
"""A day whose sessions still run is reported after this time at the latest."""


def unreported(connection: Connection, zone: str, now: datetime, most: int) -> list[Window]:
    """Return closed local days since the ledger's first process that have no report yet, oldest first.

    A day waits an hour for sessions begun on it that are not settled, so that its report has their cost.
    """
    first = connection.execute(text("SELECT MIN(started_at) FROM process")).scalar()
    if first is None:
        return []
    since = max(moment(int(first)), now - _FURTHEST)
    latest = connection.execute(
        text("SELECT MAX(ends_at) FROM report_run WHERE timezone = :zone"), {"zone": zone}
    ).scalar()
    if latest is not None:
        since = max(since, moment(int(latest)) - _LOOK_BACK)
    made = set(
        connection.execute(
            text("SELECT day FROM report_run WHERE timezone = :zone AND ends_at >= :since"),
            {"zone": zone, "since": micros(since)},
        ).scalars()
    )
    found: list[Window] = []
    for window in windows_between("day", zone, since, now):
        if window.end > now or len(found) >= most:
            break
        if window.label in made:
            continue
        if now < window.end + _PATIENCE and _unsettled(connection, window):
            break
        found.append(window)
    return found


def _unsettled(connection: Connection, window: Window) -> bool:
    values = {"start": micros(window.start), "end": micros(window.end)}
    query = text("SELECT 1 FROM hold WHERE state = 'open' AND held_at >= :start AND held_at < :end LIMIT 1")
    return connection.execute(query, values).first() is not None


def save(
    tx: Transaction,
    *,
    window: Window,
    zone: str,
    at: datetime,
    process_id: str,
    report: str,
    said: str | None,
) -> bool:
    """Keep a day's report, and tell of it in an alert if `said` is given; False if another process was faster."""
    rows = tx.rows(
        "INSERT INTO report_run (day, timezone, ends_at, made_at, process_id, report) "
        "VALUES (:day, :zone, :ends, :at, :process, :report) ON CONFLICT (day, timezone) DO NOTHING RETURNING day",
        day=window.label,
        zone=zone,
        ends=micros(window.end),
        at=micros(at),
        process=process_id,
        report=report,
    )
    if rows and said is not None:
        tell(tx, key=f"daily_report|{zone}|{window.label}", kind="daily_report", at=micros(at), detail=said)
    return bool(rows)


def kept(connection: Connection, zone: str, day: date, *, by: datetime | None = None) -> str | None:
    """Return the report that was kept of a local day (at an instant at the latest), as JSON; None if there is none."""
    found = connection.execute(
        text("SELECT report FROM report_run WHERE timezone = :zone AND day = :day AND made_at <= :by"),
        {"zone": zone, "day": day.isoformat(), "by": _EVER if by is None else micros(by)},
    ).scalar()
    return None if found is None else str(found)


def kept_days(connection: Connection, zone: str, most: int) -> list[date]:
    """Return the latest days whose reports are kept, the newest first."""
    days = connection.execute(
        text("SELECT day FROM report_run WHERE timezone = :zone ORDER BY ends_at DESC LIMIT :most"),
        {"zone": zone, "most": most},
    ).scalars()
    return [date.fromisoformat(day) for day in days]
