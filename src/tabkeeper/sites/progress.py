"""How far a run has come, and what is still to come: counts, and an estimate from what pages took so far. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tabkeeper.money import ZERO, Money
from tabkeeper.sites.standing import per_page

_RECENT = 50
"""Pages whose pace is looked at."""


@dataclass(slots=True, kw_only=True)
class Count:
    """Pages and items, of one site or of all."""

    done: int = 0
    pending: int = 0
    failed: int = 0
    items: int = 0
    retries: int = 0
    sessions: int = 0
    """That work on it now."""
    note: str = ""
    """Why nothing happens there, if so."""

    @property
    def pages(self) -> int:
        """All that are known up to now."""
        return self.done + self.pending + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A run at one moment."""

    total: Count
    sites: dict[str, Count]
    seconds: float
    """Since this process began to work on it."""
    cost: Money
    """Of its sessions, those that run included, by their price lists."""
    seconds_left: float | None
    """To the end of the pages known now; None while there is nothing to go by."""
    cost_left: Money | None
    """Likewise."""

    @property
    def cost_per_page(self) -> Money | None:
        """What a page cost up to now; None before the first is done."""
        return per_page(self.cost, self.total.done)


@dataclass(slots=True)
class Pace:
    """How fast pages get done lately."""

    began: float
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    done: int = 0

    def page_done(self, now: float) -> None:
        """Count a page."""
        self._ends.append(now)
        self.done += 1

    def seconds_for(self, pages: int, now: float) -> float | None:
        """Estimate how long more pages take."""
        if not pages:
            return 0.0
        if not self._ends:
            return None
        since = self.began if self.done <= _RECENT else self._ends[0]
        counted = self.done if self.done <= _RECENT else len(self._ends) - 1
        return pages * max(0.0, now - since) / counted


def estimate(
    total: Count, sites: dict[str, Count], *, pace: Pace, now: float, cost: Money, left: int
) -> Progress:
    """Put together how far a run has come.

    Args:
        total: of all sites.
        sites: of each.
        pace: how fast it goes.
        now: on the same clock.
        cost: up to now.
        left: pages that this process will still try.
    """
    each = per_page(cost, total.done)
    return Progress(
        total=total,
        sites=sites,
        seconds=now - pace.began,
        cost=cost,
        seconds_left=pace.seconds_for(left, now),
        cost_left=ZERO if not left else None if each is None else Money(each.nanos * left),
    )
