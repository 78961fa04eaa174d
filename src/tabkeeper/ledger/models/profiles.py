"""Profiles of identities, and who may write one."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Index, text

from tabkeeper.ledger.models.base import Table, instant, maybe_words, number, text_key, words


class ProfileRow(Table, table=True):
    """Saved browser state of a site behind a proxy, for one tenant; at most one of a kind is not retired."""

    __tablename__: ClassVar[Any] = "profile"
    __table_args__: ClassVar[Any] = (
        Index(
            "uq_profile_live",
            "tenant",
            "site",
            "proxy",
            unique=True,
            sqlite_where=text("retired_at IS NULL"),
            postgresql_where=text("retired_at IS NULL"),
        ),
        CheckConstraint("retired_at IS NULL OR sealed IS NULL", name="retired"),
    )
    id: str = text_key()
    tenant: str = words()
    site: str = words()
    proxy: str = words("")
    created_at: int = instant()
    saved_at: int = instant()
    succeeded_at: int | None = instant(optional=True)
    failures: int = number()
    """In a row."""
    uses: int = number()
    retired_at: int | None = instant(optional=True)
    retired_why: str = words("")
    sealed: str | None = maybe_words()
    """Cookies, storage, user agent, viewport: JSON sealed by the vault; forgotten when it is retired."""


class ProfileWriterRow(Table, table=True):
    """Which lease may write a profile, and until when."""

    __tablename__: ClassVar[Any] = "profile_writer"
    tenant: str = text_key()
    site: str = text_key()
    proxy: str = text_key()
    holder: str = words()
    expires_at: int = instant()
