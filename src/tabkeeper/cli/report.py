"""`tabkeeper report`, `tabkeeper rates` and `tabkeeper budget`: what was spent, what things cost, what is left.

All of them only read; the reports themselves are built in `tabkeeper.reports`.
"""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, need, print_json, read_config
from tabkeeper.cli.picture import budgets
from tabkeeper.cli.records import reading
from tabkeeper.cli.report_options import AsOfOption, read_as_of, read_date
from tabkeeper.clock import SystemClock
from tabkeeper.errors import ConfigError, NoPriceError
from tabkeeper.ledger.cards import all_cards, card_of_provider
from tabkeeper.ledger.rates import TIME_KINDS, Component, RateCard, is_free
from tabkeeper.money import Money
from tabkeeper.reports.daily import build_report
from tabkeeper.reports.html.page import render_html
from tabkeeper.reports.parquet import write_parquet
from tabkeeper.reports.render_csv import cells_table, render_csv
from tabkeeper.reports.render_json import render_json
from tabkeeper.reports.render_table import WIDTH, budget_table, print_report
from tabkeeper.reports.report import CostReport, ReportPeriod

report_app = typer.Typer(no_args_is_help=True, help="What was used and what it cost: a day or a month.")
rates_app = typer.Typer(no_args_is_help=True, help="Price lists: built in, and of your providers.")
budget_app = typer.Typer(no_args_is_help=True, help="Budgets, and how much of them is left.")


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    HTML = "html"
    PARQUET = "parquet"


FormatOption = Annotated[
    Format, typer.Option("--format", "-f", help="table and html for people; the others are exact.")
]
ReportJsonOption = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Write to this file instead of the terminal."),
]


@report_app.command("day")
def report_day(
    config: ConfigOption = None,
    *,
    day: Annotated[
        date | None,
        typer.Option(
            "--date", "-d", parser=read_date, metavar="YYYY-MM-DD", help="Which day; today if not given."
        ),
    ] = None,
    style: FormatOption = Format.TABLE,
    as_json: ReportJsonOption = False,
    out: OutOption = None,
    as_of: AsOfOption = None,
) -> None:
    """Report one day, from midnight to midnight in the ledger's time zone.

    For instance:

      tabkeeper report day

      tabkeeper report day --date 2026-11-20 --format csv --out yesterday.csv
    """
    _report(config, "day", day, style=_style(style, as_json=as_json), out=out, as_of=as_of)


@report_app.command("month")
def report_month(
    config: ConfigOption = None,
    *,
    day: Annotated[
        date | None,
        typer.Option(
            "--date",
            "-d",
            parser=read_date,
            metavar="YYYY-MM",
            help="Which month, or any day of it; this one if not given.",
        ),
    ] = None,
    style: FormatOption = Format.TABLE,
    as_json: ReportJsonOption = False,
    out: OutOption = None,
    as_of: AsOfOption = None,
) -> None:
    """Report one calendar month in the ledger's time zone.

    For instance:

      tabkeeper report month

      tabkeeper report month --date 2026-10 --json | jq .totals.cost
    """
    _report(config, "month", day, style=_style(style, as_json=as_json), out=out, as_of=as_of)


@rates_app.command("list")
def rates_list(
    plan: Annotated[str, typer.Argument(metavar="[PLAN]", help="Only plans whose name contains this.")] = "",
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show the prices of your providers and all built-in lists, each with its source and date.

    For instance:

      tabkeeper rates list

      tabkeeper rates list browserbase
    """
    settings = read_config(config)
    now = SystemClock().now()
    own: list[tuple[str, RateCard | None]] = []
    for name, provider in settings.providers.items():
        try:
            own.append((name, card_of_provider(name, provider, now)))
        except NoPriceError:
            own.append((name, None))
    built_in = [card for card in all_cards() if plan in card.plan]
    if plan and not built_in:
        raise ConfigError(
            f"there is no built-in price list with {plan!r} in its name; see `tabkeeper rates list`"
        )
    if as_json:
        cards = {name: card.as_dict() if card else None for name, card in own}
        print_json({"providers": cards, "built_in": [card.as_dict() for card in built_in]})
        return
    screen = console()
    if not plan:
        _print(screen, _rates_table("Your providers", own))
        screen.print()
    _print(screen, _rates_table("Built-in price lists", [(card.plan, card) for card in built_in]))
    for card in built_in if plan else ():
        screen.print(f"\n{card.plan}, from {card.effective_from:%Y-%m-%d}: {card.note}", markup=False)
        screen.print(f"{card.source}, checked {card.checked_at}", style="dim", markup=False)
    if not plan:
        screen.print("\nName a plan to see its source and how its gaps were read.", style="dim")


@budget_app.command("list")
def budget_list(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show every budget with its present window: limit, spent, held, left, refused.

    For instance:

      tabkeeper budget list

      tabkeeper budget list --json | jq '.[] | {name, left, limit}'
    """
    settings = read_config(config)
    now = SystemClock().now()
    with reading(settings) as engine:
        found = budgets(engine, now)
    if as_json:
        print_json([budget.model_dump(mode="json") for budget in found])
    else:
        _print(console(), budget_table(found))


def _style(style: Format, *, as_json: bool) -> Format:
    if as_json and style not in {Format.TABLE, Format.JSON}:
        raise ConfigError(f"--json and --format {style} contradict each other; leave one out")
    return Format.JSON if as_json else style


def _report(
    config: Path | None,
    period: ReportPeriod,
    day: date | None,
    *,
    style: Format,
    out: Path | None,
    as_of: str | None,
) -> None:
    settings = read_config(config)
    with reading(settings) as engine:
        with engine.connect() as connection:
            seen = read_as_of(connection, as_of, SystemClock().now())
        report = build_report(
            engine, period=period, zone=settings.ledger.timezone, now=seen.now, day=day, upto=seen.entry
        )
    if out is None and style is Format.TABLE:
        print_report(report, console())
        return
    if style is Format.PARQUET:
        need("parquet", "pyarrow")
        if out is None:
            raise ConfigError("--format parquet writes a file; name it with --out")
        write_parquet(cells_table(report), out)
    elif out is None:
        typer.echo(_text(report, style), nl=False)
        return
    else:
        try:
            out.write_text(_text(report, style), encoding="utf-8", newline="")
        except OSError as error:
            raise ConfigError(f"--out: {out} cannot be written: {error.strerror or error}") from None
    typer.echo(f"Wrote the report of {report.label} to {out}.", err=True)


def _text(report: CostReport, style: Format) -> str:
    if style is Format.JSON:
        return render_json(report)
    if style is Format.CSV:
        return render_csv(report)
    if style is Format.HTML:
        return render_html(report)
    page = io.StringIO()
    print_report(report, Console(file=page, width=WIDTH, color_system=None))
    return page.getvalue()


def _rates_table(title: str, rows: list[tuple[str, RateCard | None]]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, expand=True, pad_edge=False,
        show_edge=False,
    )  # fmt: skip
    table.add_column("Name", no_wrap=True, ratio=1)
    table.add_column("From", no_wrap=True)
    for column in ("Session", "Hour", "Step", "Included", "GB"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, card in rows:
        table.add_row(name, *(_rates_row(card) if card else ("", "nobody said", *[""] * 4)))
    return table


def _rates_row(card: RateCard) -> tuple[str, ...]:
    since = (
        f"{card.effective_from:%Y-%m-%d}" if card.effective_from > datetime(1971, 1, 1, tzinfo=UTC) else ""
    )
    if is_free(card):
        return since, "", "free", "", "", ""
    time = next((part for part in card.components if part.kind in TIME_KINDS), None)
    fee, traffic = card.component("session"), card.component("proxy_bytes")
    return (
        since,
        _each(fee, 1) if fee else "",
        _each(time, 3_600_000) if time else "",
        f"{time.increment_qty / 1000:g} s" if time else "",
        f"{time.included_qty / 3_600_000:,.0f} h" if time and time.included_qty else "",
        _each(traffic, 10**9) if traffic else "unknown",
    )


def _each(part: Component, qty: int) -> str:
    if not part.unit_price:
        return "free"
    return str(Money.from_decimal(part.unit_price * Decimal(qty) / part.per_qty))


def _print(screen: Console, what: object) -> None:
    screen.print(what, width=min(WIDTH, screen.width))
