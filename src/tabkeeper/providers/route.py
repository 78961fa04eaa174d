"""In which order the providers of a platform are asked: by price, or from rung to rung after trouble. Pure.

A route is always an order of *all* the platform's providers; which of them may be asked at this moment is the
planner's decision, so routing can never refuse anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tabkeeper.clock import Instant
from tabkeeper.money import Money

_MOST_PATIENCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A provider that a platform may use, and what a lease there is expected to cost."""

    name: str
    position: int
    """Its place in the platform's own order, which decides ties."""
    cost: Money | None
    """None if nobody knows: such a provider comes last."""


def by_cost(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Return the names, the cheapest first."""
    known = sorted(
        candidates, key=lambda c: (c.cost is None, 0 if c.cost is None else c.cost.nanos, c.position)
    )
    return tuple(candidate.name for candidate in known)


class Ladder:
    """Where a platform stands on its rungs: up after trouble, down again after successes and time.

    The next rung is taken after `after` failures or blocks in a row on the present one. It is left downwards
    after `successes` successes and at least `hold` seconds; who falls back soon after that waits twice as long, up to
    sixteen times. What happens on other rungs (overflow, old sessions) does not count.
    """

    __slots__ = (
        "_fell_at",
        "_level",
        "_orders",
        "_patience",
        "_since",
        "_strikes",
        "_wins",
        "_won_at",
        "after",
        "hold",
        "rungs",
        "successes",
    )

    def __init__(self, rungs: tuple[str, ...], *, after: int, hold: float, successes: int) -> None:
        self.rungs = rungs
        self.after = after
        self.hold = hold
        self.successes = successes
        # Upwards from the present rung; what lies below it is the last resort, the nearest first.
        self._orders = [rungs[n:] + rungs[:n][::-1] for n in range(len(rungs))]
        self._level = self._strikes = self._wins = 0
        self._since: Instant = 0.0
        self._won_at: Instant = 0.0
        self._fell_at: Instant | None = None
        self._patience = 1

    @property
    def rests_until(self) -> Instant:
        """The present rung is not left downwards before then."""
        return self._since + self.hold * self._patience

    def level(self, now: Instant) -> int:
        """Return the number of the rung at an instant, 0 is the first."""
        if self._level and self._wins >= self.successes and now >= self.rests_until:
            return self._level - 1
        return self._level

    def order(self, now: Instant) -> tuple[str, ...]:
        """Return all rungs in the order in which they are to be asked."""
        return self._orders[self.level(now)]

    def below(self, provider: str, now: Instant) -> bool:
        """Say whether a provider stands below the present rung, so that its sessions are not lent again."""
        return provider in self.rungs[: self.level(now)]

    def success(self, provider: str, now: Instant) -> None:
        """A lease at the provider went well."""
        self._settle(now)
        if provider == self.rungs[self._level]:
            self._strikes = 0
            if self._wins < self.successes:
                self._wins, self._won_at = self._wins + 1, now

    def trouble(self, provider: str, now: Instant) -> bool:
        """A lease there failed or was blocked, or a session could not be created; True if the next rung is taken."""
        self._settle(now)
        if provider != self.rungs[self._level]:
            return False
        self._wins = 0
        self._strikes = min(self._strikes + 1, self.after)
        if self._strikes < self.after or self._level + 1 == len(self.rungs):
            return False
        soon = self._fell_at is not None and now < self._fell_at + self.hold * self._patience
        self._patience = min(self._patience * 2, _MOST_PATIENCE) if soon else 1
        self._level += 1
        self._since, self._strikes = now, 0
        return True

    def _settle(self, now: Instant) -> None:
        if self.level(now) < self._level:
            self._level -= 1
            self._since = self._fell_at = max(self.rests_until, self._won_at)
            self._strikes = self._wins = 0
