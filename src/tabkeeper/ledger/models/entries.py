"""Money held and money booked: holds, entries with their lines and shares, and postings to windows."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from tabkeeper.ledger.models.base import (
    Table,
    instant,
    maybe_words,
    number,
    reference,
    serial_key,
    text_key,
    words,
)


class HoldRow(Table, table=True):
    """Money set aside for a session; resolved at most once."""

    __tablename__: ClassVar[Any] = "hold"
    __table_args__: ClassVar[Any] = (
        Index(
            "ix_hold_open",
            "expires_at",
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        CheckConstraint("state IN ('open', 'settled', 'voided')", name="state"),
        CheckConstraint("amount_n >= 0", name="amount"),
    )
    session_id: str = text_key("session.id")
    payload_hash: str = words()
    rate_card_id: int = reference("rate_card.id")
    amount_n: int = number()
    max_us: int = number()
    proxy_price: str | None = maybe_words()
    """Dollars for 10^9 bytes through the session's own proxy."""
    proxy_bytes: int = number(0)
    """The most that it may move through it."""
    state: str = words("open")
    held_at: int = instant()
    expires_at: int = instant()
    resolved_at: int | None = instant(optional=True)


class EntryRow(Table, table=True):
    """Append-only journal. `amount_n` is cost booked; a hold, a void and a change of limit book none."""

    __tablename__: ClassVar[Any] = "entry"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("idem_key"),
        Index("ix_entry_session_id_kind", "session_id", "kind"),
        Index("ix_entry_effective_at", "effective_at"),
        Index(
            "ix_entry_adjusted",
            "effective_at",
            sqlite_where=text("kind = 'adjust'"),
            postgresql_where=text("kind = 'adjust'"),
        ),
        CheckConstraint("kind IN ('hold', 'settle', 'void', 'limit', 'adjust')", name="kind"),
    )
    id: int | None = serial_key()
    idem_key: str = words()
    payload_hash: str = words()
    kind: str = words()
    session_id: str | None = maybe_words(foreign="session.id")
    amount_n: int = number()
    effective_at: int = instant()
    """The instant whose windows and hour it counts in: that of the hold."""
    recorded_at: int = instant()
    quality: str = words("measured")
    reason: str = words("")
    corrects_id: int | None = Field(default=None, sa_type=BigInteger, foreign_key="entry.id")


class EntryLineRow(Table, table=True):
    """Append-only: what an entry's amount is made of; `raw_qty` was used, `billed_qty` is charged."""

    __tablename__: ClassVar[Any] = "entry_line"
    entry_id: int = reference("entry.id", key=True)
    kind: str = text_key()
    raw_qty: int = number()
    billed_qty: int = number()
    included_qty: int = number()
    amount_n: int = number()


class EntryShareRow(Table, table=True):
    """Append-only: whose cost an adjustment changed, and by how much; together they are the entry's amount."""

    __tablename__: ClassVar[Any] = "entry_share"
    entry_id: int = reference("entry.id", key=True)
    lease_id: str = text_key()
    """Empty for the session's own part: idle cost, rounding, length of life."""
    cost_n: int = number()
    rounding_n: int = number()
    seconds_us: int = number()


class PostingRow(Table, table=True):
    """Append-only: what an entry did to a window; every balance is a column sum of these."""

    __tablename__: ClassVar[Any] = "posting"
    __table_args__: ClassVar[Any] = (Index("ix_posting_window_id", "window_id"),)
    entry_id: int = reference("entry.id", key=True)
    window_id: int = reference("budget_window.id", key=True)
    d_held_n: int = number()
    d_spent_n: int = number()
    d_forced_n: int = number()
