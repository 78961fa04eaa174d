"""Follows the log: applies each entry in its turn to this process's copy, and hands out what is its own to do."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tabkeeper.clock import FleetClock
from tabkeeper.ledger.boardlog import Line
from tabkeeper.pool.model import Grant, Refuse, Session
from tabkeeper.pool.shared.alarm import Alarm
from tabkeeper.pool.shared.entries import Entry, entry_from
from tabkeeper.pool.shared.outbox import Outbox
from tabkeeper.pool.shared.replica import Moved, Replica, whose
from tabkeeper.pool.shared.teller import Hooks

log = logging.getLogger(__name__)


class Follower:
    """See the module; it awaits nothing, so nothing happens between an entry and what follows from it.

    Args:
        clock: told how late it is at least.
    """

    def __init__(
        self, replica: Replica, clock: FleetClock, hooks: Hooks, *, outbox: Outbox, alarm: Alarm
    ) -> None:
        self._replica = replica
        self._clock = clock
        self._hooks = hooks
        self._outbox = outbox
        self._alarm = alarm
        self._early: dict[int, Line] = {}
        """Entries that came before their turn."""
        self.end = 0
        """The number of the last entry that is known to be in the log."""
        self.replayed = 0
        """Entries up to this one are applied for the second time."""
        self.is_lost = False
        """This copy must be loaded anew."""
        self.draining = False
        """This process leaves of its own will."""
        self.fenced_times = 0
        self.bequest: list[Session] = []
        """What this process has left to whoever takes the board over."""

    def is_member(self) -> bool:
        """Whether this process takes part."""
        return self._replica.home in self._replica.members

    def heard_of(self, seq: int) -> None:
        """The log reaches at least to this entry."""
        self.end = max(self.end, seq)

    def forget_early(self) -> None:
        """Drop the entries that wait for their turn."""
        self._early.clear()

    def lose(self, seq: int = 0) -> None:
        """See to it that this copy is loaded anew, up to an entry at least."""
        self.heard_of(seq)
        self.is_lost = True
        self._outbox.wake.set()

    def take(self, line: Line) -> None:
        """Apply an entry, and those that waited for it; or keep it until its turn comes."""
        self.heard_of(line.seq)
        if line.seq > self._replica.seq:
            self._early[line.seq] = line
        while (due := self._early.pop(self._replica.seq + 1, None)) is not None:
            self._apply(entry_from({name: getattr(due, name) for name in Line.__slots__}))
        if self._early:
            self._outbox.wake.set()

    def hear(self, line: Line) -> None:
        """Take an entry of which a notification told; it may come at any time, so nobody is there to raise to."""
        try:
            self.take(line)
        except Exception:
            log.exception("an entry of the shared board could not be applied; its state is loaded anew")
            self.lose()

    def _apply(self, entry: Entry) -> None:
        replica = self._replica
        if entry.seq <= self.replayed:
            replica.apply(entry)  # what followed from it was done, or is made up for when all is loaded
            return
        if not replica.agrees(entry):
            self._disagree(entry)
        was_member = self.is_member()
        self._clock.at_least(entry.at)
        actions = replica.apply(entry)
        self._outbox.landed(entry.nonce)
        if was_member and not self.is_member():
            self._leave(replica.moved)
            return
        self._hand_over(replica.moved)
        own = [action for action in actions if whose(action) == replica.home]
        for action in own:
            if isinstance(action, Grant | Refuse):
                replica.here.pop(action.request.id, None)
        if own and replica.home:
            self._hooks.carry_out(own)
        self._outbox.settle()
        self._alarm.set()

    def _leave(self, moved: Iterable[Moved]) -> None:
        """This process is no longer one of them."""
        self._outbox.settle()
        if self.draining:
            self.bequest = [move.session for move in moved if not move.new]
            self._hand_over(moved)
            return
        self._outbox.wake.set()
        self.fenced_times += 1
        log.error("this process was taken for dead by the others; what it had leased is no longer its own")
        self._hooks.fenced()

    def _hand_over(self, moved: Iterable[Moved]) -> None:
        for move in moved:
            if move.old == self._replica.home:
                self._hooks.gave(move.session)
            elif move.new == self._replica.home and move.old not in self._replica.members:
                self._hooks.got(move.session)

    def take_up(self, sessions: Iterable[str]) -> None:
        """Take sessions into this process's hands that were left to the board."""
        for session in [self._replica.view.sessions.get(one) for one in sessions]:
            if session is not None and session.home == self._replica.home:
                self._hooks.got(session)

    def _disagree(self, entry: Entry) -> None:
        log.error(
            "this process's copy of the shared board differs from that of process %d at entry %d; it is loaded anew",
            entry.home,
            entry.seen_seq,
        )
        self.lose(entry.seq)
