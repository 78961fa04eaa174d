"""Looks at the pool once a minute: keeps samples of its figures, and raises what the alert rules find in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime

from tabkeeper.alerts.rules import Sample, judge
from tabkeeper.clock import Clock
from tabkeeper.config import AlertSettings
from tabkeeper.ledger.alerting import AlertOutbox
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.model import Request
from tabkeeper.pool.stats import Frozen, PoolStats, WholeStats
from tabkeeper.reports.books import Books

EVERY = 60.0
"""Seconds between two samples."""
_KEPT = 60


class PoolSample(Frozen):
    """The pool at one minute; `longest_wait_seconds` is that of the minute before.

    Of a pool that processes share this is what one of them has; `whole` is that of all.
    """

    at: datetime
    sessions: int
    idle: int
    leased: int
    unhealthy: int
    queued: int
    leases: int
    creations: int
    creations_failed: int
    longest_wait_seconds: float
    whole: WholeStats


class Watch:
    """The samples of one pool: the last hour's for people, the last window's for the rules."""

    def __init__(
        self,
        settings: AlertSettings,
        *,
        stats: Callable[[], PoolStats],
        waiting: Callable[[], list[Request]],
        counts: Counts,
        outbox: AlertOutbox,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._stats = stats
        self._waiting = waiting
        self._counts = counts
        self._outbox = outbox
        self._clock = clock
        self._window: deque[Sample] = deque(maxlen=int(settings.window.total_seconds() // EVERY) + 2)
        self.samples: deque[PoolSample] = deque(maxlen=_KEPT)

    def look(self) -> PoolSample:
        """Take a sample, and tell what it shows."""
        now, stats = self._clock.now(), self._stats()
        mono = self._clock.monotonic()
        waiting = max((mono - request.arrived_at for request in self._waiting()), default=0.0)
        longest = max(waiting, self._counts.take_longest_wait())
        sample = PoolSample(
            at=now,
            sessions=stats.sessions,
            idle=stats.idle,
            leased=stats.leased,
            unhealthy=stats.unhealthy,
            queued=stats.queued,
            leases=stats.leases,
            creations=stats.creations,
            creations_failed=stats.creations_failed,
            longest_wait_seconds=longest,
            whole=stats.whole,
        )
        self.samples.append(sample)
        self._window.append(
            Sample(
                at=now,
                creations=stats.creations,
                creations_failed=stats.creations_failed,
                sessions=stats.sessions,
                unhealthy=stats.unhealthy,
                longest_wait=longest,
            )
        )
        for verdict in judge(tuple(self._window), self._settings):
            self._outbox.tell(verdict.kind, verdict.key, verdict.detail)
        return sample


async def tell_oversteps(books: Books, outbox: AlertOutbox) -> None:
    """Raise an alert for each budget whose window is forecast to end over its limit, once in the window."""
    for one in await books.oversteps():
        outbox.tell(
            "forecast",
            f"forecast|{one.window_id}",
            one.detail,
            budget=one.budget,
            window_id=one.window_id,
            amount=one.expected,
            limit=one.limit,
        )
