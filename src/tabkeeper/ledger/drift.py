"""Drift: a provider's state and ours disagree. Each thing is one row, and one alert, however often it is seen.

Kinds:
    dead: the provider says that a session runs, but its browser does not answer.
    ended: a session is open here, but its provider says that it is over.
    unlisted: a session runs, but the provider's list does not show it.
    refuses: the provider refuses new sessions because too many run, and lists none.
    stray: a session ran at the provider that is over here, or that has no row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, text

from tabkeeper.clock import Clock
from tabkeeper.ledger.alerting import Reads
from tabkeeper.ledger.budgets import tell
from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.store import Writer
from tabkeeper.ledger.transaction import Transaction

DriftKind = Literal["dead", "ended", "unlisted", "refuses", "stray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One disagreement as it is on record."""

    provider: str
    kind: str
    """See the module."""
    session_id: str | None
    provider_session_id: str | None
    first_at: datetime
    last_at: datetime
    times: int
    detail: str


class DriftBook:
    """The drift that is on record; get it as ``ledger.drift``."""

    def __init__(self, writer: Writer, read: Reads, clock: Clock) -> None:
        self._writer = writer
        self._read = read
        self._clock = clock

    async def note(
        self,
        kind: DriftKind,
        provider: str,
        detail: str,
        *,
        session_id: str | None = None,
        provider_session_id: str | None = None,
    ) -> None:
        """Put a disagreement on record, and raise an alert if it is new.

        What concerns no session counts as new once in a day (UTC).

        If the database is away it is kept, and written later.
        """
        assert kind in get_args(DriftKind)
        now = self._clock.now()
        about = session_id or provider_session_id or f"{now:%Y-%m-%d}"
        operation = {
            "op": "drift",
            "key": f"drift|{kind}|{provider}|{about}",
            "kind": kind,
            "provider": provider,
            "session_id": session_id,
            "provider_session_id": provider_session_id,
            "at": micros(now),
            "detail": detail[:500],
        }
        await self._writer.do(operation, keep=True)

    async def seen(self, *, since: datetime, provider: str | None = None) -> list[Drift]:
        """Return what was seen since an instant, latest first.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        return await self._read(lambda connection: seen(connection, micros(since), provider))


def apply(tx: Transaction, operation: Mapping[str, Any]) -> None:
    """Write a disagreement down, and its alert; see `LedgerOperations`."""
    values = {key: value for key, value in operation.items() if key != "op"}
    tx.run(_NOTE, **values)
    tell(
        tx,
        key=values["key"],
        # Alerts of strays have a kind of their own: what they are about is over.
        kind="stray" if values["kind"] == "stray" else "drift",
        at=values["at"],
        session_id=values["session_id"],
        detail=values["detail"],
    )


def seen(connection: Connection, since: int, provider: str | None = None) -> list[Drift]:
    """See `DriftBook.seen`."""
    rows = connection.execute(
        text(
            "SELECT * FROM drift WHERE last_at >= :since AND provider = COALESCE(CAST(:provider AS TEXT), provider) "
            "ORDER BY last_at DESC, id DESC LIMIT 1000"
        ),
        {"since": since, "provider": provider},
    )
    return [
        Drift(
            provider=row.provider,
            kind=row.kind,
            session_id=row.session_id,
            provider_session_id=row.provider_session_id,
            first_at=moment(row.first_at),
            last_at=moment(row.last_at),
            times=int(row.times),
            detail=row.detail,
        )
        for row in rows
    ]


_NOTE = (
    "INSERT INTO drift (dedupe_key, provider, kind, session_id, provider_session_id, first_at, last_at, detail) "
    "VALUES (:key, :provider, :kind, :session_id, :provider_session_id, :at, :at, :detail) "
    "ON CONFLICT (dedupe_key) DO UPDATE SET last_at = excluded.last_at, times = drift.times + 1, "
    "detail = excluded.detail"
)
