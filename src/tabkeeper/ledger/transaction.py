"""One open transaction, spoken to in plain SQL that both databases understand.

Statements name their parameters ``:like_this`` and go straight to the driver: a hold is a dozen of them, and
what lies between would cost more than the database does.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection

Row = Any
"""A named tuple with the statement's columns."""


@cache
def _for_psycopg(sql: str) -> str:
    return re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", sql)


@cache
def _shape(columns: tuple[str, ...]) -> Any:
    make_type: Any = namedtuple  # noqa: PYI024 - its fields are known only at run time
    return make_type("Row", columns)._make


class Transaction:
    """Runs statements on a connection that is inside a transaction; decides nothing about its end."""

    __slots__ = ("_cursor", "is_broken", "is_postgres")

    def __init__(self, connection: Connection) -> None:
        self._cursor: Any = connection.connection.cursor()
        self.is_broken = False
        """The database gave the transaction up by itself (a full disk does that to SQLite)."""
        self.is_postgres = connection.dialect.name == "postgresql"

    def run(self, sql: str, /, **values: Any) -> int:
        """Run a statement and return how many rows it changed."""
        self._execute(sql, values)
        return int(self._cursor.rowcount)

    def row(self, sql: str, /, **values: Any) -> Row | None:
        """Return the first row, or None; the statement is run to its end."""
        rows = self.rows(sql, **values)
        return rows[0] if rows else None

    def rows(self, sql: str, /, **values: Any) -> list[Row]:
        """Return all rows."""
        self._execute(sql, values)
        found = self._cursor.fetchall()
        if not found:
            return []
        make = _shape(tuple(column[0] for column in self._cursor.description))
        return [make(row) for row in found]

    def many(self, sql: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement for each mapping; made lazily, so that other threads get their turn in between."""
        if not self.is_postgres:
            self._cursor.executemany(sql, values)
            return
        # The driver's own way for many ends with a message that stops PostgreSQL's watch over idle transactions: a
        # process that is frozen right after it would keep all writers of the ledger waiting for as long as it is.
        for each in values:
            self._cursor.execute(_for_psycopg(sql), each)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what was done inside if it raises, and only that."""
        # One name for all, the innermost counts: psycopg prepares what it sees often, and a hundred names would
        # push the statements that matter out of its cache.
        self._cursor.execute("SAVEPOINT item")
        try:
            yield
        except BaseException:
            try:
                self._cursor.execute("ROLLBACK TO SAVEPOINT item")
                self._cursor.execute("RELEASE SAVEPOINT item")
            except Exception:  # noqa: BLE001 - the first error is the one to tell
                self.is_broken = True
            raise
        self._cursor.execute("RELEASE SAVEPOINT item")

    def close(self) -> None:
        """Let go of the driver's cursor."""
        self._cursor.close()

    def _execute(self, sql: str, values: Mapping[str, Any]) -> None:
        if self.is_postgres:
            # Without parameters the driver takes a percent sign for itself, so it is told there are none.
            self._cursor.execute(_for_psycopg(sql), values or None)
        else:
            self._cursor.execute(sql, values)
