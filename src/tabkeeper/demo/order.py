"""Was the queue fair? Checks, from the usage log, that of two waiting requests the better one was served first.

A pure look at what happened: it knows neither the queue nor its heaps, only the rule. Of requests for one platform
the better is that with the smaller step, `arrival // aging - priority`; within a step and a tenant the earlier.
(Between tenants of one step turns decide, and between platforms their limits; those pairs are not compared.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

CLOSE = 0.05
"""Seconds. The log's instants are read from the wall clock one after the other; what lies closer is not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One request that got a lease; instants in seconds of the clock by which the pool counts steps."""

    id: str
    platform: str
    tenant: str
    priority: int
    requested: float
    granted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderProof:
    """What the check found."""

    compared: int
    """Pairs that waited at the same time and of which one was better."""
    by_priority: int
    """Those of them where the one served first had come later, so that only its priority explains it."""
    too_close: int
    """Pairs left out because their instants lie too close together to tell."""
    violations: tuple[tuple[str, str], ...]
    """Pairs (served first, waited although it was better)."""


def check_order(log: Sequence[Served], *, aging: float) -> OrderProof:
    """Compare every grant with every request for the same platform that was waiting at that moment.

    Args:
        log: all requests that were granted.
        aging: `pool.aging` in seconds.
    """
    compared = by_priority = too_close = 0
    violations: list[tuple[str, str]] = []
    ordered = sorted(log, key=lambda row: (row.platform, row.granted))
    for _, lane in groupby(ordered, key=lambda row: row.platform):
        rows = list(lane)
        for place, first in enumerate(rows):
            for later in rows[place + 1 :]:
                if later.requested >= first.granted:
                    continue  # it came when the other was served already
                verdict = _better(first, later, aging)
                if verdict == 0:
                    continue
                moments = (later.requested, first.granted, later.granted)
                if verdict is None or moments[1] - moments[0] < CLOSE or moments[2] - moments[1] < CLOSE:
                    too_close += 1
                    continue
                compared += 1
                by_priority += verdict < 0 and first.requested > later.requested
                if verdict > 0:
                    violations.append((first.id, later.id))
    return OrderProof(
        compared=compared, by_priority=by_priority, too_close=too_close, violations=tuple(violations)
    )


def _better(first: Served, later: Served, aging: float) -> int | None:
    """Return -1 if `first` is the better one, 1 if `later` is, 0 if the rule is silent, None if too close to tell."""
    if any(_near_a_step(row.requested, aging) for row in (first, later)):
        return None
    steps = [int(row.requested // aging) - row.priority for row in (first, later)]
    if steps[0] != steps[1]:
        return -1 if steps[0] < steps[1] else 1
    if first.tenant != later.tenant:
        return 0
    if abs(first.requested - later.requested) < CLOSE:
        return None
    return -1 if first.requested < later.requested else 1


def _near_a_step(instant: float, aging: float) -> bool:
    into = instant % aging
    return min(into, aging - into) < CLOSE
