"""What the pool has learnt of each lane's traffic: how long a place stays empty until it is needed again.

Level 0 is the need for a first session at once, level 1 for a second one, and so on. How long a level stays vacant
depends only on when callers come and how long they stay, never on what was kept; so every gap teaches, whatever
was decided. Everything is decayed and bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from tabkeeper.clock import Instant
from tabkeeper.pool.model import Lane

DECAY = 0.98
"""The weight of a gap falls to this with each later one of its histogram."""

LEVELS = 3
"""Levels told apart over all lanes; all higher ones count as the last of these."""

BANDS = 15
"""Bands of levels told apart within a lane: four levels alone, then two bands for each doubling; see `band_of`."""

PRIOR = 2.0
"""The wider experience counts as much as this many gaps."""

MOST_LANES = 10_000
"""Lanes remembered; the one known longest is forgotten for another."""

DURATIONS = 6
"""So many of a lane's last leases tell how long the next one may take."""

_FIRST, _RATIO, _LAST = 1.0, 1.15, 86_400.0
_FLUSH_AT = 1e60


def _edges() -> tuple[float, ...]:
    edges = [_FIRST]
    while edges[-1] < _LAST:
        edges.append(edges[-1] * _RATIO)
    return tuple(edges)


EDGES = _edges()
"""Where the bins of a histogram of gaps end, in seconds; what is longer falls into one more bin."""

MIDS = (_FIRST / 2, *((low + high) / 2 for low, high in pairwise(EDGES)), 2 * EDGES[-1])
"""The gap that stands for each bin."""

BINS = len(MIDS)


class Histogram:
    """Gaps counted in bins of growing width, the newest weighing one."""

    __slots__ = ("_unit", "_weights", "total")

    def __init__(self) -> None:
        self._weights = [0.0] * BINS
        self._unit = 1.0  # growing the newest is the same as decaying all others, and costs one bin
        self.total = 0.0

    def add(self, gap: float) -> None:
        """Count a gap in seconds."""
        self._unit /= DECAY
        self._weights[bisect_left(EDGES, gap)] += self._unit
        self.total = self.total * DECAY + 1.0
        if self._unit > _FLUSH_AT:
            self._weights = [weight / self._unit for weight in self._weights]
            self._unit = 1.0

    def weights(self, scale: float = 1.0) -> list[float]:
        """The weight of each bin, times `scale`."""
        factor = scale / self._unit
        return [weight * factor for weight in self._weights]


class PastLease(NamedTuple):
    """A lease of an earlier run, its instants on this run's clock (so they are negative)."""

    lane: Lane
    asked_at: Instant
    granted_at: Instant
    ended_at: Instant


def band_of(level: int) -> int:
    """Return the band of a level: 0, 1, 2, 3, then 4-5, 6-7, 8-11, 12-15, 16-23 and so on."""
    if level < 4:
        return level
    length = level.bit_length()
    return min(2 * length - 2 + (level >> (length - 2) & 1), BANDS - 1)


class _LaneGaps:
    __slots__ = ("all", "by_band", "by_level", "durations", "running", "vacated")

    def __init__(self) -> None:
        self.all = Histogram()
        self.by_level = [Histogram() for _ in range(LEVELS)]
        self.by_band: dict[int, Histogram] = {}
        """The last of `by_level` again, in bands; made when first needed, as most lanes never have so many at once."""
        self.durations: deque[float] = deque(maxlen=DURATIONS)
        self.running = 0
        self.vacated: list[Instant | None] = []


class Gaps:
    """The gaps of all lanes of a pool."""

    __slots__ = ("_global", "_lanes")

    def __init__(self) -> None:
        self._lanes: dict[Lane, _LaneGaps] = {}
        self._global = [Histogram() for _ in range(LEVELS)]

    def _lane(self, lane: Lane) -> _LaneGaps:
        found = self._lanes.get(lane)
        if found is None:
            if len(self._lanes) >= MOST_LANES:
                idle = (key for key, known in self._lanes.items() if not known.running)
                if (forgotten := next(idle, None)) is not None:
                    del self._lanes[forgotten]
            found = self._lanes[lane] = _LaneGaps()
        return found

    def started(self, lane: Lane, asked_at: Instant) -> None:
        """A lease begins, for a request that came at `asked_at`."""
        known = self._lane(lane)
        level, known.running = known.running, known.running + 1
        if level >= len(known.vacated):
            known.vacated.append(None)
            return
        vacated_at, known.vacated[level] = known.vacated[level], None
        if vacated_at is None or asked_at <= vacated_at:
            return  # who waited already is served in any case, and says nothing about keeping
        gap, last = asked_at - vacated_at, LEVELS - 1
        for histogram in (known.all, known.by_level[min(level, last)], self._global[min(level, last)]):
            histogram.add(gap)
        if level >= last:
            known.by_band.setdefault(band_of(level), Histogram()).add(gap)

    def ended(self, lane: Lane, now: Instant, seconds: float) -> None:
        """A lease that took `seconds` ends."""
        known = self._lane(lane)
        known.running -= 1
        known.vacated[known.running] = now
        known.durations.append(seconds)

    def replay(self, leases: Iterable[PastLease]) -> None:
        """Learn from leases of earlier runs, before the first one of this run."""
        events: list[tuple[Instant, int, PastLease]] = []
        for lease in leases:
            # At one instant what ends makes way for what begins, unless it has only begun itself.
            at_once = lease.ended_at <= lease.granted_at
            events.append((lease.granted_at, 1, lease))
            events.append((max(lease.granted_at, lease.ended_at), 2 if at_once else 0, lease))
        begun: set[int] = set()
        for at, kind, lease in sorted(events, key=lambda event: event[:2]):
            if kind == 1:
                begun.add(id(lease))
                self.started(lease.lane, lease.asked_at)
            elif id(lease) in begun:
                self.ended(lease.lane, at, at - lease.granted_at)

    def level(self, lane: Lane) -> int:
        """The level at which a session that idles now would be used next: the number of running leases."""
        known = self._lanes.get(lane)
        return known.running if known is not None else 0

    def left_at(self, lane: Lane) -> Instant | None:
        """When the lane's last lease ended; None while one runs, or before the first."""
        known = self._lanes.get(lane)
        return known.vacated[0] if known is not None and not known.running and known.vacated else None

    def seen(self, lane: Lane, level: int) -> float:
        """How many gaps (decayed) of this level are known."""
        known = self._lanes.get(lane)
        return known.by_level[min(level, LEVELS - 1)].total if known is not None else 0.0

    def durations(self, lane: Lane) -> tuple[float, ...]:
        """How long the lane's last leases took; a guess of a minute if there were none."""
        known = self._lanes.get(lane)
        return tuple(known.durations) if known is not None and known.durations else (60.0,)

    def mean_duration(self, lane: Lane) -> float:
        """The mean of `durations`."""
        return fmean(self.durations(lane))

    def law(self, lane: Lane, level: int, neutral: list[float]) -> list[float]:
        """How likely the next gap falls into each bin (adds up to 1).

        The level's own gaps, with a prior worth two of them: the lane's gaps, with a prior of all lanes', with
        `neutral` as theirs. A high level has the gaps of its band, and those of all high ones as their prior.
        """
        wide = min(level, LEVELS - 1)
        known = self._lanes.get(lane) or _LaneGaps()
        widest = _mix(self._global[wide], neutral)
        wider = _mix(known.all, widest)
        found = _mix(known.by_level[wide], wider)
        own = known.by_band.get(band_of(level)) if known.by_band else None
        return found if own is None else _mix(own, found)


def _mix(own: Histogram, prior: list[float]) -> list[float]:
    share = 1.0 / (own.total + PRIOR)
    wide = PRIOR * share
    return [mine + wide * other for mine, other in zip(own.weights(share), prior, strict=True)]


def median(law: list[float]) -> float:
    """Return the gap that half of all are shorter than, to a bin: a mean says little with so long a tail."""
    seen = 0.0
    for chance, gap in zip(law, MIDS, strict=True):
        seen += chance
        if seen >= 0.5:
            return gap
    return MIDS[-1]
