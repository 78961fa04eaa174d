"""What one decision costs with 10 to 10,000 sessions and as many waiters, on four platforms.

Beside the time it counts the calls Python makes for a decision, which no machine and no neighbour changes: a hidden
scan over sessions or waiters shows there. `grows_by` is the cost at 10,000 as a multiple of that at 100.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from statistics import median
from typing import Any

from tabkeeper.pool.model import (
    Close,
    Create,
    Grant,
    Lane,
    PlatformRules,
    Request,
    Rules,
    Session,
    State,
)
from tabkeeper.pool.plan import plan
from tabkeeper.pool.view import View

SIZES = (10, 100, 1_000, 10_000)
PLATFORMS = ("shop", "mail", "maps", "news")
ROUNDS = 200
MOST_GROWTH = 4.0

Decision = Callable[[], object]
"""An event and the plan that follows it."""


class Floor:
    """A view at a size, and the events of a pool on it; time moves a millisecond per event."""

    def __init__(self, places: int, *, tenant_limits: dict[str, int] | None = None, lanes: int = 0) -> None:
        owners = [f"owner{n}" for n in range(lanes)]
        platform = PlatformRules(
            providers=("hosted", "local"),
            max_sessions=places,
            session_ttl=1e6,
            idle_timeout=1e6,
            lease_timeout=1e6,
            max_uses=1_000_000_000,
            create_attempts=3,
            retry_base=1.0,
            retry_max=30.0,
        )
        self.rules = Rules(
            max_sessions=places + (1 if lanes else 0),
            max_queued=1_000_000,
            aging=10.0,
            close_timeout=10.0,
            leak_after=1e6,
            platforms=dict.fromkeys(PLATFORMS, platform),
            provider_limits={"hosted": places, "local": 0 if lanes else places},
            owning_tenants=frozenset(owners),
            tenant_limits=tenant_limits or {},
        )
        numbers = count(1)
        self.view = View(self.rules, lambda: f"s{next(numbers)}")
        self.now = 0.0
        self._arrivals = count(1)
        self.leased: list[Session] = []

    def ask(self, platform: str, tenant: str = "default", priority: int = 0) -> Request:
        self.now += 0.001
        owner = tenant if tenant in self.rules.owning_tenants else None
        request = Request(
            id=next(self._arrivals),
            lane=Lane(platform, owner),
            tenant=tenant,
            priority=priority,
            arrived_at=self.now,
            deadline=1e9,
            lease_seconds=1e6,
        )
        self.view.add_request(request)
        return request

    def decide(self) -> list[Any]:
        self.now += 0.001
        return plan(self.view, self.now)

    def move(self, session: Session, state: State) -> None:
        self.now += 0.001
        self.view.move(session, state, self.now)

    def fill(self, number: int, platforms: tuple[str, ...] = PLATFORMS) -> list[Session]:
        """Lease `number` sessions."""
        for n in range(number):
            self.ask(platforms[n % len(platforms)])
        made = [action.session for action in self.decide() if isinstance(action, Create)]
        for session in made:
            self.move(session, State.IDLE)
        self.decide()
        assert all(session.state is State.LEASED for session in made)
        assert len(made) == number
        return made


def warm_lease(size: int) -> Iterator[Decision]:
    """A caller takes an idle session and gives it back, beside `size` idle ones."""
    floor = Floor(size)
    for session in floor.fill(size):
        floor.move(session, State.IDLE)
    floor.decide()

    def step() -> None:
        request = floor.ask("shop")
        (grant,) = floor.decide()
        assert grant.request is request
        floor.move(grant.session, State.IDLE)
        floor.decide()

    while True:
        yield step


def busy(size: int) -> Iterator[Decision]:
    """Everything is leased and `size` wait: a session comes back, the next waiter gets it, another caller comes."""
    floor = Floor(size)
    leased = deque(floor.fill(size))
    for n in range(size):
        floor.ask(PLATFORMS[n % 4], priority=n % 7)
    floor.decide()
    turn = count()

    def step() -> None:
        session = leased.popleft()
        floor.ask(session.lane.platform, priority=next(turn) % 7)
        floor.move(session, State.IDLE)
        while actions := floor.decide():
            for (
                action
            ) in actions:  # now and then a caller of another platform is a step ahead and takes the place
                match action:
                    case Grant():
                        leased.append(action.session)
                    case Close():
                        floor.move(action.session, State.CLOSED)
                    case Create():
                        floor.move(action.session, State.IDLE)

    while True:
        yield step


def eviction(size: int) -> Iterator[Decision]:
    """The pool is full of idle sessions of three platforms; a caller of the fourth takes the place of one."""
    floor = Floor(size)
    for session in floor.fill(size, PLATFORMS[1:]):
        floor.move(session, State.IDLE)
    floor.decide()
    turn = count()

    def step() -> None:
        floor.ask(PLATFORMS[next(turn) % 4], priority=9)
        for _ in range(4):
            for action in floor.decide():
                if isinstance(action, Close):
                    floor.move(action.session, State.CLOSED)
                elif isinstance(action, Create):
                    floor.move(action.session, State.IDLE)

    while True:
        yield step


def failing(size: int) -> Iterator[Decision]:
    """`size` callers wait for as many creations; one fails and is begun again."""
    floor = Floor(size)
    for n in range(2 * size):
        floor.ask(PLATFORMS[n % 4])
    creating = [action.session for action in floor.decide()]
    turn = count()

    def step() -> None:
        place = next(turn) % size
        floor.move(creating[place], State.CLOSED)
        (action,) = floor.decide()
        creating[place] = action.session

    while True:
        yield step


def impatient(size: int) -> Iterator[Decision]:
    """Everything is leased and `size` wait; a waiter leaves and another comes."""
    floor = Floor(size)
    floor.fill(size)
    waiting = [floor.ask(PLATFORMS[n % 4], tenant=f"t{n % 10}") for n in range(size)]
    floor.decide()
    turn = count()

    def step() -> None:
        place = next(turn) * 7 % size
        floor.view.remove_request(waiting[place])
        waiting[place] = floor.ask(PLATFORMS[place % 4], tenant=f"t{place % 10}")
        floor.decide()

    while True:
        yield step


def tenant_limits(size: int) -> Iterator[Decision]:
    """Like `busy`, but half of the waiters belong to a tenant that is at its limit."""
    floor = Floor(size, tenant_limits={"greedy": 1})
    leased = floor.fill(size - 1)
    floor.ask("shop", tenant="greedy")
    (create,) = floor.decide()
    floor.move(create.session, State.IDLE)
    floor.decide()
    for n in range(size):
        floor.ask(PLATFORMS[n % 4], tenant="greedy" if n % 2 else "default")
    floor.decide()
    turn = count()

    def step() -> None:
        session = leased[next(turn) % len(leased)]
        floor.move(session, State.IDLE)
        floor.ask(session.lane.platform)
        assert floor.decide()

    while True:
        yield step


def blocked_lanes(size: int) -> Iterator[Decision]:
    """`size / 10` tenants with sessions of their own wait, and their only provider is full; the pool is not."""
    lanes = max(1, size // 10)
    floor = Floor(size, lanes=lanes)
    leased = floor.fill(size)
    for n in range(lanes):
        floor.ask(PLATFORMS[n % 4], tenant=f"owner{n}", priority=-5)
    floor.decide()
    turn = count()

    def step() -> None:
        session = leased[next(turn) % size]
        floor.ask(session.lane.platform, priority=5)
        floor.move(session, State.IDLE)
        assert floor.decide()

    while True:
        yield step


STEADY: dict[str, Callable[[int], Iterator[Decision]]] = {
    "warm lease and release": warm_lease,
    "busy: release, grant, next caller": busy,
    "evict, create, grant": eviction,
    "creation fails, begun again": failing,
    "a waiter leaves, another comes": impatient,
    "busy, a tenant at its limit": tenant_limits,
}
LINEAR: dict[str, Callable[[int], Iterator[Decision]]] = {"blocked lanes of one provider": blocked_lanes}
"""Grows with the number of lanes that wait and cannot be helped; measured, not judged."""


def calls_of(step: Decision) -> int:
    """Count the calls, of Python functions and of C ones, that a decision makes."""
    calls = 0

    def note(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
    return calls


def measure(
    scenario: Callable[[int], Iterator[Decision]], size: int, rounds: int = ROUNDS
) -> tuple[float, float]:
    """Median microseconds and mean calls of one decision."""
    steps = scenario(size)
    for _ in range(20):
        next(steps)()
    times = []
    for _ in range(rounds):
        step = next(steps)
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    calls = sum(calls_of(next(steps)) for _ in range(rounds)) / rounds
    return median(times) * 1e6, calls


def burst(size: int) -> float:
    """Microseconds per caller when `size` come at once: asked, created and granted in two plans."""
    began = time.perf_counter()
    Floor(size).fill(size)
    return (time.perf_counter() - began) / size * 1e6


def run() -> dict[str, Any]:
    """Measure everything; the keys are scenarios, then sizes."""
    figures: dict[str, Any] = {}
    for name, scenario in (STEADY | LINEAR).items():
        at = {size: measure(scenario, size) for size in SIZES}
        figures[name] = {
            "us": {str(size): round(us, 1) for size, (us, _) in at.items()},
            "calls": {str(size): round(calls) for size, (_, calls) in at.items()},
            "grows_by": {
                "time": round(at[10_000][0] / at[100][0], 2),
                "calls": round(at[10_000][1] / at[100][1], 2),
            },
        }
    per_caller = {size: burst(size) for size in SIZES}
    figures["burst, per caller"] = {
        "us": {str(size): round(us, 1) for size, us in per_caller.items()},
        "grows_by": {"time": round(per_caller[10_000] / per_caller[100], 2)},
    }
    return figures


def grew_too_much(figures: dict[str, Any]) -> dict[str, float]:
    """Scenarios whose calls at 10,000 are more than `MOST_GROWTH` times those at 100."""
    return {
        name: figures[name]["grows_by"]["calls"]
        for name in STEADY
        if figures[name]["grows_by"]["calls"] > MOST_GROWTH
    }


if __name__ == "__main__":
    result = run()
    for title, row in result.items():
        print(f"{title:34}", *(f"{kind} {values}" for kind, values in row.items()), sep="\n    ")
    bad = grew_too_much(result)
    print(f"grows too much: {bad}" if bad else f"no decision grows more than {MOST_GROWTH:g}-fold")
    sys.exit(1 if bad else 0)
