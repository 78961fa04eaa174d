"""Sessions that may still cost money though no pool uses them, and what is to be done about each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.table import Table
from sqlalchemy import Engine, select

from tabkeeper.cli.findings import Finding
from tabkeeper.cli.picture import ago
from tabkeeper.ledger.instants import moment
from tabkeeper.ledger.models import metadata
from tabkeeper.money import Money
from tabkeeper.reports.render_parts import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class OwedLine:
    """One session whose end nobody has confirmed."""

    session_id: str
    provider: str
    since: datetime
    expires_at: datetime
    """Its provider ends it by then, if nobody else does."""
    attempts: int
    """Releases that were sent in vain."""
    held: Money
    why: str
    configured: bool
    """Whether the provider that made it is configured here."""

    def as_json(self) -> dict[str, Any]:
        """Return plain data; money as decimal text."""
        return {**asdict(self), "held": self.held.text()}


def owed(engine: Engine, providers: Collection[str]) -> list[OwedLine]:
    """Return the sessions that were asked to end, or may exist, and are not known to be over; oldest first.

    Args:
        engine: the ledger's.
        providers: names of those that are configured: others' sessions nobody can end from here.
    """
    session, hold, outbox = (metadata.tables[name] for name in ("session", "hold", "release_outbox"))
    query = (
        select(session, hold.c.amount_n, outbox.c.attempts, outbox.c.last_error)
        .join(hold, hold.c.session_id == session.c.id)
        .outerjoin(outbox, (outbox.c.session_id == session.c.id) & outbox.c.confirmed_at.is_(None))
        .where(session.c.ended_at.is_(None))
        .where(
            outbox.c.session_id.is_not(None)
            | (session.c.state == "unknown")
            | session.c.provider.not_in(list(providers))
        )
        .order_by(session.c.created_at, session.c.id)
    )
    with engine.connect() as connection:
        return [
            OwedLine(
                session_id=row.id,
                provider=row.provider,
                since=moment(row.created_at),
                expires_at=moment(row.expires_at),
                attempts=row.attempts or 0,
                held=Money(row.amount_n),
                why=_why(row, providers),
                configured=row.provider in providers,
            )
            for row in connection.execute(query)
        ]


def _why(row: Any, providers: Collection[str]) -> str:
    if row.provider not in providers:
        return "its provider is not configured here; put it back under this name"
    if row.last_error:
        return f"not confirmed closed: {row.last_error}"
    return "its creation was not answered; it is looked for"


def owed_table(lines: list[OwedLine], now: datetime) -> Table:
    """Return a table for people."""
    table = Table(
        title="Not known to be over",
        title_justify="left",
        box=None,
        pad_edge=False,
        title_style="bold",
    )
    for column in ("session", "provider", "age", "tried", "held", "why"):
        right = column in {"age", "tried", "held"}
        table.add_column(
            column, justify="right" if right else "left", no_wrap=column == "session", overflow="fold"
        )
    for line in lines:
        table.add_row(
            line.session_id,
            line.provider,
            ago(line.since, now),
            str(line.attempts),
            str(line.held),
            line.why,
        )
    return table


def owed_finding(lines: list[OwedLine]) -> Finding | None:
    """Return what `doctor` says of sessions that nobody can end, because their provider is not configured."""
    lost = [line for line in lines if not line.configured]
    if not lost:
        return None
    names = ", ".join(sorted({repr(line.provider) for line in lost}))
    return Finding(
        name="sessions",
        level="fail",
        detail=f"{counted(len(lost), 'session')} may run at {names}, which this configuration does not have",
        advice="configure the provider under its old name, with the same account, and run `tabkeeper cleanup`",
    )
