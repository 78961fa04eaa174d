"""How far budgets are used in a period: each budget's latest window, as of now or as of an earlier entry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.windows import LAST_INSTANT, window_bounds
from tabkeeper.money import Money
from tabkeeper.reports import facts
from tabkeeper.reports.as_of import EVERYTHING
from tabkeeper.reports.figures import Span
from tabkeeper.reports.report import BudgetFigures

_MOMENT = timedelta(microseconds=1)


def budget_figures(
    conn: Connection,
    start: datetime,
    end: datetime,
    now: datetime,
    *,
    upto: int = EVERYTHING,
    peaks: bool = False,
) -> tuple[BudgetFigures, ...]:
    """Tell how far each budget is used, in its latest window between two instants.

    Args:
        conn: the ledger.
        start: beginning of the period.
        end: its end.
        now: the present, or what was the present as of `upto`.
        upto: the last entry that counts.
        peaks: whether to look for the most that was spent and held at once, which reads every posting of a window,
            if there are not too many.
    """
    latest = min(max(now, start), end - _MOMENT)
    span = Span.of(start, end)
    # A version that came after the moment that is told of did not exist.
    versions = Span.of(start, min(end, max(now, start) + _MOMENT))
    windows: dict[str, list[Mapping[str, Any]]] = {}
    for row in facts.budget_windows(conn, span, upto):
        windows.setdefault(str(row["name"]), []).append(row)
    newest: dict[str, Mapping[str, Any]] = {}
    for version in facts.budgets(conn, versions):
        newest.setdefault(str(version["name"]), dict(version))
    found = []
    for name, budget in sorted(newest.items()):
        at = micros(latest)
        own = windows.get(name, [])
        shown = next((row for row in reversed(own) if row["start_at"] <= at < row["end_at"]), None)
        most = None if shown is None or not peaks else facts.peak(conn, shown["id"], upto)
        peak = None if most is None else Money(most)
        found.append(
            _budget(budget, own, shown, span=span, at=moment(at), now=micros(now), peak=peak, upto=upto)
        )
    return tuple(found)


def _budget(
    budget: Mapping[str, Any],
    windows: list[Mapping[str, Any]],
    shown: Mapping[str, Any] | None,
    *,
    span: Span,
    at: datetime,
    now: int,
    peak: Money | None,
    upto: int,
) -> BudgetFigures:
    bounds = window_bounds(budget["period"], str(budget["timezone"]), at)
    inside = [row for row in windows if row["start_at"] >= span.start and row["end_at"] <= span.end]
    scope = str(budget["scope_kind"])
    limit = budget if shown is None or upto < EVERYTHING else shown
    return BudgetFigures(
        name=str(budget["name"]),
        scope=scope if scope == "pool" else f"{scope} {budget['scope_value']}",
        period=str(budget["period"]),
        timezone=str(budget["timezone"]),
        mode=str(budget["mode"]),
        label=bounds.label,
        starts_at=bounds.start,
        resets_at=bounds.end if bounds.end < LAST_INSTANT else None,
        limit=Money(int(limit["limit_n"])),
        spent=Money(int(shown["spent_n"]) if shown else 0),
        held=Money(int(shown["held_n"]) if shown else 0),
        forced=Money(int(shown["forced_n"]) if shown else 0),
        denied=_denied([shown] if shown else [], now, upto),
        peak=peak,
        windows=len(inside),
        denied_in_period=_denied(inside, now, upto),
        forced_in_period=Money(sum(int(row["forced_n"]) for row in inside)),
    )


def _denied(windows: list[Mapping[str, Any]], now: int, upto: int) -> int | None:
    """Count refusals; they are a counter, so an earlier one is known only of windows that were over by then."""
    if upto < EVERYTHING and any(row["end_at"] > now for row in windows):
        return None
    return sum(int(row["denied"]) for row in windows)
