"""Who takes part in a shared board: how a process joins, says that it lives, finds others dead, and comes back."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from tabkeeper.clock import FleetClock
from tabkeeper.ledger.boardlog import BoardLog, Line, new_nonce
from tabkeeper.ledger.processes import Identity
from tabkeeper.pool.model import Request
from tabkeeper.pool.shared.entries import Event, to_text
from tabkeeper.pool.shared.following import Follower
from tabkeeper.pool.shared.outbox import Outbox
from tabkeeper.pool.shared.reloading import Loader
from tabkeeper.pool.shared.replica import Replica
from tabkeeper.pool.shared.succession import Succession, adoptions, facts_of
from tabkeeper.pool.shared.watcher import Watcher

log = logging.getLogger(__name__)

SLOW_POLL = 1.0
"""Seconds between two looks at the log, should notifications not arrive."""


class Membership:
    """One process's part in the board.

    Args:
        who: this process.
        planner: what it decides by; processes of one board must have the same.
        heartbeat: seconds without a sign of life after which a process is taken for dead.
        waits: whether it stands by while processes that decide by other rules run the board, or raises.
    """

    def __init__(
        self,
        replica: Replica,
        clock: FleetClock,
        line: BoardLog,
        *,
        follower: Follower,
        loader: Loader,
        outbox: Outbox,
        who: Identity,
        planner: str,
        heartbeat: float,
        waits: bool,
    ) -> None:
        self._replica = replica
        self._clock = clock
        self._log = line
        self._follower = follower
        self._loader = loader
        self._outbox = outbox
        self._who = who
        self._planner = planner
        self._heartbeat = heartbeat
        self._watcher = Watcher(heartbeat)
        self._succession = Succession(clock, line, who=who, planner=planner, heartbeat=heartbeat, waits=waits)
        self.joined = asyncio.Event()
        """Set while this process takes part, or is believed to."""
        self._looked = asyncio.Event()
        self.beat_at = 0.0
        """When this process says next that it lives, on its own clock."""

    # ── coming and going ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def stands_by(self) -> str:
        """Why this process waits until others have left; empty if it does not."""
        return self._succession.why

    async def join(self) -> bool:
        """Load the state of the board, or found it; then become a member, unless others have to leave first.

        Raises:
            LedgerUnavailableError: the database cannot be reached.
            ConfigError: processes that decide by other rules run this board, and this one is not to wait.
        """
        await self._log.begin()
        self._replica.home = self._succession.nobody
        if not await self._succession.is_ours():
            self._stand_by()
            return False
        async with self._log.joining():
            if await self._succession.look():  # they were faster
                self._stand_by()
                return False
            others = [one.home for one in await self._log.roll()]
            loaded = bool(others) and await self._loader.load_first()
            left: dict[str, str] = {}
            if not loaded:
                # Nobody else is there, so nothing on the board is anybody's but what was left; what else runs, the
                # ledger's rows tell.
                end, _ = await self._log.beat(0)
                self._replica.found(end)
                await self._log.depart(others)
                left = await self._log.bequests()
            line = await self._tell_join(adoptions(left.values()))
            if loaded:
                await self._loader.catch_up(line.seq)
            else:
                self._follower.take(line)
                await self._loader.save()
            self._replica.home = line.seq
            await self._log.arrive(line.seq, self._who.id, self._who.host, self._planner)
            await self._log.forget(list(left))
        self._follower.take_up(left)
        await self._succession.over()
        self._watcher.restart()
        self.joined.set()
        return True

    def _stand_by(self) -> None:
        self.joined.clear()
        self.rest()

    def rest(self) -> None:
        """Look again after a while."""
        self.beat_at = self._clock.raw() + self._succession.pause
        self._looked.set()

    async def _tell_join(self, more: list[Event]) -> Line:
        member: list[Any] = [self._who.id, self._who.host, self._who.pid, self._who.pid_started_at]
        sent = self._clock.raw()
        line = await self._log.append(home=0, nonce=new_nonce(), events=to_text([["join", *member], *more]))
        assert line is not None
        self._clock.heard(line.at / 1_000_000, sent, self._clock.raw())
        return line

    async def rejoin(self) -> list[Request]:
        """Try to take part, for the first time or again; return the requests that wait and have to be told anew."""
        # All without an answer: to the board none of them waits any more, if it ever heard of them.
        unanswered = list(self._replica.here.values())
        self._outbox.clear()
        # What it had, and what it was granted, is told once more while it catches up, and concerns nobody now.
        if not await self.join():
            return []
        self._outbox.all_done()
        waiting = [one for one in unanswered if one.id in self._replica.here]
        for request in waiting:
            if request.lane.home is not None:
                request.lane = request.lane._replace(home=self._replica.home)
        return waiting

    async def depart(self) -> None:
        """Strike this process off; the board knows already that it has left."""
        if not self.joined.is_set():
            await self._succession.over()
            return
        if self._follower.bequest:
            await self._log.bequeath({one.id: facts_of(one) for one in self._follower.bequest})
        await self._log.depart([self._replica.home])

    # ── signs of life ──────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_due(self) -> bool:
        """Whether it is time to say that this process lives."""
        return self._clock.raw() >= self.beat_at

    def lost_sight(self) -> None:
        """The database was away: nobody is dead because nothing was seen of it."""
        self._watcher.restart()

    async def look_now(self) -> None:
        """Return when this process has looked who is dead."""
        self._looked.clear()
        self.beat_at = 0.0
        self._outbox.wake.set()
        await self._looked.wait()

    async def beat(self) -> None:
        """Say that this process lives, read what the others told, and look which of them are dead."""
        self.beat_at = self._clock.raw() + min(SLOW_POLL, self._heartbeat / 4)
        home = self._replica.home
        end, beats = await self._log.beat(home)
        self._follower.heard_of(end)
        await self._loader.catch_up(end)
        members = self._replica.members
        dead = self._watcher.look(
            {other: beats.get(other) for other in members if other != home},
            {other: (one.host, one.pid, one.pid_started_at) for other, one in members.items()},
            self._who.host,
            self._clock.raw(),
        )
        for other, sure in dead:
            log.warning("process %d of the shared pool is gone; what it had is taken over", other)
            self._outbox.tell(["bury", other, sure])
        struck = [other for other in beats if other not in members]
        if struck:
            await self._log.depart(struck)
        self._looked.set()
