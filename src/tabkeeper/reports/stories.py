"""What happened, for people who look: sessions that ended last, and one session's whole story."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from tabkeeper.ledger.histories import SessionHistory, history
from tabkeeper.ledger.instants import moment
from tabkeeper.money import ZERO, Money
from tabkeeper.reports.daily import snapshot
from tabkeeper.reports.part import Amount, Part

_MOST = 200
"""Leases of one session that are told."""


class EndedSession(Part):
    """One session that is over."""

    id: str
    platform: str
    provider: str
    tenant: str
    state: str
    created_at: datetime
    ended_at: datetime
    close_reason: str
    uses: int
    cost: Amount
    idle: Amount


class PastLease(Part):
    """One lease that is over, as the usage log has it."""

    id: str
    tenant: str
    granted_at: datetime
    released_at: datetime
    waited_seconds: float
    is_new: bool
    outcome: str
    error: str | None
    bytes: int
    place: str
    tags: Mapping[str, str]
    cost: Amount
    """Its share of the session's cost; 0 until the session is settled."""


class Change(Part):
    """A session went from one state to another."""

    at: datetime
    old: str
    new: str
    reason: str


class Booking(Part):
    """One entry of the ledger about a session."""

    at: datetime
    kind: str
    quality: str
    reason: str
    amount: Amount
    """What is booked; a hold books nothing."""
    held: Amount
    """What a hold sets aside until the session is settled."""
    lines: Mapping[str, Amount]
    """What it is made of: fee, time, traffic and so on."""


class SessionStory(Part):
    """Everything that the ledger knows about one session."""

    id: str
    platform: str
    provider: str
    tenant: str
    state: str
    created_at: datetime
    ended_at: datetime | None
    close_reason: str
    uses: int
    cost: Amount
    idle: Amount
    held: Amount
    """What is set aside for it while it runs."""
    changes: tuple[Change, ...]
    leases: tuple[PastLease, ...]
    bookings: tuple[Booking, ...]


def ended_sessions(engine: Engine, most: int) -> list[EndedSession]:
    """Return the latest sessions that are over, newest first."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT id, platform, provider, tenant, state, created_at, ended_at, close_reason, uses, cost_n, "
                "idle_n FROM session WHERE ended_at IS NOT NULL ORDER BY created_at DESC, id LIMIT :most"
            ),
            {"most": most},
        )
        return [
            EndedSession(
                id=row.id,
                platform=row.platform,
                provider=row.provider,
                tenant=row.tenant,
                state=row.state,
                created_at=moment(row.created_at),
                ended_at=moment(row.ended_at),
                close_reason=row.close_reason or "",
                uses=row.uses,
                cost=Money(row.cost_n),
                idle=Money(row.idle_n),
            )
            for row in rows
        ]


def session_story(engine: Engine, session_id: str) -> SessionStory | None:
    """Return one session's story; None if the ledger knows none of this id."""
    with snapshot(engine) as connection:
        found = history(connection, session_id)
        return None if found is None else _story(connection, found)


def _story(connection: Connection, found: SessionHistory) -> SessionStory:
    values = {"id": found.id, "most": _MOST}
    held = connection.execute(
        text("SELECT amount_n FROM hold WHERE session_id = :id AND state = 'open'"), values
    ).scalar()
    leases = connection.execute(
        text("SELECT * FROM lease WHERE session_id = :id ORDER BY use_number DESC, id LIMIT :most"), values
    ).all()
    return SessionStory(
        id=found.id,
        platform=found.platform,
        provider=found.provider,
        tenant=found.tenant,
        state=found.state,
        created_at=found.created_at,
        ended_at=found.ended_at,
        close_reason=found.close_reason or "",
        uses=found.uses,
        cost=found.cost,
        idle=found.idle,
        held=ZERO if held is None else Money(int(held)),
        changes=tuple(
            Change(at=one.at, old=one.old, new=one.new, reason=one.reason) for one in found.changes
        ),
        leases=tuple(_lease(row) for row in reversed(leases)),
        bookings=_bookings(connection, values),
    )


def _lease(row: Any) -> PastLease:
    return PastLease(
        id=row.id,
        tenant=row.tenant,
        granted_at=moment(row.granted_at),
        released_at=moment(row.released_at),
        waited_seconds=row.waited_us / 1e6,
        is_new=bool(row.is_new),
        outcome=row.outcome,
        error=row.error,
        bytes=row.bytes,
        place=row.place or "",
        tags=json.loads(row.tags),
        cost=Money(row.cost_n),
    )


def _bookings(connection: Connection, values: Mapping[str, Any]) -> tuple[Booking, ...]:
    lines: dict[int, dict[str, Money]] = {}
    for row in connection.execute(
        text(
            "SELECT l.entry_id, l.kind, l.amount_n FROM entry_line l JOIN entry e ON e.id = l.entry_id "
            "WHERE e.session_id = :id ORDER BY l.entry_id, l.kind"
        ),
        values,
    ):
        lines.setdefault(row.entry_id, {})[row.kind] = Money(row.amount_n)
    entries = connection.execute(
        text(
            "SELECT e.id, e.kind, e.amount_n, e.recorded_at, e.quality, e.reason, h.amount_n AS held_n FROM entry e "
            "LEFT JOIN hold h ON h.session_id = e.session_id AND e.kind = 'hold' "
            "WHERE e.session_id = :id ORDER BY e.id"
        ),
        values,
    )
    return tuple(
        Booking(
            at=moment(row.recorded_at),
            kind=row.kind,
            quality=row.quality,
            reason=row.reason,
            amount=Money(row.amount_n),
            held=Money(row.held_n or 0),
            lines=lines.get(row.id, {}),
        )
        for row in entries
    )
