"""Says in the words of the log what the pool tells its board; what is done with the words is the board's business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from tabkeeper.clock import Clock, Instant
from tabkeeper.pool.model import ENDING, Action, Request, Session, State
from tabkeeper.pool.referee import Effect, Hope
from tabkeeper.pool.shared.entries import setback_to
from tabkeeper.pool.shared.replica import Replica
from tabkeeper.pool.view import View
from tabkeeper.providers.breaker import Setback


def _nothing(*_: object) -> None: ...


@dataclass(slots=True, kw_only=True)
class Hooks:
    """What the pool does about what the board says."""

    carry_out: Callable[[list[Action]], None]
    gave: Callable[[Session], None] = _nothing
    """A session is in another process's hands now."""
    got: Callable[[Session], None] = _nothing
    """A session of a process that is gone is in ours."""
    fenced: Callable[[], None] = _nothing
    """This process was taken for dead: nothing that it had is its own any more."""


class Teller(ABC):
    """The events of `Board`, each as one line; `replica` is this process's own copy.

    Answers are what this copy knows at the moment. They may be out of date by the time the event takes effect; then
    the event does nothing, because it names the use of the session, or a session that is another's by then.
    """

    def __init__(self, view: View, clock: Clock, prefix: str) -> None:
        self.view = view
        self.replica = Replica(view, prefix)
        self._clock = clock
        self._tickets = count(1)
        self._arrivals = count(1)
        self._last_home = 0

    @abstractmethod
    def _tell(self, *event: Any) -> None:
        """Write an event to the log, after those told before."""

    @property
    def home(self) -> int:
        """See `Board.home`."""
        return self.replica.home

    def next_id(self) -> int:
        """Return the number of a new request: different in all processes, growing in each."""
        self._last_home = self.home or self._last_home  # it has none while it comes back
        return (self._last_home << 32) + next(self._arrivals)

    @property
    def queued(self) -> int:
        """See `Board.queued`."""
        return max(len(self.view.requests), len(self.replica.here))

    def request(self, request: Request) -> None:
        """See `Board.request`."""
        now = self._clock.monotonic()
        self.replica.here[request.id] = request
        request.home = self.home
        self._tell(
            "request",
            request.id,
            list(request.lane),
            request.tenant,
            request.priority,
            max(0.0, now - request.arrived_at),
            max(0.0, request.deadline - now),
            request.lease_seconds,
            request.wants,
            request.failures,
        )

    def withdraw(self, request: Request) -> None:
        """See `Board.withdraw`."""
        known = self.replica.here.pop(request.id, None)
        if known is not None or request.id in self.view.requests:
            self._tell("withdraw", request.id)

    def held(self, session: Session, life_seconds: float) -> None:
        """See `Board.held`."""
        self._tell("held", session.id, _creation(session), life_seconds)

    def ready(self, session: Session) -> None:
        """See `Board.ready`."""
        self._tell("ready", session.id, _creation(session))

    def failed(
        self,
        session: Session,
        *,
        blame: str,
        setback: Setback | None,
        counts: bool,
        hope: Hope = "always",
        then: Callable[[Request], None] | None = None,
    ) -> None:
        """See `Board.failed`."""
        facts = [blame, setback_to(setback), counts, hope, self._ticket(then)]
        self._tell("failed", session.id, _creation(session), *facts)

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
    ) -> None:
        """See `Board.denied`."""
        seconds = max(0.0, until - self._clock.monotonic())
        number = self._ticket(then)
        self._tell("denied", session.id, _creation(session), seconds, why, effect, sorted(fits), hope, number)

    def too_late(
        self, session: Session, reason: str, *, then: Callable[[Request], None] | None = None
    ) -> None:
        """See `Board.too_late`."""
        self._tell("late", session.id, reason, self._ticket(then))

    def _ticket(self, then: Callable[[Request], None] | None) -> int:
        number = next(self._tickets)
        if then is not None:
            self.replica.answers[number] = then
        return number

    def told_limit(self, provider: str, limit: int) -> None:
        """See `Board.told_limit`."""
        self._tell("limit", provider, limit)

    def told_route(self, platform: str, names: tuple[str, ...]) -> None:
        """See `Board.told_route`."""
        self._tell("route", platform, list(names))

    def shorten(self, session: Session, use: int, until: Instant) -> None:
        """See `Board.shorten`."""
        self._tell("shorten", session.id, use, max(0.0, until - self._clock.monotonic()))

    def share(self, session: Session, use: int, priority: int) -> None:
        """See `Board.share`."""
        self._tell("share", session.id, use, priority)

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
        if session.home != self.home or session.uses != use or session.state is not State.LEASED:
            return False
        self._tell("released", session.id, use, keep, reason, check, success)
        return True

    def doubt(self, session: Session) -> bool:
        """See `Board.doubt`."""
        if session.state is not State.IDLE or session.home != self.home:
            return False
        self._tell("doubt", session.id)
        return True

    def checked(self, session: Session, *, ok: bool, reason: str = "unhealthy") -> bool:
        """See `Board.checked`."""
        self._tell("checked", session.id, ok, reason)
        return session.state is State.UNHEALTHY

    def lost(self, session: Session, reason: str) -> bool:
        """See `Board.lost`."""
        if not _is_open(session):
            return False
        self._tell("lost", session.id, reason)
        return True

    def end(self, session: Session, reason: str) -> bool:
        """See `Board.end`."""
        if not _is_open(session):
            return False
        self._tell("end", session.id, reason)
        return True

    def closed(self, session: Session) -> None:
        """See `Board.closed`."""
        if session.state is not State.CLOSED:
            self._tell("closed", session.id)

    def money_freed(self) -> None:
        """See `Board.money_freed`."""
        if any(lane.blocked_by for lane in self.view.lanes.values()):
            self._tell("money")


def _creation(session: Session) -> list[Any]:
    """What a creation's outcome says of lane and provider, should the session itself be gone by then."""
    return [list(session.lane), session.provider, session.created_at]


def _is_open(session: Session) -> bool:
    return session.state not in ENDING and session.state is not State.CLOSED
