"""The report as one HTML file that needs nothing else: no network, no script, light or dark, and ready to print."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from tabkeeper.reports.html.plots import plots
from tabkeeper.reports.html.tables import Used, key_figures, tables
from tabkeeper.reports.render_table import foot_lines, head_texts
from tabkeeper.reports.report import CostReport

_HALF = 6
"""Columns of a table that leaves room for another beside it."""


def render_html(report: CostReport) -> str:
    """Write a report as a page; the same report makes the same bytes."""
    title, bounds = head_texts(report)
    return _template().render(
        report=report,
        title=title,
        bounds=bounds,
        figures=key_figures(report),
        plots=plots(report),
        tables=tables(report),
        foot=foot_lines(report),
        half=_HALF,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("tabkeeper.reports.html", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.tests["used"] = lambda value: isinstance(value, Used)
    return environment.get_template("report.html.j2")
