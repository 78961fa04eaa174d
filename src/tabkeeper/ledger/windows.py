"""Calendar windows of budgets and reports: from local midnight to local midnight, told in UTC.

An end is always the next window's start and never "start plus 24 hours", so days of 21 to 27 hours, weeks with
a clock change and dates that never happened need no special case. Pure: zone and instant come from the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Period = Literal["day", "week", "month", "total"]

FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
"""Start of a window without beginning."""

LAST_INSTANT = datetime(9999, 1, 1, tzinfo=UTC)
"""End of a window that never ends; still fits a database column in microseconds."""

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time in UTC, `end` not included, and its name in the zone it was made for."""

    start: datetime
    end: datetime
    label: str
    """``2026-11-21``, ``2026-W47``, ``2026-11`` or ``total``."""

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end


def window_bounds(period: Period, zone: str | ZoneInfo, instant_utc: datetime) -> Window:
    """Find the window that contains an instant.

    Args:
        period: day, week (from Monday), month, or total.
        zone: IANA name of the zone whose midnight counts.
        instant_utc: any aware instant.
    """
    if period == "total":
        return Window(FIRST_INSTANT, LAST_INSTANT, "total")
    place = ZoneInfo(zone) if isinstance(zone, str) else zone
    first = _opening_date(period, place, instant_utc)
    return _window(period, first, place)


def window_of_date(period: Period, zone: str | ZoneInfo, day: date) -> Window:
    """Return the window that contains a local date; it is empty (start = end) if that date never happened."""
    if period == "total":
        return Window(FIRST_INSTANT, LAST_INSTANT, "total")
    place = ZoneInfo(zone) if isinstance(zone, str) else zone
    return _window(period, _first_date(period, day), place)


def windows_between(period: Period, zone: str | ZoneInfo, start: datetime, end: datetime) -> Iterator[Window]:
    """Yield, in order, every window that has a moment in common with `start` (included) to `end` (not)."""
    if start >= end:
        return
    if period == "total":
        yield Window(FIRST_INSTANT, LAST_INSTANT, "total")
        return
    place = ZoneInfo(zone) if isinstance(zone, str) else zone
    first = _opening_date(period, place, start)
    opens = _midnight(first, place)
    while opens < end:
        following = _next_date(period, first)
        closes = _midnight(following, place)
        if closes > opens:
            yield Window(opens, closes, _label(period, first))
        first, opens = following, closes


def _opening_date(period: Period, place: ZoneInfo, instant: datetime) -> date:
    """Find the local date that opens the window of an instant.

    A clock set back just after midnight (Newfoundland at 00:01) shows yesterday's date for an hour of today, so
    the bounds decide and not the date on the clock.
    """
    first = _first_date(period, instant.astimezone(place).date())
    while _midnight(first, place) > instant:
        first = _first_date(period, first - _DAY)
    while _midnight(_next_date(period, first), place) <= instant:
        first = _next_date(period, first)
    return first


def _window(period: Period, first: date, place: ZoneInfo) -> Window:
    start, end = _midnight(first, place), _midnight(_next_date(period, first), place)
    return Window(start, end, _label(period, first))


def _midnight(day: date, place: ZoneInfo) -> datetime:
    return datetime.combine(day, time.min, tzinfo=place).astimezone(UTC)


def _first_date(period: Period, day: date) -> date:
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def _next_date(period: Period, first: date) -> date:
    if period == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + (7 * _DAY if period == "week" else _DAY)


def _label(period: Period, first: date) -> str:
    if period == "week":
        year, week, _ = first.isocalendar()
        return f"{year}-W{week:02d}"
    return first.isoformat()[:7] if period == "month" else first.isoformat()
