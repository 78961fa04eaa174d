"""Reports as they were made, so that a later one can tell what was restated."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import Index

from tabkeeper.ledger.models.base import Table, instant, text_key, words


class ReportRunRow(Table, table=True):
    """The report of one local day; whoever writes the row first has written it."""

    __tablename__: ClassVar[Any] = "report_run"
    __table_args__: ClassVar[Any] = (Index("ix_report_run_timezone_ends_at", "timezone", "ends_at"),)
    day: str = text_key()
    """``2026-11-21``."""
    timezone: str = text_key()
    ends_at: int = instant()
    made_at: int = instant()
    process_id: str = words()
    report: str = words()
    """JSON, as `reports.render_json` writes it."""
