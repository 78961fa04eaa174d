"""Reconciliation as the ledger sees it: which sessions to ask for, what came of it, and how well we count.

Nothing here asks a provider; that is `pool.reconciling`. A comparison and its adjustment are one transaction, so one
that is cut off has either happened or is still due.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from tabkeeper.clock import Clock
from tabkeeper.ledger.adjusting import correct
from tabkeeper.ledger.alerting import Reads
from tabkeeper.ledger.comparing import Figures, capture_rate
from tabkeeper.ledger.instants import length_us, micros, moment
from tabkeeper.ledger.journal import Books
from tabkeeper.ledger.periods import UNATTRIBUTED
from tabkeeper.ledger.store import Writer
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.money import Money

_LONGEST = timedelta(days=2)
"""No session lives for longer, so one that ended lately was created lately."""
_GIVE_UP = timedelta(days=1)
"""A provider that has said nothing for this long after a session's end will not say it any more."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A settled session whose provider is to be asked."""

    session_id: str
    provider_session_id: str
    ended_at: datetime
    attempts: int
    """How often it was asked before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a provider says of one session against what was booked."""

    session_id: str
    day: date
    """UTC day in which the session counts."""
    ours: Money
    """What was booked before the comparison."""
    settled: Money
    """What we had booked by ourselves, before any adjustment."""
    theirs: Money
    adjusted: bool
    """An entry was written (or would be, if only looking)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One look at one provider's figures, as a row."""

    provider: str
    sessions: int
    waiting: int
    ours: Money
    theirs: Money
    adjusted: int
    past: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """How much of a provider's bill for one UTC day we had booked by ourselves; with what no session explains."""

    provider: str
    day: date
    sessions: int
    """Settled sessions of the day."""
    compared: int
    """Those of them whose figures the provider told; the sums are theirs."""
    ours: Money
    theirs: Money

    @property
    def rate(self) -> float | None:
        """Ours by theirs; None if the provider billed nothing."""
        return capture_rate(self.ours, self.theirs)


class OnlyLooking(Exception):  # noqa: N818 - no error: it undoes what would have been written
    """Carries a comparison out of a transaction that must leave no trace. Never leaves the ledger."""

    def __init__(self, comparison: Comparison | None) -> None:
        super().__init__("undone")
        self.comparison = comparison


class Reconciliation:
    """The reconciliation of a ledger; get it as ``ledger.reconciliation``."""

    def __init__(self, writer: Writer, read: Reads, clock: Clock) -> None:
        self._writer = writer
        self._read = read
        self._clock = clock

    async def due(
        self, provider: str, *, since: datetime, settled_for: timedelta, most: int, again: bool = False
    ) -> list[Due]:
        """Return settled sessions of a provider that ended since an instant and are to be asked for, oldest first.

        Args:
            provider: whose.
            since: they ended then or later.
            settled_for: they ended at least this long ago.
            most: no more than these.
            again: also those that were compared before.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        now = self._clock.now()
        values = {
            "provider": provider,
            "created": micros(since - _LONGEST),
            "since": micros(since),
            "until": micros(now - settled_for),
            "now": micros(now),
            "again": int(again),
            "most": most,
        }
        return await self._read(lambda connection: _due(connection, values))

    async def compare(self, session_id: str, figures: Figures, *, dry_run: bool = False) -> Comparison | None:
        """Compare a session with what its provider says, adjust what differs, and note that it was compared.

        None if the session is not settled, so that there is nothing to compare with.

        Raises:
            LedgerUnavailableError: the database is away; nothing was written.
        """
        operation = {
            "op": "reconcile",
            "session_id": session_id,
            "seconds_us": figures.seconds_us,
            "proxy_bytes": figures.proxy_bytes,
            "cost_n": None if figures.cost is None else figures.cost.nanos,
            "dry_run": dry_run,
            "at": micros(self._clock.now()),
        }
        try:
            # Not kept if the database is away: by then the provider may say something else.
            found: Comparison | None = await self._writer.do(operation, keep=False)
        except OnlyLooking as looked:
            return looked.comparison
        return found

    async def not_yet(self, due: Due) -> None:
        """Note that a provider has no final figures of a session; it is asked again later, but not for ever."""
        now = self._clock.now()
        silent = now - due.ended_at > _GIVE_UP
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(due.attempts, 20))
        values = {
            "s": due.session_id,
            "at": micros(now),
            "next_at": micros(now) + length_us(pause.total_seconds()),
            "state": "silent" if silent else "waiting",
        }
        await self._writer.call(lambda tx: tx.run(_NOT_YET, **values))

    async def ran(self, run: Run) -> None:
        """Put a look at a provider's figures on record."""
        values = {
            "provider": run.provider,
            "at": micros(self._clock.now()),
            "sessions": run.sessions,
            "waiting": run.waiting,
            "ours": run.ours.nanos,
            "theirs": run.theirs.nanos,
            "adjusted": run.adjusted,
            "past": run.past,
            "error": run.error[:500],
        }
        await self._writer.call(lambda tx: tx.run(_RAN, **values))

    async def captured(self, *, start: datetime, end: datetime) -> list[Capture]:
        """Return the capture rate of each provider and UTC day whose sessions began in a span.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        return await self._read(lambda connection: captured(connection, micros(start), micros(end)))


def apply(tx: Transaction, books: Books, operation: Mapping[str, Any]) -> Comparison | None:
    """Carry out a comparison; see `LedgerOperations`."""
    session_id, at = operation["session_id"], operation["at"]
    said = {key: operation[key] for key in ("seconds_us", "proxy_bytes", "cost_n")}
    cost = said["cost_n"]
    figures = Figures(
        seconds_us=said["seconds_us"],
        proxy_bytes=said["proxy_bytes"],
        cost=None if cost is None else Money(cost),
    )
    done = correct(
        tx, books, session_id, figures, quality="provider", at=at, reason="by its provider's figures"
    )
    comparison = None
    if done is not None:
        tx.run(_COMPARED, s=session_id, at=at, theirs=done.cost_n, said=json.dumps(said, sort_keys=True))
        row = tx.row(
            "SELECT effective_at, amount_n FROM entry WHERE session_id = :s AND kind = 'settle'", s=session_id
        )
        assert row is not None
        comparison = Comparison(
            session_id=session_id,
            day=moment(row.effective_at).date(),
            ours=Money(done.before_n),
            settled=Money(row.amount_n),
            theirs=Money(done.cost_n),
            adjusted=done.entry_id is not None,
        )
    if operation["dry_run"]:
        raise OnlyLooking(comparison)
    return comparison


def captured(connection: Connection, start: int, end: int) -> list[Capture]:
    """See `Reconciliation.captured`."""
    rows: Sequence[Any] = connection.execute(_CAPTURED, {"start": start, "end": end, "u": UNATTRIBUTED}).all()
    return [
        Capture(
            provider=row.provider,
            day=moment(int(row.day_at)).date(),
            sessions=int(row.sessions),
            compared=int(row.compared),
            ours=Money(int(row.ours_n)),
            theirs=Money(int(row.theirs_n)),
        )
        for row in rows
    ]


def _due(connection: Connection, values: Mapping[str, Any]) -> list[Due]:
    return [
        Due(
            session_id=row.id,
            provider_session_id=row.provider_session_id,
            ended_at=moment(row.ended_at),
            attempts=int(row.attempts or 0),
        )
        for row in connection.execute(_DUE, values)
    ]


_DUE = text(
    "SELECT s.id, s.provider_session_id, s.ended_at, i.attempts FROM session s JOIN hold h ON h.session_id = s.id "
    "LEFT JOIN recon_item i ON i.session_id = s.id WHERE s.created_at >= :created AND s.provider = :provider "
    "AND s.ended_at >= :since AND s.ended_at <= :until AND s.provider_session_id IS NOT NULL "
    "AND h.state = 'settled' AND (:again = 1 OR i.session_id IS NULL OR (i.state = 'waiting' AND i.next_at <= :now)) "
    "ORDER BY s.ended_at, s.id LIMIT :most"
)
# What a provider billed for a period beyond our sessions is theirs, and nothing of it is ours.
_CAPTURED = text(
    "SELECT s.provider, s.created_at / 86400000000 * 86400000000 AS day_at, "
    "SUM(CASE WHEN s.platform = :u THEN 0 ELSE 1 END) AS sessions, COUNT(i.session_id) AS compared, "
    "COALESCE(SUM(CASE WHEN i.session_id IS NOT NULL THEN e.amount_n END), 0) AS ours_n, "
    "COALESCE(SUM(CASE WHEN s.platform = :u THEN s.cost_n ELSE i.theirs_n END), 0) AS theirs_n FROM session s "
    "JOIN entry e ON e.session_id = s.id AND e.kind = 'settle' "
    "LEFT JOIN recon_item i ON i.session_id = s.id AND i.state = 'compared' "
    "WHERE s.created_at >= :start AND s.created_at < :end GROUP BY 1, 2 "
    "HAVING COUNT(i.session_id) > 0 OR SUM(CASE WHEN s.platform = :u THEN 1 ELSE 0 END) > 0 ORDER BY 1, 2"
)
_COMPARED = (
    "INSERT INTO recon_item (session_id, provider, state, attempts, checked_at, theirs_n, said) "
    "SELECT s.id, s.provider, 'compared', 1, :at, :theirs, CAST(:said AS TEXT) FROM session s WHERE s.id = :s "
    "ON CONFLICT (session_id) DO UPDATE SET state = 'compared', attempts = recon_item.attempts + 1, "
    "checked_at = excluded.checked_at, next_at = 0, theirs_n = excluded.theirs_n, said = excluded.said"
)
# What was compared stays compared, also if a provider forgets.
_NOT_YET = (
    "INSERT INTO recon_item (session_id, provider, state, attempts, checked_at, next_at) "
    "SELECT s.id, s.provider, CAST(:state AS TEXT), 1, :at, :next_at FROM session s WHERE s.id = :s "
    "ON CONFLICT (session_id) DO UPDATE SET attempts = recon_item.attempts + 1, checked_at = excluded.checked_at, "
    "next_at = excluded.next_at, "
    "state = CASE WHEN recon_item.state = 'compared' THEN 'compared' ELSE excluded.state END"
)
_RAN = (
    "INSERT INTO recon_run (provider, at, sessions, waiting, ours_n, theirs_n, adjusted, past, error) "
    "VALUES (:provider, :at, :sessions, :waiting, :ours, :theirs, :adjusted, :past, :error)"
)
