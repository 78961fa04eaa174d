"""The face of a board that many processes share: what the pool tells it, reads from it, and how it opens and closes.

What a process tells becomes an entry of the log, ordered and dated by the database in one short statement. Every copy
applies the entries in that order and plans after each; all come to the same decisions, and each process carries out
those that concern its own requests and sessions (docs/decisions/0015). Nothing but the database is ever waited for
while the log is locked.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from tabkeeper.clock import FleetClock
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger.boardlog import BoardLog
from tabkeeper.ledger.processes import Identity
from tabkeeper.pool.model import Request, Session
from tabkeeper.pool.shared.alarm import TURN, Alarm
from tabkeeper.pool.shared.following import Follower
from tabkeeper.pool.shared.loop import Loop
from tabkeeper.pool.shared.membership import Membership
from tabkeeper.pool.shared.outbox import Outbox
from tabkeeper.pool.shared.reloading import Loader
from tabkeeper.pool.shared.teller import Hooks, Teller
from tabkeeper.pool.view import View

_PATIENCE = 8.0
"""Seconds that leaving may take; the others notice in any case."""


class PostgresBoard(Teller):
    """See `Board` and the module.

    Args:
        view: the copy that the pool reads.
        clock: kept in time with the database by this board.
        line: where entries are written.
        who: this process.
        planner: what this process decides by; processes of one board must have the same.
        prefix: how ids of sessions begin.
        heartbeat: seconds without a sign of life after which a process is taken for dead.
        waits: whether it stands by while processes that decide by other rules run the board, or does not open.
        snapshot_every: events between two snapshots, at least.
        keep_entries: entries that are kept beyond what a snapshot needs, for people.
    """

    def __init__(
        self,
        view: View,
        clock: FleetClock,
        line: BoardLog,
        hooks: Hooks,
        *,
        who: Identity,
        planner: str,
        prefix: str,
        heartbeat: float,
        waits: bool = True,
        snapshot_every: int = 1000,
        keep_entries: int = 2000,
    ) -> None:
        super().__init__(view, clock, prefix)
        self._log = line
        self._outbox = Outbox()
        self._alarm = Alarm(self.replica, clock, self.poke)
        self._follower = Follower(self.replica, clock, hooks, outbox=self._outbox, alarm=self._alarm)
        self._loader = Loader(
            self.replica,
            line,
            self._follower,
            hooks,
            planner=planner,
            snapshot_every=snapshot_every,
            keep_entries=keep_entries,
        )
        self._membership = Membership(
            self.replica,
            clock,
            line,
            follower=self._follower,
            loader=self._loader,
            outbox=self._outbox,
            who=who,
            planner=planner,
            heartbeat=heartbeat,
            waits=waits,
        )
        self._loop = Loop(
            self.replica,
            clock,
            line,
            hooks,
            outbox=self._outbox,
            follower=self._follower,
            loader=self._loader,
            membership=self._membership,
            ask=self.request,
        )

    def _tell(self, *event: Any) -> None:
        self._outbox.tell(list(event))

    # ── what the pool reads ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def leads(self) -> bool:
        """See `Board.leads`."""
        if self._log.is_deaf:
            # No lock can tell, so the copies do. Two may take it for a moment, which harms no job.
            there = (home for home, one in self.replica.members.items() if not one.leaving)
            return self.home == min(there, default=-1)
        return self._log.leads

    @property
    def alone(self) -> bool:
        """See `Board.alone`."""
        others = any(home != self.home and not one.leaving for home, one in self.replica.members.items())
        return not others and not self._log.is_awaited

    @property
    def stands_by(self) -> str:
        """See `Board.stands_by`."""
        return self._membership.stands_by

    @property
    def draining(self) -> bool:
        """See `Board.draining`."""
        return self._follower.draining

    @property
    def fenced_times(self) -> int:
        """How often this process was taken for dead."""
        return self._follower.fenced_times

    @property
    def reloads(self) -> int:
        """How often this process's copy had to be loaded anew."""
        return self._loader.reloads

    def mine(self) -> list[Session]:
        """See `Board.mine`."""
        return [session for session in self.view.sessions.values() if session.home == self.home]

    def waiting(self) -> list[Request]:
        """See `Board.waiting`."""
        return list(self.replica.here.values())

    # ── beyond the events ──────────────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """See `Board.drain`."""
        self._follower.draining = True
        self._tell("leave")

    def poke(self) -> None:
        """See `Board.poke`."""
        self._outbox.want_plan(self.replica.seq)

    async def settled(self) -> None:
        """See `Board.settled`."""
        if not self._loop.stopped and not self._membership.stands_by:
            await self._outbox.settled()

    async def open(self) -> None:
        """Join the processes that share the board, or be the first of them, or stand by until it is this one's turn.

        Raises:
            LedgerUnavailableError: the database cannot be reached.
            ConfigError: processes that decide by other rules run this board, and this one is not to wait.
        """
        await self._membership.join()
        self._loop.start()

    def stop(self) -> None:
        """See `Board.stop`."""
        self._loop.stopped = True
        self._alarm.stop()
        self._outbox.stop()

    async def aclose(self) -> None:
        """Leave: what this process still has goes to the others; then close the connections."""
        self._loop.leaving = True
        try:
            if self._loop.tasks and not self._loop.stopped:
                with contextlib.suppress(TimeoutError, LedgerUnavailableError):
                    async with asyncio.timeout(_PATIENCE):
                        await self._say_goodbye()
                        await self._membership.depart()
        finally:
            self.stop()
            await self._loop.aclose()
            await self._log.aclose()

    async def _say_goodbye(self) -> None:
        """Leave; if nobody is there to go on with what idles here, it is closed first."""
        # Nothing may be left to a process that has died and was not missed yet: who would end it?
        await self._membership.look_now()
        while self._follower.is_member():
            self._tell("left", self._log.is_awaited)
            await self.settled()
            while self._follower.is_member() and self.mine():  # noqa: ASYNC110
                await asyncio.sleep(TURN)
