"""How far runs have come and what they cost, as the database has it: while somebody works on them, and afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tabkeeper.ledger.instants import moment
from tabkeeper.ledger.limits import tenant_of_run
from tabkeeper.ledger.processes import is_at_work
from tabkeeper.money import Money
from tabkeeper.proxies.rows import Statements

_FAILURES = 20
"""Failed pages that are told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCount:
    """How far a run has come on one site."""

    site: str
    done: int = 0
    pending: int = 0
    failed: int = 0
    items: int = 0
    seconds: float = 0.0
    received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCount:
    """How far a run has come from one of its start pages on."""

    url: str
    done: int
    pending: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A page that was given up, and why."""

    url: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a run has come."""

    sites: tuple[SiteCount, ...] = ()
    starts: tuple[StartCount, ...] = ()
    failures: tuple[Failure, ...] = ()
    """The first of them."""
    committed: bool = False

    @property
    def done(self) -> int:
        """Pages."""
        return sum(one.done for one in self.sites)

    @property
    def failed(self) -> int:
        """Pages."""
        return sum(one.failed for one in self.sites)

    @property
    def pending(self) -> int:
        """Pages."""
        return sum(one.pending for one in self.sites)

    @property
    def items(self) -> int:
        """All that were found."""
        return sum(one.items for one in self.sites)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A run as a list tells of it."""

    id: str
    name: str
    sites: tuple[str, ...]
    state: str
    """``running``: a process works on it; ``open``: it can be resumed; ``committed``: every page is done."""
    started_at: datetime
    ended_at: datetime | None
    done: int
    pending: int
    failed: int
    items: int
    cost: Money
    """Of all sessions that were made for it, as far as they are settled."""
    max_cost: Money | None
    outlet: str
    """Where its items go; empty if none were written yet."""

    @property
    def cost_per_page(self) -> Money | None:
        """None if no page is done."""
        return per_page(self.cost, self.done)


def per_page(cost: Money, pages: int) -> Money | None:
    """Return what a page costs on average, rounded half up to a nano-dollar; None if there are none."""
    return None if not pages else Money((2 * cost.nanos + pages) // (2 * pages))


def standing_of(tx: Statements, run_id: str) -> Standing:
    """Count how far a run has come."""
    counts = (
        "SUM(CASE WHEN state = 'done' THEN 1 ELSE 0 END) AS done, "
        "SUM(CASE WHEN state = 'pending' THEN 1 ELSE 0 END) AS pending, "
        "SUM(CASE WHEN state = 'failed' THEN 1 ELSE 0 END) AS failed"
    )
    sites = tx.rows(
        f"SELECT site, {counts}, SUM(items) AS items, SUM(spent_us) AS spent_us, SUM(bytes) AS bytes "  # noqa: S608 - ours
        "FROM run_page WHERE run_id = :run GROUP BY site ORDER BY site",
        run=run_id,
    )
    starts = tx.rows(
        f"SELECT s.url, c.done, c.pending, c.failed FROM (SELECT origin, {counts} FROM run_page "  # noqa: S608 - ours
        "WHERE run_id = :run GROUP BY origin) c JOIN run_page s ON s.run_id = :run AND s.n = c.origin ORDER BY s.n",
        run=run_id,
    )
    failures = tx.rows(
        "SELECT url, attempts, error FROM run_page WHERE run_id = :run AND state = 'failed' ORDER BY n LIMIT :most",
        run=run_id,
        most=_FAILURES,
    )
    row = tx.row("SELECT state FROM run WHERE id = :run", run=run_id)
    return Standing(
        sites=tuple(
            SiteCount(
                site=one.site,
                done=int(one.done),
                pending=int(one.pending),
                failed=int(one.failed),
                items=int(one.items),
                seconds=int(one.spent_us) / 1_000_000,
                received=int(one.bytes),
            )
            for one in sites
        ),
        starts=tuple(
            StartCount(url=one.url, done=int(one.done), pending=int(one.pending), failed=int(one.failed))
            for one in starts
        ),
        failures=tuple(Failure(url=one.url, attempts=one.attempts, error=one.error) for one in failures),
        committed=row is not None and row.state == "committed",
    )


def cost_of(tx: Statements, run_id: str) -> Money:
    """Return what the sessions that were made for a run cost, as far as they are settled."""
    row = tx.row(
        "SELECT COALESCE(SUM(s.cost_n), 0) AS cost_n FROM session s WHERE s.tenant = :tenant "
        "AND s.created_at >= (SELECT started_at FROM run WHERE id = :run)",
        tenant=tenant_of_run(run_id),
        run=run_id,
    )
    assert row is not None
    return Money(int(row.cost_n))


def told(tx: Any, now: int, *, most: int, name: str = "", run_id: str = "") -> list[Told]:
    """Return runs, the newest first.

    Args:
        tx: to read in.
        now: microseconds since 1970; who has not been heard of for long before that is not at work.
        most: how many at most.
        name: only runs of this name; all if empty.
        run_id: only runs whose id begins so; all if empty.
    """
    rows = tx.rows(
        "SELECT r.id, r.name, r.sites, r.state, r.owner, r.started_at, r.ended_at, r.max_cost_n, r.outlet, r.items, "
        "COALESCE(SUM(CASE WHEN p.state = 'done' THEN 1 ELSE 0 END), 0) AS done, "
        "COALESCE(SUM(CASE WHEN p.state = 'pending' THEN 1 ELSE 0 END), 0) AS pending, "
        "COALESCE(SUM(CASE WHEN p.state = 'failed' THEN 1 ELSE 0 END), 0) AS failed "
        "FROM (SELECT * FROM run WHERE (:name = '' OR name = :name) AND substr(id, 1, :long) = :begin "
        "ORDER BY started_at DESC, id LIMIT :most) r LEFT JOIN run_page p ON p.run_id = r.id "
        "GROUP BY r.id, r.name, r.sites, r.state, r.owner, r.started_at, r.ended_at, r.max_cost_n, r.outlet, r.items "
        "ORDER BY r.started_at DESC, r.id",
        name=name,
        begin=run_id,
        long=len(run_id),
        most=most,
    )
    return [_told(tx, row, now) for row in rows]


def _told(tx: Any, row: Any, now: int) -> Told:
    state = str(row.state)
    return Told(
        id=row.id,
        name=row.name,
        sites=tuple(json.loads(row.sites)),
        state="running" if state == "open" and is_at_work(tx, row.owner, now) else state,
        started_at=moment(row.started_at),
        ended_at=None if row.ended_at is None else moment(row.ended_at),
        done=int(row.done),
        pending=int(row.pending),
        failed=int(row.failed),
        items=int(row.items),
        cost=cost_of(tx, row.id),
        max_cost=None if row.max_cost_n is None else Money(int(row.max_cost_n)),
        outlet=row.outlet,
    )
