"""The seven days of a report as a table: a column for each day, a row for each platform.

Seven columns of money leave few places for each: what is less than the last place is shown as such, and JSON has
the exact figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from rich.console import Group, RenderableType
from rich.text import Text

from tabkeeper.money import Money
from tabkeeper.reports.render_parts import NONE, ROWS, cut, line, spark, usual_table
from tabkeeper.reports.report import Trend, TrendRow
from tabkeeper.reports.trend import change

_ROOMY = 6
"""Characters of a day's cost that leave room for two spaces between columns."""


def has_trend(trend: Trend) -> bool:
    """Whether any of the days saw a session or a cost."""
    return any(trend.total.sessions) or any(trend.total.costs)


def trend_table(trend: Trend, now: datetime) -> RenderableType:
    """Lay the days out: costs, or sessions where nothing was charged."""
    is_paid = any(trend.total.costs)
    names = [_heading(day.label) for day in trend.days]
    rows = list(trend.platforms)
    if len(rows) > ROWS:
        rows = [*rows[: ROWS - 1], _others(rows[ROWS - 1 :])]
    rows.append(trend.total)
    lines = _costs(rows) if is_paid else _sessions(rows)
    widest = max(len(cell) for cells in lines for cell in cells[: len(names)])
    table = usual_table("Platform by day" if is_paid else "Sessions by day")
    table.padding = (0, 1 if widest <= _ROOMY else 0, 0, 0)
    for name in (*names, "Total", *(["Change"] if is_paid else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Days", no_wrap=True)
    for row, cells in zip(rows, lines, strict=True):
        values = (
            [cost.nanos if cost else 0 for cost in row.costs] if is_paid else [n or 0 for n in row.sessions]
        )
        bars = Text(spark(values), style="cyan")
        table.add_row(cut(row.name, 22), *cells, bars, style="bold" if row is trend.total else "")
    return Group(table, line(_caption(trend, names, now), style="dim"))


def _costs(rows: Sequence[TrendRow]) -> list[list[str]]:
    places = _places(rows)
    return [[*(_money(cost, places) for cost in (*row.costs, row.total)), row.change or ""] for row in rows]


def _sessions(rows: Sequence[TrendRow]) -> list[list[str]]:
    return [
        [NONE if n is None else f"{n:,}" for n in (*row.sessions, sum(n or 0 for n in row.sessions))]
        for row in rows
    ]


def _heading(label: str) -> str:
    day = date.fromisoformat(label)
    return f"{day:%a} {day.day}"


def _caption(trend: Trend, names: Sequence[str], now: datetime) -> str:
    said = []
    before = [cost for cost in trend.total.costs[:-1] if cost is not None]
    if trend.total.change is not None:
        last, days = trend.days[-1], len(before)
        so_far = " so far" if last.start <= now < last.end else ""
        said.append(
            f"Change: {names[-1]}{so_far} against the mean of the {f'{days} days' if days > 1 else 'day'} before."
        )
    if None in trend.total.costs:
        said.append(f"{NONE} is a day that the ledger has not seen.")
    return " ".join(said)


def _others(rows: Sequence[TrendRow]) -> TrendRow:
    costs = tuple(
        None if None in day else Money(sum(cost.nanos for cost in day if cost is not None))
        for day in zip(*(row.costs for row in rows), strict=True)
    )
    return TrendRow(
        name=f"({len(rows)} others)",
        costs=costs,
        sessions=tuple(
            None if None in day else sum(n or 0 for n in day)
            for day in zip(*(row.sessions for row in rows), strict=True)
        ),
        total=Money(sum(row.total.nanos for row in rows)),
        change=change(costs),
    )


def _places(rows: Sequence[TrendRow]) -> int:
    """Choose places for all columns, so that the dearest day has three figures or more in few characters."""
    dearest = max(abs(cost.nanos) for row in rows for cost in row.costs if cost is not None) / 1e9
    for limit, places in ((0.1, 4), (10, 3), (1000, 2)):
        if dearest < limit:
            return places
    return 0


def _money(amount: Money | None, places: int) -> str:
    if not amount:
        return NONE if amount is None else "$0"
    step = Decimal(1).scaleb(-places)
    if 0 < amount.dollars < step / 2:
        return f"<${step:f}"
    sign = "-" if amount.nanos < 0 else ""
    return f"{sign}${abs(amount.dollars).quantize(step, ROUND_HALF_EVEN):,f}"
