"""What keeping by value saves on traffic of the past: the planner and the keeper on a trace, a meter of the test's own.

`TABKEEPER_PROOF=1` replays the whole trace on every rate card, and holds the goals for it.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the benchmarks are no package that is installed
try:
    from benchmarks.policy.bench import best_of, play
    from benchmarks.policy.cards import CASES
    from benchmarks.policy.replay import Outcome, Rule
    from benchmarks.policy.rules import ONE_PER_TASK, OURS, RULES
    from benchmarks.policy.traces import HERE, Task, bounds, bursts, hindsight, optimum, read
finally:
    sys.path.pop(0)

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
FEE = "fee.01+.05/h"
MINUTE = ".10/h permin"
BY_NAME: dict[str, Rule] = {rule.name: rule for rule in RULES}
FIXED = [rule.name for rule in RULES if rule.keep == "fixed"]


@cache
def trace() -> tuple[Task, ...]:
    return tuple(read(HERE / "azure8h.csv.gz")[: None if PROOF else 1500])


@cache
def outcome(rule: str, card: str) -> Outcome:
    return play(trace(), BY_NAME[rule], CASES[card])


def cost(rule: str, card: str) -> float:
    # Rules that know no prices do the same whatever the card.
    return outcome(rule, card if BY_NAME[rule].needs_prices else FEE).cost(CASES[card])


@pytest.mark.parametrize("card", list(CASES) if PROOF else [FEE, MINUTE])
def test_keeping_by_value_never_costs_noticeably_more_than_a_session_for_each_task(card: str) -> None:
    assert cost(OURS, card) <= 1.01 * cost(ONE_PER_TASK, card)


@pytest.mark.parametrize("card", list(CASES) if PROOF else [FEE, MINUTE])
def test_keeping_by_value_beats_every_fixed_time(card: str) -> None:
    assert cost(OURS, card) <= 1.01 * min(cost(rule, card) for rule in FIXED)


def test_where_creating_costs_a_fee_it_beats_every_other_rule_outright() -> None:
    assert cost(OURS, FEE) < min(cost(rule.name, FEE) for rule in RULES if rule.name != OURS)


def test_no_rule_is_cheaper_than_the_optimum() -> None:
    best = best_of("azure8h", trace(), CASES[FEE])
    assert best is not None
    for rule in RULES:
        assert cost(rule.name, FEE) >= best.dollars, rule.name
    assert best.reuse is not None
    assert outcome(OURS, FEE).reuse >= best.reuse - 0.05


def test_traffic_that_teaches_nothing_costs_little_more_than_the_best_fixed_time() -> None:
    tasks = bursts(hours=8 if PROOF else 4)
    case = CASES[FEE]
    ours, *fixed = (play(tasks, BY_NAME[name], case).cost(case) for name in (OURS, "5 min", "10 min"))
    assert ours <= 1.05 * min(fixed)
    assert ours <= play(tasks, BY_NAME[ONE_PER_TASK], case).cost(case)


@pytest.mark.skipif(not PROOF, reason="a proof: it replays a day")
def test_of_a_whole_day_of_it_enough_is_learnt_to_beat_every_fixed_time() -> None:
    tasks = bursts(hours=24)
    case = CASES[FEE]
    ours, *fixed = (play(tasks, BY_NAME[name], case).cost(case) for name in (OURS, *FIXED))
    assert ours < min(fixed)


def test_the_best_times_in_hindsight_lie_between_the_optimum_and_every_rule_that_waits() -> None:
    case = CASES[FEE]
    assert case.overhead is not None
    known = hindsight(trace(), case.overhead, case.per_second)
    best = optimum(trace(), case.overhead, case.per_second).dollars
    assert best < known <= min(cost(rule, FEE) for rule in (OURS, *FIXED))
    # By hand: gaps of 100, 100 and 1000 s at a cent a second, a new session 5 dollars: wait for 100 s.
    tasks = [Task(at, "a", 10.0) for at in (0.0, 110.0, 220.0, 1230.0)]
    assert hindsight(tasks, 5.0, 0.01) == pytest.approx(4 * 0.1 + 5 + 1 + 1 + 1 + 5)


@pytest.mark.parametrize(
    ("tasks", "dollars"),
    [
        # A gap of 60 s at $3.60 an hour is $0.06: dearer than a fee of five cents, cheaper than one of ten.
        ([Task(0.0, "a", 10.0), Task(70.0, "a", 10.0)], (0.12, 0.18)),
        # Two at once need two sessions; the one that is left last is the one that is needed next.
        ([Task(0.0, "a", 10.0), Task(0.0, "a", 20.0), Task(21.0, "a", 1.0)], (0.132, 0.232)),
        ([Task(0.0, "a", 10.0), Task(10.0, "b", 10.0)], (0.12, 0.22)),
    ],
)
def test_the_optimum_by_hand(tasks: list[Task], dollars: tuple[float, float]) -> None:
    found = [optimum(tasks, fee, 0.001).dollars for fee in (0.05, 0.10)]
    assert found == pytest.approx(dollars)


@pytest.mark.skipif(not PROOF, reason="the whole trace, in the long proofs")
def test_the_goals_on_the_whole_trace() -> None:
    best = optimum(trace(), 0.01, 0.05 / 3600)
    assert best.dollars == pytest.approx(bounds("azure8h", len(trace()))[FEE][0], abs=1e-5)
    ours = outcome(OURS, FEE)
    assert ours.cost(CASES[FEE]) <= 1.13 * best.dollars
    assert 1 - ours.cost(CASES[FEE]) / cost(ONE_PER_TASK, FEE) >= 0.64
    assert ours.reuse >= 0.86
    assert ours.seconds < 5
    for name, case in CASES.items():
        if case.setup == 0 and name != FEE:
            bound = best_of("azure8h", trace(), case)
            assert bound is not None
            assert cost(OURS, name) <= 1.10 * bound.dollars, name
