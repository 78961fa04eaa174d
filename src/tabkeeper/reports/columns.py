"""Tables to be written to files: named and typed columns, rows as plain values, and CSV of them. Pure.

`parquet` writes the same tables with the same types.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from tabkeeper.money import Money

Kind = Literal["text", "integer", "money", "decimal", "instant", "number"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `money` has nine places, `decimal` eighteen, `instant` is UTC, `number` a float."""

    name: str
    kind: Kind = "text"
    spoken: bool = False
    """Free text of users', from which a spreadsheet must be kept off."""


Row = Sequence[Any]
"""One value for each column; None where there is none."""


@dataclass(frozen=True, slots=True)
class FlatTable:
    """Columns, and rows that may be read once."""

    columns: tuple[Column, ...]
    rows: Iterable[Row]
    about: Mapping[str, str] = field(default_factory=dict)
    """What a file says of itself beside its rows, where its format has a place for that."""


def csv_lines(table: FlatTable) -> Iterator[str]:
    """Yield the header and the rows, each with its line feed; nothing stands for None."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")

    def line(values: Iterable[object]) -> str:
        out.seek(0)
        out.truncate()
        writer.writerow(values)
        return out.getvalue()

    yield line(column.name for column in table.columns)
    for row in table.rows:
        yield line(_plain(column, value) for column, value in zip(table.columns, row, strict=True))


def json_lines(table: FlatTable) -> Iterator[str]:
    """Yield one JSON object for each row, each with its line feed; money and decimals are text."""
    names = [column.name for column in table.columns]
    for row in table.rows:
        yield json.dumps(dict(zip(names, map(_for_json, row), strict=True)), ensure_ascii=False) + "\n"


def safe(name: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def instant_text(instant: datetime) -> str:
    """Write an instant in UTC to the second, with a Z."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def decimal_text(value: Decimal) -> str:
    """Write a decimal without an exponent, and without zeros that say nothing."""
    plain = f"{value:f}"
    return (plain.rstrip("0").rstrip(".") if "." in plain else plain) or "0"


def _plain(column: Column, value: Any) -> str:
    if value is None:
        return ""
    said = _as_text(value)
    return safe(said) if column.spoken else said


def _as_text(value: Any) -> str:
    if isinstance(value, Money):
        return value.text()
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return str(value)


def _for_json(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | Mapping) else _as_text(value)
