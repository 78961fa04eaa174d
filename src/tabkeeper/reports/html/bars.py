"""Two plots of few bars: what became of the hours that were billed, and what an hour costs at each provider. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tabkeeper.ledger.rates import TIME_KINDS
from tabkeeper.money import Money
from tabkeeper.reports.html.svg import WIDTH, Plot, svg, tag, text
from tabkeeper.reports.render_parts import cut, hours_text, money_column
from tabkeeper.reports.report import CostReport

_LEFT, _RIGHT, _HIGH = 132, 86, 30
_MOST = 7
_NAME = 18


@dataclass(frozen=True, slots=True)
class _Row:
    """A bar from one figure to another, with its name before it and its length in words behind it."""

    name: str
    start: float
    end: float
    said: str
    class_: str


def hours_plot(report: CostReport) -> Plot | None:
    """Draw the way from hours leased to hours paid for: idle time and billing steps added, allowances taken off."""
    # Hours that are free are beside the point.
    time = [
        part for part in report.components if part.kind in TIME_KINDS and (part.amount or part.included_qty)
    ]
    by_time = {part.provider for part in time}
    cells = [cell for cell in report.cells if cell.provider in by_time]
    leased, lived = sum(cell.leased_seconds for cell in cells), sum(cell.session_seconds for cell in cells)
    billed = sum(cell.billed_seconds for cell in cells)
    if not lived or not billed:
        return None
    included = sum(part.included_qty for part in time) / 1000
    # Leases that share a session at the same time can be longer than it lived.
    used = min(leased, lived)
    rows = [_hours("leased", 0, used, "fill c2"), _hours("idle", used, lived, "fill c3")]
    if billed >= lived:
        rows.append(_hours("billing steps", lived, billed, "fill c4"))
    else:
        rows.append(_hours("not billed", billed, lived, "fill c5"))
    rows.append(_hours("billed", 0, billed, "fill c1"))
    if included:
        rows.append(_hours("of it included", max(0.0, billed - included), billed, "fill c5"))
    note = f"Where time is charged: for each hour billed, {used / billed:.2f} h were leased."
    return Plot("From hours leased to hours billed", _bars(rows, note), note)


def price_plot(report: CostReport) -> Plot | None:
    """Draw what an hour of a session came to at each provider, cheapest first; nothing to compare with one."""
    prices = sorted(
        (one.cost.nanos * 3600 / one.session_seconds, one.name)
        for one in report.providers
        if one.session_seconds and one.cost
    )[:_MOST]
    if len(prices) < 2:
        return None
    said = money_column([Money(round(nanos)) for nanos, _ in prices])
    rows = [_Row(name, 0, nanos, said[n], "fill c1") for n, (nanos, name) in enumerate(prices)]
    note = f"Fees and rounding included; {prices[0][1]} was cheapest with {said[0]}."
    return Plot("An hour at each provider", _bars(rows, note), note)


def _hours(name: str, start: float, end: float, class_: str) -> _Row:
    return _Row(name, start, end, f"{hours_text(end - start)} h", class_)


def _bars(rows: Sequence[_Row], note: str) -> Markup:
    top = max(row.end for row in rows)
    marks = Markup()
    for number, row in enumerate(rows):
        y = 6 + number * _HIGH
        left, right = (_LEFT + (WIDTH - _LEFT - _RIGHT) * value / top for value in (row.start, row.end))
        marks += text(_LEFT - 10, y + 16, cut(row.name, _NAME), "end")
        marks += tag(
            "rect",
            f"{row.name}: {row.said}",
            x=left,
            y=y,
            width=max(right - left, 1.0),
            height=_HIGH - 8,
            rx=2,
            class_=row.class_,
        )
        marks += text(right + 8, y + 16, row.said, "start")
    return svg(marks, note, height=6 + len(rows) * _HIGH)
