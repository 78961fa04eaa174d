"""Where a day's or a month's spending will end, told from the same hours of earlier weeks.

Pure, and modest: with fewer than seven closed days it makes no forecast, only a run-rate that is called one.
It never looks beyond the window it is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isqrt
from zoneinfo import ZoneInfo

from tabkeeper.money import ZERO, Money

NEEDED_DAYS = 7
"""Closed days without which nothing is forecast."""

_HOUR = timedelta(hours=1)
_ENOUGH_SAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is expected at the end of a window; `p10 <= p50 <= p90`, all None without enough history."""

    closed_days: int
    p10: Money | None = None
    p50: Money | None = None
    p90: Money | None = None
    run_rate: Money | None = None
    """What was spent so far, stretched evenly over the whole window; None in its first minute."""

    @property
    def is_forecast(self) -> bool:
        """Whether there was enough history for more than a run-rate."""
        return self.p50 is not None


def forecast(
    *,
    start: datetime,
    end: datetime,
    now: datetime,
    spent: Money,
    held: Money = ZERO,
    history: Mapping[datetime, int],
    since: datetime | None,
    zone: ZoneInfo,
) -> Outlook:
    """Expect what a window costs when it ends.

    Each hour that is left counts as the median of the same hour of the same weekday, or of the same hour of all
    days while there are fewer than three of those. The band takes the hours of a day as moving together and the
    days as independent. What running sessions may still cost (`held`) is only in the upper edge.

    Args:
        start: beginning of the window.
        end: its end, not included.
        now: the present; `history` after it does not count.
        spent: settled so far in the window.
        held: held for sessions that still run.
        history: nano-dollars by (UTC) hour; an hour that is missing cost nothing.
        since: the ledger's first hour; None if it is empty.
        zone: whose weekdays and hours count.
    """
    closed = _closed_days(since, now, zone)
    run_rate = _run_rate(start, end, now, spent)
    if now >= end:
        return Outlook(closed_days=closed, p10=spent, p50=spent, p90=spent, run_rate=spent)
    if since is None or closed < NEEDED_DAYS:
        return Outlook(closed_days=closed, run_rate=run_rate)
    same_hour, same_day_hour = _samples(history, since, now, zone)
    middle = 0
    spreads: dict[object, list[int]] = {}
    hour = _floor_hour(max(now, start))
    while hour < end:
        local = hour.astimezone(zone)
        samples = same_day_hour.get((local.weekday(), local.hour), [])
        if len(samples) < _ENOUGH_SAMPLES:
            samples = same_hour.get(local.hour, [0])
        share = (min(end, hour + _HOUR) - max(now, start, hour)) / timedelta(microseconds=1)
        low, median, high = (_part(_quantile(samples, q), int(share)) for q in (10, 50, 90))
        middle += median
        day = spreads.setdefault(local.date(), [0, 0])
        day[0] += median - low
        day[1] += high - median
        hour += _HOUR
    down = isqrt(sum(below * below for below, _ in spreads.values()))
    up = isqrt(sum(above * above for _, above in spreads.values()))
    return Outlook(
        closed_days=closed,
        p10=Money(spent.nanos + max(0, middle - down)),
        p50=Money(spent.nanos + middle),
        p90=Money(spent.nanos + middle + up + held.nanos),
        run_rate=run_rate,
    )


def _run_rate(start: datetime, end: datetime, now: datetime, spent: Money) -> Money | None:
    elapsed = int((min(now, end) - start).total_seconds())
    if elapsed < 60:
        return None
    return Money(spent.nanos * int((end - start).total_seconds()) // elapsed)


def _closed_days(since: datetime | None, now: datetime, zone: ZoneInfo) -> int:
    """Whole local days of history; the day in which the ledger began is not whole."""
    if since is None:
        return 0
    days = (now.astimezone(zone).date() - since.astimezone(zone).date()).days
    return max(0, days - 1) if since.astimezone(zone).hour else max(0, days)


def _samples(
    history: Mapping[datetime, int], since: datetime, now: datetime, zone: ZoneInfo
) -> tuple[dict[int, list[int]], dict[tuple[int, int], list[int]]]:
    same_hour: dict[int, list[int]] = {}
    same_day_hour: dict[tuple[int, int], list[int]] = {}
    hour = max(_floor_hour(since), _floor_hour(now) - timedelta(weeks=4))
    while hour + _HOUR <= now:
        local = hour.astimezone(zone)
        cost = history.get(hour, 0)
        same_hour.setdefault(local.hour, []).append(cost)
        same_day_hour.setdefault((local.weekday(), local.hour), []).append(cost)
        hour += _HOUR
    return same_hour, same_day_hour


def _quantile(values: Sequence[int], percent: int) -> int:
    """Interpolate linearly between the two nearest of the sorted values."""
    ordered = sorted(values)
    place, rest = divmod((len(ordered) - 1) * percent, 100)
    if rest == 0:
        return ordered[place]
    return ordered[place] + (ordered[place + 1] - ordered[place]) * rest // 100


def _part(cost: int, microseconds: int) -> int:
    return cost * microseconds // 3_600_000_000


def _floor_hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)
