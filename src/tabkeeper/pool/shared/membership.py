"""Who takes part in a shared board: how a process joins, says that it lives, finds others dead, and comes back."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from tabkeeper.clock import FleetClock
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.boardlog import BoardLog, Line, new_nonce
from tabkeeper.ledger.processes import Identity
from tabkeeper.pool.model import Request
from tabkeeper.pool.shared.entries import to_text
from tabkeeper.pool.shared.following import Follower
from tabkeeper.pool.shared.outbox import Outbox
from tabkeeper.pool.shared.reloading import Loader
from tabkeeper.pool.shared.replica import Replica
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
        self._looked = asyncio.Event()
        self.beat_at = 0.0
        """When this process says next that it lives, on its own clock."""

    # ── coming and going ───────────────────────────────────────────────────────────────────────────────────────────

    async def join(self) -> None:
        """Load the state of the board, or found it; then become a member.

        Raises:
            LedgerUnavailableError: the database cannot be reached.
            ConfigError: processes that decide by other rules run this board.
        """
        await self._log.begin()
        await self._wait_for_strangers()
        async with self._log.joining():
            others = [one.home for one in await self._log.roll()]
            loaded = bool(others) and await self._loader.load_first()
            if not loaded:
                # Nobody else is there, so nothing on the board is anybody's; what runs, the ledger's rows tell.
                end, _ = await self._log.beat(0)
                self._replica.found(end)
                await self._log.depart(others)
            line = await self._tell_join()
            if loaded:
                await self._loader.catch_up(line.seq)
            else:
                self._follower.take(line)
                await self._loader.save()
            self._replica.home = line.seq
            await self._log.arrive(line.seq, self._who.id, self._who.host, self._planner)
        self._watcher.restart()

    async def _wait_for_strangers(self) -> None:
        """See to it that nobody alive runs the board by other rules.

        Raises:
            ConfigError: somebody does.
        """
        seen = {one.home: one for one in await self._log.roll() if one.planner != self._planner}
        began = self._clock.raw()
        while seen and self._clock.raw() - began < self._heartbeat:
            await asyncio.sleep(min(SLOW_POLL, self._heartbeat / 4))
            now = {one.home: one for one in await self._log.roll()}
            seen = {home: one for home, one in seen.items() if home in now}
            alive = [one for home, one in seen.items() if now[home].beats != one.beats]
            if alive:
                what = (
                    "version of Tabkeeper"
                    if alive[0].planner.partition(":")[0] != self._planner.partition(":")[0]
                    else "configuration (limits, platforms, providers or prices)"
                )
                raise ConfigError(
                    f"{len(alive)} running process{'es' if len(alive) > 1 else ''} of this shared pool, one on "
                    f"{alive[0].host.partition('/')[0]}, have another {what}; give all the same, or end those "
                    "first, or let this one be a pool of its own with pool.name"
                )
        await self._log.depart(list(seen))

    async def _tell_join(self) -> Line:
        member: list[Any] = [self._who.id, self._who.host, self._who.pid, self._who.pid_started_at]
        sent = self._clock.raw()
        line = await self._log.append(home=0, nonce=new_nonce(), events=to_text([["join", *member]]))
        assert line is not None
        self._clock.heard(line.at / 1_000_000, sent, self._clock.raw())
        return line

    async def rejoin(self) -> list[Request]:
        """Come back after having been taken for dead; return the requests that wait and have to be told anew."""
        # All without an answer: to the board none of them waits any more, if it ever heard of them.
        unanswered = list(self._replica.here.values())
        self._outbox.clear()
        self._replica.home = 0  # what it had, and what it was granted, is told once more while it catches up
        await self.join()
        self._outbox.all_done()
        waiting = [one for one in unanswered if one.id in self._replica.here]
        for request in waiting:
            if request.lane.home is not None:
                request.lane = request.lane._replace(home=self._replica.home)
        return waiting

    async def depart(self) -> None:
        """Strike this process off; the board knows already that it has left."""
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
