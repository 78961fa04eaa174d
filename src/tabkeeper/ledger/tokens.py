"""Who may call the service, as kept in the ledger for all its processes: hashes, never tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """A token that was made, as far as it is known afterwards."""

    id: str
    name: str
    hash: str = field(repr=False)
    scopes: tuple[str, ...]
    tenants: tuple[str, ...] = ()
    """For whom it may act; empty for everybody."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_good(self, now: datetime) -> bool:
        """Whether it lets anybody in."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def add(tx: Transaction, token: StoredToken) -> bool:
    """Keep a token; False if another that was not revoked has its name."""
    return bool(
        tx.run(
            "INSERT INTO service_token (id, name, hash, scopes, tenants, created_at, expires_at) "
            "VALUES (:id, :name, :hash, :scopes, :tenants, :created, :expires) ON CONFLICT DO NOTHING",
            id=token.id,
            name=token.name,
            hash=token.hash,
            scopes=json.dumps(token.scopes),
            tenants=json.dumps(token.tenants),
            created=micros(token.created_at),
            expires=None if token.expires_at is None else micros(token.expires_at),
        )
    )


def revoke(tx: Transaction, name: str, at: datetime) -> str | None:
    """Let a token, by its name or id, in no more; return its id, or None if there is none such."""
    row = tx.row(
        "UPDATE service_token SET revoked_at = :at WHERE revoked_at IS NULL AND (name = :name OR id = :name) "
        "RETURNING id",
        at=micros(at),
        name=name,
    )
    return None if row is None else str(row.id)


def stored(engine: Engine, *, revoked: bool = False) -> Sequence[StoredToken]:
    """Return the tokens that were made, oldest first; with `revoked`, those too that let nobody in any more."""
    with engine.connect() as connection:
        return [_token(row) for row in _rows(connection, revoked=revoked)]


def _rows(connection: Connection, *, revoked: bool) -> Sequence[Any]:
    return connection.execute(
        text(
            "SELECT id, name, hash, scopes, tenants, created_at, expires_at, revoked_at FROM service_token "
            "WHERE revoked_at IS NULL OR :revoked ORDER BY created_at, id"
        ),
        {"revoked": revoked},
    ).all()


def _token(row: Any) -> StoredToken:
    return StoredToken(
        id=row.id,
        name=row.name,
        hash=row.hash,
        scopes=tuple(json.loads(row.scopes)),
        tenants=tuple(json.loads(row.tenants)),
        created_at=moment(row.created_at),
        expires_at=None if row.expires_at is None else moment(row.expires_at),
        revoked_at=None if row.revoked_at is None else moment(row.revoked_at),
    )
