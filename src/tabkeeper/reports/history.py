"""What hours and days cost, arranged as plots want them: the period by provider, earlier periods, days, heat. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from zoneinfo import ZoneInfo

from tabkeeper.ledger.instants import HOUR_US, micros, moment
from tabkeeper.ledger.windows import Window, window_bounds, windows_between
from tabkeeper.money import Money
from tabkeeper.reports.detail import Band, Heat, ProviderCosts
from tabkeeper.reports.figures import HourSums, ProviderHours
from tabkeeper.reports.report import Moment, ReportPeriod

LOOK_BACK = timedelta(days=57)
"""How far before a period's beginning its history is read: eight weeks, and a day for the change of clocks."""
DAYS = 30
_WEEKS = 7
_HEAT_WEEKS = 4
_MOMENT = timedelta(microseconds=1)


def steps(period: ReportPeriod, window: Window, place: ZoneInfo) -> list[Window]:
    """Cut a period into hours or days; nothing where the zone's days do not begin on a whole hour of UTC."""
    if period == "day":
        length = int((window.end - window.start) / timedelta(hours=1))
        starts = [window.start + timedelta(hours=n) for n in range(length)]
        parts = [Window(at, at + timedelta(hours=1), f"{at.astimezone(place):%H:%M}") for at in starts]
    else:
        parts = list(windows_between("day", place, window.start, window.end))
    return [] if any(_is_broken(part) for part in parts) else parts


def timeline(hours: ProviderHours, parts: Sequence[Window]) -> tuple[Moment, ...]:
    """Sum each part."""
    return tuple(_moment(hours, part) for part in parts)


def provider_costs(hours: ProviderHours, parts: Sequence[Window]) -> tuple[ProviderCosts, ...]:
    """Sum each part by provider, dearest provider first; those that cost nothing are left out."""
    rows: dict[str, list[int]] = {}
    for number, part in enumerate(parts):
        for at in _hours_of(part):
            for provider, sums in hours.get(at, {}).items():
                if sums.cost_n:
                    rows.setdefault(provider, [0] * len(parts))[number] += sums.cost_n
    ordered = sorted(rows.items(), key=lambda row: (-sum(row[1]), row[0]))
    return tuple(ProviderCosts(name=name, costs=tuple(map(Money, costs))) for name, costs in ordered)


def band(
    period: ReportPeriod,
    hours: ProviderHours,
    window: Window,
    parts: Sequence[Window],
    *,
    place: ZoneInfo,
    since: datetime | None,
) -> Band:
    """Add up earlier periods: the same weekday of the last seven weeks, or the month before."""
    if not parts or since is None:
        return Band()
    if period == "month":
        before = window_bounds("month", place, window.start - _MOMENT)
        if before.start < since:
            return Band()
        row = _added_up(hours, steps("month", before, place), len(parts))
        return Band(periods=1, middle=tuple(map(Money, row)))
    rows = []
    at = window
    for number in range(1, 7 * _WEEKS + 1):
        at = window_bounds("day", place, at.start - _MOMENT)
        cut = steps("day", at, place)
        if number % 7 == 0 and at.start >= since and cut:
            rows.append(_added_up(hours, cut, len(parts)))
    if len(rows) < 2:
        return Band()
    columns = [sorted(column) for column in zip(*rows, strict=True)]
    return Band(
        periods=len(rows),
        low=tuple(Money(column[0]) for column in columns),
        middle=tuple(
            Money((column[(len(column) - 1) // 2] + column[len(column) // 2]) // 2) for column in columns
        ),
        high=tuple(Money(column[-1]) for column in columns),
    )


def last_days(last: Window, place: ZoneInfo, since: datetime | None) -> list[Window]:
    """Return up to thirty local days that end with one, without those before the ledger's first session's."""
    found = [last]
    while len(found) < DAYS and since is not None and since < found[0].start:
        found.insert(0, window_bounds("day", place, found[0].start - _MOMENT))
    return found


def whole(parts: Sequence[Window]) -> bool:
    """Say whether all windows begin and end on whole hours of UTC."""
    return not any(_is_broken(part) for part in parts)


def heat(hours: ProviderHours, end: datetime, place: ZoneInfo, since: datetime | None) -> Heat:
    """Average the cost of each local weekday and hour over the four weeks before `end`."""
    if since is None:
        return Heat()
    last = micros(end) // HOUR_US * HOUR_US
    first = max(-(-micros(since) // HOUR_US) * HOUR_US, last - _HEAT_WEEKS * 7 * 24 * HOUR_US)
    sums: dict[tuple[int, int], list[int]] = {}
    for at in range(first, last, HOUR_US):
        local = moment(at).astimezone(place)
        cost = sum(one.cost_n for one in hours.get(at, {}).values())
        sums.setdefault((local.weekday(), local.hour), []).append(cost)
    if not sums:
        return Heat()
    return Heat(
        weeks=_HEAT_WEEKS,
        costs=tuple(tuple(_mean(sums.get((day, hour))) for hour in range(24)) for day in range(7)),
    )


def costs_by_hour(hours: ProviderHours, since: int) -> Mapping[datetime, int]:
    """Add up providers, from an hour on."""
    return {
        moment(at): sum(one.cost_n for one in by_provider.values())
        for at, by_provider in hours.items()
        if at >= since
    }


def _mean(values: list[int] | None) -> Money | None:
    return None if values is None else Money(sum(values) // len(values))


def _added_up(hours: ProviderHours, parts: Sequence[Window], length: int) -> list[int]:
    """Add up step by step, for as many steps as the period shown has; days and months differ in length."""
    row = list(accumulate(_sums(hours, part).cost_n for part in parts))
    return [*row, *[row[-1]] * length][:length] if len(row) < length else [*row[: length - 1], row[-1]]


def _moment(hours: ProviderHours, part: Window) -> Moment:
    sums = _sums(hours, part)
    return Moment(start=part.start, label=part.label, cost=Money(sums.cost_n), sessions=sums.sessions)


def _sums(hours: ProviderHours, part: Window) -> HourSums:
    total = HourSums()
    for at in _hours_of(part):
        for sums in hours.get(at, {}).values():
            total = total.plus(sums)
    return total


def _hours_of(part: Window) -> range:
    return range(micros(part.start), micros(part.end), HOUR_US)


def _is_broken(part: Window) -> bool:
    return bool(micros(part.start) % HOUR_US or micros(part.end) % HOUR_US)
