"""Replays one trace under one rule: the real view, plan and keeper, a heap of events instead of a clock.

It counts by itself what it was given: when each session began and ended, how many there were. Creations are ready at
once and ends are confirmed at once, so that only the decisions differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from benchmarks.policy.cards import Case
from benchmarks.policy.traces import Task
from tabkeeper.pool.keep import Keeper
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import (
    Close,
    Create,
    Grant,
    KeepRule,
    Lane,
    PlatformRules,
    Request,
    Rules,
    Session,
    State,
)
from tabkeeper.pool.plan import plan, wake_at
from tabkeeper.pool.view import View

FOREVER = 1e12
PROVIDER = "metered"

MakeKeeper = Callable[[Rules, dict[str, Meter]], Keeper]


@dataclass(frozen=True)
class Rule:
    """One way to decide how long idle sessions are kept."""

    name: str
    keep: KeepRule = "value"
    idle_timeout: float = 0.0
    capacity: float | None = None
    """Places as a multiple of the trace's peak demand; None: no limit."""
    eviction: str = "value"
    needs_prices: bool = False
    """Whether what it does depends on the rate card."""
    make: MakeKeeper = Keeper
    cold_start: float = 0.0
    """What it is worth that a task finds a session ready, in dollars."""
    prewarm: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a replay did: the life of every session (seconds), and counts."""

    lives: tuple[float, ...]
    tasks: int
    peak: int
    cold: int = 0
    """Tasks for which a session was created when they came."""
    in_vain: int = 0
    """Sessions created before anybody asked, and never used."""
    seconds: float = 0.0

    @property
    def sessions(self) -> int:
        """Sessions created: the cold starts."""
        return len(self.lives)

    @property
    def reuse(self) -> float:
        """Share of tasks on a session that had served before, 0..1."""
        return 1 - (self.sessions - self.in_vain) / self.tasks

    @property
    def warm(self) -> float:
        """Share of tasks that found a session ready, 0..1."""
        return 1 - self.cold / self.tasks

    @property
    def mean_life(self) -> float:
        """Mean life of a session in seconds, billed setup aside."""
        return sum(self.lives) / self.sessions

    def cost(self, case: Case) -> float:
        """Dollars, by the independent meter."""
        return sum(map(case.bill, self.lives))


def rules_of(keys: Iterable[str], rule: Rule, places: int) -> Rules:
    """The planner's rules for a replay: one platform for each key, and no limit that the rule does not set."""
    platform = PlatformRules(
        providers=(PROVIDER,),
        max_sessions=places,
        session_ttl=FOREVER,
        idle_timeout=rule.idle_timeout,
        lease_timeout=FOREVER,
        max_uses=1_000_000_000,
        create_attempts=1,
        retry_base=1.0,
        retry_max=1.0,
        keep=rule.keep,
        cold_start=rule.cold_start * 1e9,
        prewarm=rule.prewarm,
    )
    return Rules(
        max_sessions=places,
        max_queued=1_000_000_000,
        aging=10.0,
        close_timeout=10.0,
        leak_after=FOREVER,
        platforms=dict.fromkeys(keys, platform),
        provider_limits={},
        eviction="lru" if rule.eviction == "lru" else "value",
    )


class Replay:
    """One run; `run` returns its outcome."""

    def __init__(self, tasks: list[Task], rule: Rule, case: Case, *, places: int | None = None) -> None:
        self._tasks = tasks
        self._setup = case.setup
        rules = rules_of({task.key for task in tasks}, rule, places or 1_000_000)
        numbers = count(1)
        keeper = rule.make(rules, {PROVIDER: Meter(case.card)})
        self._view = View(rules, lambda: f"s{next(numbers)}", keeper)
        self._ends: list[tuple[float, int, Session]] = []
        self._born: dict[str, float] = {}
        self._lives: list[float] = []
        self._durations: dict[int, float] = {}
        self._peak = self._cold = self._in_vain = 0

    def run(self) -> Outcome:
        """Play the trace to its end; what still idles then is closed."""
        view, ends = self._view, self._ends
        now = 0.0
        for number, (at, key, seconds) in enumerate(self._tasks):
            while True:
                due = min(ends[0][0] if ends else FOREVER, wake_at(view))
                if due > at:
                    break
                now = due
                self._until(now)
            now = at
            self._durations[number] = seconds
            view.add_request(
                Request(
                    id=number,
                    lane=Lane(key),
                    tenant="replay",
                    priority=0,
                    arrived_at=now,
                    deadline=FOREVER,
                    lease_seconds=FOREVER / 2,
                )
            )
            self._plan(now)
        while ends:
            now = min(ends[0][0], wake_at(view))
            self._until(now)
        assert not view.requests, "a task was never served"
        for session in list(view.sessions.values()):
            self._closed(session, max(now, self._tasks[-1].at))
        return Outcome(
            lives=tuple(self._lives),
            tasks=len(self._tasks),
            peak=self._peak,
            cold=self._cold,
            in_vain=self._in_vain,
        )

    def _until(self, now: float) -> None:
        ends, view = self._ends, self._view
        while ends and ends[0][0] <= now:
            view.move(heappop(ends)[2], State.IDLE, now)
        self._plan(now)

    def _plan(self, now: float) -> None:
        again = True
        while again:
            again = False
            for action in plan(self._view, now):
                match action:
                    case Create(session):
                        self._born[session.id] = now
                        self._peak = max(self._peak, len(self._view.sessions))
                        session.created_at = now - self._setup
                        self._view.move(session, State.IDLE, now)
                        again = True
                    case Grant(request, session, use):
                        self._cold += use == 1 and session.ahead is None
                        heappush(self._ends, (now + self._durations.pop(request.id), request.id, session))
                    case Close(session):
                        self._closed(session, now)
                        self._view.move(session, State.CLOSED, now)
                        again = True
                    case _:
                        raise AssertionError(f"the replay knows no {action}")

    def _closed(self, session: Session, now: float) -> None:
        self._lives.append(now - self._born.pop(session.id))
        self._in_vain += not session.uses
