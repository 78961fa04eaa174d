"""Keeps what could not be written to the database, in a file of its own, until it can.

One line of JSON for each operation, synced to disk before anybody is told that it is kept; replaying is the
writer's business. If no directory takes the file, operations stay in memory for as long as the process lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import IO, Any

from sqlalchemy.engine import URL

log = logging.getLogger("tabkeeper.ledger")

_MOST_IN_MEMORY = 100_000


def places_for(url: URL) -> list[Path]:
    """Return where spool files of a ledger may lie, best first: beside an SQLite file, else the user's state."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tabkeeper"
    if url.get_backend_name() == "sqlite" and url.database:
        return [Path(url.database).absolute().parent, state]
    return [state]


def prefix_for(url: URL) -> str:
    """Return the beginning of the names of a ledger's spool files."""
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and url.database:
        shown = str(Path(url.database).absolute())
    return f"tabkeeper-{hashlib.sha256(shown.encode()).hexdigest()[:12]}-"


class Spool:
    """Operations that wait for the database. Safe to use from the writer and from the loop's thread."""

    def __init__(self, places: Sequence[Path], prefix: str, owner: str) -> None:
        self._places = places
        self._name = f"{prefix}{owner}.spool.jsonl"
        self._file: IO[bytes] | None = None
        self._path: Path | None = None
        self._on_disk = 0
        """Lines in the file."""
        self._done = 0
        """The first of them that are in the database already."""
        self._in_memory: deque[dict[str, Any]] = deque()
        self._lock = Lock()
        self.lost = 0
        """Rows of the usage log dropped because neither disk nor memory could take them."""

    def __len__(self) -> int:
        return self._on_disk - self._done + len(self._in_memory)

    def append(self, operations: Sequence[Mapping[str, Any]], *, sync: bool = True) -> None:
        """Keep operations, in order; returns when they are on disk (or in memory, if no disk takes them)."""
        if not operations:
            return
        data = b"".join(json.dumps(op, separators=(",", ":")).encode() + b"\n" for op in operations)
        with self._lock:
            # Once something is in memory, order demands that what follows is too.
            if not self._in_memory and self._write(data, sync=sync):
                self._on_disk += len(operations)
                return
            self._in_memory.extend(dict(op) for op in operations)
            while len(self._in_memory) > _MOST_IN_MEMORY:
                self._drop_one()

    def read(self) -> list[dict[str, Any]]:
        """Return everything that is kept, oldest first."""
        with self._lock:
            on_disk = list(_operations(self._path))[self._done :] if self._path and self._on_disk else []
            return on_disk + list(self._in_memory)

    def forget(self, count: int) -> None:
        """Drop the oldest `count` operations, which are in the database now.

        The file is only ever emptied whole: whoever dies in between leaves too much, and carrying an operation
        out twice does nothing.
        """
        with self._lock:
            from_disk = min(count, self._on_disk - self._done)
            self._done += from_disk
            for _ in range(count - from_disk):
                self._in_memory.popleft()
            if self._file is not None and self._done == self._on_disk:
                self._file.truncate(0)
                self._file.seek(0)
                os.fsync(self._file.fileno())
                self._on_disk = self._done = 0

    def reject(self, operation: Mapping[str, Any], error: BaseException) -> None:
        """Set aside, for a person to look at, what the database takes in no form."""
        log.error("the ledger refused %s: %s; kept in %s.rejected", operation, error, self._name)
        for place in self._places:
            try:
                place.mkdir(parents=True, exist_ok=True)
                with (place / f"{self._name}.rejected").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"operation": operation, "error": str(error)}) + "\n")
            except OSError:
                continue
            return

    def close(self) -> None:
        """Let go of the file, and remove it if nothing is left in it."""
        with self._lock:
            if self._file is None or self._path is None:
                return
            if self._on_disk == 0:
                self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _write(self, data: bytes, *, sync: bool) -> bool:
        for place in [None] if self._file else self._places:
            size = 0
            try:
                if place is not None:
                    self._open(place)
                assert self._file is not None
                size = self._file.seek(0, os.SEEK_END)
                self._file.write(data)
                self._file.flush()
                if sync:
                    os.fsync(self._file.fileno())
            except OSError as error:
                log.warning("the ledger's spool cannot be written: %s", error)
                self._undo(size)
                continue
            return True
        return False

    def _open(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        path = place / self._name
        file = path.open("ab", buffering=0)
        # The lock tells other processes that the owner lives; it goes when the process does, however it ends.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file, self._path = file, path

    def _undo(self, size: int) -> None:
        """Take a half written line away again."""
        if self._file is not None:
            try:
                self._file.truncate(size)
            except OSError:
                log.warning("the ledger's spool may end in half a line")
            if self._on_disk == 0:
                self._file.close()
                self._file = None

    def _drop_one(self) -> None:
        """Make room: a row of the usage log goes before anything that is money."""
        for i, op in enumerate(self._in_memory):
            if op["op"] in {"lease", "state"}:
                del self._in_memory[i]
                break
        else:
            self._in_memory.popleft()
        self.lost += 1


class Abandoned:
    """A spool file of a process that is no more; ours for as long as this object holds its lock."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file

    def read(self) -> list[dict[str, Any]]:
        """Return its operations, oldest first."""
        return list(_operations(self._path))

    def remove(self) -> None:
        """Delete the file: everything in it is in the database."""
        self._path.unlink(missing_ok=True)
        self._file.close()

    def leave(self) -> None:
        """Leave the file for the next start."""
        self._file.close()


def abandoned(places: Sequence[Path], prefix: str) -> Iterator[Abandoned]:
    """Find and lock the spool files that dead processes left behind."""
    for place in places:
        for path in sorted(place.glob(f"{prefix}*.spool.jsonl")) if place.is_dir() else ():
            try:
                file = path.open("rb")
            except OSError:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            if os.fstat(file.fileno()).st_nlink == 0:  # another start was quicker, and done with it
                file.close()
                continue
            yield Abandoned(path, file)


def _operations(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                # The process died while it wrote its last line; nobody was told that it was kept.
                log.warning("%s ends in half a line, which is left out", path)
                return
