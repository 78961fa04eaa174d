"""What a run found, on its way from the ledger's database to where it is wanted, and how far that has come."""

from __future__ import annotations

from dataclasses import dataclass

from tabkeeper.proxies.rows import Statements
from tabkeeper.proxies.store import OwnDatabase
from tabkeeper.sites.runs import Run, own


@dataclass(frozen=True, slots=True)
class Item:
    """Something that was found."""

    n: int
    url: str
    site: str
    body: str
    """JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far items have been written to where they go."""

    outlet: str = ""
    items: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Finds:
    """The items of the runs of one database."""

    database: OwnDatabase

    async def mark(self, run: Run, outlet: str) -> Mark:
        """Return how far items were written to `outlet`; from the beginning if it was another one."""

        def work(tx: Statements) -> Mark:
            row = tx.row("SELECT outlet, outlet_items, outlet_bytes FROM run WHERE id = :run", run=run.id)
            if row is None or row.outlet != outlet:
                return Mark(outlet=outlet)
            return Mark(outlet=outlet, items=row.outlet_items, bytes=row.outlet_bytes)

        found: Mark = await self.database.transact(work)
        return found

    async def outlet(self, run: Run) -> str:
        """Return where a run's items have been written to; empty if nowhere."""

        def work(tx: Statements) -> str:
            row = tx.row("SELECT outlet FROM run WHERE id = :run", run=run.id)
            return "" if row is None else str(row.outlet)

        found: str = await self.database.transact(work)
        return found

    async def items(self, run: Run, after: int, most: int = 1000) -> list[Item]:
        """Return items in the order in which they were found, those after a number."""

        def work(tx: Statements) -> list[Item]:
            rows = tx.rows(
                "SELECT i.n, p.url, p.site, i.body FROM run_item i JOIN run_page p "
                "ON p.run_id = i.run_id AND p.n = i.page WHERE i.run_id = :run AND i.n > :after "
                "ORDER BY i.n LIMIT :most",
                run=run.id,
                after=after,
                most=most,
            )
            return [Item(row.n, row.url, row.site, row.body) for row in rows]

        found: list[Item] = await self.database.transact(work)
        return found

    async def marked(self, run: Run, mark: Mark) -> None:
        """Note how far items have been written.

        Raises:
            RunLostError: another process has taken the run over.
        """

        def work(tx: Statements) -> None:
            own(tx, run, self.database.process_id)
            tx.run(
                "UPDATE run SET outlet = :outlet, outlet_items = :items, outlet_bytes = :bytes WHERE id = :run",
                outlet=mark.outlet,
                items=mark.items,
                bytes=mark.bytes,
                run=run.id,
            )

        await self.database.transact(work)
