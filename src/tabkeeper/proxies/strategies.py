"""Which proxy is next: one pure function for each strategy. Chance is handed in, so a seed repeats every choice."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, assert_never

Strategy = Literal["round_robin", "random", "weighted", "least_used", "fastest", "sticky", "cheapest"]

_LAST = Decimal("Infinity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What the strategies know of a proxy."""

    id: str
    weight: int = 1
    price: Decimal | None = None
    latency: float | None = None
    """Seconds; None if never measured."""
    in_use: int = 0
    """Sessions and session keys that have it now."""
    uses: int = 0
    """How often it was chosen."""
    chosen_at: int = 0
    """Number of the choice that fell on it last; 0 if none did."""


def choose(
    strategy: Strategy, candidates: Sequence[Candidate], *, chance: float = 0.0, key: str | None = None
) -> Candidate:
    """Return the next proxy. Equal input gives the same choice, in whatever order the candidates come.

    Args:
        strategy: how to choose.
        candidates: at least one.
        chance: from 0 up to, but not including, 1; only ``random`` and ``weighted`` look at it.
        key: only ``sticky`` looks at it.

    Raises:
        ValueError: ``sticky`` without a key.
    """
    assert candidates
    assert 0 <= chance < 1
    match strategy:
        case "round_robin":
            return min(candidates, key=_longest_ago)
        case "random":
            return sorted(candidates, key=lambda one: one.id)[int(chance * len(candidates))]
        case "weighted":
            return _weighted(sorted(candidates, key=lambda one: one.id), chance)
        case "least_used":
            return min(candidates, key=lambda one: (one.in_use, one.uses, *_longest_ago(one)))
        case "fastest":
            # One that nobody measured is tried first, or it never would be.
            return min(candidates, key=lambda one: (one.latency or 0.0, *_longest_ago(one)))
        case "cheapest":
            return min(candidates, key=lambda one: (_price(one), *_longest_ago(one)))
        case "sticky":
            if not key:
                raise ValueError('the strategy "sticky" needs a session key')
            return max(candidates, key=lambda one: (_affinity(key, one.id), one.id))
        case _:
            assert_never(strategy)


def _longest_ago(one: Candidate) -> tuple[int, str]:
    return one.chosen_at, one.id


def _price(one: Candidate) -> Decimal:
    return _LAST if one.price is None else one.price


def _weighted(candidates: Sequence[Candidate], chance: float) -> Candidate:
    point = chance * sum(one.weight for one in candidates)
    for one in candidates:
        point -= one.weight
        if point < 0:
            return one
    return candidates[-1]


def _affinity(key: str, proxy: str) -> bytes:
    """Rendezvous hashing: a key stays with its proxy while others come and go."""
    return hashlib.sha256(f"{len(key)}:{key}{proxy}".encode()).digest()
