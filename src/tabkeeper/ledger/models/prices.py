"""Rate cards as they were in force, their components, and free allowances."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlmodel import Field

from tabkeeper.ledger.models.base import Table, instant, number, reference, serial_key, text_key, words


class RateCardRow(Table, table=True):
    """A price list as it was in force for a provider; `document` is `RateCard.to_json`.

    A change of prices closes the row (`effective_to`) and opens the next; running sessions keep theirs.
    """

    __tablename__: ClassVar[Any] = "rate_card"
    __table_args__: ClassVar[Any] = (
        Index(
            "uq_rate_card_current",
            "provider",
            unique=True,
            sqlite_where=text("effective_to IS NULL"),
            postgresql_where=text("effective_to IS NULL"),
        ),
        CheckConstraint("effective_to IS NULL OR effective_to > effective_from", name="lasts"),
    )
    id: int | None = serial_key()
    provider: str = words()
    plan: str = words()
    effective_from: int = instant()
    effective_to: int | None = instant(optional=True)
    fingerprint: str = words()
    source: str = words("")
    document: str = words()
    imported_at: int = instant()


class RateComponentRow(Table, table=True):
    """One price of a list, readable by SQL; `unit_price` is exact decimal text."""

    __tablename__: ClassVar[Any] = "rate_component"
    rate_card_id: int = reference("rate_card.id", key=True)
    kind: str = text_key()
    unit: str = words()
    unit_price: str = words()
    per_qty: int = number(1)
    increment_qty: int = number(1)
    min_qty: int = number()
    included_qty: int = number()
    cap_qty: int | None = Field(default=None, sa_type=BigInteger)


class AllowanceRow(Table, table=True):
    """What a plan includes in a calendar month (UTC), and how much of it is used."""

    __tablename__: ClassVar[Any] = "allowance"
    provider: str = text_key()
    plan: str = text_key()
    kind: str = text_key()
    month_at: int = number(key=True)
    used_qty: int = number()
