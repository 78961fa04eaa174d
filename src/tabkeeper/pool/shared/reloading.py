"""Reads from the log what notifications did not bring, loads the whole board where that is not enough, and saves it."""

from __future__ import annotations

import logging

from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger.boardlog import BoardLog, Line
from tabkeeper.pool.model import Action, Check, Close, Create, Grant, Session, State
from tabkeeper.pool.shared import snapshot
from tabkeeper.pool.shared.following import Follower
from tabkeeper.pool.shared.replica import Replica
from tabkeeper.pool.shared.teller import Hooks

log = logging.getLogger(__name__)


class Loader:
    """What a copy needs of the database to be the board.

    Args:
        planner: what this process decides by.
        snapshot_every: events between two snapshots, at least: what a process that joins has to go through.
        keep_entries: entries that are kept beyond what a snapshot needs, for people.
    """

    def __init__(
        self,
        replica: Replica,
        line: BoardLog,
        follower: Follower,
        hooks: Hooks,
        *,
        planner: str,
        snapshot_every: int,
        keep_entries: int,
    ) -> None:
        self._replica = replica
        self._log = line
        self._follower = follower
        self._hooks = hooks
        self._planner = planner
        self._every = snapshot_every
        self._keep = keep_entries
        self._saved_at = 0
        """How many events had been applied when a snapshot was last due."""
        self.reloads = 0

    async def catch_up(self, end: int) -> None:
        """Apply all entries up to this one."""
        while (after := self._replica.seq) < end:
            lines = await self._log.tail(after)
            # Meanwhile notifications may have brought some of them.
            if not lines or lines[0].seq != after + 1:
                # The entries have been dropped: this copy is too old to follow.
                await self.reload()
                return
            for line in lines:
                self._follower.take(line)

    # ── snapshots ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def load_first(self) -> bool:
        """Load the newest snapshot, by a process that has nothing yet; False if there is none."""
        found = await self._log.snapshot(self._planner)
        if found is None:
            return False
        self._saved_at = self._replica.events
        snapshot.load(self._replica, found[1])
        return True

    async def save(self) -> None:
        """Write the board down as it is now."""
        self._saved_at = self._replica.events
        seq = self._replica.seq
        await self._log.save(seq, self._planner, snapshot.write(self._replica), keep_entries=self._keep)

    async def save_if_due(self) -> None:
        """Write the board down if the last snapshot is old; one process of all is enough."""
        if self._replica.events - self._saved_at < self._every + 2 * len(self._replica.view.sessions):
            return
        if min(self._replica.members, default=0) != self._replica.home:
            self._saved_at = self._replica.events
            return
        await self.save()

    async def try_reload(self) -> None:
        """Load the state anew if the database is there."""
        try:
            await self.reload()
        except LedgerUnavailableError as error:
            log.warning("the shared board cannot be loaded yet: %s", error)

    async def reload(self) -> None:
        """Load the state anew, and go on from there; what this process no longer has, it lets go.

        Raises:
            LedgerUnavailableError: it cannot be read, or not all of it.
        """
        replica, view, follower = self._replica, self._replica.view, self._follower
        found = await self._log.snapshot(self._planner)
        if found is None:
            raise LedgerUnavailableError("the board has no snapshot that this process can read")
        lines = await self._entries_since(found[0])
        # From here on nothing is awaited, so nothing else can happen to this copy.
        self.reloads += 1
        follower.is_lost = False
        known = {(one.id, one.uses): one for one in self._mine()}
        follower.replayed = replica.seq
        sessions, requests = dict(view.sessions), {**view.requests, **replica.here}
        snapshot.load(replica, found[1], sessions={}, requests={})
        follower.forget_early()
        for line in lines:
            if line.seq <= follower.replayed:
                follower.take(line)
        # Now that all is as it should be, once more with the objects that others hold on to.
        snapshot.load(replica, snapshot.write(replica), sessions=sessions, requests=requests)
        replica.sums.clear()  # what others said before they loaded theirs anew says nothing
        for session in known.values():
            if session.home != replica.home or session.state is State.CLOSED:
                self._hooks.gave(session)
        new = [session for session in self._mine() if (session.id, session.uses) not in known]
        self._hooks.carry_out([action for session in new for action in _to_do(session)])
        for line in lines:
            follower.take(line)

    async def _entries_since(self, saved: int) -> list[Line]:
        """Read at least the entries between a snapshot and where this copy is."""
        lines: list[Line] = []
        read = saved
        while read < self._replica.seq or read == saved:
            more = await self._log.tail(read)
            if not more:
                break
            lines += more
            read = more[-1].seq
        if read < self._replica.seq:
            raise LedgerUnavailableError("entries of the board's log are missing")
        return lines

    def _mine(self) -> list[Session]:
        return [one for one in self._replica.view.sessions.values() if one.home == self._replica.home]


def _to_do(session: Session) -> list[Action]:
    """What has to be done about a session that this process has, and did not know of."""
    match session.state:
        case State.CREATING:
            return [Create(session)]
        case State.LEASED if session.covers is not None:
            return [Grant(session.covers, session, session.uses)]
        case State.UNHEALTHY:
            return [Check(session)]
        case State.DRAINING | State.LOST:
            return [Close(session)]
    return []
