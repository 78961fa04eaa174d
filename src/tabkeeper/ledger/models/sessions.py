"""Sessions, what happened to them, their leases, and releases still owed to a provider."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, UniqueConstraint, text
from sqlmodel import Field

from tabkeeper.ledger.models.base import Table, instant, maybe_words, number, serial_key, text_key, words


class SessionRow(Table, table=True):
    """One browser session in its whole life."""

    __tablename__: ClassVar[Any] = "session"
    __table_args__: ClassVar[Any] = (
        Index("ix_session_created_at", "created_at"),
        Index(
            "ix_session_open",
            "process_id",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )
    id: str = text_key()
    platform: str = words()
    provider: str = words()
    tenant: str = words()
    process_id: str = words(foreign="process.id")
    state: str = words("creating")
    provider_session_id: str | None = maybe_words()
    pid: int | None = Field(default=None, sa_type=BigInteger)
    pid_started_at: int | None = instant(optional=True)
    created_at: int = instant()
    active_at: int | None = instant(optional=True)
    ended_at: int | None = instant(optional=True)
    expires_at: int = instant()
    close_reason: str | None = maybe_words()
    uses: int = number()
    failures: int = number()
    cost_n: int = number()
    idle_n: int = number()
    rounding_n: int = number()
    seconds_us: int = number()
    quality: str | None = maybe_words()
    bytes: int = number()
    rate_card_id: int | None = Field(default=None, sa_type=BigInteger, foreign_key="rate_card.id")
    connect_sealed: str | None = maybe_words()
    """Where it is reached, sealed by the vault; None without keys, and once it is over."""
    identity: str | None = maybe_words()
    """Keyed hash of whose account is logged in; None if it is nobody's."""


class SessionEventRow(Table, table=True):
    """A session moved from one state to another."""

    __tablename__: ClassVar[Any] = "session_event"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("session_id", "at", "old", "new"),
        Index("ix_session_event_session_id", "session_id"),
    )
    id: int | None = serial_key()
    session_id: str = words()
    at: int = instant()
    old: str = words()
    new: str = words()
    reason: str = words("")


class LeaseRow(Table, table=True):
    """The usage log: one row for each lease; `cost_n` is its share, known when the session is settled."""

    __tablename__: ClassVar[Any] = "lease"
    __table_args__: ClassVar[Any] = (
        Index("ix_lease_session_id", "session_id"),
        Index("ix_lease_granted_at", "granted_at"),
    )
    id: str = text_key()
    session_id: str = words()
    use_number: int = number()
    platform: str = words()
    provider: str = words()
    tenant: str = words()
    priority: int = number()
    requested_at: int = instant()
    granted_at: int = instant()
    released_at: int = instant()
    waited_us: int = number()
    start_age_us: int = number()
    end_age_us: int = number()
    is_new: int = number()
    outcome: str = words()
    error: str | None = maybe_words()
    bytes: int = number()
    place: str | None = maybe_words()
    tags: str = words("{}")
    cost_n: int = number()


class ReleaseOutboxRow(Table, table=True):
    """A session whose end its provider has not confirmed; gone over until it has."""

    __tablename__: ClassVar[Any] = "release_outbox"
    session_id: str = text_key("session.id")
    provider: str = words()
    provider_session_id: str | None = maybe_words()
    reason: str = words("")
    queued_at: int = instant()
    attempts: int = number()
    next_at: int = number()
    last_error: str | None = maybe_words()
    confirmed_at: int | None = instant(optional=True)
