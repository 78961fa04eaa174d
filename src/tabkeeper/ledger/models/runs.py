"""Runs over sites, their pages, and the items found."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Index, UniqueConstraint
from sqlmodel import Field

from tabkeeper.ledger.models.base import Table, instant, number, text_key, words


class RunRow(Table, table=True):
    """One run over sites; it is committed when all its pages are done, and open until then."""

    __tablename__: ClassVar[Any] = "run"
    __table_args__: ClassVar[Any] = (
        Index("ix_run_name_started_at", "name", "started_at"),
        CheckConstraint("state IN ('open', 'committed')", name="state"),
    )
    id: str = text_key()
    name: str = words()
    state: str = words("open")
    owner: str = words()
    """The process that works on it, or did; whoever is not it changes nothing."""
    sites: str = words("[]")
    """JSON list of domains."""
    max_cost_n: int | None = Field(default=None, sa_type=BigInteger)
    started_at: int = instant()
    ended_at: int | None = instant(optional=True)
    items: int = number()
    outlet: str = words("")
    """Where items are written to, and how far that has come: items, and bytes of a file."""
    outlet_items: int = number()
    outlet_bytes: int = number()


class RunPageRow(Table, table=True):
    """A page of a run; what it gave is written in the transaction that calls it done."""

    __tablename__: ClassVar[Any] = "run_page"
    __table_args__: ClassVar[Any] = (
        UniqueConstraint("run_id", "url"),
        CheckConstraint("state IN ('pending', 'done', 'failed')", name="state"),
    )
    run_id: str = text_key("run.id")
    n: int = number(key=True)
    """The lower, the older."""
    url: str = words()
    site: str = words()
    origin: int = Field(sa_type=BigInteger)
    """`n` of the start page from which it was found; a start page's own."""
    depth: int = number()
    state: str = words("pending")
    attempts: int = number()
    avoid: str = words("[]")
    """JSON list of proxies and sessions on which it failed."""
    error: str = words("")
    ended_at: int | None = instant(optional=True)
    spent_us: int = number()
    bytes: int = number()
    items: int = number()


class RunItemRow(Table, table=True):
    """Something found on a page, as JSON; forgotten once its run is committed."""

    __tablename__: ClassVar[Any] = "run_item"
    run_id: str = text_key("run.id")
    n: int = number(key=True)
    page: int = Field(sa_type=BigInteger)
    body: str = words()
