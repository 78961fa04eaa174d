"""Reads the whole story of one session: its row, and the latest of what was noted about its states."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from tabkeeper.ledger.instants import moment
from tabkeeper.ledger.types import StateChange
from tabkeeper.money import Money

_MOST = 50
"""Changes of state that are told; a session that was checked for hours has many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionHistory:
    """One session as the ledger knows it."""

    id: str
    platform: str
    provider: str
    tenant: str
    state: str
    created_at: datetime
    ended_at: datetime | None
    close_reason: str | None
    uses: int
    cost: Money
    idle: Money
    """Part of `cost` that no lease used."""
    changes: tuple[StateChange, ...]
    """Oldest first."""


def history(connection: Connection, session_id: str) -> SessionHistory | None:
    """Return what the ledger knows of a session; None if it knows none of this id."""
    found = connection.execute(
        text(
            "SELECT id, platform, provider, tenant, state, created_at, ended_at, close_reason, uses, cost_n, idle_n "
            "FROM session WHERE id = :id"
        ),
        {"id": session_id},
    ).one_or_none()
    if found is None:
        return None
    changes = connection.execute(
        text(
            "SELECT at, old, new, reason FROM session_event WHERE session_id = :id "
            "ORDER BY at DESC, id DESC LIMIT :most"
        ),
        {"id": session_id, "most": _MOST},
    ).all()
    return SessionHistory(
        id=found.id,
        platform=found.platform,
        provider=found.provider,
        tenant=found.tenant,
        state=found.state,
        created_at=moment(found.created_at),
        ended_at=None if found.ended_at is None else moment(found.ended_at),
        close_reason=found.close_reason,
        uses=found.uses,
        cost=Money(found.cost_n),
        idle=Money(found.idle_n),
        changes=tuple(
            StateChange(session_id=session_id, at=moment(row.at), old=row.old, new=row.new, reason=row.reason)
            for row in reversed(changes)
        ),
    )
