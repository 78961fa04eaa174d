"""Where the items of a run go: JSON Lines, or a table in SQLite. Each is there once, also after a process was killed.

Items wait in the ledger's database; what has been written, and how far, is noted there after it is safe on disk. A
file that is longer than noted is cut back first.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

from tabkeeper.errors import ConfigError
from tabkeeper.sites.finds import Finds, Item, Mark
from tabkeeper.sites.runs import Run, Runs

_AT_ONCE = 500
_TABLE = (
    "CREATE TABLE IF NOT EXISTS items (run TEXT NOT NULL, n INTEGER NOT NULL, site TEXT NOT NULL, url TEXT NOT NULL, "
    "item TEXT NOT NULL, PRIMARY KEY (run, n))"
)


class Outlet(Protocol):
    """A place for items."""

    def open(self, run: Run, mark: Mark) -> Mark:
        """Go to where `mark` says that writing ended, or to the beginning if that is gone; returns where it is."""

    def write(self, items: Sequence[Item], mark: Mark) -> Mark:
        """Write items so that they are safe, and return how far that has come."""

    def close(self) -> None:
        """Let go of it."""


class JsonLines:
    """A file with one item on each line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def open(self, run: Run, mark: Mark) -> Mark:
        """See `Outlet`.

        Raises:
            ConfigError: it cannot be written, or holds something of which this run knows nothing.
        """
        try:
            self._path.touch()
            size = self._path.stat().st_size
            if not mark.items and size:
                raise ConfigError(
                    f"{self._path} is not empty, and run {run.id} wrote nothing to it; name another file"
                )
            if size < mark.bytes:
                mark = Mark(outlet=mark.outlet)
            self._file = self._path.open("r+b")
            self._file.truncate(mark.bytes)
            self._file.seek(mark.bytes)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror}") from None
        return mark

    def write(self, items: Sequence[Item], mark: Mark) -> Mark:
        """See `Outlet`."""
        assert self._file is not None, "it is open"
        self._file.seek(mark.bytes)
        self._file.truncate()
        self._file.write("".join(f"{item.body}\n" for item in items).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        return Mark(outlet=mark.outlet, items=items[-1].n, bytes=self._file.tell())

    def close(self) -> None:
        """See `Outlet`."""
        if self._file is not None:
            self._file.close()


class SqliteItems:
    """Table ``items`` of an SQLite file: run, number, site, address, and the item as JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run = ""
        self._database: sqlite3.Connection | None = None

    def open(self, run: Run, mark: Mark) -> Mark:
        """See `Outlet`.

        Raises:
            ConfigError: it cannot be written.
        """
        self._run = run.id
        try:
            self._database = sqlite3.connect(self._path, check_same_thread=False)
            with self._database:
                self._database.execute(_TABLE)
                held = self._database.execute(
                    "SELECT COUNT(*) FROM items WHERE run = ?", (run.id,)
                ).fetchone()
        except sqlite3.Error as error:
            self.close()
            raise ConfigError(f"{self._path} cannot be written: {error}") from None
        return mark if held[0] >= mark.items else Mark(outlet=mark.outlet)

    def write(self, items: Sequence[Item], mark: Mark) -> Mark:
        """See `Outlet`."""
        assert self._database is not None, "it is open"
        with self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?, ?)",
                [(self._run, item.n, item.site, item.url, item.body) for item in items],
            )
        return Mark(outlet=mark.outlet, items=items[-1].n)

    def close(self) -> None:
        """See `Outlet`."""
        if self._database is not None:
            self._database.close()


def outlet_at(path: str | Path) -> Outlet:
    """Return the outlet for a file, by its name's ending: ``.db``, ``.sqlite`` and ``.sqlite3`` are databases."""
    file = Path(path)
    return SqliteItems(file) if file.suffix in {".db", ".sqlite", ".sqlite3"} else JsonLines(file)


def check_new(path: Path) -> None:
    """See to it that a new run may write to a file.

    Raises:
        ConfigError: it is a file of lines, and somebody's.
    """
    if isinstance(outlet_at(path), JsonLines) and path.exists() and path.stat().st_size:
        raise ConfigError(f"{path} is not empty; name another file, or --resume the run that wrote it")


class Export:
    """Carries the items of one run to one file."""

    def __init__(self, runs: Runs, run: Run, path: str | Path) -> None:
        self._finds = Finds(runs.database)
        self._run = run
        self.path = Path(path)
        self._outlet = outlet_at(path)
        self._mark = Mark(outlet=str(self.path))
        self._at_work = asyncio.Lock()

    async def open(self) -> None:
        """Find out how far it has come.

        Raises:
            ConfigError: the file cannot be used.
        """
        noted = await self._finds.mark(self._run, str(self.path))
        self._mark = await asyncio.to_thread(self._outlet.open, self._run, noted)

    async def flush(self) -> None:
        """Write all that was found up to now.

        Raises:
            RunLostError: another process has taken the run over.
            LedgerUnavailableError: the database is away; it is written another time.
        """
        async with self._at_work:
            while items := await self._finds.items(self._run, self._mark.items, _AT_ONCE):
                mark = await asyncio.to_thread(self._outlet.write, items, self._mark)
                await self._finds.marked(self._run, mark)
                self._mark = mark

    def close(self) -> None:
        """Let go of the file."""
        self._outlet.close()
