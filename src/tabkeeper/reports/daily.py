"""Puts a cost report together: which windows to look at, which sums to take, what they mean.

SQL is in `figures`, the forecast's arithmetic in `forecast`; a report is built on one snapshot of the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, RowMapping

from tabkeeper.ledger.instants import HOUR_US, micros, moment
from tabkeeper.ledger.rates import BYTE_KINDS, TIME_KINDS
from tabkeeper.ledger.windows import LAST_INSTANT, Window, window_bounds, window_of_date, windows_between
from tabkeeper.money import Money
from tabkeeper.reports import figures
from tabkeeper.reports.figures import CellKey, HourSums, LineKey, Span, Sums
from tabkeeper.reports.forecast import NEEDED_DAYS, Outlook, Past, forecast
from tabkeeper.reports.report import (
    BudgetFigures,
    Cell,
    ComponentFigures,
    CostReport,
    ForecastFigures,
    Group,
    HoldFigures,
    Moment,
    Previous,
    QualityFigures,
    ReportPeriod,
    Usage,
)
from tabkeeper.reports.trend import last_day, read_trend

_MOMENT = timedelta(microseconds=1)
_HISTORY = timedelta(weeks=4)


def build_report(
    engine: Engine, *, period: ReportPeriod, zone: str, now: datetime, day: date | None = None
) -> CostReport:
    """Report the local day or month that contains a date.

    Args:
        engine: the ledger's reader.
        period: day or month.
        zone: IANA zone whose midnight begins it.
        now: the present, in UTC.
        day: any date of the period; today if None.
    """
    place = ZoneInfo(zone)
    window = window_bounds(period, place, now) if day is None else window_of_date(period, place, day)
    before = window_bounds(period, place, window.start - _MOMENT)
    is_open = now < window.end
    with snapshot(engine) as conn:
        span = Span.of(window.start, window.end)
        known = Span.of(min(window.start, now - _HISTORY), max(window.end, now)) if is_open else span
        hours = figures.hours(conn, known.outer_hours)
        cells = figures.usage_by_cell(conn, span)
        lines = figures.lines_by_cell(conn, span)
        estimated, estimated_cost = figures.estimates(conn, span)
        adjusted, adjusted_cost, adjusted_at = figures.adjustments(conn, span)
        totals = _usage(cells.values())
        holds = _holds(conn)
        return CostReport(
            period=period,
            label=window.label,
            timezone=zone,
            start=window.start,
            end=window.end,
            hours=(window.end - window.start) / timedelta(hours=1),
            now=now,
            is_open=is_open,
            watermark=figures.watermark(conn),
            quality=QualityFigures(
                estimated_sessions=estimated,
                estimated_cost=Money(estimated_cost),
                adjusted_sessions=adjusted,
                adjusted_cost=Money(adjusted_cost),
                adjusted_at=None if adjusted_at is None else moment(adjusted_at),
            ),
            totals=totals,
            billed_seconds=figures.billed(lines, TIME_KINDS) / 1e3,
            previous=_previous(conn, before, window, now),
            cells=_cells(cells, lines),
            platforms=_groups(cells, 0),
            providers=_groups(cells, 1),
            tenants=_groups(cells, 2),
            components=_components(lines),
            timeline=_timeline(hours, period, window, place),
            trend=read_trend(conn, last_day(window, period, place, now), place, now),
            holds=holds,
            budgets=budget_figures(conn, window.start, window.end, now),
            forecasts=(
                _forecasts(conn, hours, place, now, holds.amount) if window.start <= now < window.end else ()
            ),
        )


def cost_between(engine: Engine, start: datetime, end: datetime) -> Money:
    """Sum the cost of all sessions whose money was held from `start` to `end` (not included)."""
    with snapshot(engine) as conn:
        return Money(figures.cost(conn, Span.of(start, end)))


def budget_figures(
    conn: Connection, start: datetime, end: datetime, now: datetime
) -> tuple[BudgetFigures, ...]:
    """Tell how far each budget is used, in its latest window between two instants."""
    span = Span.of(start, end)
    latest = micros(min(max(now, start), end - _MOMENT))
    windows: dict[str, list[RowMapping]] = {}
    for row in figures.budget_windows(conn, span):
        windows.setdefault(str(row["name"]), []).append(row)
    newest: dict[str, RowMapping] = {}
    for row in figures.budgets(conn, span):
        newest.setdefault(str(row["name"]), row)
    return tuple(
        _budget(row, windows.get(name, []), span, moment(latest)) for name, row in sorted(newest.items())
    )


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Open a connection whose queries all see the same state of the ledger."""
    with engine.connect() as conn:
        if engine.dialect.name == "postgresql":
            conn = conn.execution_options(isolation_level="REPEATABLE READ")  # noqa: PLW2901
            conn.begin()
        else:
            conn.begin()
            # The driver begins no transaction for a SELECT by itself; a ledger in memory has begun one already.
            if not getattr(conn.connection.dbapi_connection, "in_transaction", True):
                conn.exec_driver_sql("BEGIN")
        yield conn


def _usage(parts: Iterable[Sums]) -> Usage:
    return Usage(**_measures(parts))


def _measures(parts: Iterable[Sums]) -> dict[str, Money | int | float]:
    total = dict.fromkeys(figures.MEASURES, 0)
    for part in parts:
        for measure, value in part.items():
            total[measure] += value
    return {
        "cost": Money(total["cost_n"]),
        "idle": Money(total["idle_n"]),
        "rounding": Money(total["rounding_n"]),
        "failed": Money(total["failed_n"]),
        "sessions": total["sessions"],
        "failed_sessions": total["failed_sessions"],
        "leases": total["leases"],
        "reused": total["reused"],
        "failed_leases": total["failures"],
        "session_seconds": total["session_us"] / 1e6,
        "leased_seconds": total["leased_us"] / 1e6,
        "waited_seconds": total["waited_us"] / 1e6,
        "bytes": total["bytes"],
    }


def _cells(cells: Mapping[CellKey, Sums], lines: Mapping[LineKey, Sums]) -> tuple[Cell, ...]:
    time: dict[CellKey, int] = {}
    traffic: dict[CellKey, int] = {}
    for (platform, provider, tenant, kind), sums in lines.items():
        for total, kinds in ((time, TIME_KINDS), (traffic, BYTE_KINDS)):
            if kind in kinds:
                cell = (platform, provider, tenant)
                total[cell] = total.get(cell, 0) + sums["billed_qty"]
    return tuple(
        Cell(
            platform=key[0],
            provider=key[1],
            tenant=key[2],
            billed_seconds=time.get(key, 0) / 1e3,
            billed_bytes=traffic.get(key, 0),
            **_measures([sums]),
        )
        for key, sums in sorted(cells.items())
    )


def _groups(cells: Mapping[CellKey, Sums], dimension: int) -> tuple[Group, ...]:
    """Group the cells by one part of their key, dearest first."""
    names: dict[str, list[Sums]] = {}
    for key, sums in cells.items():
        names.setdefault(key[dimension], []).append(sums)
    groups = [Group(name=name, **_measures(parts)) for name, parts in names.items()]
    return tuple(sorted(groups, key=lambda group: (-group.cost.nanos, -group.session_seconds, group.name)))


def _components(lines: Mapping[LineKey, Sums]) -> tuple[ComponentFigures, ...]:
    total: dict[tuple[str, str], Sums] = {}
    for (_, provider, _, kind), sums in lines.items():
        part = total.setdefault((provider, kind), dict.fromkeys(figures.LINE_MEASURES, 0))
        for measure, value in sums.items():
            part[measure] += value
    found = [
        ComponentFigures(
            provider=provider,
            kind=kind,
            amount=Money(sums["amount_n"]),
            raw_qty=sums["raw_qty"],
            billed_qty=sums["billed_qty"],
            included_qty=sums["included_qty"],
        )
        for (provider, kind), sums in total.items()
        if any(sums.values())
    ]
    return tuple(sorted(found, key=lambda part: (-part.amount.nanos, part.provider, part.kind)))


def _previous(conn: Connection, before: Window, window: Window, now: datetime) -> Previous:
    sums = figures.totals(conn, Span.of(before.start, before.end))
    to_date = None
    if window.start <= now < window.end:
        same_point = min(before.end, before.start + (now - window.start))
        to_date = Money(figures.cost(conn, Span.of(before.start, same_point)))
    return Previous(
        label=before.label,
        cost=Money(sums.cost_n),
        sessions=sums.sessions,
        leases=sums.leases,
        to_date=to_date,
    )


def _timeline(
    hours: Mapping[int, HourSums], period: ReportPeriod, window: Window, place: ZoneInfo
) -> tuple[Moment, ...]:
    if period == "day":
        length = int((window.end - window.start) / timedelta(hours=1))
        starts = [window.start + timedelta(hours=n) for n in range(length)]
        parts = [Window(at, at + timedelta(hours=1), f"{at.astimezone(place):%H:%M}") for at in starts]
    else:
        parts = list(windows_between("day", place, window.start, window.end))
    if any(micros(part.start) % HOUR_US or micros(part.end) % HOUR_US for part in parts):
        return ()
    moments = []
    for part in parts:
        sums = [hours[at] for at in range(micros(part.start), micros(part.end), HOUR_US) if at in hours]
        moments.append(
            Moment(
                start=part.start,
                label=part.label,
                cost=Money(sum(hour.cost_n for hour in sums)),
                sessions=sum(hour.sessions for hour in sums),
            )
        )
    return tuple(moments)


def _holds(conn: Connection) -> HoldFigures:
    count, amount, oldest, session = figures.open_holds(conn)
    return HoldFigures(
        open=count,
        amount=Money(amount),
        oldest_at=None if oldest is None else moment(oldest),
        oldest_session=session,
    )


def _budget(budget: RowMapping, windows: list[RowMapping], span: Span, at: datetime) -> BudgetFigures:
    bounds = window_bounds(budget["period"], str(budget["timezone"]), at)
    at_us = micros(at)
    shown = next((row for row in reversed(windows) if row["start_at"] <= at_us < row["end_at"]), None)
    inside = [row for row in windows if row["start_at"] >= span.start and row["end_at"] <= span.end]
    scope = str(budget["scope_kind"])
    return BudgetFigures(
        name=str(budget["name"]),
        scope=scope if scope == "pool" else f"{scope} {budget['scope_value']}",
        period=str(budget["period"]),
        timezone=str(budget["timezone"]),
        mode=str(budget["mode"]),
        label=bounds.label,
        starts_at=bounds.start,
        resets_at=bounds.end if bounds.end < LAST_INSTANT else None,
        limit=Money(int((shown or budget)["limit_n"])),
        spent=Money(int(shown["spent_n"]) if shown else 0),
        held=Money(int(shown["held_n"]) if shown else 0),
        forced=Money(int(shown["forced_n"]) if shown else 0),
        denied=int(shown["denied"]) if shown else 0,
        windows=len(inside),
        denied_in_period=sum(int(row["denied"]) for row in inside),
        forced_in_period=Money(sum(int(row["forced_n"]) for row in inside)),
    )


def _forecasts(
    conn: Connection, hours: Mapping[int, HourSums], place: ZoneInfo, now: datetime, held: Money
) -> tuple[ForecastFigures, ...]:
    recent = micros(now - _HISTORY) - HOUR_US
    costs = {moment(hour): sums.cost_n for hour, sums in hours.items() if hour >= recent}
    first = figures.first_session(conn)
    past = Past(costs, since=None if first is None else moment(first), now=now, zone=place)
    found = []
    periods: tuple[ReportPeriod, ...] = ("day", "month")
    for period in periods:
        window = window_bounds(period, place, now)
        spent = Money(figures.cost(conn, Span.of(window.start, now)))
        outlook = forecast(start=window.start, end=window.end, spent=spent, past=past, held=held)
        found.append(
            ForecastFigures(
                period=period,
                label=window.label,
                spent=spent,
                p10=outlook.p10,
                p50=outlook.p50,
                p90=outlook.p90,
                run_rate=outlook.run_rate,
                closed_days=outlook.closed_days,
                note=_note(outlook),
            )
        )
    return tuple(found)


def _note(outlook: Outlook) -> str:
    if outlook.is_forecast:
        return "median of the same weekday and hour in the last four weeks; P90 includes all open holds"
    days = outlook.closed_days
    return f"not enough history for a forecast: {days} closed {'day' if days == 1 else 'days'} of {NEEDED_DAYS} needed"
