"""Facts about the ledger itself, and the processes that have it open."""

from __future__ import annotations

from typing import Any, ClassVar

from tabkeeper.ledger.models.base import Table, instant, number, text_key, words


class LedgerMetaRow(Table, table=True):
    """Facts about the ledger itself: ``currency``, ``asset_scale``, ``created_at``, ``epoch``.

    ``epoch`` counts changes of budgets, so that other processes notice them.
    """

    __tablename__: ClassVar[Any] = "ledger_meta"
    key: str = text_key()
    value: str = words()


class ProcessRow(Table, table=True):
    """One opened ledger: who may own sessions, and whether it still lives."""

    __tablename__: ClassVar[Any] = "process"
    id: str = text_key()
    host: str = words()
    pid: int = number()
    pid_started_at: int = instant()
    started_at: int = instant()
    heartbeat_at: int = instant()
    ended_at: int | None = instant(optional=True)
    snapshot: str = words("{}")
    """JSON object: what this process last told about its queue."""
