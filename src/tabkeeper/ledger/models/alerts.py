"""Alerts, who is told of them, and what was delivered."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, UniqueConstraint
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


class AlertEventRow(Table, table=True):
    """Something somebody should hear of, written with its cause; sending it comes later."""

    __tablename__: ClassVar[Any] = "alert_event"
    __table_args__: ClassVar[Any] = (UniqueConstraint("dedupe_key"), Index("ix_alert_event_at", "at"))
    id: int | None = serial_key()
    dedupe_key: str = words()
    kind: str = words()
    """threshold, denied, overrun, estimate, leak ...; what people read of each is in `alerts.alert`."""
    at: int = instant()
    budget: str | None = maybe_words()
    window_id: int | None = Field(default=None, sa_type=BigInteger, foreign_key="budget_window.id")
    metric: str | None = maybe_words()
    """spent, or committed (spent and held)."""
    share_ppm: int | None = Field(default=None, sa_type=BigInteger)
    amount_n: int = number()
    limit_n: int | None = Field(default=None, sa_type=BigInteger)
    session_id: str | None = maybe_words()
    detail: str = words("")


class AlertChannelRow(Table, table=True):
    """Where alerts go; a channel hears of nothing that happened before it was first known."""

    __tablename__: ClassVar[Any] = "alert_channel"
    name: str = text_key()
    since: int = instant()


class AlertDeliveryRow(Table, table=True):
    """How far one alert has come on one channel; until `next_at` it belongs to who claimed it."""

    __tablename__: ClassVar[Any] = "alert_delivery"
    event_id: int = reference("alert_event.id", key=True)
    channel: str = text_key("alert_channel.name")
    state: str = words("pending")
    """pending, delivered or dead."""
    attempts: int = number()
    next_at: int = number()
    last_error: str = words("")
    delivered_at: int | None = instant(optional=True)
