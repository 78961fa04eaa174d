"""A cost report as JSON: every field, money as decimal text, a schema version. `read_json` is the way back."""

from __future__ import annotations

from tabkeeper.reports.report import CostReport


def render_json(report: CostReport) -> str:
    """Write a report as indented JSON with a line feed at its end."""
    return report.model_dump_json(indent=2) + "\n"


def read_json(text: str) -> CostReport:
    """Read what `render_json` wrote.

    Raises:
        ValueError: it is no such report, or of another schema version.
    """
    return CostReport.model_validate_json(text)
