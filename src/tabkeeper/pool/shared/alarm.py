"""Rings when something on the board is due: then one of the processes asks for a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tabkeeper.clock import Clock, Instant
from tabkeeper.pool.model import NEVER
from tabkeeper.pool.plan import wake_at
from tabkeeper.pool.shared.replica import Replica

TURN = 0.15
"""Seconds by which each further process is slower to notice that something is due, so that one of them tells it."""


class Alarm:
    """One timer of the loop, set to the first instant at which the plan may change by time alone.

    Args:
        ring: called when that has come.
    """

    def __init__(self, replica: Replica, clock: Clock, ring: Callable[[], None]) -> None:
        self._replica = replica
        self._clock = clock
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at: Instant = NEVER
        self._stopped = False

    def set(self) -> None:
        """Look when the next thing is due."""
        at = wake_at(self._replica.view)
        if at < self._at and not self._stopped:
            if self._timer is not None:
                self._timer.cancel()
            self._at = at
            members = sorted(self._replica.members)
            home = self._replica.home
            rank = members.index(home) if home in members else len(members)
            delay = max(0.0, at - self._clock.monotonic()) + 0.002 + min(rank * TURN, 2.0)
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        self._timer, self._at = None, NEVER
        if wake_at(self._replica.view) <= self._clock.monotonic():
            self._ring()
        else:
            self.set()

    def stop(self) -> None:
        """Ring no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
