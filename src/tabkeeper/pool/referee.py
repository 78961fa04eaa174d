"""What each event changes, whichever board hears of it: the verbs between the pool's world and the plan's view.

It knows no loop and no database: it is told what happened, changes the view at the instant of its clock, and hands out
what follows at once. What follows from looking at the whole is the plan's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, assert_never

from tabkeeper.clock import Clock, Instant
from tabkeeper.pool.model import ENDING, Action, Close, Request, Session, State
from tabkeeper.pool.plan import begin_check, end_session
from tabkeeper.pool.view import View
from tabkeeper.providers.breaker import Setback
from tabkeeper.providers.route import Ladder

Effect = Literal["wait", "cheaper", "refuse"]
"""What a budget's no means for its lane: wait, use providers that fit, or refuse (and evict nobody for a while)."""

Hope = Literal["always", "attempts", "providers", "never"]
"""When a request goes on waiting after a creation for it failed: always; while it has attempts left; while it has
attempts and another provider left; never."""


class Referee:
    """Applies events to a view. A board says what a poke is, and who carries out actions."""

    def __init__(self, view: View, clock: Clock, carry_out: Callable[[list[Action]], None]) -> None:
        self.view = view
        self._clock = clock
        self._carry_out = carry_out

    def poke(self) -> None:
        """Something has changed: a plan is wanted."""

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
        self,
        session: Session,
        *,
        blame: str,
        setback: Setback | None,
        counts: bool,
        hope: Hope = "always",
        then: Callable[[Request], None] | None = None,
    ) -> Request | None:
        """See `Board.failed`; returns the request it was meant for."""
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
        if request is not None and request.home == session.home:
            self._give_up(request, hope, now, then)
        return request

    def _give_up(
        self, request: Request, hope: Hope, now: Instant, then: Callable[[Request], None] | None
    ) -> None:
        """Let a request go that has no hope any more, and tell whoever has to answer it."""
        rules = self.view.rules.platforms[request.lane.platform]
        match hope:
            case "always":
                return
            case "attempts":
                over = request.failures >= rules.create_attempts
            case "providers":
                others = any(self.view.providers[name].retry_at <= now for name in rules.providers)
                over = request.failures >= rules.create_attempts or not others
            case "never":
                over = True
            case _:
                assert_never(hope)
        if over and request.waiting:
            self.view.remove_request(request)
            if then is not None:
                then(request)

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
        hope: Hope = "always",
        then: Callable[[Request], None] | None = None,
    ) -> Request | None:
        """See `Board.denied`; returns the request it was meant for."""
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
        if request is not None and request.home == session.home:
            self._give_up(request, hope, now, then)
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

    def too_late(
        self, session: Session, reason: str, *, then: Callable[[Request], None] | None = None
    ) -> None:
        """See `Board.too_late`."""
        request = _meant_for(session)
        if not self.end(session, reason) or request is None or not request.waiting:
            return
        request.failures += 1
        if request.home == session.home:
            self._give_up(request, "attempts", self._clock.monotonic(), then)

    def shorten(self, session: Session, use: int, until: Instant) -> None:
        """See `Board.shorten`."""
        if session.state is State.LEASED and session.uses == use and until < session.lease_ends:
            session.lease_ends = until
            self.view.watch(session)
            self.poke()

    def closed(self, session: Session) -> None:
        """See `Board.closed`."""
        self._vacate(session, self._clock.monotonic())

    def share(self, session: Session, use: int, priority: int) -> None:
        """See `Board.share`."""
        if session.state is State.LEASED and session.uses == use:
            self.view.share(session, priority)

    def told_route(self, platform: str, names: tuple[str, ...]) -> None:
        """See `Board.told_route`."""
        ladder = self.view.ladders.get(platform)
        if ladder is None:
            self.view.routes[platform] = names
        elif ladder.rungs != names:
            self.view.ladders[platform] = Ladder(
                names, after=ladder.after, hold=ladder.hold, successes=ladder.successes
            )

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
