"""What the tables of shared boards hold at one moment, for those who only look.

It takes no part in a board and needs no connection of its own: all it reads is one state of the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from tabkeeper.ledger.registry import installation

BOARD_EAR = "tabkeeper ear "
"""How a process names the connection by which it listens; its id follows."""

SEEN_US = 30_000_000
"""Microseconds for which a process that waits to take a board over is believed to be there still."""

_HEADS = """
SELECT board, seq, GREATEST(at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + shift) AS now
FROM board_head ORDER BY board
"""
_MEMBERS = "SELECT board, home, process_id, host, planner FROM board_member ORDER BY home"
_SUCCESSORS = f"""
SELECT board, 0 AS home, process_id, host, planner FROM board_successor
WHERE seen_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - {SEEN_US} ORDER BY process_id
"""  # noqa: S608 - our words
_SNAPSHOT = "SELECT seq, planner, document FROM board_snapshot WHERE board = :board ORDER BY seq DESC LIMIT 1"
_ENTRIES = (
    "SELECT seq, at, home, nonce, seen_seq, seen_sum, events FROM board_entry "
    "WHERE board = :board AND seq > :after AND seq <= :end ORDER BY seq"
)
# An advisory lock of two numbers; which session holds it, the server tells.
_LEADER = """
SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid::bigint = hashtext('tabkeeper')::bigint & 4294967295
  AND l.objid::bigint = hashtext(:board)::bigint & 4294967295
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """A process that takes part; `planner` is what it decides by."""

    home: int
    process_id: str
    host: str
    planner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRows:
    """One board: its newest snapshot, what was told since, and who takes part."""

    board: str
    now: int
    """The board's time, in microseconds."""
    members: Sequence[MemberRow]
    successors: Sequence[MemberRow]
    """Processes that wait until all members have left; they decide by other rules."""
    installation: str
    """What this ledger is told from others by; ids of sessions begin with it."""
    leader: str | None
    """The id of the process that does the jobs of all; None if that is nobody, or cannot be seen."""
    planner: str = ""
    """What the process decided by that wrote the snapshot; empty if there is none."""
    document: str = ""
    entries: Sequence[Mapping[str, Any]] = ()


def read_boards(connection: Connection) -> list[BoardRows]:
    """Return the boards in which somebody takes part; none on SQLite.

    `connection` sees one state of the database for all its queries (see `engines.read_engine`).
    """
    if connection.dialect.name != "postgresql":
        return []
    heads = connection.execute(text(_HEADS)).all()
    members, successors = _who(connection, _MEMBERS), _who(connection, _SUCCESSORS)
    return [
        _board(connection, head, members[head.board], successors.get(head.board, []))
        for head in heads
        if head.board in members
    ]


def _who(connection: Connection, sql: str) -> dict[str, list[MemberRow]]:
    found: dict[str, list[MemberRow]] = {}
    for row in connection.execute(text(sql)):
        one = MemberRow(home=row.home, process_id=row.process_id, host=row.host, planner=row.planner)
        found.setdefault(row.board, []).append(one)
    return found


def _board(
    connection: Connection, head: Any, members: list[MemberRow], successors: list[MemberRow]
) -> BoardRows:
    names = connection.execute(text(_LEADER), {"board": head.board}).scalars().all()
    leader = next((name.removeprefix(BOARD_EAR) for name in names if name.startswith(BOARD_EAR)), None)
    board = BoardRows(
        board=head.board,
        now=head.now,
        members=members,
        successors=successors,
        installation=installation(connection),
        leader=leader,
    )
    snapshot = connection.execute(text(_SNAPSHOT), {"board": head.board}).first()
    if snapshot is None:
        return board
    told = {"board": head.board, "after": snapshot.seq, "end": head.seq}
    rows = connection.execute(text(_ENTRIES), told)
    return replace(
        board,
        planner=snapshot.planner,
        document=snapshot.document,
        entries=[dict(row) for row in rows.mappings()],
    )
