"""A cost report as a flat table: one row for each platform, provider and tenant, made for pivot tables.

The rows add up to the report's totals in every column; budgets, holds and forecasts are only in the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tabkeeper.reports.columns import Column, FlatTable, csv_lines
from tabkeeper.reports.report import CostReport, Usage

_KEYS = ("platform", "provider", "tenant")
_MEASURES = tuple(
    Column(name, "money")
    if name in {"cost", "idle", "rounding", "failed"}
    else Column(name, "number" if name.endswith("seconds") else "integer")
    for name in Usage.model_fields
)
CELL_COLUMNS = (
    Column("period"),
    Column("label"),
    Column("timezone"),
    Column("start", "instant"),
    Column("end", "instant"),
    *(Column(name, spoken=True) for name in _KEYS),
    *_MEASURES,
    Column("leased_cost", "money"),
    Column("billed_seconds", "number"),
    Column("billed_bytes", "integer"),
)
COLUMNS = tuple(column.name for column in CELL_COLUMNS)
"""The header. Money is in dollars as exact decimal text, lengths of time in seconds, instants in UTC.

`cost` is `leased_cost` and `idle` together; sessions and what is billed of them are what a provider's invoice counts.
"""


def render_csv(report: CostReport) -> str:
    """Write a report's cells with a header; a report without usage is the header alone."""
    return "".join(csv_lines(cells_table(report)))


def cells_table(report: CostReport) -> FlatTable:
    """Lay a report's cells out."""
    return FlatTable(CELL_COLUMNS, _rows(report))


def _rows(report: CostReport) -> Iterator[list[Any]]:
    head = [report.period, report.label, report.timezone, report.start, report.end]
    for cell in report.cells:
        yield [
            *head,
            *(getattr(cell, key) for key in _KEYS),
            *(getattr(cell, name) for name in Usage.model_fields),
            cell.cost - cell.idle,
            cell.billed_seconds,
            cell.billed_bytes,
        ]
