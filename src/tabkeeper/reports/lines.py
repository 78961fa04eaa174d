"""Booked lines as a flat table, as they are in the ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tabkeeper.reports.booked import BookedLine
from tabkeeper.reports.columns import Column, FlatTable

LINE_COLUMNS = (
    Column("entry_id", "integer"),
    Column("entry"),
    Column("effective_at", "instant"),
    Column("recorded_at", "instant"),
    Column("ended_at", "instant"),
    Column("session_id"),
    Column("provider_session_id"),
    Column("state"),
    Column("platform"),
    Column("provider"),
    Column("tenant", spoken=True),
    Column("plan"),
    Column("kind"),
    Column("raw_qty", "integer"),
    Column("billed_qty", "integer"),
    Column("included_qty", "integer"),
    Column("unit_price", "decimal"),
    Column("per_qty", "integer"),
    Column("amount", "money"),
    Column("quality"),
    Column("tags"),
)
"""`unit_price` dollars buy `per_qty` (milliseconds, bytes or counts)."""


def lines_table(lines: Iterable[BookedLine]) -> FlatTable:
    """Lay lines out."""
    return FlatTable(LINE_COLUMNS, _rows(lines))


def _rows(lines: Iterable[BookedLine]) -> Iterator[list[Any]]:
    for line in lines:
        price = line.price
        yield [
            line.entry_id, line.entry, line.effective_at, line.recorded_at, line.ended_at, line.session_id,
            line.provider_session_id, line.state, line.platform, line.provider, line.tenant, line.card.plan, line.kind,
            line.raw_qty, line.billed_qty, line.included_qty, None if price is None else price.unit_price,
            None if price is None else price.per_qty, line.amount, line.quality, line.tags or None,
        ]  # fmt: skip
