"""What the ledger's database says about this moment: processes, their queues, open sessions, budgets.

Read by commands in another process than the pool's, so it is as old as the last heartbeat; money is always exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import psutil
from sqlalchemy import Engine, exists, select

from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.models import metadata
from tabkeeper.ledger.processes import HEARTBEAT_OLD_US, this_host
from tabkeeper.ledger.windows import Period, window_bounds
from tabkeeper.money import ZERO, Money


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLine:
    """One process with a pool."""

    id: str
    host: str
    pid: int
    alive: bool
    """By its process id on this machine, by its heartbeat on others."""
    started_at: datetime
    heartbeat_at: datetime
    snapshot: Mapping[str, Any]
    """`PoolStats` as of that heartbeat; empty before the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLine:
    """One session and who owns it."""

    id: str
    platform: str
    provider: str
    tenant: str
    state: str
    host: str
    pid: int
    created_at: datetime
    ended_at: datetime | None
    close_reason: str | None
    uses: int
    held: Money
    cost: Money

    def as_json(self) -> dict[str, Any]:
        """Return plain data; money as decimal text."""
        return {**asdict(self), "held": self.held.text(), "cost": self.cost.text()}


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """One budget in its present window."""

    name: str
    applies_to: str
    period: str
    mode: str
    limit: Money
    spent: Money
    held: Money
    denied: int
    resets_at: datetime | None

    @property
    def left(self) -> Money:
        """What may still be held; never below zero."""
        return max(self.limit - self.spent - self.held, ZERO)

    def as_json(self) -> dict[str, Any]:
        """Return plain data; money as decimal text."""
        money = {key: getattr(self, key).text() for key in ("limit", "spent", "held", "left")}
        return {**asdict(self), **money}


def processes(engine: Engine, now: datetime) -> list[ProcessLine]:
    """Return the processes that have the ledger open, and dead ones that left sessions behind; oldest first."""
    table, session = metadata.tables["process"], metadata.tables["session"]
    behind = exists().where(session.c.process_id == table.c.id, session.c.ended_at.is_(None)).label("behind")
    query = select(table, behind).where(table.c.ended_at.is_(None)).order_by(table.c.started_at)
    with engine.connect() as connection:
        return [
            ProcessLine(
                id=row.id,
                host=_machine(row.host),
                pid=row.pid,
                alive=alive,
                started_at=moment(row.started_at),
                heartbeat_at=moment(row.heartbeat_at),
                snapshot=json.loads(row.snapshot),
            )
            for row in connection.execute(query)
            if (alive := _alive(row, now)) or row.behind
        ]


def sessions(engine: Engine, *, closed: int = 0, ids: Sequence[str] | None = None) -> list[SessionLine]:
    """Return the open sessions, oldest first, then the `closed` that ended last; or just those with `ids`."""
    session, process, hold = (metadata.tables[name] for name in ("session", "process", "hold"))
    query = (
        select(session, process.c.host, process.c.pid.label("owner_pid"), hold.c.amount_n)
        .join(process, process.c.id == session.c.process_id)
        .outerjoin(hold, hold.c.session_id == session.c.id)
    )
    if ids is not None:
        queries = [query.where(session.c.id.in_(ids))]
    else:
        queries = [query.where(session.c.ended_at.is_(None)).order_by(session.c.created_at, session.c.id)]
        if closed:
            ended = query.where(session.c.ended_at.is_not(None))
            queries.append(ended.order_by(session.c.ended_at.desc(), session.c.id).limit(closed))
    with engine.connect() as connection:
        return [
            SessionLine(
                id=row.id,
                platform=row.platform,
                provider=row.provider,
                tenant=row.tenant,
                state=row.state,
                host=_machine(row.host),
                pid=row.owner_pid,
                created_at=moment(row.created_at),
                ended_at=None if row.ended_at is None else moment(row.ended_at),
                close_reason=row.close_reason,
                uses=row.uses,
                held=Money(row.amount_n or 0) if row.ended_at is None else ZERO,
                cost=Money(row.cost_n),
            )
            for query in queries
            for row in connection.execute(query)
        ]


def budgets(engine: Engine, now: datetime) -> list[BudgetLine]:
    """Return every current budget with what its present window holds; nothing spent yet means no window yet."""
    budget, window = metadata.tables["budget"], metadata.tables["budget_window"]
    at = micros(now)
    query = (
        select(budget, window.c.spent_n, window.c.held_n, window.c.denied)
        .outerjoin(
            window,
            (window.c.budget_id == budget.c.id) & (window.c.start_at <= at) & (window.c.end_at > at),
        )
        .where(budget.c.effective_to.is_(None))
        .order_by(budget.c.name)
    )
    with engine.connect() as connection:
        return [
            BudgetLine(
                name=row.name,
                applies_to=f"{row.scope_kind} {row.scope_value}".strip(),
                period=row.period,
                mode=row.mode,
                limit=Money(row.limit_n),
                spent=Money(row.spent_n or 0),
                held=Money(row.held_n or 0),
                denied=row.denied or 0,
                resets_at=_end(row.period, row.timezone, now),
            )
            for row in connection.execute(query)
        ]


def _end(period: Period, zone: str, now: datetime) -> datetime | None:
    if period == "total":
        return None
    return window_bounds(period, zone, now).end.astimezone(ZoneInfo(zone))


def ago(earlier: datetime, later: datetime) -> str:
    """Return the time between two instants in words of a few letters: ``45s``, ``3m12s``, ``2h05m``."""
    seconds = max(0, int((later - earlier).total_seconds()))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86400}d{seconds % 86400 // 3600:02d}h"


def _machine(host: str) -> str:
    """Return the readable part of a process's realm, whose other part names a container."""
    return host.partition("/")[0]


def _alive(row: Any, now: datetime) -> bool:
    if row.host != this_host():
        return bool(micros(now) - row.heartbeat_at <= HEARTBEAT_OLD_US)
    try:
        process = psutil.Process(row.pid)
        # The number may have gone to a later process; the start time tells them apart.
        same = abs(process.create_time() - row.pid_started_at / 1_000_000) < 1.5
        return bool(same) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
