"""The arrival traces: where they lie, how they are read, thinned and made up, and what the best possible would cost."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from typing import NamedTuple

HERE = Path(__file__).parent / "traces"


class Task(NamedTuple):
    """Somebody needs a session of `key` from `at` on for `seconds`."""

    at: float
    key: str
    seconds: float


def read(path: Path) -> list[Task]:
    """Read a CSV with the columns arrival_s, key, duration_s; may be compressed (.gz)."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        tasks = [Task(float(r["arrival_s"]), r["key"], float(r["duration_s"])) for r in rows]
    return sorted(tasks, key=lambda task: task.at)


def bursts(seed: int = 1, keys: int = 40, hours: float = 8.0) -> list[Task]:
    """Make an adverse trace: memoryless bursts of memoryless arrivals, so that the past tells little."""
    chance = Random(seed)
    tasks = []
    for key in range(keys):
        at, end = 0.0, hours * 3600
        pace = 20.0 * (key + 1) ** 0.7
        while at < end:
            at += chance.expovariate(1 / (30 * pace))  # silence
            stop = at + chance.expovariate(1 / (10 * pace))
            while at < min(stop, end):
                tasks.append(Task(round(at, 1), str(key), round(0.5 + chance.expovariate(1 / 60), 1)))
                at += chance.expovariate(1 / pace)
    return sorted(tasks)


def peak_demand(tasks: Sequence[Task]) -> int:
    """Most tasks that run at once."""
    running: list[float] = []
    peak = 0
    for task in tasks:
        while running and running[0] <= task.at:
            heappop(running)
        heappush(running, task.at + task.seconds)
        peak = max(peak, len(running))
    return peak


class Best(NamedTuple):
    """What no rule can beat."""

    dollars: float
    exact: bool
    reuse: float | None


def optimum(tasks: Sequence[Task], overhead: float, per_second: float) -> Best:
    """The clairvoyant optimum where every second has one price: level by level, each gap is waited out or not."""
    ends: dict[str, list[float]] = defaultdict(list)
    vacated: dict[str, list[float]] = defaultdict(list)
    dollars, created = 0.0, 0
    for task in tasks:
        running, free = ends[task.key], vacated[task.key]
        while running and running[0] <= task.at:
            free.append(heappop(running))
        dollars += per_second * task.seconds
        # The level needed next is the one vacated last.
        waited = per_second * (task.at - free.pop()) if free else float("inf")
        created += waited >= overhead
        dollars += min(waited, overhead)
        heappush(running, task.at + task.seconds)
    return Best(dollars, exact=True, reuse=1 - created / len(tasks))


def hindsight(tasks: Sequence[Task], overhead: float, per_second: float) -> float:
    """Dollars of the best waiting time for each key and level, chosen by somebody who has seen all gaps.

    No rule that waits for a fixed time in each such place can be cheaper, however well it learns; the more gaps a place
    has, the nearer a rule that learns can come.
    """
    ends: dict[str, list[float]] = defaultdict(list)
    vacated: dict[str, list[float]] = defaultdict(list)
    gaps: dict[tuple[str, int], list[float]] = defaultdict(list)
    dollars = 0.0
    for task in tasks:
        running, free = ends[task.key], vacated[task.key]
        while running and running[0] <= task.at:
            free.append(heappop(running))
        dollars += per_second * task.seconds
        if free:
            gaps[task.key, min(len(running), 2)].append(task.at - free.pop())
        else:
            dollars += overhead
        heappush(running, task.at + task.seconds)
    for of_place in gaps.values():
        of_place.sort()
        waited, best = 0.0, overhead * len(of_place)
        for number, gap in enumerate(of_place, start=1):
            waited += gap
            longer = len(of_place) - number
            best = min(best, per_second * (waited + gap * longer) + overhead * longer)
        dollars += best
    return dollars


OPTIMUM_AT_PEAK = {"azure8h": 32.356139}
"""Dollars of the optimum on the fee's list with places for the peak of demand only: which gaps are waited out is a
linear program then, whose answer is whole. (Without that limit the same program gives what `optimum` gives.)"""

_WHOLE = {"azure8h": 8_810, "lcg11d": 127_489, "ipsc92d": 17_095}


def bounds(trace: str, tasks: int) -> dict[str, tuple[float, str]]:
    """What no rule can beat on this whole trace, by card: dollars, and whether "exact" or "LB"; see the README."""
    if _WHOLE.get(trace) != tasks:
        return {}
    known = json.loads((HERE / "bounds.json").read_text(encoding="utf-8"))
    return {key.split("|")[1]: (v[0], v[1]) for key, v in known.items() if key.split("|")[0] == trace}
