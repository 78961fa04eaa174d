"""The demo's work list: when tasks arrive, for which platform, how long they take. Real traffic, time compressed.

The trace is calm at first, then comes a burst. It is compressed most in its middle, so that the burst makes a queue,
and least at its end, so that the queue is short when the money is gone. Arrivals, keys and lengths come from
`trace.csv`; its first lines say where that is from. Priorities and tenants, which the trace does not have, are
drawn with the demo's seed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from random import Random

KNOTS = ((0.0, 0.0), (0.25, 10.0), (0.7, 16.0), (1.0, 46.0))
"""(share of the tasks, seconds by which they have arrived); between two knots all gaps are shortened alike."""
LENGTH_FACTOR = 0.1
SHORTEST, LONGEST = 0.3, 2.4
"""A task's length is a tenth of the trace's, and in seconds between these two."""
PRIORITIES = (0, 0, 0, 0, 0, 0, 1, 1, 2, 5)
TENANTS = ("acme", "acme", "globex")
PLATFORMS = ("news", "shop", "portal")
"""A key of the trace belongs to the platform at key modulo 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work."""

    number: int
    """1 is the first to arrive."""
    arrives: float
    """Seconds after the start."""
    seconds: float
    """How long it looks at pages."""
    platform: str
    priority: int
    tenant: str


def rows() -> list[tuple[float, int, float]]:
    """Read the extract: seconds after its first task, key, duration in seconds."""
    text = files("tabkeeper.demo").joinpath("trace.csv").read_text(encoding="utf-8")
    lines = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return [(float(row["arrival_s"]), int(row["key"]), float(row["duration_s"])) for row in lines]


def make_tasks(count: int, seed: int) -> list[Task]:
    """Make the first `count` tasks; the same seed makes the same tasks.

    Raises:
        ValueError: the extract has fewer.
    """
    known = rows()
    if not 1 <= count <= len(known):
        raise ValueError(f"the demo has 1 to {len(known)} tasks, not {count}")
    chosen = known[:count]
    arrivals = _compress([arrival for arrival, _, _ in chosen])
    chance = Random(seed)  # noqa: S311 - no secret
    return [
        Task(
            number=number,
            arrives=arrivals[number - 1],
            seconds=min(max(duration * LENGTH_FACTOR, SHORTEST), LONGEST),
            platform=PLATFORMS[key % len(PLATFORMS)],
            priority=chance.choice(PRIORITIES),
            tenant=chance.choice(TENANTS),
        )
        for number, (_, key, duration) in enumerate(chosen, 1)
    ]


def _compress(arrivals: list[float]) -> list[float]:
    # A shorter or longer demo arrives at the rate of a full one, so that its queue is alike.
    scale = len(arrivals) / 60
    last = len(arrivals) - 1
    out = [0.0]
    for (share, seconds), (next_share, next_seconds) in pairwise(KNOTS):
        first, end = round(share * last), round(next_share * last)
        span = arrivals[end] - arrivals[first]
        out += [
            (seconds + (next_seconds - seconds) * (arrivals[i] - arrivals[first]) / (span or 1.0)) * scale
            for i in range(first + 1, end + 1)
        ]
    return out
