"""Alerts as rows: written with their cause, and sent by whoever claims them, once for each channel.

An event is one crossing (its key is unique); a delivery is one event on one channel. A claim is a lease on a
delivery: who dies with it loses it when its time is up, and somebody else sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, text

from tabkeeper.clock import Clock
from tabkeeper.ledger.instants import length_us, micros, moment
from tabkeeper.ledger.store import Writer
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.money import Money

T = TypeVar("T")

_COLUMNS = (
    "e.id, e.dedupe_key, e.kind, e.at, e.budget, e.metric, e.share_ppm, e.amount_n, e.limit_n, e.session_id, "
    "e.detail"
)
_DUE = """
    FROM alert_event e JOIN alert_channel c ON c.name = :channel
    LEFT JOIN alert_delivery d ON d.event_id = e.id AND d.channel = c.name
    WHERE e.at >= c.since AND e.at >= :oldest
      AND (d.event_id IS NULL OR (d.state = 'pending' AND d.next_at <= :now))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEvent:
    """One thing that somebody should hear of."""

    id: int
    key: str
    """Unique for one crossing in one window."""
    kind: str
    at: datetime
    budget: str | None = None
    metric: str | None = None
    share: float | None = None
    """Threshold, as a share of the limit."""
    amount: Money | None = None
    limit: Money | None = None
    session_id: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDelivery:
    """How far one event has come on one channel."""

    channel: str
    state: str
    """pending, delivered or dead."""
    attempts: int
    last_error: str
    delivered_at: datetime | None


class Reads(Protocol):
    """Runs a query on a read-only connection, off the event loop."""

    def __call__(self, query: Callable[[Any], T], /) -> Awaitable[T]:
        """Return what the query returns."""
        ...


class AlertOutbox:
    """The alerts of a ledger; get it as ``ledger.alerts``."""

    def __init__(self, writer: Writer, read: Reads, clock: Clock) -> None:
        self._writer = writer
        self._read = read
        self._clock = clock

    def tell(
        self,
        kind: str,
        key: str,
        detail: str,
        *,
        budget: str | None = None,
        window_id: int | None = None,
        amount: Money | None = None,
        limit: Money | None = None,
        session_id: str | None = None,
    ) -> None:
        """Write an event unless one with this key was written before; never waits, is kept if the database is away."""
        self._writer.start_later(
            {
                "op": "alert",
                "key": key,
                "kind": kind,
                "detail": detail,
                "budget": budget,
                "window_id": window_id,
                "amount_n": 0 if amount is None else amount.nanos,
                "limit_n": None if limit is None else limit.nanos,
                "session_id": session_id,
                "at": micros(self._clock.now()),
            }
        )

    async def open_channel(self, channel: str, *, since: datetime) -> None:
        """Make a channel known; one that is new hears of nothing older than `since`.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        at = micros(since)
        await self._writer.call(
            lambda tx: tx.run(
                "INSERT INTO alert_channel (name, since) VALUES (:name, :at) ON CONFLICT (name) DO NOTHING",
                name=channel,
                at=at,
            )
        )

    async def claim(
        self, channel: str, *, most: int, hold: timedelta, keep: timedelta
    ) -> list[tuple[AlertEvent, int]]:
        """Take what is due on a channel, oldest first, for `hold`; with the number of the attempt, from 1.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        now = self._clock.now()
        values = {"channel": channel, "now": micros(now), "oldest": micros(now - keep)}
        # Most looks find nothing, and those must not queue with the writers.
        if not await self._read(lambda connection: _any_due(connection, values)):
            return []
        until = micros(now + hold)
        claimed: list[tuple[AlertEvent, int]] = await self._writer.call(
            lambda tx: _claim(tx, values, most, until)
        )
        return claimed

    async def delivered(self, event: AlertEvent, channel: str) -> None:
        """Note that the channel took an event; kept if the database is away."""
        await self._writer.do(
            {
                "op": "alert_delivered",
                "event_id": event.id,
                "channel": channel,
                "at": micros(self._clock.now()),
            },
            keep=True,
        )

    async def failed(
        self, event: AlertEvent, channel: str, *, error: str, again_in: timedelta | None
    ) -> None:
        """Note that it did not, and when to try again; None gives it up."""
        await self._writer.do(
            {
                "op": "alert_failed",
                "event_id": event.id,
                "channel": channel,
                "error": error[:500],
                "state": "dead" if again_in is None else "pending",
                "next_at": micros(self._clock.now())
                + (0 if again_in is None else length_us(again_in.total_seconds())),
            },
            keep=True,
        )

    async def recent(self, most: int) -> list[tuple[AlertEvent, list[AlertDelivery]]]:
        """Return the latest events, newest first, and how far each has come on each channel.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        return await self._read(lambda connection: recent(connection, most))


def recent(connection: Connection, most: int) -> list[tuple[AlertEvent, list[AlertDelivery]]]:
    """See `AlertOutbox.recent`."""
    events = connection.execute(
        text(f"SELECT {_COLUMNS} FROM alert_event e ORDER BY e.id DESC LIMIT :most"),  # noqa: S608
        {"most": most},
    ).all()
    least = min((row.id for row in events), default=0)
    by_event: dict[int, list[AlertDelivery]] = {}
    for row in connection.execute(
        text("SELECT * FROM alert_delivery WHERE event_id >= :least ORDER BY channel"), {"least": least}
    ):
        by_event.setdefault(row.event_id, []).append(
            AlertDelivery(
                channel=row.channel,
                state=row.state,
                attempts=int(row.attempts),
                last_error=row.last_error,
                delivered_at=None if row.delivered_at is None else moment(row.delivered_at),
            )
        )
    return [(_event(row), by_event.get(row.id, [])) for row in events]


def apply(tx: Transaction, operation: Any) -> int:
    """Carry out an operation of the outbox; see `LedgerOperations`."""
    if operation["op"] == "alert_delivered":
        return tx.run(
            "UPDATE alert_delivery SET state = 'delivered', delivered_at = :at, last_error = '' "
            "WHERE event_id = :event_id AND channel = :channel",
            at=operation["at"],
            event_id=operation["event_id"],
            channel=operation["channel"],
        )
    return tx.run(
        "UPDATE alert_delivery SET state = :state, next_at = :next_at, last_error = :error "
        "WHERE event_id = :event_id AND channel = :channel AND state = 'pending'",
        **{key: operation[key] for key in ("state", "next_at", "error", "event_id", "channel")},
    )


def _any_due(connection: Connection, values: dict[str, Any]) -> bool:
    return connection.execute(text(f"SELECT 1 {_DUE} LIMIT 1"), values).first() is not None


def _claim(tx: Transaction, values: dict[str, Any], most: int, until: int) -> list[tuple[AlertEvent, int]]:
    rows = tx.rows(
        f"SELECT {_COLUMNS}, COALESCE(d.attempts, 0) AS attempts {_DUE} ORDER BY e.id LIMIT :most",
        **values,
        most=most,
    )
    for row in rows:
        tx.run(
            "INSERT INTO alert_delivery (event_id, channel, state, attempts, next_at, last_error) "
            "VALUES (:event_id, :channel, 'pending', 1, :until, '') ON CONFLICT (event_id, channel) DO UPDATE "
            "SET attempts = alert_delivery.attempts + 1, next_at = excluded.next_at",
            event_id=row.id,
            channel=values["channel"],
            until=until,
        )
    return [(_event(row), int(row.attempts) + 1) for row in rows]


def _event(row: Any) -> AlertEvent:
    return AlertEvent(
        id=row.id,
        key=row.dedupe_key,
        kind=row.kind,
        at=moment(row.at),
        budget=row.budget,
        metric=row.metric,
        share=None if row.share_ppm is None else row.share_ppm / 1_000_000,
        amount=None if not row.amount_n else Money(int(row.amount_n)),
        limit=None if row.limit_n is None else Money(int(row.limit_n)),
        session_id=row.session_id,
        detail=row.detail,
    )
