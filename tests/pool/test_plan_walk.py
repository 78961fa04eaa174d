"""Random walks over the planner, judged after every event against `reference.py`.

A state machine of Hypothesis finds and shrinks; plain seeded walks then cover ground. `TABKEEPER_PROOF=1` walks far.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from .walk import AHEAD, WALKED, Walk

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
SEEDS = 150 if PROOF else 4
STEPS = 400

numbers = st.integers(0, 255)
"""What an event is about; small, so that Hypothesis repeats itself and ties happen."""


class PoolLife(RuleBasedStateMachine):
    """One pool; every rule leaves its step booked, and `look` lets it run and judges."""

    walk: Walk

    @initialize(world=st.sampled_from(sorted(WALKED)))
    def open(self, world: str) -> None:
        self.walk = Walk(WALKED[world])

    @rule(number=numbers, priority=st.integers(-1, 3), look=st.booleans())
    def ask(self, number: int, priority: int, look: bool) -> None:
        self.walk.ask(number, priority)
        self._look(look)

    @rule(number=numbers, look=st.booleans())
    def withdraw(self, number: int, look: bool) -> None:
        self.walk.withdraw(number)
        self._look(look)

    @precondition(lambda self: self.walk.table.creating)
    @rule(number=numbers, how=st.integers(0, 7), look=st.booleans())
    def creation_ends(self, number: int, how: int, look: bool) -> None:
        self.walk.creation_ends(number, how)
        self._look(look)

    @precondition(lambda self: self.walk.table.lent)
    @rule(number=numbers, how=st.integers(0, 3), look=st.booleans())
    def release(self, number: int, how: int, look: bool) -> None:
        self.walk.release(number, how)
        self._look(look)

    @precondition(lambda self: self.walk.old_leases)
    @rule(number=numbers)
    def release_again(self, number: int) -> None:
        self.walk.release_late(number)

    @precondition(lambda self: self.walk.table.view.sessions)
    @rule(number=numbers, how=st.integers(0, 3), look=st.booleans())
    def goes_wrong(self, number: int, how: int, look: bool) -> None:
        self.walk.goes_wrong(number, how)
        self._look(look)

    @precondition(lambda self: self.walk.table.closing or self.walk.table.given_up)
    @rule(number=numbers, look=st.booleans())
    def closed(self, number: int, look: bool) -> None:
        self.walk.closed(number)
        self._look(look)

    @precondition(lambda self: self.walk.table.view.sessions)
    @rule(number=numbers, look=st.booleans())
    def doubted(self, number: int, look: bool) -> None:
        self.walk.doubted(number)
        self._look(look)

    @precondition(lambda self: self.walk.table.checking)
    @rule(number=numbers, how=st.integers(0, 2), look=st.booleans())
    def check_ends(self, number: int, how: int, look: bool) -> None:
        self.walk.check_ends(number, how)
        self._look(look)

    @rule(seconds=st.integers(1, 6))
    def time_passes(self, seconds: int) -> None:
        self.walk.pass_time(seconds)

    @rule(seconds=st.integers(1, 4))
    def the_loop_is_late(self, seconds: int) -> None:
        self.walk.slip(seconds)

    @rule()
    def money_freed(self) -> None:
        self.walk.money_freed()
        self._look(True)

    @precondition(lambda self: self.walk.steps > 30)
    @rule()
    def drain(self) -> None:
        self.walk.drain()
        self._look(True)

    def _look(self, really: bool) -> None:
        if really:
            self.walk.settle()

    def teardown(self) -> None:
        if hasattr(self, "walk"):
            self.walk.settle()


PoolLife.TestCase.settings = settings(
    max_examples=4000 if PROOF else 150,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestPoolLife = pytest.mark.timeout(3600)(PoolLife.TestCase)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("world", WALKED)
def test_what_must_hold_holds_after_every_event_of_a_random_walk(world: str):
    looks = ahead = 0
    for seed in range(SEEDS):
        walk = Walk(WALKED[world])
        try:
            walk.stroll(Random(f"{world} {seed}"), STEPS)
        except Exception as error:
            error.add_note(f"world {world!r}, seed {seed}, after {walk.steps} looks")
            raise
        looks += walk.steps
        ahead += walk.judge.ahead
    assert looks >= SEEDS * STEPS
    assert ahead >= SEEDS if world == AHEAD else not ahead
