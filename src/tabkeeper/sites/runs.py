"""Runs over sites, as the database keeps them: begun, brought forward page by page, taken up again, committed.

What a page gave (items, further pages) and that it is done are written in one transaction, so that a process may die at
any moment: nothing counts twice, nothing is lost. Who visits pages is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import BudgetSettings
from tabkeeper.errors import RunError, RunLostError
from tabkeeper.ledger.instants import length_us, micros
from tabkeeper.ledger.limits import cap_run, tenant_of_run
from tabkeeper.ledger.processes import is_at_work
from tabkeeper.money import Money
from tabkeeper.proxies.rows import Statements
from tabkeeper.proxies.store import OwnDatabase
from tabkeeper.sites.standing import Standing, cost_of, standing_of

_ERROR = 500
"""Characters of an error that are kept."""
_NEW_PAGE = (
    "INSERT INTO run_page (run_id, n, url, site, origin, depth) VALUES (:run, :n, :url, :site, :origin, :depth) "
    "ON CONFLICT (run_id, url) DO NOTHING"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run."""

    id: str
    name: str
    sites: tuple[str, ...]
    max_cost: Money | None = None

    @property
    def tenant(self) -> str:
        """Who its sessions are charged to, and nobody else's."""
        return tenant_of_run(self.id)


@dataclass(slots=True, kw_only=True)
class RunPage:
    """A page of a run that is not done."""

    n: int
    """The lower, the older."""
    url: str
    site: str
    origin: int
    """`n` of the start page from which it was found."""
    depth: int = 0
    """Steps from there."""
    attempts: int = 0
    avoid: frozenset[str] = frozenset()
    """Proxies and sessions on which it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a visit gave."""

    items: Sequence[str] = ()
    """As JSON."""
    pages: Sequence[tuple[str, str]] = ()
    """Addresses to visit, and the site of each."""
    seconds: float = 0.0
    received: int = 0
    """Bytes."""


@dataclass(slots=True)
class Runs:
    """The runs of one database. Whoever works on a run owns it: what another process writes to it is refused.

    Args:
        database: of a pool (`SessionPool.database`), or a `Ledger`.
        clock: where time comes from.
    """

    database: OwnDatabase
    clock: Clock = field(default_factory=SystemClock)

    async def start(self, run: Run, pages: Iterable[tuple[str, str]]) -> list[RunPage]:
        """Begin a run and return its pages.

        Args:
            run: its id is new.
            pages: addresses to begin with, and the site of each; one that is named twice is visited once.

        Raises:
            RunError: there is no page.
            LedgerUnavailableError: the database is away.
        """
        first = [
            RunPage(n=n, url=url, site=site, origin=n)
            for n, (url, site) in enumerate(dict(pages).items(), start=1)
        ]
        if not first:
            raise RunError("a run needs a start page: name sites that have one")
        now = self._now()

        def work(tx: Statements) -> None:
            tx.run(
                "INSERT INTO run (id, name, owner, sites, max_cost_n, started_at) "
                "VALUES (:id, :name, :owner, :sites, :cap, :now)",
                id=run.id,
                name=run.name,
                owner=self.database.process_id,
                sites=json.dumps(run.sites),
                cap=None if run.max_cost is None else run.max_cost.nanos,
                now=now,
            )
            for page in first:
                _add(tx, run.id, page)
            _cap(tx, run, now)

        await self.database.transact(work)
        return first

    async def resume(
        self, name: str, *, run_id: str | None = None, max_cost: Money | None = None
    ) -> tuple[Run, list[RunPage]]:
        """Take up the newest run of a name that is not committed, and return its pages that are not done.

        Pages that were given up are tried anew.

        Args:
            name: as it was started.
            run_id: this one, instead of the newest.
            max_cost: instead of the run's own.

        Raises:
            RunError: there is none, or a process is at work on it.
            LedgerUnavailableError: the database is away.
        """
        now = self._now()

        def work(tx: Any) -> tuple[Run, list[RunPage]]:
            row = tx.row(
                "SELECT id, name, sites, max_cost_n, owner FROM run WHERE state = 'open' AND name = :name "
                "AND (:any = 1 OR id = :id) ORDER BY started_at DESC, id LIMIT 1",
                name=name,
                any=int(run_id is None),
                id=run_id or "",
            )
            if row is None:
                raise RunError(f"there is no run of {name!r} to resume: none was begun, or all are committed")
            mine = row.owner == self.database.process_id
            if not mine and is_at_work(tx, row.owner, now):
                raise RunError(
                    f"run {row.id} of {name!r} is being worked on by another process; wait for its end"
                )
            cap = max_cost or (None if row.max_cost_n is None else Money(row.max_cost_n))
            run = Run(id=row.id, name=row.name, sites=tuple(json.loads(row.sites)), max_cost=cap)
            taken = tx.run(
                "UPDATE run SET owner = :owner, max_cost_n = :cap WHERE id = :id AND owner = :old AND state = 'open'",
                owner=self.database.process_id,
                cap=None if cap is None else cap.nanos,
                id=run.id,
                old=row.owner,
            )
            if not taken:
                raise RunError(f"run {row.id} of {name!r} was taken up by another process a moment ago")
            tx.run(
                "UPDATE run_page SET state = 'pending', attempts = 0, avoid = '[]' "
                "WHERE run_id = :run AND state = 'failed'",
                run=run.id,
            )
            _cap(tx, run, now)
            return run, _pending(tx, run.id)

        found: tuple[Run, list[RunPage]] = await self.database.transact(work)
        return found

    async def update(self, run: Run, page: RunPage, gain: Gain) -> list[RunPage]:
        """Write down that a page is done and what it gave; return the pages that are new.

        Doing so twice changes nothing the second time.

        Raises:
            RunLostError: another process has taken the run over; nothing was written.
            LedgerUnavailableError: the database is away.
        """
        now = self._now()

        def work(tx: Statements) -> list[RunPage]:
            count = own(tx, run, self.database.process_id, len(gain.items))
            done = tx.run(
                "UPDATE run_page SET state = 'done', ended_at = :now, attempts = attempts + 1, error = '', "
                "spent_us = spent_us + :spent, bytes = bytes + :bytes, items = :items "
                "WHERE run_id = :run AND n = :n AND state = 'pending'",
                now=now,
                spent=length_us(gain.seconds),
                bytes=gain.received,
                items=len(gain.items),
                run=run.id,
                n=page.n,
            )
            if not done:
                own(tx, run, self.database.process_id, -len(gain.items))
                return []
            for n, body in enumerate(gain.items, start=count - len(gain.items) + 1):
                tx.run(
                    "INSERT INTO run_item (run_id, n, page, body) VALUES (:run, :n, :page, :body)",
                    run=run.id,
                    n=n,
                    page=page.n,
                    body=body,
                )
            return _add_found(tx, run, page, gain.pages)

        new: list[RunPage] = await self.database.transact(work)
        return new

    async def fail(
        self, run: Run, page: RunPage, error: str, *, avoid: Collection[str], seconds: float, final: bool
    ) -> None:
        """Write down that a visit failed; with `final` the page is given up.

        Raises:
            RunLostError: another process has taken the run over; nothing was written.
            LedgerUnavailableError: the database is away.
        """
        now = self._now()

        def work(tx: Statements) -> None:
            own(tx, run, self.database.process_id)
            tx.run(
                "UPDATE run_page SET state = :state, ended_at = :now, attempts = attempts + 1, error = :error, "
                "avoid = :avoid, spent_us = spent_us + :spent WHERE run_id = :run AND n = :n AND state = 'pending'",
                state="failed" if final else "pending",
                now=now,
                error=" ".join(error.split())[:_ERROR],
                avoid=json.dumps(sorted(avoid)),
                spent=length_us(seconds),
                run=run.id,
                n=page.n,
            )

        await self.database.transact(work)

    async def commit(self, run: Run) -> None:
        """Close a run whose pages are all done. Its budget ends, and what was found is forgotten here.

        Raises:
            RunError: pages are left, or were given up; the run stays open and can be resumed.
            RunLostError: another process has taken the run over.
            LedgerUnavailableError: the database is away.
        """
        now = self._now()

        def work(tx: Any) -> None:
            own(tx, run, self.database.process_id)
            left = {
                row.state: row.pages
                for row in tx.rows(
                    "SELECT state, COUNT(*) AS pages FROM run_page WHERE run_id = :run AND state <> 'done' "
                    "GROUP BY state",
                    run=run.id,
                )
            }
            if left:
                told = " and ".join(f"{pages} {state}" for state, pages in sorted(left.items()))
                raise RunError(f"run {run.id} is not committed: pages are left ({told}); resume it")
            tx.run("UPDATE run SET state = 'committed', ended_at = :now WHERE id = :run", now=now, run=run.id)
            tx.run("DELETE FROM run_item WHERE run_id = :run", run=run.id)
            cap_run(tx, run.id, None, now)

        await self.database.transact(work)

    async def standing(self, run: Run) -> Standing:
        """Count how far a run has come.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        found: Standing = await self.database.transact(lambda tx: standing_of(tx, run.id))
        return found

    async def cost(self, run: Run) -> Money:
        """Return what the sessions that were made for a run cost, as far as they are settled."""
        found: Money = await self.database.transact(lambda tx: cost_of(tx, run.id))
        return found

    def _now(self) -> int:
        return micros(self.clock.now())


def own(tx: Statements, run: Run, process_id: str, more: int = 0) -> int:
    """Lock a run's row as its owner, count `more` items, and return how many there are then.

    Raises:
        RunLostError: it belongs to another process, or is committed.
    """
    rows = tx.rows(
        "UPDATE run SET items = items + :more WHERE id = :id AND owner = :owner AND state = 'open' "
        "RETURNING items",
        more=more,
        id=run.id,
        owner=process_id,
    )
    if not rows:
        raise RunLostError(f"run {run.id} of {run.name!r} belongs to another process now, or is committed")
    return int(rows[0].items)


def _cap(tx: Any, run: Run, now: int) -> None:
    cap = None
    if run.max_cost is not None:
        cap = BudgetSettings(
            name=f"run-{run.id}",
            limit=run.max_cost,
            period="total",
            mode="hard",
            thresholds=(1.0,),
            tenant=run.tenant,
        )
    cap_run(tx, run.id, cap, now)


def _add(tx: Statements, run_id: str, page: RunPage) -> int:
    return tx.run(
        _NEW_PAGE, run=run_id, n=page.n, url=page.url, site=page.site, origin=page.origin, depth=page.depth
    )


def _add_found(tx: Statements, run: Run, page: RunPage, found: Sequence[tuple[str, str]]) -> list[RunPage]:
    if not found:
        return []
    row = tx.row("SELECT MAX(n) AS n FROM run_page WHERE run_id = :run", run=run.id)
    assert row is not None
    n, new = int(row.n), []
    for url, site in dict(found).items():
        one = RunPage(n=n + 1, url=url, site=site, origin=page.origin, depth=page.depth + 1)
        if _add(tx, run.id, one):
            n += 1
            new.append(one)
    return new


def _pending(tx: Statements, run_id: str) -> list[RunPage]:
    rows = tx.rows(
        "SELECT n, url, site, origin, depth, attempts, avoid FROM run_page "
        "WHERE run_id = :run AND state = 'pending' ORDER BY n",
        run=run_id,
    )
    return [
        RunPage(
            n=row.n,
            url=row.url,
            site=row.site,
            origin=row.origin,
            depth=row.depth,
            attempts=row.attempts,
            avoid=frozenset(json.loads(row.avoid)),
        )
        for row in rows
    ]
