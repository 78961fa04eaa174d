"""`tabkeeper export`: what was booked, for other people's tools: FOCUS, a plain-text journal, the lines themselves.

The tables are made in `tabkeeper.reports`; this only reads options and writes files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from tabkeeper.cli.options import ConfigOption, need, read_config
from tabkeeper.cli.records import reading
from tabkeeper.cli.report_options import AsOfOption, date_of, period_of, read_as_of
from tabkeeper.clock import SystemClock
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.windows import Window, window_bounds, window_of_date
from tabkeeper.reports.as_of import AsOf
from tabkeeper.reports.booked import BookedLine, booked_lines
from tabkeeper.reports.columns import FlatTable, csv_lines, json_lines
from tabkeeper.reports.daily import snapshot
from tabkeeper.reports.figures import Span
from tabkeeper.reports.focus import focus_table
from tabkeeper.reports.focus_metadata import focus_metadata, read_freshness, schema_reference
from tabkeeper.reports.hledger import journal
from tabkeeper.reports.lines import lines_table
from tabkeeper.reports.parquet import write_parquet

export_app = typer.Typer(
    no_args_is_help=True, help="What was booked, for other tools: FOCUS, hledger, lines."
)


class FileFormat(StrEnum):
    """How a table is written."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class Version(StrEnum):
    """Of FOCUS."""

    V1_2 = "1.2"
    V1_3 = "1.3"


PeriodOption = Annotated[
    str | None,
    typer.Option(
        "--date",
        "-d",
        callback=date_of,
        metavar="YYYY-MM[-DD]",
        help="Month or day; this month if not given.",
    ),
]
FormatOption = Annotated[
    FileFormat, typer.Option("--format", "-f", help="json is one object a line; parquet needs --out.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Write to this file instead of the terminal."),
]


@export_app.command("focus")
def export_focus(
    config: ConfigOption = None,
    *,
    day: PeriodOption = None,
    version: Annotated[Version, typer.Option("--focus", help="Version of the specification.")] = Version.V1_3,
    style: FormatOption = FileFormat.CSV,
    out: OutOption = None,
    metadata: Annotated[
        Path | None,
        typer.Option("--metadata", metavar="FILE", help="Write FOCUS's metadata of the export to this file."),
    ] = None,
    as_of: AsOfOption = None,
) -> None:
    """Export costs as FOCUS, the open cost and usage specification that FinOps tools read.

    For instance:

      tabkeeper export focus --date 2026-10 --out october.csv --metadata october.json

      tabkeeper export focus --focus 1.2 --format parquet --out month.parquet
    """
    with _booked(config, day, as_of) as (booked, _):
        columns = schema_reference(version.value)
        _write_table(replace(focus_table(booked.lines, version.value), about=columns), style, out)
        if metadata is not None:
            fresh = read_freshness(booked.conn, booked.window, booked.seen)
            told = focus_metadata(version.value, booked.window, fresh, booked.seen.now)
            _write_text([json.dumps(told, indent=2), "\n"], metadata, option="--metadata")


@export_app.command("lines")
def export_lines(
    config: ConfigOption = None,
    *,
    day: PeriodOption = None,
    style: FormatOption = FileFormat.CSV,
    out: OutOption = None,
    as_of: AsOfOption = None,
) -> None:
    """Export every line of every entry as it is in the ledger.

    For instance:

      tabkeeper export lines --date 2026-11-20 --format json | jq .amount
    """
    with _booked(config, day, as_of) as (booked, _):
        _write_table(lines_table(booked.lines), style, out)


@export_app.command("hledger")
def export_hledger(
    config: ConfigOption = None,
    *,
    day: PeriodOption = None,
    out: OutOption = None,
    as_of: AsOfOption = None,
) -> None:
    """Export a plain-text journal that `hledger check --strict` accepts, for an audit with other tools.

    For instance:

      tabkeeper export hledger --date 2026-10 --out october.journal

      hledger -f october.journal balance expenses
    """
    with _booked(config, day, as_of) as (booked, zone):
        _write_text(journal(booked.lines, zone, title=f"Browser sessions, {booked.window.label}"), out)


@dataclass(frozen=True, slots=True)
class _Booked:
    lines: Iterator[BookedLine]
    window: Window
    seen: AsOf
    conn: Connection


@contextmanager
def _booked(config: Path | None, day: str | None, as_of: str | None) -> Iterator[tuple[_Booked, str]]:
    settings = read_config(config)
    zone, now = settings.ledger.timezone, SystemClock().now()
    with reading(settings) as engine, snapshot(engine) as conn:
        seen = read_as_of(conn, as_of, now)
        window = _window(zone, day, seen)
        yield _Booked(_lines(conn, window, seen), window, seen, conn), zone


def _lines(conn: Connection, window: Window, seen: AsOf) -> Iterator[BookedLine]:
    return booked_lines(conn, Span.of(window.start, window.end), seen.entry)


def _window(zone: str, day: str | None, seen: AsOf) -> Window:
    if day is None:
        return window_bounds("month", zone, seen.now)
    period = period_of(day)
    return window_of_date(period, zone, date.fromisoformat(day if period == "day" else f"{day}-01"))


def _write_table(table: FlatTable, style: FileFormat, out: Path | None) -> None:
    if style is not FileFormat.PARQUET:
        _write_text(csv_lines(table) if style is FileFormat.CSV else json_lines(table), out)
        return
    need("parquet", "pyarrow")
    if out is None:
        raise ConfigError("--format parquet writes a file; name it with --out")
    typer.echo(f"Wrote {write_parquet(table, out):,} rows to {out}.", err=True)


def _write_text(pieces: Iterable[str], out: Path | None, *, option: str = "--out") -> None:
    if out is None:
        _write(pieces, sys.stdout.write)
        return
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            _write(pieces, file.write)
    except OSError as error:
        raise ConfigError(f"{option}: {out} cannot be written: {error.strerror or error}") from None
    typer.echo(f"Wrote {out}.", err=True)


def _write(pieces: Iterable[str], write: Callable[[str], object]) -> None:
    for piece in pieces:
        write(piece)
