"""The demo's proof of order must see a wrong order: each kind is tried here, beside right ones."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tabkeeper.demo.order import OrderProof, Served, check_order

AGING = 10.0


def served(
    name: str,
    *,
    requested: float,
    granted: float,
    priority: int = 0,
    platform: str = "shop",
    tenant: str = "acme",
) -> Served:
    return Served(
        id=name, platform=platform, tenant=tenant, priority=priority, requested=requested, granted=granted
    )


def check(*log: Served) -> OrderProof:
    return check_order(log, aging=AGING)


def test_higher_priority_first_is_right_and_counted_as_due_to_priority():
    proof = check(
        served("early", requested=1, granted=9), served("urgent", requested=2, granted=5, priority=3)
    )
    assert proof == OrderProof(compared=1, by_priority=1, too_close=0, violations=())


def test_lower_priority_first_is_a_violation():
    proof = check(
        served("urgent", requested=1, granted=9, priority=3), served("plain", requested=2, granted=5)
    )
    assert proof.violations == (("plain", "urgent"),)


def test_of_equals_the_later_one_first_is_a_violation():
    proof = check(served("first", requested=1, granted=9), served("second", requested=2, granted=5))
    assert proof.violations == (("second", "first"),)


def test_of_equals_of_two_tenants_turns_decide_so_nothing_is_compared():
    proof = check(
        served("first", requested=1, granted=9), served("second", requested=2, granted=5, tenant="globex")
    )
    assert proof == OrderProof(compared=0, by_priority=0, too_close=0, violations=())


def test_who_came_when_the_other_was_served_already_is_not_compared():
    proof = check(
        served("plain", requested=1, granted=3), served("urgent", requested=4, granted=5, priority=9)
    )
    assert proof.compared == 0
    assert not proof.violations


def test_platforms_are_not_compared_with_each_other():
    proof = check(
        served("plain", requested=1, granted=5, platform="news"),
        served("urgent", requested=2, granted=9, priority=9),
    )
    assert proof.compared == 0


def test_long_waiting_beats_a_step_of_priority():
    patient = served("patient", requested=1, granted=35)
    proof = check(patient, served("newcomer", requested=31, granted=40, priority=2))
    assert proof.compared == 1
    assert not proof.violations
    overtaken = check(replace(patient, granted=41), served("newcomer", requested=31, granted=35, priority=2))
    assert overtaken.violations == (("newcomer", "patient"),)


def test_what_lies_too_close_together_is_left_out_and_said():
    proof = check(
        served("urgent", requested=1.0, granted=9, priority=3), served("plain", requested=0.5, granted=1.01)
    )
    assert proof == OrderProof(compared=0, by_priority=0, too_close=1, violations=())
    on_a_step = check(served("early", requested=9.99, granted=15), served("late", requested=12, granted=14))
    assert on_a_step.too_close == 1


def simulate(seed: int, *, by_priority: bool) -> list[Served]:
    """Serve 60 requests one after the other, by the rule or (the control) in order of arrival."""
    chance = Random(seed)
    waiting = [
        served(str(i), requested=chance.uniform(0, 20), granted=0, priority=chance.choice([0, 0, 1, 5]))
        for i in range(60)
    ]
    log, now = [], 0.5
    while waiting:
        now += 0.4
        here = [r for r in waiting if r.requested < now]
        if not here:
            continue
        best = min(
            here,
            key=lambda r: (r.requested // AGING - r.priority if by_priority else 0, r.requested),
        )
        waiting.remove(best)
        log.append(replace(best, granted=now))
    return log


@pytest.mark.parametrize("seed", range(5))
def test_a_queue_by_the_rule_has_no_violation_and_one_by_arrival_alone_has_many(seed: int):
    right = check_order(simulate(seed, by_priority=True), aging=AGING)
    assert right.compared > 100
    assert right.by_priority > 20
    assert not right.violations
    control = check_order(simulate(seed, by_priority=False), aging=AGING)
    assert len(control.violations) > 20
