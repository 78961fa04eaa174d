"""Where a day's or a month's spending will end, told from the same hours of earlier weeks.

Pure, and modest: with fewer than seven closed days it makes no forecast, only a run-rate that is called one.
It never looks beyond the window it is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import isqrt
from zoneinfo import ZoneInfo

from tabkeeper.ledger.windows import window_bounds
from tabkeeper.money import ZERO, Money

NEEDED_DAYS = 7
"""Closed days without which nothing is forecast."""

_HOUR = timedelta(hours=1)
_ENOUGH_SAMPLES = 3
_TESTED_DAYS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is expected at the end of a window; `p10 <= p50 <= p90`, all None without enough history."""

    closed_days: int
    p10: Money | None = None
    p50: Money | None = None
    p90: Money | None = None
    run_rate: Money | None = None
    """What was spent so far, going on at the same rate until the window ends; None in the first minute.

    Where the ledger's first session is later than the window's beginning, the rate counts from there, after an hour.
    """

    @property
    def is_forecast(self) -> bool:
        """Whether there was enough history for more than a run-rate."""
        return self.p50 is not None


class Past:
    """What the same hours cost in the last four weeks; made once for all windows of a report."""

    def __init__(
        self, costs: Mapping[datetime, int], *, since: datetime | None, now: datetime, zone: ZoneInfo
    ) -> None:
        """Remember.

        Args:
            costs: nano-dollars by (UTC) hour; an hour that is missing cost nothing, one after `now` does not count.
            since: when the ledger's first session began; None if it is empty.
            now: the present.
            zone: whose weekdays and hours count.
        """
        self.zone = zone
        self.now = now
        self.since = since
        self.closed_days = _closed_days(since, now, zone)
        self._by_hour: dict[int, list[int]] = {}
        self._by_day_hour: dict[tuple[int, int], list[int]] = {}
        self._expected: dict[tuple[int, int], tuple[int, int, int]] = {}
        if since is None:
            return
        hour = max(_floor_hour(since), _floor_hour(now) - timedelta(weeks=4))
        while hour + _HOUR <= now:
            local = hour.astimezone(zone)
            cost = costs.get(hour, 0)
            self._by_hour.setdefault(local.hour, []).append(cost)
            self._by_day_hour.setdefault((local.weekday(), local.hour), []).append(cost)
            hour += _HOUR

    def expected(self, local: datetime) -> tuple[int, int, int]:
        """P10, median and P90 of a local hour, in nano-dollars."""
        key = (local.weekday(), local.hour)
        if key not in self._expected:
            samples = self._by_day_hour.get(key, [])
            if len(samples) < _ENOUGH_SAMPLES:
                samples = self._by_hour.get(local.hour, [0])
            ordered = sorted(samples)
            low, median, high = (_quantile(ordered, percent) for percent in (10, 50, 90))
            self._expected[key] = (low, median, high)
        return self._expected[key]


def forecast(*, start: datetime, end: datetime, spent: Money, past: Past, held: Money = ZERO) -> Outlook:
    """Expect what a window costs when it ends.

    Each hour that is left counts as the median of the same hour of the same weekday, or of the same hour of all
    days while there are fewer than three of those. The band takes the hours of a day as moving together and the
    days as independent. What running sessions may still cost (`held`) is only in the upper edge.

    Args:
        start: beginning of the window.
        end: its end, not included.
        spent: settled so far in the window.
        past: the history, and the present.
        held: held for sessions that still run.
    """
    now = past.now
    if now >= end:
        return Outlook(closed_days=past.closed_days, p10=spent, p50=spent, p90=spent, run_rate=spent)
    run_rate = _run_rate(start, past.since, end, now, spent)
    if past.closed_days < NEEDED_DAYS:
        return Outlook(closed_days=past.closed_days, run_rate=run_rate)
    middle = 0
    spreads: dict[date, tuple[int, int]] = {}
    hour = _floor_hour(max(now, start))
    while hour < end:
        local = hour.astimezone(past.zone)
        low, median, high = past.expected(local)
        if hour < now or hour < start or hour + _HOUR > end:
            share = (min(end, hour + _HOUR) - max(now, start, hour)) // timedelta(microseconds=1)
            low, median, high = (cost * share // 3_600_000_000 for cost in (low, median, high))
        middle += median
        below, above = spreads.get(local.date(), (0, 0))
        spreads[local.date()] = (below + median - low, above + high - median)
        hour += _HOUR
    down = isqrt(sum(below * below for below, _ in spreads.values()))
    up = isqrt(sum(above * above for _, above in spreads.values()))
    return Outlook(
        closed_days=past.closed_days,
        p10=Money(spent.nanos + max(0, middle - down)),
        p50=Money(spent.nanos + middle),
        p90=Money(spent.nanos + middle + up + held.nanos),
        run_rate=run_rate,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackTest:
    """How well the same forecast would have done on days whose end is known."""

    days: int
    error: float
    """By how much it was off, added up over the days, as a share of what they cost."""
    bias: float
    """The same with signs: more than nothing if too much was expected."""
    covered: int
    """Days that ended between P10 and P90."""


def back_test(
    costs: Mapping[datetime, int], *, since: datetime | None, now: datetime, zone: ZoneInfo
) -> BackTest | None:
    """Forecast the ends of the last fourteen days from what was known at the present hour of each.

    Costs are as they are known today, also of sessions that were not settled at that hour. None without a day that
    had enough history, or if the days cost nothing.
    """
    window = window_bounds("day", zone, now)
    elapsed = _floor_hour(now) - window.start
    off = signed = total = days = covered = 0
    for _ in range(_TESTED_DAYS):
        window = window_bounds("day", zone, window.start - timedelta(microseconds=1))
        at = _floor_hour(min(window.start + elapsed, window.end - _HOUR))
        past = Past(costs, since=since, now=at, zone=zone)
        if past.closed_days < NEEDED_DAYS:
            break
        hours = [window.start + n * _HOUR for n in range(int((window.end - window.start) / _HOUR))]
        spent = Money(sum(costs.get(_floor_hour(hour), 0) for hour in hours if hour < at))
        came = sum(costs.get(_floor_hour(hour), 0) for hour in hours)
        outlook = forecast(start=window.start, end=window.end, spent=spent, past=past)
        assert outlook.p10 is not None
        assert outlook.p50 is not None
        assert outlook.p90 is not None
        days += 1
        total += came
        off += abs(outlook.p50.nanos - came)
        signed += outlook.p50.nanos - came
        covered += outlook.p10.nanos <= came <= outlook.p90.nanos
    return BackTest(days=days, error=off / total, bias=signed / total, covered=covered) if total > 0 else None


def _run_rate(
    start: datetime, since: datetime | None, end: datetime, now: datetime, spent: Money
) -> Money | None:
    least = timedelta(minutes=1)
    if since is not None and since > start:
        # What was before the first session says nothing of the rate, and a first try of minutes does not either.
        start, least = since, _HOUR
    if now - start < least:
        return None
    elapsed = int((now - start).total_seconds())
    return Money(spent.nanos * int((end - start).total_seconds()) // elapsed)


def _closed_days(since: datetime | None, now: datetime, zone: ZoneInfo) -> int:
    """Whole local days of history; the day in which the ledger began counts only if it did in the first hour."""
    if since is None:
        return 0
    first = since.astimezone(zone)
    days = (now.astimezone(zone).date() - first.date()).days
    return max(0, days if first.hour == 0 else days - 1)


def _quantile(ordered: Sequence[int], percent: int) -> int:
    """Interpolate linearly between the two nearest of sorted values."""
    place, rest = divmod((len(ordered) - 1) * percent, 100)
    if rest == 0:
        return ordered[place]
    return ordered[place] + (ordered[place + 1] - ordered[place]) * rest // 100


def _floor_hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)
