"""What tells this ledger's sessions from those of others that use the same accounts.

A session's id begins with the ledger's own mark, so that its label at a provider shows whose it is, even if the row
is gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, text

from tabkeeper.ledger.transaction import Transaction
from tabkeeper.ledger.types import OpenSession, Recorded

_MARK = "SELECT value FROM ledger_meta WHERE key = 'installation'"
_AT_ONCE = 500
"""Ids in one query: databases bound the number of its parameters."""


def settle_in(tx: Transaction, mark: str) -> str:
    """Return the ledger's mark, which is `mark` if it had none."""
    tx.run(
        "INSERT INTO ledger_meta (key, value) VALUES ('installation', :mark) ON CONFLICT (key) DO NOTHING",
        mark=mark,
    )
    row = tx.row(_MARK)
    assert row is not None
    return str(row.value)


def installation(connection: Connection) -> str:
    """Return the ledger's mark; empty if no pool has opened it yet."""
    return str(connection.execute(text(_MARK)).scalar() or "")


def open_sessions(connection: Connection, provider: str, before: int | None) -> list[OpenSession]:
    """Find the sessions that run at a provider; with `before`, those that ran by then."""
    rows = connection.execute(
        text(
            "SELECT id, provider_session_id FROM session WHERE ended_at IS NULL AND provider = :provider "
            "AND provider_session_id IS NOT NULL AND active_at <= COALESCE(CAST(:before AS BIGINT), active_at) "
            "ORDER BY created_at, id"
        ),
        {"provider": provider, "before": before},
    )
    return [OpenSession(session_id=row.id, provider_session_id=row.provider_session_id) for row in rows]


def recorded(
    connection: Connection, labels: Sequence[str], provider_ids: Sequence[str], since: int
) -> list[Recorded]:
    """Find sessions by our ids, or by their providers' among those created since an instant."""
    found: dict[str, Recorded] = {}
    for where, values in (
        ("id IN :values", labels),
        (f"created_at >= {since:d} AND provider_session_id IN :values", provider_ids),
    ):
        query = text(
            f"SELECT id, provider, provider_session_id, ended_at, close_reason FROM session WHERE {where}"  # noqa: S608 - our words
        ).bindparams(bindparam("values", expanding=True))
        for start in range(0, len(values), _AT_ONCE):
            for row in connection.execute(query, {"values": list(values[start : start + _AT_ONCE])}):
                found[row.id] = Recorded(
                    session_id=row.id,
                    provider=row.provider,
                    provider_session_id=row.provider_session_id,
                    ended=row.ended_at is not None,
                    why=row.close_reason,
                )
    return list(found.values())
