"""Hours of a day, and days of a month, that cost much more or less than the same weekday did in the weeks before. Pure.

The measure is robust: what the hours before were is told by their median, how far they lie apart by the median distance
from it. So one wild week in the past neither hides a wild hour nor makes ordinary ones look wild. Of a month, days are
judged: among its 700 hours some would always look wild.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median_low
from zoneinfo import ZoneInfo

from tabkeeper.ledger.instants import HOUR_US, micros, moment
from tabkeeper.ledger.windows import Window, window_of_date, windows_between
from tabkeeper.money import Money
from tabkeeper.reports.detail import Unusual
from tabkeeper.reports.figures import ProviderHours

WEEKS = 8
"""How far back an hour is compared; within what reports read, see `history.LOOK_BACK`."""
_NEEDED = 5
_LIMIT = 3.5
"""Distances beyond this are told; the usual limit for this measure."""
_SCALE = 1.4826
"""Makes the median distance comparable to a standard deviation."""
_LEAST = 0.1
"""Distances count as at least this share of the median hour, or else a steady past would make all else unusual."""
_WORTH_TELLING = 0.01
"""Share of what is usual in all hours or days together: in a quiet hour one session more is far off, and nothing."""
_MOST = 12


def unusual_hours(
    hours: ProviderHours, window: Window, now: datetime, place: ZoneInfo, since: datetime | None
) -> tuple[Unusual, ...]:
    """Find the unusual hours of a local day that are over, the furthest off first.

    Args:
        hours: costs by hour of the day and of eight weeks before.
        window: the day.
        now: the present.
        place: whose weekdays and hours they are.
        since: when the ledger's first session began.
    """
    if since is None or micros(window.start) % HOUR_US:
        return ()
    found = []
    for at in range(micros(window.start), min(micros(window.end), micros(now) // HOUR_US * HOUR_US), HOUR_US):
        local = moment(at).astimezone(place)
        earlier = [
            _cost(hours, then)
            for week in range(1, WEEKS + 1)
            if (then := _same_hour(local, week)) >= micros(since)
        ]
        found.append(_Part(moment(at), f"{local:%H:%M}", _cost(hours, at), earlier))
    return _judged(found)


def unusual_days(
    hours: ProviderHours, window: Window, now: datetime, place: ZoneInfo, since: datetime | None
) -> tuple[Unusual, ...]:
    """Find the unusual days of a local month that are over, the furthest off first; arguments as of `unusual_hours`."""
    if since is None:
        return ()
    found = []
    for day in windows_between("day", place, window.start, min(window.end, max(now, window.start))):
        its_date = date.fromisoformat(day.label)
        weeks = [window_of_date("day", place, its_date - timedelta(weeks=n)) for n in range(1, WEEKS + 1)]
        earlier = [one for one in weeks if one.start >= since]
        if day.end <= now and not any(micros(one.start) % HOUR_US for one in (day, *earlier)):
            costs = [_cost_between(hours, one) for one in earlier]
            found.append(_Part(day.start, day.label, _cost_between(hours, day), costs))
    return _judged(found)


@dataclass(frozen=True, slots=True)
class _Part:
    """An hour or a day, and what the same one cost in earlier weeks."""

    start: datetime
    label: str
    cost: int
    earlier: Sequence[int]

    @property
    def usual(self) -> int:
        return median_low(self.earlier) if self.earlier else 0


def _judged(parts: Sequence[_Part]) -> tuple[Unusual, ...]:
    """Return those that are far from usual, the furthest first."""
    least = sum(one.usual for one in parts) * _WORTH_TELLING
    found = [
        Unusual(
            start=one.start,
            label=one.label,
            cost=Money(one.cost),
            usual=Money(one.usual),
            off=round(off, 1),
            weeks=len(one.earlier),
        )
        for one in parts
        if abs(off := _distance(one.cost, one.earlier)) > _LIMIT and abs(one.cost - one.usual) >= least
    ]
    return tuple(sorted(found, key=lambda one: (-abs(one.off), one.start))[:_MOST])


def _same_hour(local: datetime, weeks: int) -> int:
    """Return when it was the same time of the day, so many weeks before; clocks may have changed since."""
    then = (local.replace(tzinfo=None) - timedelta(weeks=weeks)).replace(tzinfo=local.tzinfo, fold=local.fold)
    return micros(then) // HOUR_US * HOUR_US


def _cost_between(hours: ProviderHours, day: Window) -> int:
    return sum(_cost(hours, at) for at in range(micros(day.start), micros(day.end), HOUR_US))


def _cost(hours: ProviderHours, at: int) -> int:
    return sum(one.cost_n for one in hours.get(at, {}).values())


def _distance(cost: int, earlier: Sequence[int]) -> float:
    """Say how many robust standard deviations a cost lies above what was usual; 0 if too little is known."""
    if len(earlier) < _NEEDED:
        return 0.0
    middle = median_low(earlier)
    spread = max(_SCALE * median_low([abs(one - middle) for one in earlier]), _LEAST * middle)
    if not spread:
        return 0.0  # it never cost anything: there is no measure for what now is much
    return (cost - middle) / spread
