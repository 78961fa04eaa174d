"""How well a proxy does: a pure function of the outcomes that were told of it, and of the time.

Failures in a row open its circuit breaker: it is left alone, twice as long each time, then tried once. What chance and
the clock say is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tabkeeper.clock import Instant
from tabkeeper.providers.breaker import Breaker, Setback

RECENT = 20
"""Outcomes that are looked at for the share of failures."""
_ENOUGH = 5
"""Fewer outcomes than this make no share."""
_SMOOTHING = 0.3


class Health(StrEnum):
    """What can be expected of a proxy."""

    UNKNOWN = "unknown"
    """Nothing was heard of it yet."""
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It fails now and then: used when there is no better one."""
    UNHEALTHY = "unhealthy"
    """Its breaker is open: not used until its pause is over, then tried once."""
    DEAD = "dead"
    """It failed so often that only a probe, or a person, brings it back."""


ACCEPTED = frozenset({Health.UNKNOWN, Health.HEALTHY})
"""What a session key is bound to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """From how many failures in a row on a proxy is what."""

    degraded_after: int = 2
    unhealthy_after: int = 3
    dead_after: int = 10
    degraded_share: float = 0.3
    """Share of failures among the last `RECENT` outcomes from which on it is degraded."""
    pause: float = 30.0
    """Seconds for which an unhealthy proxy is left alone at first; they double."""
    longest_pause: float = 900.0


class Track:
    """The record of one proxy."""

    __slots__ = ("_breaker", "_recent", "_rules", "failed", "in_row", "last_error", "latency", "succeeded")

    def __init__(
        self,
        rules: HealthRules,
        *,
        succeeded: int = 0,
        failed: int = 0,
        in_row: int = 0,
        recent: Iterable[bool] = (),
        latency: float | None = None,
        last_error: str = "",
        resume_at: Instant = 0.0,
    ) -> None:
        self._rules = rules
        self._recent: deque[bool] = deque(recent, maxlen=RECENT)
        self._breaker = Breaker(rules.unhealthy_after)
        self._breaker.failures = in_row
        self._breaker.resume_at = resume_at
        self.succeeded = succeeded
        self.failed = failed
        self.in_row = in_row
        """Failures in a row, up to now."""
        self.latency = latency
        """Seconds that an answer took, lately (smoothed); None if never measured."""
        self.last_error = last_error

    @property
    def health(self) -> Health:
        """What can be expected of it."""
        rules = self._rules
        if self.in_row >= rules.dead_after:
            return Health.DEAD
        if self.in_row >= rules.unhealthy_after:
            return Health.UNHEALTHY
        if not self._recent:
            return Health.UNKNOWN
        if self.in_row >= rules.degraded_after or self.failure_share >= rules.degraded_share:
            return Health.DEGRADED
        return Health.HEALTHY

    @property
    def failure_share(self) -> float:
        """Share of failures among the last outcomes; 0 while there are too few of them."""
        if len(self._recent) < _ENOUGH:
            return 0.0
        return self._recent.count(False) / len(self._recent)

    @property
    def recent(self) -> tuple[bool, ...]:
        """The last outcomes, oldest first."""
        return tuple(self._recent)

    @property
    def resume_at(self) -> Instant:
        """Until when it is left alone."""
        return self._breaker.resume_at

    def may_try(self, now: Instant) -> bool:
        """Say whether a proxy that failed may be tried once more: its pause is over."""
        return self.health in {Health.DEGRADED, Health.UNHEALTHY} and now >= self._breaker.resume_at

    def trying(self, now: Instant) -> None:
        """It is being tried: nobody else tries it for a while."""
        self._breaker.resume_at = now + self._rules.pause

    def ok(self, latency: float | None = None) -> None:
        """Something went through it, after `latency` seconds."""
        if self.in_row >= self._rules.unhealthy_after:
            self._recent.clear()  # it is back: what was before must not speak against it
        self._recent.append(True)
        self.succeeded += 1
        self.in_row = 0
        self.last_error = ""
        self._breaker.succeeded()
        if latency is not None:
            old = self.latency
            self.latency = latency if old is None else old + _SMOOTHING * (latency - old)

    def bad(self, error: str, now: Instant, *, jitter: float = 1.0) -> None:
        """Something failed for its sake; `jitter` multiplies its pause."""
        self._recent.append(False)
        self.failed += 1
        self.in_row += 1
        self.last_error = error
        if self.health is not Health.HEALTHY:
            step = max(1, self.in_row - self._rules.unhealthy_after + 1)
            setback = Setback(
                kind="failure", base=self._rules.pause, longest=self._rules.longest_pause, jitter=jitter
            )
            self._breaker.resume_at = max(self._breaker.resume_at, now + setback.pause(step))
