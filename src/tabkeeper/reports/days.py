"""Writes the report of each local day once it is over: asked again and again, it does what is still to be done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol, TypeVar

from sqlalchemy import Engine

from tabkeeper.clock import Clock
from tabkeeper.ledger import report_runs
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.ledger.windows import Window
from tabkeeper.reports.as_of import AsOf
from tabkeeper.reports.books import Books
from tabkeeper.reports.html.page import render_html
from tabkeeper.reports.render_json import render_json
from tabkeeper.reports.render_parts import counted
from tabkeeper.reports.report import CostReport

T = TypeVar("T")

_PAGES = 35
"""Days back for which a missing page is written."""
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
        folder: where each day's and each month's report is left as a page; nowhere if None.
    """

    def __init__(
        self,
        ledger: WritableLedger,
        books: Books,
        *,
        zone: str,
        clock: Clock,
        tell: bool,
        folder: Path | None = None,
    ) -> None:
        self._ledger = ledger
        self._books = books
        self._zone = zone
        self._clock = clock
        self._tell = tell
        self._folder = folder

    async def run(self) -> str:
        """Write what reports are missing, oldest first; says which.

        Raises:
            LedgerUnavailableError: the database is away.
            OSError: a page cannot be left in the folder.
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
        if self._folder is not None:
            await self._leave_pages(self._folder)
        return f"wrote {', '.join(written)}" if written else "ok"

    async def _leave_pages(self, folder: Path) -> None:
        """Leave a page for each of the last days that has none, and for the months that ended with one of them.

        What was kept decides, so whichever process writes a page, and whenever, it has the same bytes.
        """
        for day in reversed(await self._books.kept_days(_PAGES)):
            month = day.isoformat()[:7]
            is_last = (day + timedelta(days=1)).day == 1
            missing = [
                name
                for name in (day.isoformat(), *([month] if is_last else []))
                if not _file(folder, name).exists()
            ]
            kept = await self._books.kept_report(day) if missing else None
            for name in missing if kept is not None else ():
                assert kept is not None
                report = kept
                if name == month:
                    as_of = AsOf(kept.watermark, kept.now)
                    report = await self._books.report(day, "month", as_of=as_of)
                # In the thread of queries: pages take a while to make, and the event loop has others to serve.
                await self._books.query(partial(_leave, _file(folder, name), report))

    async def _save(self, window: Window, report: CostReport) -> bool:
        zone, at, process = self._zone, self._clock.now(), self._ledger.process_id
        said, body = summary(report) if self._tell else None, render_json(report)
        return await self._ledger.transact(
            lambda tx: report_runs.save(
                tx, window=window, zone=zone, at=at, process_id=process, report=body, said=said
            )
        )


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.html"


def _leave(file: Path, report: CostReport, _: Engine) -> None:
    """Write a file that is either there in whole or not at all."""
    page = render_html(report)
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", newline="", dir=file.parent, delete=False) as beside:
        beside.write(page)
    Path(beside.name).chmod(0o644)
    Path(beside.name).replace(file)


def summary(report: CostReport) -> str:
    """Tell a day in one line."""
    totals = report.totals
    sessions, leases = counted(totals.sessions, "session"), counted(totals.leases, "lease")
    line = f"{report.label} ({report.timezone}) cost {totals.cost} for {sessions} and {leases}"
    for budget in report.budgets:
        line += f"; budget {budget.name!r}: {budget.spent} of {budget.limit}"
    return line
