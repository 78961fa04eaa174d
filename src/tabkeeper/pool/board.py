"""Where events meet the plan: each event changes the view and books one planning step on the loop.

`MemoryBoard` serves one process. Its methods are synchronous and decide nothing; a burst of events costs one step.
The pool hands in what is to be done with the actions of a step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol, assert_never

from tabkeeper.clock import Clock, Instant
from tabkeeper.pool.model import ENDING, NEVER, Action, Close, Request, Session, State
from tabkeeper.pool.plan import begin_check, end_session, plan, wake_at
from tabkeeper.pool.view import View
from tabkeeper.providers.breaker import Setback

Effect = Literal["wait", "cheaper", "refuse"]
"""What a budget's no means for its lane: wait, use providers that fit, or refuse (and evict nobody for a while)."""


class Board(Protocol):
    """What the pool tells about its world. Every method may be called from the event loop only."""

    view: View

    def request(self, request: Request) -> None:
        """Somebody waits for a session."""

    def withdraw(self, request: Request) -> None:
        """Somebody no longer waits (cancelled, or refused by the pool)."""

    def held(self, session: Session, life_seconds: float) -> None:
        """Money is held for a session; it reaches for this long a life."""

    def ready(self, session: Session) -> None:
        """A session was created."""

    def failed(
        self, session: Session, *, blame: str, setback: Setback | None, counts: bool
    ) -> Request | None:
        """A creation failed and left nothing running; returns the request it was meant for.

        `setback` says what that means for the provider, None if it is not to blame.
        """

    def denied(
        self,
        session: Session,
        *,
        until: Instant,
        why: str,
        effect: Effect,
        fits: frozenset[str] = frozenset(),
    ) -> Request | None:
        """A budget does not admit the session before `until`; returns the request it was meant for.

        `fits` are the providers that may be asked meanwhile, if the effect is "cheaper".
        """

    def told_limit(self, provider: str, limit: int) -> None:
        """A provider says how many sessions its account may run at once."""

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
        """No grants and no creations any more."""

    def poke(self) -> None:
        """Plan soon."""


class MemoryBoard:
    """The board of one process: a view, a loop, and one timer."""

    def __init__(self, view: View, clock: Clock, carry_out: Callable[[list[Action]], None]) -> None:
        self.view = view
        self._clock = clock
        self._carry_out = carry_out
        self._loop = asyncio.get_running_loop()
        self._booked = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: Instant = NEVER
        self._stopped = False
        self.steps = 0
        """Planning steps so far."""

    # ── one step ───────────────────────────────────────────────────────────────────────────────────────────────────

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
        """Plan no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    # ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def request(self, request: Request) -> None:
        """See `Board.request`."""
        self.view.add_request(request)
        self.poke()

    def withdraw(self, request: Request) -> None:
        """See `Board.withdraw`."""
        self.view.remove_request(request)
        self.poke()

    def held(self, session: Session, life_seconds: float) -> None:
        """See `Board.held`."""
        lane = self.view.lane(session.lane)
        if lane.poor_until:
            self.poke()  # others may be evicted for the lane again
        lane.blocked_by, lane.poor_until = "", 0.0
        rules = self.view.rules.platforms[session.lane.platform]
        margin = self.view.rules.close_timeout
        session.dies_at = session.created_at + max(0.0, life_seconds - margin)
        last_start = session.dies_at - rules.lease_timeout
        if last_start <= session.created_at:
            # A cap on its cost left less life than one full lease: it takes leases for its first half.
            last_start = (session.created_at + session.dies_at) / 2
        session.fresh_until = min(session.fresh_until, last_start)
        self.view.forget_if_unused(lane)  # the session may have been given up meanwhile

    def ready(self, session: Session) -> None:
        """See `Board.ready`."""
        now = self._clock.monotonic()
        provider = self.view.providers[session.provider]
        provider.gate.succeeded(provider.sessions, now)
        self.view.gate_changed(provider, now)
        if session.state is State.CREATING:
            # However long it took, what was paid for serves at least whoever waits for it now.
            session.fresh_until = min(max(session.fresh_until, now + 1.0), session.dies_at)
            self.view.move(session, State.IDLE, now)
        self.poke()

    def failed(
        self, session: Session, *, blame: str, setback: Setback | None, counts: bool
    ) -> Request | None:
        """See `Board.failed`."""
        now = self._clock.monotonic()
        if setback is not None:
            provider = self.view.providers[session.provider]
            others = provider.sessions - (session.state is not State.CLOSED)
            provider.gate.failed(setback, begun=session.created_at, others=others, now=now, error=blame)
            self.view.gate_changed(provider, now)
            if setback.kind in {"failure", "lasting"}:
                self._trouble(session, now)
        request = _meant_for(session)
        if request is not None and counts:
            request.failures += 1
        self._vacate(session, now)
        return request

    def _trouble(self, session: Session, now: Instant) -> None:
        """Let a ladder know; on a higher rung nobody gets a session of the lower ones again."""
        platform = session.lane.platform
        ladder = self.view.ladders.get(platform)
        if ladder is None or not ladder.trouble(session.provider, now):
            return
        for lane in self.view.lanes_of[platform]:
            for idle in list(lane.idle.values()):
                if ladder.below(idle.provider, now):
                    self._end(idle, "escalated", now)

    def denied(
        self,
        session: Session,
        *,
        until: Instant,
        why: str,
        effect: Effect,
        fits: frozenset[str] = frozenset(),
    ) -> Request | None:
        """See `Board.denied`."""
        now = self._clock.monotonic()
        lane = self.view.lane(session.lane)
        lane.blocked_by = why
        match effect:
            case "wait":
                lane.wants_at = until
            case "cheaper":
                lane.fits = fits & lane.fits if now < lane.paid_from else fits
                lane.paid_from = until
            case "refuse":
                lane.poor_until = until
            case _:
                assert_never(effect)
        self.view.wake_at_least(until)
        request = _meant_for(session)
        self._vacate(session, now)
        self.view.forget_if_unused(lane)
        return request

    def _vacate(self, session: Session, now: Instant) -> None:
        if session.state is not State.CLOSED:
            self.view.move(session, State.CLOSED, now)
        self.poke()

    def told_limit(self, provider: str, limit: int) -> None:
        """See `Board.told_limit`."""
        known = self.view.providers.get(provider)
        if known is not None:
            known.gate.ceiling.told = max(1, limit)
            self.view.gate_changed(known, self._clock.monotonic())
            self.poke()

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
        """See `Board.released`."""
        if session.state is not State.LEASED or session.uses != use:
            return False
        now = self._clock.monotonic()
        ladder = self.view.ladders.get(session.lane.platform)
        if ladder is not None:
            if success:
                ladder.success(session.provider, now)
            elif success is False:
                self._trouble(session, now)
            if keep and ladder.below(session.provider, now):
                keep, reason = False, "escalated"
        rules = self.view.rules.platforms[session.lane.platform]
        if not keep or session.uses >= rules.max_uses or session.fresh_until <= now or self.view.draining:
            why = reason if not keep else "drained" if self.view.draining else "used up"
            if keep and session.uses < rules.max_uses and session.fresh_until <= now:
                why = "age"
            self._end(session, why, now)
        elif check:
            actions: list[Action] = []
            begin_check(self.view, session, now, actions)
            self._carry_out(actions)
        else:
            self.view.move(session, State.IDLE, now)
        self.poke()
        return True

    def doubt(self, session: Session) -> bool:
        """See `Board.doubt`."""
        if session.state is not State.IDLE:
            return False
        self.view.move(session, State.UNHEALTHY, self._clock.monotonic())
        self.poke()
        return True

    def checked(self, session: Session, *, ok: bool, reason: str = "unhealthy") -> bool:
        """See `Board.checked`."""
        if session.state is not State.UNHEALTHY:
            return False
        now = self._clock.monotonic()
        ladder = self.view.ladders.get(session.lane.platform)
        if not ok:
            self._end(session, reason, now)
        elif ladder is not None and ladder.below(session.provider, now):
            self._end(session, "escalated", now)
        else:
            self.view.move(session, State.IDLE, now)
        self.poke()
        return True

    def _end(self, session: Session, reason: str, now: Instant) -> None:
        actions: list[Action] = []
        end_session(self.view, session, reason, now, actions)
        self._carry_out(actions)

    def lost(self, session: Session, reason: str) -> bool:
        """See `Board.lost`."""
        if session.state in ENDING or session.state is State.CLOSED:
            return False
        now = self._clock.monotonic()
        session.reason = reason
        session.close_by = now + self.view.rules.close_timeout
        self.view.move(session, State.LOST, now)
        self._carry_out([Close(session)])
        self.poke()
        return True

    def end(self, session: Session, reason: str) -> bool:
        """See `Board.end`."""
        if session.state in ENDING or session.state is State.CLOSED:
            return False
        self._end(session, reason, self._clock.monotonic())
        self.poke()
        return True

    def closed(self, session: Session) -> None:
        """See `Board.closed`."""
        self._vacate(session, self._clock.monotonic())

    def money_freed(self) -> None:
        """See `Board.money_freed`."""
        for lane in self.view.lanes.values():
            if lane.blocked_by:
                lane.wants_at = lane.paid_from = lane.poor_until = 0.0
                lane.blocked_by = ""
        self.poke()

    def drain(self) -> None:
        """See `Board.drain`."""
        self.view.draining = True
        self.poke()


def _meant_for(session: Session) -> Request | None:
    """For whom a session is being created; once it is ending, `covers` is only who waits for its place."""
    return session.covers if session.state is State.CREATING else None
