"""What the ledger's database says about this moment: processes, their queues, open sessions, budgets.

Read by commands in another process than the pool's. Money, and which sessions there are, is exact; queues, and
whether a session is leased, are as old as the last heartbeat.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, exists, select

from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.models import metadata
from tabkeeper.ledger.processes import HEARTBEAT_OLD_US
from tabkeeper.liveness import lives, realm
from tabkeeper.money import ZERO, Money
from tabkeeper.reports.budgeting import budget_figures
from tabkeeper.reports.daily import snapshot
from tabkeeper.reports.report import BudgetFigures


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
    provider_session_id: str | None
    """What its provider calls it, once it is known."""
    tenant: str
    state: str
    """Of a session that serves: idle or leased, as of its owner's last heartbeat."""
    host: str
    pid: int
    created_at: datetime
    ended_at: datetime | None
    close_reason: str | None
    uses: int
    """Leases so far; of an open session as of its owner's last heartbeat."""
    held: Money
    cost: Money
    health: float | None = None
    """Score from 0 to 1, and the next two, of an open session as of its owner's last heartbeat."""
    last_used: str | None = None
    last_refresh: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain data; money as decimal text."""
        return {**asdict(self), "held": self.held.text(), "cost": self.cost.text()}


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
        seen = _seen(connection)
        return [
            SessionLine(
                id=row.id,
                platform=row.platform,
                provider=row.provider,
                provider_session_id=row.provider_session_id,
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
                **(seen.get(row.id, {}) if row.ended_at is None else {}),
            )
            for query in queries
            for row in connection.execute(query)
        ]


def _seen(connection: Connection) -> dict[str, dict[str, Any]]:
    """What owners said of their open sessions in their last heartbeats."""
    table = metadata.tables["process"]
    rows = connection.execute(select(table.c.snapshot).where(table.c.ended_at.is_(None)))
    return {
        one["id"]: {key: one.get(key) for key in ("health", "last_used", "last_refresh")}
        for row in rows
        for one in json.loads(row.snapshot).get("open_sessions", [])
    }


def budgets(engine: Engine, now: datetime) -> tuple[BudgetFigures, ...]:
    """Return every current budget with what its present window holds."""
    with snapshot(engine) as connection:
        return budget_figures(connection, now, now + timedelta(microseconds=1), now)


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
    if row.host != realm():
        return bool(micros(now) - row.heartbeat_at <= HEARTBEAT_OLD_US)
    return lives(row.pid, row.pid_started_at)
