"""The database's own history of a shared pool, and a judge who reads it.

Triggers keep every entry of the board and every state of every budget, in the transactions that make them: nothing of
it is what a process says, and nothing is thrown away as the product does with old entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabkeeper.ledger import schema
from tabkeeper.ledger.engines import write_engine
from tabkeeper.pool.model import State
from tabkeeper.pool.shared.entries import Entry, entry_from
from tabkeeper.pool.shared.replica import Replica
from tabkeeper.pool.shared.snapshot import load

from .builders import a_view

_KEEP = """
CREATE TABLE history_entry (LIKE board_entry);
CREATE TABLE history_snapshot (LIKE board_snapshot);
CREATE TABLE history_window (
  number BIGINT GENERATED ALWAYS AS IDENTITY, mode TEXT, limit_n BIGINT, held_n BIGINT, spent_n BIGINT, denied BIGINT
);
CREATE FUNCTION keep_entry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO history_entry SELECT NEW.*; RETURN NULL; END $$;
CREATE FUNCTION keep_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM history_snapshot) THEN INSERT INTO history_snapshot SELECT NEW.*; END IF;
  RETURN NULL; END $$;
CREATE FUNCTION keep_window() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO history_window (mode, limit_n, held_n, spent_n, denied)
  VALUES (NEW.mode, NEW.limit_n, NEW.held_n, NEW.spent_n, NEW.denied); RETURN NULL; END $$;
CREATE TRIGGER keep_it AFTER INSERT ON board_entry FOR EACH ROW EXECUTE FUNCTION keep_entry();
CREATE TRIGGER keep_it AFTER INSERT ON board_snapshot FOR EACH ROW EXECUTE FUNCTION keep_snapshot();
CREATE TRIGGER keep_it AFTER INSERT OR UPDATE ON budget_window FOR EACH ROW EXECUTE FUNCTION keep_window();
"""


def keep_history(url: str) -> None:
    """Have a database keep its history from now on; it gets a ledger's tables first, if it has none."""
    engine = write_engine(url)
    try:
        schema.upgrade(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql(_KEEP)
    finally:
        engine.dispose()


@dataclass(kw_only=True)
class Loss:
    """A process that was killed, frozen or cut off, and what became of what it had."""

    pid: int
    at: int
    """By the board's time, in microseconds."""
    home: int = 0
    buried: float | None = None
    """Seconds until the others had taken it for dead."""
    recovered: float | None = None
    """Seconds until all that it had served others, or was closed."""
    _left: set[str] = field(default_factory=set)


@dataclass(kw_only=True)
class Findings:
    """What the board's log shows."""

    leases: Counter[str] = field(default_factory=Counter)
    """Most leases at once: of each tenant, and of all under ``""``."""
    sessions: int = 0
    """Most places taken at once."""
    grants: int = 0
    entries: int = 0


def judge(rows: Callable[[str], list[Any]], losses: Sequence[Loss] = ()) -> Findings:
    """Replay the board's log from its first entry to its last; tell what `losses` came to."""
    found = Findings()
    homes: dict[int, set[int]] = {}
    uses: dict[str, int] = {}
    for entry, replica in _replayed(rows):
        found.entries += 1
        for home, member in replica.members.items():
            homes.setdefault(member.pid, set()).add(home)
        sessions = replica.view.sessions.values()
        leased = [one for one in sessions if one.state is State.LEASED]
        # A session's own tenant is the one that it was made for, who need not be the one that got it.
        now = Counter(one.covers.tenant for one in leased if one.covers is not None)
        now[""] = len(leased)
        found.leases |= now
        found.sessions = max(found.sessions, len(sessions))
        for one in leased:
            if uses.get(one.id) != one.uses:
                uses[one.id] = one.uses
                found.grants += 1
        _follow(losses, entry, replica, homes)
    return found


def _follow(losses: Sequence[Loss], entry: Entry, replica: Replica, homes: dict[int, set[int]]) -> None:
    at = round(entry.at * 1_000_000)
    for loss in losses:
        if loss.recovered is not None or at < loss.at:
            continue
        if loss.buried is None:
            loss.home = loss.home or max(homes[loss.pid])  # not the one under which it may come back
            if loss.home in replica.members:
                continue
            loss.buried = (at - loss.at) / 1e6
            loss._left = {move.session.id for move in replica.moved if move.old == loss.home}
        known = replica.view.sessions
        loss._left = {
            one
            for one in loss._left
            if one in known and known[one].state not in {State.IDLE, State.LEASED, State.CLOSED}
        }
        if not loss._left:
            loss.recovered = (at - loss.at) / 1e6


def _replayed(rows: Callable[[str], list[Any]]) -> Iterator[tuple[Entry, Replica]]:
    (first,) = rows("SELECT document FROM history_snapshot")
    (name,) = rows("SELECT left(id, -16) AS prefix FROM session LIMIT 1")
    replica = Replica(a_view(), name.prefix)
    load(replica, first.document)
    for row in rows(f"SELECT * FROM history_entry WHERE seq > {replica.seq} ORDER BY seq"):
        entry = entry_from(row._mapping)
        if not replica.members:
            replica.found(entry.seq - 1)  # all had left; who comes then begins anew
        assert replica.agrees(entry), f"entry {entry.seq} was told by a copy that had decided otherwise"
        replica.apply(entry)
        yield entry, replica


def past_the_limit(rows: Callable[[str], list[Any]]) -> int:
    """By how much what was held and spent was ever more than a budget's limit, in nano-dollars."""
    (row,) = rows("SELECT coalesce(max(held_n + spent_n - limit_n), 0) AS past FROM history_window")
    return max(0, row.past)
