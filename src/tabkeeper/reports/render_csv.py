"""A cost report as CSV: one row for each platform, provider and tenant, made for pivot tables.

The rows add up to the report's totals in every column; budgets, holds and forecasts are only in the JSON.
"""

from __future__ import annotations

import csv
import io

from tabkeeper.reports.report import Cell, CostReport, Usage

_KEYS = ("platform", "provider", "tenant")
_BILLED = ("leased_cost", "billed_seconds", "billed_bytes")
COLUMNS = ("period", "label", "timezone", "start", "end", *_KEYS, *Usage.model_fields, *_BILLED)
"""The header. Money is in dollars as exact decimal text, lengths of time in seconds, instants in UTC.

`cost` is `leased_cost` and `idle` together; sessions and what is billed of them are what a provider's invoice counts.
"""


def render_csv(report: CostReport) -> str:
    """Write a report's cells with a header; a report without usage is the header alone."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for cell in report.cells:
        table.writerow(_row(report, cell))
    return out.getvalue()


def _row(report: CostReport, cell: Cell) -> list[object]:
    values = cell.model_dump()
    head = [report.period, report.label, report.timezone, report.start.isoformat(), report.end.isoformat()]
    return [
        *head, *(_safe(values[key]) for key in _KEYS), *(values[name] for name in Usage.model_fields),
        (cell.cost - cell.idle).text(), cell.billed_seconds, cell.billed_bytes,
    ]  # fmt: skip


def _safe(name: str) -> str:
    """Keep a spreadsheet from taking a tenant's name for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
