"""Tokens of the service that `tabkeeper tokens create` made."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import Index, text

from tabkeeper.ledger.models.base import Table, instant, text_key, words


class ServiceTokenRow(Table, table=True):
    """Who may call the service, for what; of the token itself only a hash is kept."""

    __tablename__: ClassVar[Any] = "service_token"
    __table_args__: ClassVar[Any] = (
        Index("uq_service_token_hash", "hash", unique=True),
        Index(
            "uq_service_token_name",
            "name",
            unique=True,
            sqlite_where=text("revoked_at IS NULL"),
            postgresql_where=text("revoked_at IS NULL"),
        ),
    )
    id: str = text_key()
    name: str = words()
    """Whose it is; a name is free again when its token was revoked."""
    hash: str = words()
    scopes: str = words()
    """A JSON list."""
    tenants: str = words()
    """A JSON list; empty for all."""
    created_at: int = instant()
    expires_at: int | None = instant(optional=True)
    revoked_at: int | None = instant(optional=True)
