"""The rules that are compared: the pool's own settings, and two textbook rules put in the keeper's place."""

from __future__ import annotations

from statistics import fmean

from benchmarks.policy.replay import Rule
from tabkeeper.clock import Instant
from tabkeeper.pool.keep import MARGIN, Keeper
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import Session, Verdict

OURS = "by value (ours)"
ONE_PER_TASK = "one per task"


class _Textbook(Keeper):
    def hold(self, session: Session, meter: Meter, age: float) -> float:
        raise NotImplementedError

    def decide(self, session: Session, now: Instant) -> Verdict:
        age = now - session.created_at
        hold = self.hold(session, self._meters[session.provider], age)
        level = self.gaps.level(session.lane)
        return Verdict(rule="fixed", decided_at=now, until=now + max(0.0, hold), level=level, age=age)


class BreakEven(_Textbook):
    """Waits until waiting has cost as much as a new session would, its time for the task aside."""

    def hold(self, session: Session, meter: Meter, age: float) -> float:
        durations = self.gaps.durations(session.lane)
        fresh = meter.mean_bill(self._setup.get(session.provider, 0.0), durations)
        return (fresh - meter.rate * fmean(durations)) / meter.rate


class PaidTime(_Textbook):
    """Waits while time is paid for already, and no longer."""

    def hold(self, session: Session, meter: Meter, age: float) -> float:
        return meter.paid_until(age) - age - MARGIN


RULES = (
    Rule(ONE_PER_TASK, keep="never"),
    *(Rule(f"{minutes} min", keep="fixed", idle_timeout=60.0 * minutes) for minutes in (1, 5, 10, 30)),
    Rule("keep all, LRU", keep="always", eviction="lru", capacity=1.25),
    Rule("break-even", needs_prices=True, make=BreakEven),
    Rule("paid time", needs_prices=True, make=PaidTime),
    Rule(OURS, needs_prices=True),
)

READY = tuple(
    Rule(f"{cents} a cold start, {how}", needs_prices=True, cold_start=dollars, prewarm=prewarm)
    for cents, dollars in (("0.5 ¢", 0.005), ("1 ¢", 0.01), ("2 ¢", 0.02), ("5 ¢", 0.05))
    for how, prewarm in (("kept longer", False), ("and prewarmed", True))
)
"""Ours where a task that finds a session ready is worth something."""
