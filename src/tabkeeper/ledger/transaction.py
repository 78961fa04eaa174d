"""One open transaction, spoken to in plain SQL that both databases understand.

Statements name their parameters ``:like_this``; the driver's own spelling is put in once and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import SQLAlchemyError


@cache
def _for_psycopg(sql: str) -> str:
    return re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", sql)


class Transaction:
    """Runs statements on a connection that is inside a transaction; decides nothing about its end."""

    __slots__ = ("_connection", "_savepoints", "is_broken", "is_postgres")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._savepoints = 0
        self.is_broken = False
        """The database gave the transaction up by itself (a full disk does that to SQLite)."""
        self.is_postgres = connection.dialect.name == "postgresql"

    def run(self, sql: str, /, **values: Any) -> int:
        """Run a statement and return how many rows it changed."""
        return int(self._execute(sql, values).rowcount)

    def row(self, sql: str, /, **values: Any) -> Row[Any] | None:
        """Return the first row, or None; the statement is run to its end."""
        rows = self._execute(sql, values).fetchall()
        return rows[0] if rows else None

    def rows(self, sql: str, /, **values: Any) -> list[Row[Any]]:
        """Return all rows."""
        return list(self._execute(sql, values).fetchall())

    def many(self, sql: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Run a statement for each mapping; made lazily, so that other threads get their turn in between."""
        driver: Any = self._connection.connection.cursor()
        try:
            driver.executemany(_for_psycopg(sql) if self.is_postgres else sql, values)
        finally:
            driver.close()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what was done inside if it raises, and only that."""
        self._savepoints += 1
        name = f"item_{self._savepoints}"
        self._connection.exec_driver_sql(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            try:
                self._connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {name}")
                self._connection.exec_driver_sql(f"RELEASE SAVEPOINT {name}")
            except SQLAlchemyError:
                self.is_broken = True
            raise
        self._connection.exec_driver_sql(f"RELEASE SAVEPOINT {name}")

    def _execute(self, sql: str, values: Mapping[str, Any]) -> Any:
        return self._connection.exec_driver_sql(_for_psycopg(sql) if self.is_postgres else sql, dict(values))
