"""When time alone makes something of a session or a request due: one heap for the whole pool."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from tabkeeper.clock import Instant
from tabkeeper.pool.model import ENDING, NEVER, Request, Session, State


class Timers:
    """Brings sessions and requests up when they are due, and plans at other instants that somebody named."""

    def __init__(self) -> None:
        self._timers: list[tuple[Instant, int, Session | Request | None]] = []
        self._timers_kept = 0
        """How many were useful when they were last swept: sweeping again pays when they have doubled."""
        self._ticket = 0

    def due_at(self, thing: Session | Request) -> Instant:
        """When time alone makes something of it due."""
        if isinstance(thing, Request):
            return thing.deadline if thing.waiting else NEVER
        if thing.state is State.IDLE:
            return min(thing.keep_until, thing.fresh_until, thing.stale_at)
        if thing.state is State.UNHEALTHY:
            return thing.check_by
        if thing.state is State.LEASED:
            return min(thing.lease_ends, thing.leak_at)
        if thing.state in ENDING:
            return thing.close_by
        return NEVER

    def watch(self, thing: Session | Request) -> None:
        """See to it that `pop_due` brings this up when it is due. A session has one useful entry at most."""
        at = self.due_at(thing)
        if isinstance(thing, Session):
            if at >= thing.timer_at:
                return  # an earlier entry will look again
            thing.timer_at = at
        if at < NEVER:
            self._push(at, thing)

    def wake_at_least(self, at: Instant) -> None:
        """See to it that a plan is made at `at`, whoever it is for."""
        self._push(at, None)

    def _push(self, at: Instant, thing: Session | Request | None) -> None:
        self._ticket += 1
        heappush(self._timers, (at, self._ticket, thing))
        if len(self._timers) > 2 * self._timers_kept + 256:
            self._timers = [entry for entry in self._timers if self._useful(entry)]
            heapify(self._timers)
            self._timers_kept = len(self._timers)

    def _useful(self, entry: tuple[Instant, int, Session | Request | None]) -> bool:
        at, _, thing = entry
        if thing is None:
            return True
        if isinstance(thing, Request):
            return thing.waiting
        return thing.state is not State.CLOSED and thing.timer_at == at

    def pop_due(self, now: Instant) -> list[Session | Request]:
        """Return what is due by `now`, in order of time."""
        due: list[Session | Request] = []
        while self._timers and self._timers[0][0] <= now:
            entry = heappop(self._timers)
            thing = entry[2]
            if thing is None or not self._useful(entry):
                continue
            if isinstance(thing, Session):
                thing.timer_at = NEVER
            if self.due_at(thing) <= now:
                due.append(thing)
            else:
                self.watch(thing)
        return due

    def next_instant(self) -> Instant:
        """The earliest instant at which `pop_due` may return something (NEVER if there is none)."""
        while self._timers and not self._useful(self._timers[0]):
            heappop(self._timers)
        return self._timers[0][0] if self._timers else NEVER
