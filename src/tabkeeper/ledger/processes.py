"""Who has the ledger open, and whose sessions were left behind.

A process on this machine is dead when its id is gone or belongs to another start; one on another machine is
taken for dead when its heartbeat is old.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from tabkeeper.ledger.instants import moment
from tabkeeper.ledger.transaction import Row, Transaction
from tabkeeper.ledger.types import Orphan
from tabkeeper.liveness import lives, realm, started_at
from tabkeeper.money import Money

HEARTBEAT_OLD_US = 90_000_000
"""A process on another machine that has not been heard of for this long (microseconds) is taken for dead."""


@dataclass(frozen=True, slots=True)
class Identity:
    """This process, so that another can tell whether it still lives."""

    id: str
    host: str
    pid: int
    pid_started_at: int


def this_process(process_id: str) -> Identity:
    """Identify the running process."""
    pid = os.getpid()
    return Identity(process_id, realm(), pid, started_at(pid) or 0)


def register(tx: Transaction, who: Identity, at: int) -> None:
    """Write the process down as alive."""
    tx.run(
        "INSERT INTO process (id, host, pid, pid_started_at, started_at, heartbeat_at) "
        "VALUES (:id, :host, :pid, :started, :at, :at) ON CONFLICT (id) DO NOTHING",
        id=who.id,
        host=who.host,
        pid=who.pid,
        started=who.pid_started_at,
        at=at,
    )


def leave(tx: Transaction, process_id: str, at: int) -> None:
    """Write the process down as ended."""
    tx.run("UPDATE process SET ended_at = :at WHERE id = :id AND ended_at IS NULL", at=at, id=process_id)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a process told in its last heartbeat."""

    process_id: str
    at: datetime
    snapshot: Mapping[str, Any]
    """Figures of its pool; empty before the first."""


def heard(connection: Connection) -> dict[str, Heard]:
    """Return the last heartbeats of the processes that have not said goodbye, by process."""
    rows = connection.execute(text("SELECT id, heartbeat_at, snapshot FROM process WHERE ended_at IS NULL"))
    return {row.id: Heard(row.id, moment(row.heartbeat_at), json.loads(row.snapshot)) for row in rows}


def orphans(connection: Connection, own_id: str, now: int) -> list[Orphan]:
    """Find sessions that never ended and whose process did."""
    rows = connection.execute(
        text(
            "SELECT s.id, s.platform, s.provider, s.provider_session_id, s.pid, s.pid_started_at, s.created_at, "
            "h.amount_n, h.expires_at, p.id AS process_id, p.host, p.pid AS owner_pid, "
            "p.pid_started_at AS owner_started_at, p.heartbeat_at, p.ended_at AS owner_ended_at "
            "FROM session s JOIN hold h ON h.session_id = s.id "
            "JOIN process p ON p.id = s.process_id WHERE s.ended_at IS NULL AND p.id <> :own "
            "ORDER BY s.created_at, s.id"
        ),
        {"own": own_id},
    ).all()
    here = realm()
    dead: dict[str, bool] = {}
    found = []
    for row in rows:
        if row.process_id not in dead:
            dead[row.process_id] = row.owner_ended_at is not None or _is_dead(
                row.host, row.owner_pid, row.owner_started_at, row.heartbeat_at, here=here, now=now
            )
        if dead[row.process_id]:
            found.append(
                Orphan(
                    session_id=row.id,
                    platform=row.platform,
                    provider=row.provider,
                    provider_session_id=row.provider_session_id,
                    pid=row.pid,
                    pid_started=None if row.pid_started_at is None else row.pid_started_at / 1_000_000,
                    created_at=moment(row.created_at),
                    hold=Money(row.amount_n),
                    expires_at=moment(row.expires_at),
                    owner=row.process_id,
                )
            )
    return found


def _is_dead(host: str, pid: int, started: int, heard: int, *, here: str, now: int) -> bool:
    return not lives(pid, started) if host == here else now - heard > HEARTBEAT_OLD_US


def is_at_work(tx: Transaction, process_id: str, now: int) -> bool:
    """Say whether a process has the ledger open still."""
    row = tx.row("SELECT * FROM process WHERE id = :id AND ended_at IS NULL", id=process_id)
    return row is not None and not _is_dead(
        row.host, row.pid, row.pid_started_at, row.heartbeat_at, here=realm(), now=now
    )


def take_over(tx: Transaction, session_id: str, new: str) -> Row | None:
    """Make a session ours, whoever had it, and return its row with its hold's; None if it is over."""
    return tx.row(
        "UPDATE session SET process_id = :new FROM hold WHERE session.id = :id AND hold.session_id = session.id "
        "AND session.ended_at IS NULL RETURNING session.provider_session_id, session.connect_sealed, "
        "session.created_at, hold.amount_n, hold.max_us, hold.expires_at, hold.rate_card_id, "
        "hold.proxy_price, hold.proxy_bytes",
        id=session_id,
        new=new,
    )


def claim(tx: Transaction, session_id: str, *, old: str, new: str) -> bool:
    """Make a dead process's session ours; False if another was faster, or if it is over."""
    return bool(
        tx.rows(
            "UPDATE session SET process_id = :new WHERE id = :id AND process_id = :old AND ended_at IS NULL "
            "RETURNING id",
            id=session_id,
            old=old,
            new=new,
        )
    )
