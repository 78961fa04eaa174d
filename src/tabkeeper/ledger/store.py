"""The one writer of a process: drains a queue into one transaction at a time, with a savepoint for each item.

It knows how to wait, to batch, to retry and to keep for later; what an operation means is in `operations`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import Event, Thread
from typing import Any, Protocol

from sqlalchemy import Connection, Engine

from tabkeeper.clock import SystemClock
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger.engines import is_away, is_worth_retrying
from tabkeeper.ledger.schema import reason
from tabkeeper.ledger.spool import Spool
from tabkeeper.ledger.transaction import Transaction

log = logging.getLogger("tabkeeper.ledger")

_LINGER = 0.008
"""Seconds that rows nobody waits for may gather before they are written together."""
_MOST_ROWS_QUEUED = 50_000
_MOST_IN_BATCH = 2_000
_ATTEMPTS = 6
_PG_IDLE = "4s"
"""A transaction whose owner says nothing for so long is rolled back; others wait a little longer for its locks."""
_PG_WRITER_LOCK = 7_214_600_511_028


class Operations(Protocol):
    """What the writer can carry out."""

    def begin(self, tx: Transaction) -> None:
        """Called first in each transaction."""

    def apply(self, tx: Transaction, operation: Mapping[str, Any]) -> Any:
        """Carry out one operation; done twice it must be done once."""

    def write_rows(self, tx: Transaction, kind: str, rows: Sequence[Any]) -> None:
        """Write rows of the usage log together."""

    def as_operation(self, kind: str, row: Any) -> dict[str, Any]:
        """Turn one row into an operation, for the spool."""

    def forget(self) -> None:
        """A transaction was rolled back."""


@dataclass(slots=True, eq=False)
class _Job:
    operation: Mapping[str, Any]
    keep: bool
    """Must not be lost: kept in the spool if the database is away."""
    done: Callable[[Any, BaseException | None], None]
    outcome: Any = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Call:
    """A job that is a function, for the writer's own thread: set-up, upkeep."""

    function: Callable[[Transaction], Any]
    done: Callable[[Any, BaseException | None], None]
    outcome: Any = None
    error: BaseException | None = None


class Kept:
    """The outcome of an operation that waits in the spool."""


KEPT = Kept()


class Writer:
    """Owns the only writing connection. With ``inline`` everything happens on the caller's thread, at once."""

    def __init__(self, engine: Engine, operations: Operations, spool: Spool, *, inline: bool) -> None:
        self._engine = engine
        self._operations = operations
        self._spool = spool
        self._inline = inline
        self._queue: deque[_Job | _Call | tuple[str, Any]] = deque()
        self._wake = Event()
        self._urgent = Event()
        self._rows_announced = False
        self._stopping = False
        self._connection: Connection | None = None
        self._clock = SystemClock()
        self._away_until = 0.0
        self._away_for = 0.0
        self._away_because = ""
        self._thread = Thread(target=self._work, name="tabkeeper-ledger", daemon=True)
        if not inline:
            self._thread.start()

    # -- for the loop's thread ---------------------------------------------------------------------------

    def post(self, kind: str, row: Any) -> None:
        """Queue a row that nobody waits for; costs microseconds, never raises for the database's sake."""
        if self._inline:
            self._run([(kind, row)])
            return
        if len(self._queue) >= _MOST_ROWS_QUEUED:
            self._spool.append([self._operations.as_operation(kind, row)], sync=False)
            return
        self._queue.append((kind, row))
        if not self._rows_announced:
            self._rows_announced = True
            self._wake.set()

    async def do(self, operation: Mapping[str, Any], *, keep: bool) -> Any:
        """Carry out an operation and return its outcome after COMMIT, or `KEPT` if it went to the spool."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._submit(_Job(operation, keep, _answer(loop, future, inline=self._inline)))
        return await future

    async def call(self, function: Callable[[Transaction], Any]) -> Any:
        """Run a function in a transaction of its own kind; see `do`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._submit(_Call(function, _answer(loop, future, inline=self._inline)))
        return await future

    def start_later(self, operation: Mapping[str, Any]) -> None:
        """Queue an operation that must not be lost and that nobody waits for."""
        self._submit(_Job(operation, True, lambda _outcome, _error: None))

    async def stop(self) -> None:
        """Write what is queued and end the thread."""
        self._stopping = True
        self._wake.set()
        self._urgent.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._disconnect()
        self._spool.close()

    def _submit(self, job: _Job | _Call) -> None:
        if self._inline:
            self._run([job])
            return
        if not self._thread.is_alive():
            job.done(None, LedgerUnavailableError("the ledger is closed"))
            return
        self._queue.append(job)
        self._wake.set()
        self._urgent.set()

    # -- the writer's thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            probing = len(self._spool) > 0
            self._wake.wait(timeout=max(0.05, self._away_for) if probing else None)
            if not self._urgent.is_set():
                self._urgent.wait(_LINGER)
            self._urgent.clear()
            self._wake.clear()
            self._rows_announced = False
            while self._queue:
                batch: list[_Job | _Call | tuple[str, Any]] = []
                while self._queue and len(batch) < _MOST_IN_BATCH:
                    batch.append(self._queue.popleft())
                self._run(batch)
            if probing and len(self._spool):
                self._run([])
            if self._stopping and not self._queue:
                return

    def _run(self, batch: list[_Job | _Call | tuple[str, Any]]) -> None:
        """Write a batch, or keep and refuse its parts; everybody who waits gets an answer."""
        try:
            self._write_or_keep(batch)
        except Exception as error:
            log.exception("the ledger's writer met an error it does not know")
            for item in batch:
                if not isinstance(item, tuple):
                    item.error = item.error or error
            self._spool.append(self._as_operations(batch))
        finally:
            for item in batch:
                if not isinstance(item, tuple):
                    item.done(item.outcome, item.error)

    def _as_operations(self, batch: Sequence[Any]) -> list[Mapping[str, Any]]:
        """Turn a batch's rows into operations; one that cannot be told as data is logged, and takes no other along."""
        operations: list[Mapping[str, Any]] = []
        for row in batch:
            if isinstance(row, tuple):
                try:
                    operations.append(self._operations.as_operation(*row))
                except Exception:
                    log.exception("a row of the usage log cannot be kept: %r", row)
        return operations

    def _write_or_keep(self, batch: list[_Job | _Call | tuple[str, Any]]) -> None:
        if self._clock.monotonic() < self._away_until:
            self._keep(batch, committing=False)
            return
        committing = [False]
        try:
            if len(self._spool):
                self._replay()
            if batch:
                self._transact(lambda tx: self._apply(tx, batch), committing)
            self._away_for = 0.0
        except Exception as error:
            if not (is_away(error) or is_worth_retrying(error)):
                raise
            self._disconnect()
            self._away_because = reason(error)
            self._away_for = min(5.0, max(0.2, self._away_for * 2))
            self._away_until = self._clock.monotonic() + self._away_for
            log.warning("the ledger's database is away (%s); usage is kept for later", self._away_because)
            self._keep(batch, committing=committing[0])

    def _transact(self, work: Callable[[Transaction], None], committing: list[bool]) -> None:
        """Run `work` and commit; try again if somebody was in the way or the connection broke."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                connection = self._connect()
                with connection.begin() as transaction:
                    tx = Transaction(connection)
                    if tx.is_postgres:
                        # All writers update the same rows (windows, sums), so they would queue anyway; queueing
                        # here keeps batches of several processes from locking them in different orders.
                        # Whoever is frozen or cut off while it has the lock must not keep the others waiting.
                        tx.row(
                            "SELECT set_config('idle_in_transaction_session_timeout', :idle, true), "
                            "pg_advisory_xact_lock(:key)",
                            idle=_PG_IDLE,
                            key=_PG_WRITER_LOCK,
                        )
                    self._operations.begin(tx)
                    work(tx)
                    tx.close()
                    committing[0] = True
                    transaction.commit()
            except Exception as error:
                self._operations.forget()
                if is_away(error):
                    self._disconnect()
                if attempt == _ATTEMPTS or not is_worth_retrying(error):
                    raise
                # Jittered, so that writers who met do not meet again.
                Event().wait(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
            else:
                return

    def _apply(self, tx: Transaction, batch: Sequence[_Job | _Call | tuple[str, Any]]) -> None:
        for kind, group in groupby(batch, lambda item: item[0] if isinstance(item, tuple) else ""):
            if kind:
                self._apply_rows(tx, kind, [item[1] for item in group if isinstance(item, tuple)])
                continue
            for item in group:
                assert not isinstance(item, tuple)
                item.outcome = item.error = None
                try:
                    with tx.savepoint():
                        if isinstance(item, _Job):
                            item.outcome = self._operations.apply(tx, item.operation)
                        else:
                            item.outcome = item.function(tx)
                except Exception as error:
                    if tx.is_broken or is_away(error) or is_worth_retrying(error):
                        raise
                    self._operations.forget()
                    item.error = error

    def _apply_rows(self, tx: Transaction, kind: str, rows: list[Any]) -> None:
        try:
            with tx.savepoint():
                self._operations.write_rows(tx, kind, rows)
        except Exception as error:
            if tx.is_broken or is_away(error) or is_worth_retrying(error):
                raise
            if len(rows) == 1:
                for operation in self._as_operations([(kind, rows[0])]):
                    self._spool.reject(operation, error)
                return
            for row in rows:
                self._apply_rows(tx, kind, [row])

    def _replay(self) -> None:
        """Write what waits in the spool, oldest first, and take it off the spool once committed."""
        while waiting := self._spool.read()[:500]:
            self._transact(lambda tx, part=waiting: self.replay(tx, part), [False])  # type: ignore[misc]
            self._spool.forget(len(waiting))

    def replay(self, tx: Transaction, operations: Sequence[Mapping[str, Any]]) -> None:
        """Carry out kept operations; one that can never succeed is set aside with its reason."""
        for operation in operations:
            try:
                with tx.savepoint():
                    self._operations.apply(tx, operation)
            except Exception as error:
                if tx.is_broken or is_away(error) or is_worth_retrying(error):
                    raise
                self._operations.forget()
                self._spool.reject(operation, error)

    def _keep(self, batch: Sequence[_Job | _Call | tuple[str, Any]], *, committing: bool) -> None:
        kept: list[Mapping[str, Any]] = []
        for item in batch:
            if isinstance(item, tuple):
                kept += self._as_operations([item])
            elif isinstance(item, _Job) and item.keep:
                kept.append(item.operation)
                item.outcome, item.error = KEPT, None
            else:
                if isinstance(item, _Job) and committing and item.operation["op"] == "hold":
                    # It may have been committed; whoever asked is told no, so it must not stand.
                    kept.append(_undo_hold(item.operation))
                item.error = LedgerUnavailableError(
                    f"the ledger's database is away, so no new session is started: {self._away_because}"
                )
        self._spool.append(kept)

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
            with contextlib.suppress(Exception):
                connection.close()


def _undo_hold(operation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "op": "void",
        "session_id": operation["session_id"],
        "at": operation["at"],
        "reason": "the ledger went away while the hold was committed",
    }


def _answer(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], *, inline: bool
) -> Callable[[Any, BaseException | None], None]:
    def set_now(outcome: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(outcome)

    def from_thread(outcome: Any, error: BaseException | None) -> None:
        # The loop may be closed by the time the database answers; then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(set_now, outcome, error)

    return set_now if inline else from_thread
