"""Pools that processes share, as one: what `tabkeeper status` shows of each."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from tabkeeper.ledger.boardread import read_boards
from tabkeeper.pool.shared.whole import LimitStats, SharedPoolStats, shared_pools
from tabkeeper.reports.render_parts import counted

_SHOWN = 20
"""Requests in the queue that are shown; the others are counted."""


def pools(engine: Engine) -> list[SharedPoolStats]:
    """Return the pools that processes share in this database."""
    with engine.connect() as connection:
        return shared_pools(read_boards(connection))


def pool_tables(pool: SharedPoolStats) -> Iterator[RenderableType]:
    """Tell of one shared pool: a line on the whole, its processes, its limits, and who waits for what."""
    yield Text(_headline(pool), style="bold")
    if pool.unread:
        yield Text(f"its sessions, queue and limits are not shown: {pool.unread}")
    processes = _table(("process",), ("sessions", "leased", "waiting"), ("",))
    for one in pool.members:
        counts = (
            () if pool.unread or one.stands_by else (str(one.sessions), str(one.leased), str(one.waiting))
        )
        marks = ["stands by until the others have left"] * one.stands_by
        marks += ["does the jobs of all"] * one.does_jobs + ["leaving"] * one.leaving
        processes.add_row(one.name, *(counts or ("", "", "")), ", ".join(marks))
    yield processes
    limits = _table(("limit",), ("used", "of"), ("",))
    for limit in pool.limits:
        full = "reached" if limit.used >= limit.most else ""
        limits.add_row(_limit(limit), str(limit.used), str(limit.most), full)
    if pool.limits:
        yield limits
    queue = _table(("waits for",), ("place", "priority", "waited", "gives up in"), ("process", "because"))
    for request in pool.waiting[:_SHOWN]:
        queue.add_row(
            f"{request.platform} ({request.tenant})",
            str(request.position),
            str(request.priority),
            f"{request.waited_seconds:.0f}s",
            f"{request.gives_up_in_seconds:.0f}s",
            request.place,
            Text(request.blocked_by),
        )
    if pool.waiting:
        yield queue
    if len(pool.waiting) > _SHOWN:
        yield Text(f"and {len(pool.waiting) - _SHOWN} more")


def _headline(pool: SharedPoolStats) -> str:
    members = [one for one in pool.members if not one.stands_by]
    hosts = len({one.host for one in members})
    processes = f"{len(members)} process{'' if len(members) == 1 else 'es'}"
    who = f"Shared pool {pool.name!r}: {processes} on {counted(hosts, 'host')}"
    if pool.unread:
        return who
    states = [one.state for one in pool.sessions]
    leased = f"{states.count('leased')} leased, {states.count('idle')} idle"
    return f"{who}, {counted(len(states), 'session')} ({leased}), {len(pool.waiting)} waiting"


def _limit(limit: LimitStats) -> str:
    unit = {"queue": "requests in the queue", "tenant": f"leases of tenant {limit.name}"}
    return unit.get(limit.kind, f"sessions of {limit.kind} {limit.name}".strip())


def _table(left: tuple[str, ...], right: tuple[str, ...], rest: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right")
    for name in rest:
        table.add_column(name)
    return table
