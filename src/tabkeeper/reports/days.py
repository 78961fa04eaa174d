"""Writes the report of each local day once it is over: asked again and again, it does what is still to be done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Protocol, TypeVar

from sqlalchemy import Engine

from tabkeeper.clock import Clock
from tabkeeper.ledger import report_runs
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.ledger.windows import Window
from tabkeeper.reports.books import Books
from tabkeeper.reports.render_json import render_json
from tabkeeper.reports.render_parts import counted
from tabkeeper.reports.report import CostReport

T = TypeVar("T")

_AT_ONCE = 20
"""Reports that one run writes; after a long absence the next runs go on."""


class WritableLedger(Protocol):
    """What this needs of a ledger."""

    process_id: str

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction."""
        ...


class DayReports:
    """Closes the local days of one ledger.

    Args:
        ledger, books, clock: the pool's.
        zone: whose midnight ends a day.
        tell: whether each report is an alert, too, to be delivered like others.
    """

    def __init__(self, ledger: WritableLedger, books: Books, *, zone: str, clock: Clock, tell: bool) -> None:
        self._ledger = ledger
        self._books = books
        self._zone = zone
        self._clock = clock
        self._tell = tell

    async def run(self) -> str:
        """Write what reports are missing, oldest first; says which.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        zone, now = self._zone, self._clock.now()

        def missing(engine: Engine) -> list[Window]:
            with engine.connect() as connection:
                return report_runs.unreported(connection, zone, now, _AT_ONCE)

        written = []
        for window in await self._books.query(missing):
            report = await self._books.report(date.fromisoformat(window.label))
            if await self._save(window, report):
                written.append(window.label)
        return f"wrote {', '.join(written)}" if written else "ok"

    async def _save(self, window: Window, report: CostReport) -> bool:
        zone, at, process = self._zone, self._clock.now(), self._ledger.process_id
        said, body = summary(report) if self._tell else None, render_json(report)
        return await self._ledger.transact(
            lambda tx: report_runs.save(
                tx, window=window, zone=zone, at=at, process_id=process, report=body, said=said
            )
        )


def summary(report: CostReport) -> str:
    """Tell a day in one line."""
    totals = report.totals
    sessions, leases = counted(totals.sessions, "session"), counted(totals.leases, "lease")
    line = f"{report.label} ({report.timezone}) cost {totals.cost} for {sessions} and {leases}"
    for budget in report.budgets:
        line += f"; budget {budget.name!r}: {budget.spent} of {budget.limit}"
    return line
