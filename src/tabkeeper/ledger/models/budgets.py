"""Budgets, their windows, and the thresholds that a window has crossed."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text

from tabkeeper.ledger.models.base import Table, instant, number, reference, serial_key, words


class BudgetRow(Table, table=True):
    """One version of a budget; a change closes it (`effective_to`) and opens the next."""

    __tablename__: ClassVar[Any] = "budget"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("name", "version"),
        Index(
            "uq_budget_current",
            "name",
            unique=True,
            sqlite_where=text("effective_to IS NULL"),
            postgresql_where=text("effective_to IS NULL"),
        ),
        CheckConstraint("mode IN ('hard', 'soft')", name="mode"),
        CheckConstraint("scope_kind IN ('pool', 'platform', 'provider', 'tenant')", name="scope"),
    )
    id: int | None = serial_key()
    name: str = words()
    version: int = number(1)
    scope_kind: str = words()
    scope_value: str = words("")
    period: str = words()
    timezone: str = words()
    mode: str = words()
    limit_n: int = number()
    thresholds: str = words("[]")
    """JSON list of millionths of the limit."""
    on_exceed: str = words("deny")
    effective_from: int = instant()
    effective_to: int | None = instant(optional=True)


class BudgetWindowRow(Table, table=True):
    """One window of a budget: the only balance there is, changed only together with a posting.

    Mode and limit are copies of the budget's, so that the row that is locked decides by itself.
    """

    __tablename__: ClassVar[Any] = "budget_window"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("budget_id", "start_at"),
        CheckConstraint("end_at > start_at", name="lasts"),
        CheckConstraint("held_n >= 0", name="held"),
        Index("ix_budget_window_start_at", "start_at"),
    )
    id: int | None = serial_key()
    budget_id: int = reference("budget.id")
    start_at: int = instant()
    end_at: int = instant()
    label: str = words()
    mode: str = words()
    limit_n: int = number()
    held_n: int = number()
    """Worst cases of sessions that still run."""
    spent_n: int = number()
    """Settled costs."""
    forced_n: int = number()
    """What came in without being admitted: costs beyond a hold, a limit lowered under what was spent."""
    denied: int = number()
    """Sessions refused."""


class WindowThresholdRow(Table, table=True):
    """An amount at which a window's alert is due."""

    __tablename__: ClassVar[Any] = "window_threshold"
    window_id: int = reference("budget_window.id", key=True)
    share_ppm: int = number(key=True)
    amount_n: int = number()
