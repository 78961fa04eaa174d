"""Divides what a session cost among those who used it; what nobody used is idle. Pure.

A lease bears what the meter added while it ran, so who starts a billed minute pays for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tabkeeper.ledger.rates import RateCard, accrued
from tabkeeper.money import ZERO, Money


def divide(
    card: RateCard, cost: Money, seconds: float, ages: Sequence[tuple[float, float]]
) -> tuple[list[Money], Money]:
    """Return the share of each lease, and the idle part; together they are exactly `cost`.

    Args:
        card: the session's price list.
        cost: the final bill.
        seconds: the session's life.
        ages: for each lease the session's age in seconds at its start and end, in order of use.
    """
    if not cost:
        return [ZERO] * len(ages), ZERO
    weights: list[int] = []
    before = 0.0
    at_birth = accrued(card, 0).nanos
    for start, end in ages:
        start_age = min(max(start, before), seconds)
        end_age = min(max(end, start_age), seconds)
        before = end_age
        weight = accrued(card, end_age).nanos - accrued(card, start_age).nanos
        weights.append(weight + (0 if weights else at_birth))
    idle = accrued(card, seconds).nanos - sum(weights)
    assert idle >= 0, "the meter never runs backwards"
    weights.append(idle)
    if sum(weights) == 0:
        # The bill is all traffic or the like: whoever had the session at all shares it alike.
        weights = [1] * len(ages) + [0 if ages else 1]
    *shares, idle_part = cost.split(weights)
    return shares, idle_part
