"""Where events meet the plan: each event changes the view and books one planning step on the loop.

`MemoryBoard` serves one process. Its methods are synchronous and decide nothing; a burst of events costs one step.
The pool hands in what is to be done with the actions of a step. The board of many processes is in `shared`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tabkeeper.clock import Clock, Instant
from tabkeeper.pool.model import NEVER, Action, Request, Session
from tabkeeper.pool.plan import plan, wake_at
from tabkeeper.pool.referee import Effect, Hope, Referee
from tabkeeper.pool.view import View
from tabkeeper.providers.breaker import Setback

__all__ = ["Board", "Effect", "Hope", "MemoryBoard"]


class Board(Protocol):
    """What the pool tells about its world. Every method may be called from the event loop only.

    What is told takes effect in the order in which it is told, at once on a board of one process and within
    milliseconds on a shared one; `settled` returns when it has. Answers are this process's knowledge of the moment.
    """

    view: View

    @property
    def home(self) -> int:
        """Which process of a shared board this is; 0 on a board of one process."""

    @property
    def leads(self) -> bool:
        """Whether this process does what is done once for all of them."""

    @property
    def alone(self) -> bool:
        """Whether no other process could go on with what this one leaves."""

    @property
    def stands_by(self) -> str:
        """Why this process waits until others have left a shared board; empty if it does not."""

    def mine(self) -> list[Session]:
        """Return the sessions that this process has."""

    def waiting(self) -> list[Request]:
        """Return the requests of this process that wait."""

    @property
    def queued(self) -> int:
        """Requests that wait, of all processes."""

    @property
    def draining(self) -> bool:
        """Whether this process takes no more requests."""

    def next_id(self) -> int:
        """Return the number of a new request: different in all processes, growing in each."""

    def request(self, request: Request) -> None:
        """Somebody waits for a session."""

    def withdraw(self, request: Request) -> None:
        """Somebody no longer waits (cancelled, or refused by the pool)."""

    def held(self, session: Session, life_seconds: float) -> None:
        """Money is held for a session; it reaches for this long a life."""

    def ready(self, session: Session) -> None:
        """A session was created."""

    def failed(
        self,
        session: Session,
        *,
        blame: str,
        setback: Setback | None,
        counts: bool,
        hope: Hope = "always",
        then: Callable[[Request], None] | None = None,
    ) -> object:
        """A creation failed and left nothing running.

        `setback` says what that means for the provider, None if it is not to blame. `then` answers the request it was
        meant for if that has no `hope` any more; it waits no longer.
        """

    def denied(
        self,
        session: Session,
        *,
        until: Instant,
        why: str,
        effect: Effect,
        fits: frozenset[str] = frozenset(),
        hope: Hope = "always",
        then: Callable[[Request], None] | None = None,
    ) -> object:
        """A budget does not admit the session before `until`.

        `fits` are the providers that may be asked meanwhile, if the effect is "cheaper"; `hope` and `then` are as
        in `failed`.
        """

    def too_late(
        self, session: Session, reason: str, *, then: Callable[[Request], None] | None = None
    ) -> None:
        """A session was created, but has no time left to live; it ends, and that was a failed attempt."""

    def told_limit(self, provider: str, limit: int) -> None:
        """A provider says how many sessions its account may run at once."""

    def told_route(self, platform: str, names: tuple[str, ...]) -> None:
        """Providers of a platform are to be asked in this order; a ladder whose rungs are others begins anew."""

    def share(self, session: Session, use: int, priority: int) -> None:
        """Another caller, of this priority, shares a lease."""

    def shorten(self, session: Session, use: int, until: Instant) -> None:
        """A lease is to end by then."""

    def released(
        self,
        session: Session,
        use: int,
        *,
        keep: bool,
        reason: str,
        check: bool = False,
        success: bool | None = None,
    ) -> bool:
        """A lease ended; False if it was over already (released twice, or too late).

        With `check` nobody gets the session before it is found well. `success` says how the work went, None if it
        never began.
        """

    def doubt(self, session: Session) -> bool:
        """An idle session may not be well: nobody gets it before `checked`; False if it is not idle."""

    def checked(self, session: Session, *, ok: bool, reason: str = "unhealthy") -> bool:
        """A check ended; False if nobody waits for that any more."""

    def lost(self, session: Session, reason: str) -> bool:
        """A session was found dead; False if it was on its way out already."""

    def end(self, session: Session, reason: str) -> bool:
        """Close a session, whoever uses it; False if it was on its way out already."""

    def closed(self, session: Session) -> None:
        """A session's end is confirmed."""

    def money_freed(self) -> None:
        """A hold was settled: budgets may admit more now."""

    def drain(self) -> None:
        """No grants and no creations for this process any more."""

    def poke(self) -> None:
        """Plan soon."""

    def stop(self) -> None:
        """Plan no more."""

    async def settled(self) -> None:
        """Return when all that this process has told has taken effect."""

    async def open(self) -> None:
        """Begin; called once, when the pool can carry out actions.

        Raises:
            LedgerUnavailableError, ConfigError: a shared board cannot be joined.
        """

    async def aclose(self) -> None:
        """Stop, and leave what this process still has to the others."""


class MemoryBoard(Referee):
    """The board of one process: a view, a loop, and one timer."""

    home = 0
    leads = True
    alone = True
    stands_by = ""

    def __init__(self, view: View, clock: Clock, carry_out: Callable[[list[Action]], None]) -> None:
        super().__init__(view, clock, carry_out)
        self._loop = asyncio.get_running_loop()
        self._booked = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: Instant = NEVER
        self._stopped = False
        self._arrivals = 0
        self.steps = 0
        """Planning steps so far."""

    @property
    def draining(self) -> bool:
        """See `Board.draining`."""
        return self.view.draining

    def next_id(self) -> int:
        """See `Board.next_id`."""
        self._arrivals += 1
        return self._arrivals

    @property
    def queued(self) -> int:
        """See `Board.queued`."""
        return len(self.view.requests)

    def poke(self) -> None:
        """See `Board.poke`."""
        if not self._booked and not self._stopped:
            self._booked = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._booked = False
        self.steps += 1
        try:
            actions = plan(self.view, self._clock.monotonic())
            if actions:
                self._carry_out(actions)
        finally:
            self._set_timer()

    def _set_timer(self) -> None:
        at = wake_at(self.view)
        # A timer that fires too early only plans once more; moving it each time would fill the loop's own heap.
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            delay = max(0.0, at - self._clock.monotonic())
            self._timer = self._loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, NEVER
        self.poke()

    def stop(self) -> None:
        """See `Board.stop`."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def mine(self) -> list[Session]:
        """See `Board.mine`."""
        return list(self.view.sessions.values())

    def waiting(self) -> list[Request]:
        """See `Board.waiting`."""
        return list(self.view.requests.values())

    async def settled(self) -> None:
        """See `Board.settled`: it has already."""

    async def open(self) -> None:
        """See `Board.open`."""

    async def aclose(self) -> None:
        """See `Board.aclose`."""
        self.stop()
