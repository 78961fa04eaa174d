"""What was to be reached, line by line, beside what was: read off the figures of one trace."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.policy.rules import ONE_PER_TASK, OURS

FEE = "fee.01+.05/h"
RATIO = {"azure8h": 1.13, "azure1d": 1.18, "lcg11d": 1.21, "ipsc92d": 1.25}
SAVING = {"azure8h": 0.64, "azure1d": 0.66}
"""Share of the price of one session for each task."""
OF_BEST = 0.50
"""Elsewhere: share of what the clairvoyant saves, to a whole percent."""
REUSE = {"azure8h": 0.86, "azure1d": 0.88}
CROWDED = 1.15
LOWER_BOUND = 1.10
NEVER_LOSE = 1.01


class Goal(NamedTuple):
    """One line: reached is at most `goal`, or at least, as `at_most` says."""

    what: str
    goal: float
    reached: float
    at_most: bool
    holds: bool


def _most(what: str, goal: float, reached: float) -> Goal:
    return Goal(what, goal, round(reached, 4), at_most=True, holds=reached <= goal)


def _least(what: str, goal: float, reached: float) -> Goal:
    return Goal(what, goal, round(reached, 4), at_most=False, holds=reached >= goal)


def goals_of(trace: str, cards: dict[str, Any], crowded: float | None) -> list[Goal]:
    """Return the goals of a trace; `crowded` is its ratio where there are no more places than tasks at once."""
    ours = cards[FEE]["rules"][OURS]
    best = cards[FEE]["best"]
    goals = []
    if trace in RATIO:
        goals.append(_most("fee: cost beside the optimum", RATIO[trace], ours["ratio"]))
    if trace in SAVING:
        goals += [
            _least("fee: saved of one per task", SAVING[trace], ours["saving"]),
            _least("fee: reuse", REUSE[trace], ours["reuse"]),
        ]
    else:
        share = round(ours["saving"] / best["saving"], 2)
        goals.append(_least("fee: share of what the optimum saves, to a percent", OF_BEST, share))
    five = cards[FEE]["rules"]["5 min"]["dollars"]
    goals.append(_most("fee: cost beside 5 min", 1.0, ours["dollars"] / five))
    if crowded is not None:
        goals.append(_most("fee, places for the peak only: cost beside the optimum", CROWDED, crowded))
    ratios, fixed, single = [], [], []
    for card, found in cards.items():
        rules = found["rules"]
        cost = rules[OURS]["dollars"]
        single.append(cost / rules[ONE_PER_TASK]["dollars"])
        if card.startswith("fee"):
            continue
        if found["best"] and not card.endswith(("s30", "s90")):
            ratios.append(rules[OURS]["ratio"])
        others = [row["dollars"] for name, row in rules.items() if name.endswith("min")]
        fixed.append(cost / min(rules[ONE_PER_TASK]["dollars"], *others))
    goals.append(_most("every list: cost beside one per task, the worst", NEVER_LOSE, max(single)))
    if ratios:
        goals.append(_most("lists by time: cost beside the bound, the worst", LOWER_BOUND, max(ratios)))
    if fixed:
        worst = max(fixed)
        goals.append(
            _most("lists by time: cost beside the best of one per task and fixed times", NEVER_LOSE, worst)
        )
    return goals
