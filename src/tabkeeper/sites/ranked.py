"""Who goes where if everybody stands in one order and the places in another: a first guess for `flow`. Pure.

Where workers differ by one price alone, the dearest of them does the lightest work, so that only the choice of the
places is left to find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import add


def columns(
    weights: Sequence[int], places: Sequence[Sequence[int]], gates: Sequence[int], rooms: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Return the places in order of their stalls' weights, as (stall, place); of a gate no more than it has room for.

    Args:
        weights: by stall.
        places: by stall.
        gates: by stall, the one that it is behind; 0 if none.
        rooms: by gate.
    """
    found: list[tuple[int, int]] = []
    behind: dict[int, list[tuple[int, int]]] = {}
    for stall, (gate, here) in enumerate(zip(gates, places, strict=True)):
        (behind.setdefault(gate, []) if gate else found).extend((place, stall) for place in here)
    for gate, shared in behind.items():
        found.extend(sorted(shared)[: rooms[gate]])
    return [
        (stall, place) for place, stall in sorted(found, key=lambda one: (weights[one[1]], one[1], one[0]))
    ]


def in_order(rows: Sequence[Sequence[int]], where: Sequence[tuple[int, int]]) -> list[int]:
    """Return a stall for each worker, such that no cheaper choice keeps both orders.

    Args:
        rows: by worker, what each stall costs.
        where: the places, no fewer than workers.
    """
    stalls = [stall for stall, _ in where]
    places = [place for _, place in where]
    spare = len(where) - len(rows) + 1
    best = [0] * spare
    steps = []
    for i, row in enumerate(rows):
        costs = map(add, map(row.__getitem__, stalls[i : i + spare]), places[i : i + spare])
        best = list(accumulate(map(add, best, costs), min))
        steps.append(best)
    chosen = []
    k = spare - 1
    for i in range(len(rows) - 1, -1, -1):
        # The first that is as good was the one taken.
        while k and steps[i][k - 1] == steps[i][k]:
            k -= 1
        chosen.append(stalls[i + k])
    return chosen[::-1]
