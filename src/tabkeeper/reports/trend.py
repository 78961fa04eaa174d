"""The last seven days, platform by platform: which days they are, and how the latest compares with the others.

A day is summed as a report of that day would sum it, so the two always agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from tabkeeper.ledger.instants import HOUR_US, micros
from tabkeeper.ledger.windows import FIRST_INSTANT, Window, window_bounds
from tabkeeper.money import Money
from tabkeeper.reports import figures
from tabkeeper.reports.figures import Span
from tabkeeper.reports.later import NOTHING, Later
from tabkeeper.reports.report import ReportPeriod, Trend, TrendDay, TrendRow

DAYS = 7
"""Days of a trend, the last one included."""

_MOMENT = timedelta(microseconds=1)
_Day = Mapping[str, tuple[int, int]]
"""Nano-dollars and sessions by platform."""


def last_day(window: Window, period: ReportPeriod, place: ZoneInfo, now: datetime) -> Window:
    """Choose the day that a report's trend ends with: its own, today in an open month, or the month's last."""
    if period == "day":
        return window
    return window_bounds("day", place, now if now in window else window.end - _MOMENT)


def read_trend(
    conn: Connection,
    last: Window,
    place: ZoneInfo,
    now: datetime,
    *,
    since: datetime | None,
    later: Later = NOTHING,
) -> Trend:
    """Sum seven days by platform; `since` is when the ledger's first session began.

    Days before the ledger's first settled session, and days not begun, have None instead of a cost.
    """
    days = [last]
    while len(days) < DAYS and days[0].start > FIRST_INSTANT:
        days.insert(0, window_bounds("day", place, days[0].start - _MOMENT))
    first = None if since is None else micros(since) // HOUR_US * HOUR_US
    sums = [_day(conn, day, first, now, later) for day in days]
    names = {name for day in sums if day for name in day}
    rows = [_row(name, [None if day is None else day.get(name, (0, 0)) for day in sums]) for name in names]
    total = [
        None if day is None else (sum(cost for cost, _ in day.values()), sum(n for _, n in day.values()))
        for day in sums
    ]
    return Trend(
        days=tuple(TrendDay(label=day.label, start=day.start, end=day.end) for day in days),
        platforms=tuple(
            sorted(rows, key=lambda row: (-row.total.nanos, -sum(n or 0 for n in row.sessions), row.name))
        ),
        total=_row("total", total),
    )


def change(costs: Sequence[Money | None]) -> str | None:
    """Compare the last cost with the mean of those before; None if either is unknown or those were nothing."""
    *before, last = costs
    known = [cost.nanos for cost in before if cost is not None]
    if last is None or sum(known) <= 0:
        return None
    percent = round(100 * (Fraction(last.nanos * len(known), sum(known)) - 1))
    return f"{percent:+,d}%" if percent else "0%"


def _day(conn: Connection, day: Window, first: int | None, now: datetime, later: Later) -> _Day | None:
    found = figures.cost_by_platform(conn, Span.of(day.start, day.end), later)
    # A day that ends inside the ledger's first hour may end before or after its first session: then usage decides.
    has_begun = first is not None and first + HOUR_US <= micros(day.end) and day.start <= now
    return found if found or has_begun else None


def _row(name: str, sums: Sequence[tuple[int, int] | None]) -> TrendRow:
    costs = tuple(None if part is None else Money(part[0]) for part in sums)
    return TrendRow(
        name=name,
        costs=costs,
        sessions=tuple(None if part is None else part[1] for part in sums),
        total=Money(sum(cost.nanos for cost in costs if cost is not None)),
        change=change(costs),
    )
