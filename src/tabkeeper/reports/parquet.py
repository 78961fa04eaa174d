"""Writes flat tables as Parquet, by pyarrow (extra ``parquet``): money as decimals, never as floats.

The only door to pyarrow; it is imported when it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tabkeeper.errors import ConfigError
from tabkeeper.money import Money
from tabkeeper.reports.columns import Column, FlatTable

_ROWS = 50_000
"""Rows of one group, and so of what is in memory at once."""


def write_parquet(table: FlatTable, path: Path) -> int:
    """Write a table and return how many rows it had; the same rows make the same bytes.

    Raises:
        ConfigError: pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as files
    except ModuleNotFoundError:
        raise ConfigError("Parquet needs pyarrow: pip install 'tabkeeper[parquet]'") from None
    types = {
        "text": pa.string(),
        "integer": pa.int64(),
        "money": pa.decimal128(38, 9),
        "decimal": pa.decimal128(38, 18),
        "instant": pa.timestamp("us", tz="UTC"),
        "number": pa.float64(),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in table.columns])
    schema = schema.with_metadata(dict(table.about)) if table.about else schema
    written = 0
    try:
        with files.ParquetWriter(path, schema, compression="zstd") as writer:
            for rows in _groups(table):
                columns = [
                    pa.array([_value(column, row[place]) for row in rows], type=types[column.kind])
                    for place, column in enumerate(table.columns)
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                written += len(rows)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None
    return written


def _groups(table: FlatTable) -> Iterator[list[Any]]:
    rows = iter(table.rows)
    while group := list(islice(rows, _ROWS)):
        yield group


def _value(column: Column, value: Any) -> Any:
    if isinstance(value, Money):
        return value.dollars
    if column.kind == "text" and isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return value
