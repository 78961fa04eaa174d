"""Runs of reconciliation, what each compared, and drift between us and a provider."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Index, UniqueConstraint

from tabkeeper.ledger.models.base import Table, instant, maybe_words, number, serial_key, text_key, words


class ReconRunRow(Table, table=True):
    """One look at one provider's figures, and what came of it."""

    __tablename__: ClassVar[Any] = "recon_run"
    __table_args__: ClassVar[Any] = (Index("ix_recon_run_at", "at"),)
    id: int | None = serial_key()
    provider: str = words()
    at: int = instant()
    sessions: int = number()
    """Sessions whose figures were there, and were compared."""
    waiting: int = number()
    """Sessions whose figures were not."""
    ours_n: int = number()
    """What was booked for those compared, before the look."""
    theirs_n: int = number()
    adjusted: int = number()
    """Entries written."""
    past: int = number()
    """Differences past the tolerance."""
    error: str = words("")


class ReconItemRow(Table, table=True):
    """How far the comparison of one session has come; written in the transaction that adjusts it."""

    __tablename__: ClassVar[Any] = "recon_item"
    __table_args__: ClassVar[Any] = (
        Index("ix_recon_item_state_next_at", "state", "next_at"),
        CheckConstraint("state IN ('waiting', 'compared', 'silent')", name="state"),
    )
    session_id: str = text_key("session.id")
    provider: str = words()
    state: str = words("waiting")
    """waiting: its provider has no final figures yet; silent: it never told any."""
    attempts: int = number()
    checked_at: int = instant()
    next_at: int = number()
    theirs_n: int = number()
    """What the provider's figures come to, by the session's own price list."""
    said: str = words("{}")
    """JSON: what the provider said, as it was priced."""


class ReconPeriodRow(Table, table=True):
    """What a provider billed a whole account in a period, against what was booked for its sessions."""

    __tablename__: ClassVar[Any] = "recon_period"
    provider: str = text_key()
    start_at: int = number(None, key=True)
    end_at: int = instant()
    """The start itself: only a reading of a running total, from which the next period begins."""
    checked_at: int = instant()
    ours_n: int = number()
    theirs_n: int = number()
    booked_n: int = number()
    """What is booked of the difference."""
    session_id: str | None = maybe_words(foreign="session.id")
    """The row that bears it, since no session of ours does."""
    said: str = words("{}")
    """JSON: what the provider said."""


class DriftRow(Table, table=True):
    """A provider's state and ours disagree; one row for each thing, however often it is seen."""

    __tablename__: ClassVar[Any] = "drift"
    __table_args__: ClassVar[Any] = (UniqueConstraint("dedupe_key"), Index("ix_drift_last_at", "last_at"))
    id: int | None = serial_key()
    dedupe_key: str = words()
    provider: str = words()
    kind: str = words()
    """dead, ended, unlisted, refuses or stray; see `ledger.drift`."""
    session_id: str | None = maybe_words()
    provider_session_id: str | None = maybe_words()
    first_at: int = instant()
    last_at: int = instant()
    times: int = number(1)
    detail: str = words("")
