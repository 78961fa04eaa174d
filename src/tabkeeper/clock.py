"""The only room that reads the clock. Deadlines use `monotonic`, records use `now`; the two never mix.

`VirtualClock` is the clock of the simulation (see `tabkeeper.testing`): time moves only when told to.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

Instant = float
"""Seconds on the monotonic clock; only differences mean anything."""


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> Instant:
        """Seconds that never jump: for deadlines, ages, waits."""
        ...

    def now(self) -> datetime:
        """The wall clock in UTC: for the record and for budget windows only."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> Instant:
        """See `Clock.monotonic`; the same clock that asyncio's loop uses."""
        return time.monotonic()

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)


class VirtualClock:
    """A clock that stands still until `advance` is called; `jump` moves the wall clock alone, as NTP can."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed: Instant = 0.0
        self._skew = timedelta(0)

    def monotonic(self) -> Instant:
        """See `Clock.monotonic`."""
        return self._elapsed

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._start + timedelta(seconds=self._elapsed) + self._skew

    def advance(self, seconds: float) -> None:
        """Let `seconds` (>= 0) pass on both clocks."""
        assert seconds >= 0, seconds
        self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back by `seconds`; the monotonic clock does not notice."""
        self._skew += timedelta(seconds=seconds)
