"""What stands out in a report, in words for terminal and page: what cost far from the usual, and what was restated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType

from tabkeeper.reports.render_parts import line, money_column, usual_table
from tabkeeper.reports.report import CostReport


@dataclass(frozen=True, slots=True)
class Notable:
    """A table: the first column names, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str


def unusual_part(report: CostReport) -> Notable:
    """Tell which hours of a day, or which days of a month, cost far more or less than the same weekday before."""
    parts, place = report.unusual, ZoneInfo(report.timezone)
    is_day = report.period == "day"
    names = [one.label if is_day else f"{one.start.astimezone(place):%a} {one.label}" for one in parts]
    costs, usual = money_column([one.cost for one in parts]), money_column([one.usual for one in parts])
    return Notable(
        title="Unusual hours" if is_day else "Unusual days",
        columns=("Hour" if is_day else "Day", "Cost", "Usual", "Off by", "Weeks compared"),
        rows=[
            (names[n], costs[n], usual[n], f"{one.off:+.1f}", str(one.weeks)) for n, one in enumerate(parts)
        ],
        note=f"Against {'the same hour of ' if is_day else ''}the same weekday: its median, and how far off in "
        "robust deviations.",
    )


def restated_part(report: CostReport) -> Notable:
    """Tell which earlier days' costs changed since the report before this one."""
    parts = report.restated
    told, more = money_column([one.reported for one in parts]), money_column([one.amount for one in parts])
    return Notable(
        title="Earlier days, restated",
        columns=("Day", "Sessions", "Reported", "Changed by"),
        rows=[
            (one.day, f"{one.sessions:,}", told[n], more[n] if more[n].startswith("-") else f"+{more[n]}")
            for n, one in enumerate(parts)
        ],
        note="Booked after the days' own reports, and since the report before this one.",
    )


def notable_tables(report: CostReport) -> list[RenderableType]:
    """Lay out for a terminal what there is of both."""
    return [_table(part) for part in (unusual_part(report), restated_part(report)) if part.rows]


def _table(part: Notable) -> RenderableType:
    table = usual_table(part.title)
    for column in part.columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in part.rows:
        table.add_row(*row)
    return Group(table, line(part.note, style="dim"))
