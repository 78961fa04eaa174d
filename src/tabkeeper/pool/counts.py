"""Counters and histograms of one pool, raised where things happen; `stocktaking` puts them beside what there is."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from tabkeeper.pool.stats import Buckets

WAITS = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
CREATES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class Histogram:
    """Counts values by size."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def stats(self) -> Buckets:
        """Return it as plain figures."""
        return Buckets(bounds=self.bounds, counts=tuple(self.counts), total=self.total)


class Counts:
    """Counters of one pool, raised where the event happens."""

    __slots__ = (
        "checks",
        "checks_failed",
        "create_seconds",
        "creation_results",
        "creations",
        "creations_failed",
        "dirty",
        "evicted_in_use",
        "leaks",
        "lease_results",
        "leases",
        "longest_wait",
        "lost",
        "peak_queued",
        "peak_sessions",
        "prewarm_used",
        "prewarmed",
        "queue_wait",
        "reclaimed",
        "recovered",
        "refreshes",
        "refreshes_failed",
        "refused",
        "reused",
        "troubles",
        "waited",
    )

    def __init__(self) -> None:
        self.leases = self.reused = self.refused = self.creations = self.creations_failed = 0
        self.dirty = self.leaks = self.reclaimed = self.lost = self.evicted_in_use = 0
        self.peak_queued = self.peak_sessions = self.prewarmed = self.prewarm_used = 0
        self.checks = self.checks_failed = self.recovered = self.refreshes = self.refreshes_failed = 0
        self.troubles: Counter[str] = Counter()
        self.queue_wait = Histogram(WAITS)
        self.create_seconds: dict[str, Histogram] = {}
        self.lease_results: Counter[tuple[str, str]] = Counter()
        self.creation_results: Counter[tuple[str, str]] = Counter()
        self.waited = self.longest_wait = 0.0

    def created(self, provider: str, seconds: float) -> None:
        """Count a creation that worked."""
        self.creation_results[provider, "ok"] += 1
        self.create_seconds.setdefault(provider, Histogram(CREATES)).add(seconds)

    def waited_for(self, seconds: float) -> None:
        """Count how long a request waited that was served, or given up."""
        self.longest_wait = max(self.longest_wait, seconds)

    def take_longest_wait(self) -> float:
        """Return the longest wait since this was last asked."""
        longest, self.longest_wait = self.longest_wait, 0.0
        return longest

    def saw_sessions(self, number: int) -> None:
        """Remember the most sessions there were at once."""
        self.peak_sessions = max(self.peak_sessions, number)
