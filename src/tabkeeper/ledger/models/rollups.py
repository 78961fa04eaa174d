"""Sums by hour and by day, so that reports need not read every entry."""

from __future__ import annotations

from typing import Any, ClassVar

from tabkeeper.ledger.models.base import Table, number, text_key


class RollupHourRow(Table, table=True):
    """Sums of settled sessions by the (UTC) hour of their hold; leases count for their own tenant."""

    __tablename__: ClassVar[Any] = "rollup_hour"
    hour_at: int = number(key=True)
    provider: str = text_key()
    platform: str = text_key()
    tenant: str = text_key()
    cost_n: int = number()
    idle_n: int = number()
    """Part of `cost_n` that no lease used."""
    rounding_n: int = number()
    """Part of `cost_n` owed to increments and minimums; on the session's tenant."""
    failed_n: int = number()
    """Shares of leases that did not end well, and idle cost of sessions that failed."""
    sessions: int = number()
    failed_sessions: int = number()
    leases: int = number()
    reused: int = number()
    failures: int = number()
    session_us: int = number()
    leased_us: int = number()
    waited_us: int = number()
    bytes: int = number()


class RollupLineRow(Table, table=True):
    """Sums of settled sessions' lines by hour and component; on the session's tenant."""

    __tablename__: ClassVar[Any] = "rollup_line"
    hour_at: int = number(key=True)
    provider: str = text_key()
    platform: str = text_key()
    tenant: str = text_key()
    kind: str = text_key()
    amount_n: int = number()
    raw_qty: int = number()
    billed_qty: int = number()
    included_qty: int = number()


class RollupDayRow(Table, table=True):
    """The hourly sums added up by UTC day, so that a month is read from days and the hours at its ends."""

    __tablename__: ClassVar[Any] = "rollup_day"
    day_at: int = number(key=True)
    provider: str = text_key()
    platform: str = text_key()
    tenant: str = text_key()
    cost_n: int = number()
    idle_n: int = number()
    rounding_n: int = number()
    failed_n: int = number()
    sessions: int = number()
    failed_sessions: int = number()
    leases: int = number()
    reused: int = number()
    failures: int = number()
    session_us: int = number()
    leased_us: int = number()
    waited_us: int = number()
    bytes: int = number()


class RollupDayLineRow(Table, table=True):
    """The hourly sums of lines added up by UTC day."""

    __tablename__: ClassVar[Any] = "rollup_day_line"
    day_at: int = number(key=True)
    provider: str = text_key()
    platform: str = text_key()
    tenant: str = text_key()
    kind: str = text_key()
    amount_n: int = number()
    raw_qty: int = number()
    billed_qty: int = number()
    included_qty: int = number()
