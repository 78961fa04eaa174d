"""Builders of planner values that default everything, and a driver that turns a board like a pool would.

They decide nothing: a story in a test names only what matters to it. `Table` is a `MemoryBoard` on a loop and a clock
that move only when told to, with its own record of what it lent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import heappop, heappush
from itertools import count
from typing import Any

from tabkeeper.clock import VirtualClock
from tabkeeper.ledger.cards import ALWAYS
from tabkeeper.ledger.rates import Component, RateCard
from tabkeeper.pool.board import Effect, MemoryBoard
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import (
    Action,
    Check,
    Close,
    Create,
    GiveUpPlace,
    Grant,
    Lane,
    PlatformRules,
    Reclaim,
    Refuse,
    Request,
    Rules,
    Session,
    State,
)
from tabkeeper.pool.view import View
from tabkeeper.providers.breaker import Kind, Setback


def a_card(*, fee: str = "0.02", per_hour: str = "3.60", step_s: float = 0, least_s: float = 0) -> RateCard:
    """Return a price list; as it stands, ten idle seconds cost a cent."""
    parts = [
        Component(
            kind="time",
            unit="hour",
            unit_price=Decimal(per_hour),
            per_qty=3_600_000,
            increment_qty=max(1, int(step_s * 1000)),
            min_qty=int(least_s * 1000),
        )
    ]
    if Decimal(fee):
        parts.append(Component(kind="session", unit="session", unit_price=Decimal(fee)))
    return RateCard(plan="a card", effective_from=ALWAYS, components=tuple(parts))


def platform_rules(*providers: str, **changes: Any) -> PlatformRules:
    """Return rules of a platform; without providers it is served by `hosted`."""
    values: dict[str, Any] = {
        "providers": providers or ("hosted",),
        "max_sessions": 100,
        "session_ttl": 600.0,
        "idle_timeout": 60.0,
        "lease_timeout": 300.0,
        "max_uses": 1000,
        "create_attempts": 3,
        "retry_base": 1.0,
        "retry_max": 30.0,
    }
    return PlatformRules(**(values | changes))


def pool_rules(platforms: Mapping[str, PlatformRules] | None = None, **changes: Any) -> Rules:
    """Return rules of a pool; without platforms there is one, `shop`."""
    values: dict[str, Any] = {
        "max_sessions": 10,
        "max_queued": 1000,
        "aging": 10.0,
        "close_timeout": 10.0,
        "leak_after": 120.0,
        "eviction": "lru",
        "platforms": platforms or {"shop": platform_rules()},
        "provider_limits": {},
    }
    return Rules(**(values | changes))


_arrivals = count(1)


def a_request(
    platform: str = "shop",
    *,
    tenant: str = "default",
    owned: bool = False,
    priority: int = 0,
    at: float = 0.0,
    timeout: float = 30.0,
    lease_seconds: float = 300.0,
    number: int | None = None,
    identity: str | None = None,
    proxy: str | None = None,
    wants: str = "",
) -> Request:
    """Return a request that waits from `at`."""
    return Request(
        id=next(_arrivals) if number is None else number,
        lane=Lane(platform, tenant if owned or identity else None, identity, None if identity else proxy),
        tenant=tenant,
        priority=priority,
        arrived_at=at,
        deadline=at + timeout,
        lease_seconds=lease_seconds,
        wants=wants,
    )


def a_view(rules: Rules | None = None, kind: type[View] = View) -> View:
    """Return an empty view whose sessions are called s1, s2 …"""
    numbers = count(1)
    rules = rules or pool_rules()
    meters = {"hosted": Meter(a_card())} if rules.eviction == "value" else {}
    make_keeper = kind.__init__.__globals__["Keeper"]  # a mutant's view has a keeper of its own
    return kind(rules, lambda: f"s{next(numbers)}", make_keeper(rules, meters))


class Timer:
    """What the loop of `Table` returns for a timer."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class StillLoop:
    """The two methods of a loop that a board needs; it runs only when told to."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._soon: list[Callable[[], None]] = []
        self._timers: list[tuple[float, int, Timer]] = []
        self._tickets = count()

    def call_soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heappush(self._timers, (self._clock.monotonic() + delay, next(self._tickets), timer))
        return timer

    def settle(self) -> None:
        """Run what is booked or due at this instant, until nothing is."""
        for _ in range(1000):
            soon, self._soon = self._soon, []
            for call in soon:
                call()
            if self._soon:
                continue
            if not self._timers or self._timers[0][0] > self._clock.monotonic():
                return
            call_or_none = heappop(self._timers)[2].call
            if call_or_none is not None:
                call_or_none()
        raise AssertionError("the board plans again and again at one instant")

    def run_until(self, at: float) -> None:
        """Let time pass, timer by timer."""
        self.settle()
        while self._timers and self._timers[0][0] <= at:
            self._clock.advance(max(0.0, self._timers[0][0] - self._clock.monotonic()))
            self.settle()
        self._clock.advance(max(0.0, at - self._clock.monotonic()))


@contextmanager
def running(loop: StillLoop) -> Iterator[None]:
    """Let `asyncio.get_running_loop` find `loop`."""
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)  # type: ignore[arg-type]
    try:
        yield
    finally:
        asyncio._set_running_loop(before)


@dataclass
class Table:
    """A board with callers: who was granted what, what is being created, what is being closed."""

    rules: Rules
    make_view: Callable[[Rules], View] = a_view
    make_board: Callable[[View, VirtualClock, Callable[[list[Action]], None]], MemoryBoard] = MemoryBoard
    clock: VirtualClock = field(default_factory=VirtualClock)
    log: list[Action] = field(default_factory=list)
    lent: dict[str, tuple[Request, int]] = field(default_factory=dict)
    """Our own count of leases: session id -> (holder, number of the use)."""
    creating: dict[str, Session] = field(default_factory=dict)
    closing: dict[str, Session] = field(default_factory=dict)
    checking: dict[str, Session] = field(default_factory=dict)
    given_up: dict[str, Session] = field(default_factory=dict)
    fate: dict[int, str] = field(default_factory=dict)
    """Request id -> granted, refused or withdrawn; absent while it waits."""

    def __post_init__(self) -> None:
        self.view = self.make_view(self.rules)
        self.loop = StillLoop(self.clock)
        self._ids = count(1)
        with running(self.loop):
            self.board = self.make_board(self.view, self.clock, self._carry_out)

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            self.log.append(action)
            match action:
                case Grant(request, session, use):
                    self._ended(request, "granted")
                    assert session.id not in self.lent, f"{session} is lent twice"
                    self.lent[session.id] = (request, use)
                case Refuse(request):
                    self._ended(request, "refused")
                case Create(session):
                    assert session.id not in self.creating, f"{session} is created twice"
                    self.creating[session.id] = session
                case Reclaim(session, use):
                    assert self.lent.pop(session.id)[1] == use
                case Close(session):
                    assert session.id not in self.closing, f"{session} is closed twice"
                    self.checking.pop(session.id, None)
                    self.closing[session.id] = session
                    self.lent.pop(session.id, None)
                case Check(session):
                    assert session.id not in self.lent, f"{session} is checked under its holder"
                    self.checking[session.id] = session
                case GiveUpPlace(session):
                    self.given_up[session.id] = self.closing.pop(session.id)
                case _:
                    pass

    def _ended(self, request: Request, fate: str) -> None:
        assert request.id not in self.fate, f"{request} was {self.fate[request.id]} and then {fate}"
        self.fate[request.id] = fate

    # ── callers ────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(
        self,
        platform: str = "shop",
        *,
        tenant: str = "default",
        priority: int = 0,
        timeout: float = 30.0,
        lease_seconds: float = 300.0,
        settle: bool = True,
        identity: str | None = None,
        proxy: str | None = None,
        wants: str = "",
    ) -> Request:
        """Ask for a session; `settle=False` leaves the step to a later event."""
        request = a_request(
            platform,
            tenant=tenant,
            owned=tenant in self.rules.owning_tenants,
            priority=priority,
            at=self.now,
            timeout=timeout,
            lease_seconds=lease_seconds,
            number=next(self._ids),
            identity=identity,
            proxy=proxy,
            wants=wants,
        )
        self.board.request(request)
        self.settle(settle)
        return request

    def settle(self, really: bool = True) -> None:
        if really:
            self.loop.settle()

    def withdraw(self, request: Request) -> None:
        if request.waiting:
            self._ended(request, "withdrawn")
        self.board.withdraw(request)

    def release(
        self, session: Session, *, keep: bool = True, check: bool = False, success: bool | None = True
    ) -> bool:
        """Give a session back as its holder would."""
        _, use = self.lent.pop(session.id)
        return self.board.released(session, use, keep=keep, reason="dirty", check=check, success=success)

    # ── what the pool learns from providers ────────────────────────────────────────────────────────────────────────

    def ready(self, session: Session | None = None) -> Session:
        """A creation (the oldest unless told) succeeds."""
        made = session or next(iter(self.creating.values()))
        del self.creating[made.id]
        self.board.ready(made)
        return made

    def failed(
        self, session: Session | None = None, *, wait: float = 5.0, kind: Kind = "failure"
    ) -> Request | None:
        made = session or next(iter(self.creating.values()))
        del self.creating[made.id]
        self.closing.pop(made.id, None)
        setback = Setback(kind=kind, base=wait, longest=wait)
        return self.board.failed(made, blame="a test", setback=setback, counts=True)

    def denied(
        self,
        session: Session | None = None,
        *,
        wait: float = 60.0,
        effect: Effect = "wait",
        fits: frozenset[str] = frozenset(),
    ) -> Request | None:
        made = session or next(iter(self.creating.values()))
        del self.creating[made.id]
        self.closing.pop(made.id, None)
        return self.board.denied(made, until=self.now + wait, why="a budget", effect=effect, fits=fits)

    def checked(self, session: Session | None = None, *, ok: bool = True) -> Session:
        """A check (the oldest unless told) ends."""
        seen = session or next(iter(self.checking.values()))
        self.checking.pop(seen.id, None)
        self.board.checked(seen, ok=ok)
        return seen

    def closed(self, session: Session | None = None) -> Session:
        """An end (the oldest unless told) is confirmed."""
        gone = session or next(iter(self.closing.values()))
        self.closing.pop(gone.id, None)
        self.given_up.pop(gone.id, None)
        self.board.closed(gone)
        return gone

    def pass_time(self, seconds: float) -> None:
        self.loop.run_until(self.now + seconds)

    def states(self) -> str:
        """Tell the state of all sessions in one line, as stories like it."""
        return " ".join(f"{s.id}:{s.state}" for s in self.view.sessions.values())

    def idle_ids(self) -> list[str]:
        return [s.id for s in self.view.sessions.values() if s.state is State.IDLE]
