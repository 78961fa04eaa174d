"""Puts a cost report together: which windows to look at, which sums to take, what they mean.

SQL is in `figures`, the forecast's arithmetic in `forecast`; a report is built on one snapshot of the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from tabkeeper.ledger.instants import HOUR_US, micros, moment
from tabkeeper.ledger.rates import BYTE_KINDS, TIME_KINDS
from tabkeeper.ledger.windows import FIRST_INSTANT, Window, window_bounds, window_of_date
from tabkeeper.money import Money
from tabkeeper.reports import details, facts, figures, history
from tabkeeper.reports.as_of import EVERYTHING
from tabkeeper.reports.budgeting import budget_figures
from tabkeeper.reports.figures import CellKey, LineKey, ProviderHours, Span, Sums
from tabkeeper.reports.forecast import NEEDED_DAYS, Outlook, Past, back_test, forecast
from tabkeeper.reports.later import Later, read_later
from tabkeeper.reports.report import (
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
from tabkeeper.reports.unusual import unusual_days, unusual_hours

_MOMENT = timedelta(microseconds=1)
_HISTORY = timedelta(weeks=8)


def build_report(
    engine: Engine,
    *,
    period: ReportPeriod,
    zone: str,
    now: datetime,
    day: date | None = None,
    upto: int = EVERYTHING,
) -> CostReport:
    """Report the local day or month that contains a date.

    Args:
        engine: the ledger's reader.
        period: day or month.
        zone: IANA zone whose midnight begins it.
        now: the present, in UTC; or what was the present as of `upto`.
        day: any date of the period; today if None.
        upto: the last entry that counts. The same arguments make the same report for ever; see `as_of`.
    """
    place = ZoneInfo(zone)
    window = window_bounds(period, place, now) if day is None else window_of_date(period, place, day)
    with snapshot(engine) as conn:
        return _report(_scene(conn, period, place, window, now, upto=upto))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """Which part of the ledger is told of, as of when, and what was read of it already."""

    conn: Connection
    period: ReportPeriod
    place: ZoneInfo
    window: Window
    now: datetime
    upto: int
    later: Later
    hours: ProviderHours
    since: datetime | None
    """When the ledger's first session began."""

    @property
    def span(self) -> Span:
        return Span.of(self.window.start, self.window.end)

    @property
    def before(self) -> Window:
        return window_bounds(self.period, self.place, self.window.start - _MOMENT)

    @property
    def is_now(self) -> bool:
        return self.now in self.window

    def cost(self, start: datetime, end: datetime) -> Money:
        """Sum a span; nothing if it is empty."""
        return Money(figures.cost(self.conn, Span.of(start, max(start, end)), self.later))


def _scene(
    conn: Connection, period: ReportPeriod, place: ZoneInfo, window: Window, now: datetime, *, upto: int
) -> _Scene:
    later = read_later(conn, upto)
    first = facts.first_session(conn, upto)
    before = window_bounds(period, place, window.start - _MOMENT)
    known = Span.of(
        min(before.start, max(min(now, window.start), FIRST_INSTANT + history.LOOK_BACK) - history.LOOK_BACK),
        window.end,
    )
    return _Scene(
        conn=conn,
        period=period,
        place=place,
        window=window,
        now=now,
        upto=upto,
        later=later,
        hours=figures.hours(conn, known.outer_hours, later),
        since=None if first is None else moment(first),
    )


def _report(scene: _Scene) -> CostReport:
    conn, window, now, place, upto = scene.conn, scene.window, scene.now, scene.place, scene.upto
    last = last_day(window, scene.period, place, now)
    parts = history.steps(scene.period, window, place)
    cells = figures.usage_by_cell(conn, scene.span, scene.later)
    lines = figures.lines_by_cell(conn, scene.span, scene.later)
    totals = _usage(cells.values())
    holds = _holds(conn, upto)
    begun = Span.of(window.start, min(window.end, max(window.start, now + _MOMENT)))
    counts, raised = details.alerts(conn, begun)
    return CostReport(
        period=scene.period,
        label=window.label,
        timezone=place.key,
        start=window.start,
        end=window.end,
        hours=(window.end - window.start) / timedelta(hours=1),
        now=now,
        is_open=now < window.end,
        watermark=facts.watermark(conn, upto),
        quality=_quality(scene),
        totals=totals,
        billed_seconds=figures.billed(lines, TIME_KINDS) / 1e3,
        previous=_previous(scene),
        cells=_cells(cells, lines),
        platforms=_groups(cells, 0),
        providers=_groups(cells, 1),
        tenants=_groups(cells, 2),
        components=_components(lines),
        timeline=history.timeline(scene.hours, parts),
        trend=read_trend(conn, last, place, now, since=scene.since, later=scene.later),
        holds=holds,
        budgets=budget_figures(
            conn, window.start, window.end, now, upto=upto, peaks=0 < totals.sessions <= details.MOST_SESSIONS
        ),
        forecasts=_forecasts(scene, holds.amount) if scene.is_now else (),
        month_to_date=scene.cost(
            window_bounds("month", place, window.start).start, min(max(now, window.start), window.end)
        ),
        week_ago=_week_ago(scene) if scene.period == "day" else None,
        session_costs=details.session_costs(conn, scene.span, upto, totals.cost, totals.sessions),
        tags=details.tags(conn, scene.span, upto, totals.sessions),
        alerts=counts,
        raised=raised,
        reconciled=details.reconciled(conn, begun),
        restated=details.restated(conn, window, place, now, upto),
        unusual=(unusual_hours if scene.period == "day" else unusual_days)(
            scene.hours, window, now, place, scene.since
        ),
        provider_costs=history.provider_costs(scene.hours, parts),
        band=history.band(scene.period, scene.hours, window, parts, since=scene.since, place=place),
        days=_days(scene, history.last_days(last, place, scene.since)),
        heat=history.heat(scene.hours, min(now, window.end), place, scene.since),
    )


def _quality(scene: _Scene) -> QualityFigures:
    estimated, estimated_cost = facts.estimates(scene.conn, scene.span, scene.upto)
    adjusted, adjusted_cost, adjusted_at = facts.adjustments(scene.conn, scene.span, scene.upto)
    return QualityFigures(
        estimated_sessions=estimated,
        estimated_cost=Money(estimated_cost),
        adjusted_sessions=adjusted,
        adjusted_cost=Money(adjusted_cost),
        adjusted_at=None if adjusted_at is None else moment(adjusted_at),
    )


def _week_ago(scene: _Scene) -> Money | None:
    then = scene.window
    if then.start < FIRST_INSTANT:
        return None
    for _ in range(7):
        then = window_bounds("day", scene.place, then.start - _MOMENT)
    end = min(then.end, then.start + (scene.now - scene.window.start)) if scene.is_now else then.end
    return scene.cost(then.start, end)


def _days(scene: _Scene, days: list[Window]) -> tuple[Moment, ...]:
    if history.whole(days):
        return history.timeline(scene.hours, days)
    sums = [(day, figures.totals(scene.conn, Span.of(day.start, day.end), scene.later)) for day in days]
    return tuple(
        Moment(start=day.start, label=day.label, cost=Money(one.cost_n), sessions=one.sessions)
        for day, one in sums
    )


def cost_between(engine: Engine, start: datetime, end: datetime) -> Money:
    """Sum the cost of all sessions whose money was held from `start` to `end` (not included)."""
    with snapshot(engine) as conn:
        return Money(figures.cost(conn, Span.of(start, end)))


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


def _previous(scene: _Scene) -> Previous:
    before, window = scene.before, scene.window
    sums = figures.totals(scene.conn, Span.of(before.start, before.end), scene.later)
    to_date = None
    if scene.is_now:
        to_date = scene.cost(before.start, min(before.end, before.start + (scene.now - window.start)))
    return Previous(
        label=before.label,
        cost=Money(sums.cost_n),
        sessions=sums.sessions,
        leases=sums.leases,
        to_date=to_date,
    )


def _holds(conn: Connection, upto: int) -> HoldFigures:
    count, amount, oldest, session = facts.open_holds(conn, upto)
    return HoldFigures(
        open=count,
        amount=Money(amount),
        oldest_at=None if oldest is None else moment(oldest),
        oldest_session=session,
    )


def _forecasts(scene: _Scene, held: Money) -> tuple[ForecastFigures, ...]:
    now, place = scene.now, scene.place
    costs = history.costs_by_hour(scene.hours, micros(now - _HISTORY) - HOUR_US)
    past = Past(costs, since=scene.since, now=now, zone=place)
    test = back_test(costs, since=scene.since, now=now, zone=place)
    found = []
    periods: tuple[ReportPeriod, ...] = ("day", "month")
    for period in periods:
        window = window_bounds(period, place, now)
        spent = scene.cost(window.start, now)
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
                # A day's end is known a day later; of months there are too few to test on.
                tested_days=test.days if test and period == "day" else 0,
                error=test.error if test and period == "day" else None,
                bias=test.bias if test and period == "day" else None,
                covered=test.covered if test and period == "day" else 0,
            )
        )
    return tuple(found)


def _note(outlook: Outlook) -> str:
    if outlook.is_forecast:
        return "median of the same weekday and hour in the last four weeks; P90 includes all open holds"
    days = outlook.closed_days
    return f"not enough history for a forecast: {days} closed {'day' if days == 1 else 'days'} of {NEEDED_DAYS} needed"
