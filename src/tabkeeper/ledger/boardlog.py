"""The log that the processes of a shared pool write together: one order, one clock, one statement for each entry.

It knows how to add, to read and to listen on PostgreSQL; what an entry means is the pool's business. It keeps one
connection for statements and one that listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger.boardread import BOARD_EAR, SEEN_US
from tabkeeper.ledger.engines import (
    WATCHED_LINE,
    WATCHED_SERVER,
    is_away,
    is_worth_retrying,
    parse_url,
    refuses_options,
)

log = logging.getLogger(__name__)

_CONNECT_S = 5
_LOCK_MS = 3000
_STATEMENT_MS = 10000
_ANSWER_S = 12.0
"""Seconds after which a statement counts as unanswered: whatever lies between may have dropped it without a word."""
_JOIN_S = 60.0
"""Seconds that joining may take, with all who were first."""
_JOIN_PAUSE_S = 0.05
_MOST_TOLD = 7900
"""Bytes that a notification can carry (8000 is PostgreSQL's limit); a longer entry is read from its table."""
_AT_ONCE = 500

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

# One row per board is the lock: its update orders the entries, and is released by the commit of the same statement.
# Where the database's clock has jumped away from where the teller's own monotonic clock says that it must be, the
# difference becomes the board's shift: no lease ends early because somebody set a clock. Only a quick refusal proves
# that; if the answer was long in coming, the entry itself may have been late.
_APPEND = f"""
WITH head AS (
  UPDATE board_head SET
    seq = seq + 1,
    at = GREATEST(at + 1, %(least)s::bigint, LEAST({_NOW} + shift, %(most)s::bigint)),
    shift = CASE
      WHEN {_NOW} + shift BETWEEN COALESCE(%(least)s::bigint, 0) AND COALESCE(%(most)s::bigint, 9e18) THEN shift
      ELSE GREATEST(at + 1, %(least)s::bigint, LEAST({_NOW} + shift, %(most)s::bigint)) - {_NOW}
    END
  WHERE board = %(board)s AND (%(expect)s::bigint IS NULL OR seq = %(expect)s::bigint)
    AND (%(set_anew)s OR {_NOW} + shift BETWEEN %(least)s::bigint AND %(most)s::bigint)
  RETURNING seq, at
), entry AS (
  INSERT INTO board_entry (board, seq, at, home, nonce, seen_seq, seen_sum, events)
  SELECT %(board)s, seq, at, %(home)s, %(nonce)s, %(seen_seq)s, %(seen_sum)s, %(events)s FROM head
  RETURNING seq, at
), told AS (
  SELECT pg_notify(%(channel)s, CASE WHEN %(long)s THEN seq::text
    ELSE concat_ws(' ', seq, at, %(home)s::bigint, %(nonce)s::text, %(seen_seq)s::bigint, %(seen_sum)s::bigint,
                   %(events)s::text) END)
  FROM entry
)
SELECT entry.seq, entry.at FROM entry, told
"""  # noqa: S608 - our words

# What may be lost when the server crashes, because it is said again: whoever says it does not wait for the disk.
_UNSYNCED = "unsynced AS (SELECT set_config('synchronous_commit', 'off', true))"

_COLUMNS = "seq, at, home, nonce, seen_seq, seen_sum, events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One entry as it stands in the log; `at` in microseconds, `events` as text."""

    seq: int
    at: int
    home: int
    nonce: str
    seen_seq: int
    seen_sum: int
    events: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLine:
    """A process that takes part in a board; `planner` is what it decides by."""

    home: int
    process_id: str
    host: str
    planner: str
    beats: int
    pid: int
    """0 if that is not known."""
    pid_started_at: int


class BoardLog:
    """One process's way to the log of a board.

    Args:
        url: the ledger's address.
        board: which of the boards in that database.
        direct: an address that reaches the server itself, if `url` goes through a pooler. Without one, nothing can
            listen, and no session of the server is this process's to hold a lock with.
        process: this process's id in the ledger; by it people see who does the jobs of all.
    """

    def __init__(self, url: str, board: str, *, direct: str | None = None, process: str = "") -> None:
        self._url = _for_psycopg(url)
        self._direct = _for_psycopg(direct) if direct else self._url
        self._board = board
        self._process = process
        self._channel = "tabkeeper_board_" + board
        self._connection: psycopg.AsyncConnection[dict[str, Any]] | None = None
        self._listener: psycopg.AsyncConnection[Any] | None = None
        self._leads = False
        self.is_awaited = False
        """By the last `beat`, processes that decide by other rules wait until all members have left."""
        self.is_deaf = False
        """The way to the server is shared with others: entries are asked for, and `leads` says nothing."""
        self._one_by_one = asyncio.Lock()

    # ── entries ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def append(
        self,
        *,
        home: int,
        nonce: str,
        events: str,
        seen_seq: int = 0,
        seen_sum: int = 0,
        expect: int | None = None,
        estimate: Callable[[], float] | None = None,
        tolerance: float = 0.0,
    ) -> Line | None:
        """Add an entry, and return it as it was committed; None if the log's end is not at `expect`.

        `estimate` tells the board's time by the teller's own clock, None if it does not know it yet. If the database's
        clock is more than `tolerance` seconds away from it, it was set anew, and the board goes on by the teller's.

        Raises:
            LedgerUnavailableError: whether it was added is not known; `find` tells.
            AlreadyToldError: an entry of this nonce is in the log.
        """
        values: dict[str, Any] = {
            "board": self._board,
            "home": home,
            "nonce": nonce,
            "events": events,
            "seen_seq": seen_seq,
            "seen_sum": seen_sum,
            "expect": expect,
            "channel": self._channel,
            "long": len(events.encode()) + 200 > _MOST_TOLD,
            "least": None,
            "most": None,
            "set_anew": estimate is None,
        }
        while True:
            asked = time.monotonic()
            if estimate is not None:
                about = estimate()
                values |= {"least": int((about - tolerance) * 1e6), "most": int((about + tolerance) * 1e6)}
            try:
                rows = await self._run(_APPEND, values)
            except psycopg.errors.UniqueViolation as error:
                raise AlreadyToldError(nonce) from error
            took = time.monotonic() - asked
            if rows:
                break
            end = await self._end()
            if expect is not None and end != expect:
                return None
            values["set_anew"] = took < tolerance
        return Line(
            seq=rows[0]["seq"],
            at=rows[0]["at"],
            home=home,
            nonce=nonce,
            seen_seq=seen_seq,
            seen_sum=seen_sum,
            events=events,
        )

    async def _end(self) -> int:
        rows = await self._run("SELECT seq FROM board_head WHERE board = %(board)s", {"board": self._board})
        assert rows, f"there is no board {self._board!r}"
        return int(rows[0]["seq"])

    async def tail(self, after: int) -> list[Line]:
        """Return entries after a number, in order; not all, if there are very many."""
        rows = await self._run(
            f"SELECT {_COLUMNS} FROM board_entry WHERE board = %(board)s AND seq > %(after)s "  # noqa: S608
            "ORDER BY seq LIMIT %(most)s",
            {"board": self._board, "after": after, "most": _AT_ONCE},
        )
        return [Line(**row) for row in rows]

    # ── snapshots ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def snapshot(self, planner: str) -> tuple[int, str] | None:
        """Return the newest snapshot: its entry's number, and what was written. `planner` must be the same."""
        rows = await self._run(
            "SELECT seq, document FROM board_snapshot WHERE board = %(board)s AND planner = %(planner)s "
            "ORDER BY seq DESC LIMIT 1",
            {"board": self._board, "planner": planner},
        )
        return (rows[0]["seq"], rows[0]["document"]) if rows else None

    async def save(self, seq: int, planner: str, document: str, *, keep_entries: int) -> None:
        """Write a snapshot, and drop what no one needs any more: older snapshots, and entries before the last two."""
        await self._run(
            f"WITH {_UNSYNCED} INSERT INTO board_snapshot (board, seq, planner, document) "  # noqa: S608
            "SELECT %(board)s, %(seq)s, %(planner)s, %(document)s FROM unsynced ON CONFLICT DO NOTHING",
            {"board": self._board, "seq": seq, "planner": planner, "document": document},
        )
        await self._run(
            "WITH kept AS (SELECT seq FROM board_snapshot WHERE board = %(board)s ORDER BY seq DESC LIMIT 2), "
            "old AS (DELETE FROM board_snapshot WHERE board = %(board)s AND seq < (SELECT min(seq) FROM kept)) "
            "DELETE FROM board_entry WHERE board = %(board)s "
            "AND seq <= (SELECT min(seq) FROM kept) - %(keep)s AND (SELECT count(*) FROM kept) = 2",
            {"board": self._board, "keep": keep_entries},
        )

    # ── who takes part ─────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """Make the board, if nobody has yet."""
        await self._run(
            "INSERT INTO board_head (board, seq, at, shift) VALUES (%(board)s, 0, 0, 0) ON CONFLICT DO NOTHING",
            {"board": self._board},
        )

    @contextlib.asynccontextmanager
    async def joining(self) -> AsyncIterator[None]:
        """Let nobody else join meanwhile.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        connection = await self._connect(self._direct)
        try:
            # Not waited for in the database: behind a pooler, those who wait would hold all sessions of the server.
            async with asyncio.timeout(_JOIN_S):
                while True:
                    async with connection.transaction():
                        cursor = await connection.execute(
                            "SELECT pg_try_advisory_xact_lock(hashtext('tabkeeper join'), hashtext(%s)) AS ours",
                            (self._board,),
                        )
                        row = await cursor.fetchone()
                        if row is not None and row["ours"]:
                            yield
                            return
                    await asyncio.sleep(_JOIN_PAUSE_S)
        except (psycopg.Error, TimeoutError) as error:
            raise LedgerUnavailableError(f"the board's database is away: {error}") from error
        finally:
            await _close(connection)

    async def roll(self) -> list[MemberLine]:
        """Return who takes part, as they wrote themselves down."""
        rows = await self._run(
            "SELECT m.home, m.process_id, m.host, m.planner, m.beats, COALESCE(p.pid, 0) AS pid, "
            "COALESCE(p.pid_started_at, 0) AS pid_started_at FROM board_member m "
            "LEFT JOIN process p ON p.id = m.process_id WHERE m.board = %(board)s ORDER BY m.home",
            {"board": self._board},
        )
        return [MemberLine(**row) for row in rows]

    async def arrive(self, home: int, process: str, host: str, planner: str) -> None:
        """Write down who a member is, for people and for `beat`."""
        await self._run(
            "INSERT INTO board_member (board, home, process_id, host, planner, beats, joined_at) VALUES (%(board)s, "
            "%(home)s, %(process)s, %(host)s, %(planner)s, 0, (SELECT at FROM board_head WHERE board = %(board)s)) "
            "ON CONFLICT DO NOTHING",
            {"board": self._board, "home": home, "process": process, "host": host, "planner": planner},
        )

    async def beat(self, home: int) -> tuple[int, dict[int, int]]:
        """Say that a member lives; return the number of the last entry, and how often each member has said so."""
        rows = await self._run(
            f"WITH {_UNSYNCED}, mine AS (UPDATE board_member SET beats = beats + 1 "  # noqa: S608
            "WHERE board = %(board)s AND home = %(home)s) SELECT h.seq, m.home, m.beats, "
            f"EXISTS(SELECT 1 FROM board_successor s WHERE s.board = h.board AND s.seen_at > {_NOW} - {SEEN_US}) "
            "AS awaited FROM unsynced, board_head h "
            "LEFT JOIN board_member m ON m.board = h.board WHERE h.board = %(board)s",
            {"board": self._board, "home": home},
        )
        assert rows, f"there is no board {self._board!r}"
        self.is_awaited = rows[0]["awaited"]
        return rows[0]["seq"], {row["home"]: row["beats"] for row in rows if row["home"] is not None}

    async def depart(self, homes: Sequence[int]) -> None:
        """Strike members off."""
        await self._run(
            "DELETE FROM board_member WHERE board = %(board)s AND home = ANY(%(homes)s)",
            {"board": self._board, "homes": list(homes)},
        )

    # ── who comes next ─────────────────────────────────────────────────────────────────────────────────────────────

    async def announce(self, process: str, host: str, planner: str) -> None:
        """Say that a process waits until all members have left."""
        await self._run(
            "INSERT INTO board_successor (board, process_id, host, planner, seen_at) "  # noqa: S608 - our words
            f"VALUES (%(board)s, %(process)s, %(host)s, %(planner)s, {_NOW}) "
            "ON CONFLICT (board, process_id) DO UPDATE SET seen_at = EXCLUDED.seen_at",
            {"board": self._board, "process": process, "host": host, "planner": planner},
        )

    async def withdraw(self, process: str) -> None:
        """Say that it waits no longer, and forget those that have not been seen for long."""
        await self._run(
            "DELETE FROM board_successor "  # noqa: S608 - our words
            f"WHERE board = %(board)s AND (process_id = %(process)s OR seen_at < {_NOW} - 60 * {SEEN_US})",
            {"board": self._board, "process": process},
        )

    async def bequeath(self, facts: Mapping[str, str]) -> None:
        """Leave idle sessions, by their ids, to whoever founds the board anew."""
        await self._run(
            "INSERT INTO board_bequest (board, session_id, facts) "
            "SELECT %(board)s, * FROM unnest(%(ids)s::text[], %(facts)s::text[]) ON CONFLICT DO NOTHING",
            {"board": self._board, "ids": list(facts), "facts": list(facts.values())},
        )

    async def bequests(self) -> dict[str, str]:
        """Return what was left, by the ids of sessions."""
        rows = await self._run(
            "SELECT session_id, facts FROM board_bequest WHERE board = %(board)s ORDER BY session_id",
            {"board": self._board},
        )
        return {row["session_id"]: row["facts"] for row in rows}

    async def forget(self, sessions: Sequence[str]) -> None:
        """What was left has been taken up."""
        if sessions:
            await self._run(
                "DELETE FROM board_bequest WHERE board = %(board)s AND session_id = ANY(%(ids)s)",
                {"board": self._board, "ids": list(sessions)},
            )

    # ── listening, and who does the jobs of all ────────────────────────────────────────────────────────────────────

    async def listen(self, pause: float) -> AsyncGenerator[Line | int | None, None]:
        """Yield entries as they are committed: whole, by their number if long, and None now and then.

        Raises:
            LedgerUnavailableError: the connection is lost.
        """
        try:
            self._listener = await self._connect(self._direct, BOARD_EAR + self._process)
            self.is_deaf = await _is_pooled(self._listener)
            if self.is_deaf:
                log.warning(
                    "ledger.url leads through a pooler, so this process looks for news of its pool once in %g s; "
                    "set ledger.direct_url to the server itself",
                    pause,
                )
                await _close(self._listener)
            else:
                await self._listener.execute(f'LISTEN "{self._channel}"')
            yield None
            while self.is_deaf:
                await asyncio.sleep(pause)
                yield None
            while True:
                async for told in self._listener.notifies(timeout=pause):
                    yield _told(told.payload)
                await self._try_to_lead()
                yield None
        except (psycopg.Error, TimeoutError) as error:
            raise LedgerUnavailableError(f"the board's database is away: {error}") from error
        finally:
            self._leads = False
            await _close(self._listener)
            self._listener = None

    @property
    def leads(self) -> bool:
        """Whether this process does the jobs that are done once for all: it holds the lock while it is connected."""
        return self._leads

    async def _try_to_lead(self) -> None:
        assert self._listener is not None
        if not self._leads:
            async with asyncio.timeout(_ANSWER_S):
                cursor = await self._listener.execute(
                    "SELECT pg_try_advisory_lock(hashtext('tabkeeper'), hashtext(%s)) AS ours", (self._board,)
                )
                row = await cursor.fetchone()
            self._leads = bool(row and row["ours"])

    # ── connections ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self, sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        async with self._one_by_one:
            return await self._run_now(sql, values)

    async def _run_now(self, sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = await self._connect(self._url)
            async with asyncio.timeout(_ANSWER_S):
                cursor = await self._connection.execute(sql, values)
                return list(await cursor.fetchall()) if cursor.description else []
        except psycopg.errors.UniqueViolation:
            raise
        except (psycopg.Error, OSError) as error:
            await self.disconnect()
            if is_away(error) or is_worth_retrying(error) or isinstance(error, OSError):
                raise LedgerUnavailableError(f"the board's database is away: {error}") from error
            raise
        except asyncio.CancelledError:
            # The server may be in the middle of it.
            await self.disconnect()
            raise

    async def _connect(
        self, url: str, name: str = "tabkeeper board"
    ) -> psycopg.AsyncConnection[dict[str, Any]]:
        options = f"-c lock_timeout={_LOCK_MS} -c statement_timeout={_STATEMENT_MS} {WATCHED_SERVER}"
        try:
            try:
                made = await _open(url, name, options)
            except psycopg.OperationalError as error:
                if not refuses_options(error):
                    raise
                made = await _open(url, name, None)
            try:
                # A statement that was prepared in one session of the server is not known in the next.
                made.prepare_threshold = None if await _is_pooled(made) else 2
            except BaseException:
                await _close(made)
                raise
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise LedgerUnavailableError(f"the board's database is away: {error}") from error
        return made

    async def disconnect(self) -> None:
        """Drop the connection for statements; the next one makes another."""
        connection, self._connection = self._connection, None
        await _close(connection)

    async def aclose(self) -> None:
        """Close both connections."""
        await self.disconnect()
        await _close(self._listener)
        self._listener = None


class AlreadyToldError(Exception):
    """The log holds an entry of this nonce."""


def new_nonce() -> str:
    """Make what tells an entry from all others."""
    return secrets.token_hex(8)


def _told(payload: str) -> Line | int:
    if " " not in payload:
        return int(payload)
    seq, at, home, nonce, seen_seq, seen_sum, events = payload.split(" ", 6)
    return Line(
        seq=int(seq),
        at=int(at),
        home=int(home),
        nonce=nonce,
        seen_seq=int(seen_seq),
        seen_sum=int(seen_sum),
        events=events,
    )


def _for_psycopg(url: str) -> str:
    return parse_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def _open(url: str, name: str, options: str | None) -> psycopg.AsyncConnection[dict[str, Any]]:
    return await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        row_factory=dict_row,
        connect_timeout=_CONNECT_S,
        options=options,
        application_name=name,
        prepare_threshold=None,
        **WATCHED_LINE,
    )


async def _is_pooled(connection: psycopg.AsyncConnection[dict[str, Any]]) -> bool:
    """Whether somebody stands between us and the server: then the number of our session is not what it told us."""
    async with asyncio.timeout(_ANSWER_S):
        row = await (await connection.execute("SELECT pg_backend_pid() AS pid")).fetchone()
    assert row is not None
    return bool(row["pid"] != connection.info.backend_pid)


async def _close(connection: psycopg.AsyncConnection[Any] | None) -> None:
    if connection is not None:
        with contextlib.suppress(Exception):
            await connection.close()
