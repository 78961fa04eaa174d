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


_DRIFT = 0.0005
"""Seconds a second by which two clocks may drift apart; more than that, nobody slews a clock."""
_SET_ANEW = 0.5
"""Seconds past what drift explains from which on the database's clock was set."""


class FleetClock(SystemClock):
    """The time of the database that several processes share, carried on in between by this machine's monotonic clock.

    Instants are seconds since 1970 as the database counts them, so they mean the same in all processes. It never goes
    back, and is never ahead of the database: what ended here before the database heard of it ended before whatever
    the database let begin after that, by anybody's reading. That the machine's own wall clock is set anew does not
    matter to it.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._heard_at: Instant | None = None
        self._least: Instant = 0.0

    def raw(self) -> Instant:
        """This machine's own monotonic clock, for durations that have nothing to do with other processes."""
        return time.monotonic()

    def monotonic(self) -> Instant:
        """See `Clock.monotonic`."""
        here = time.monotonic()
        self._least = max(self._least, here + self._carried_on(here))
        return self._least

    def _carried_on(self, here: Instant) -> float:
        """What the database's clock is at least ahead of this machine's, by what was heard last."""
        return self._offset - (0.0 if self._heard_at is None else _DRIFT * (here - self._heard_at))

    def now(self) -> datetime:
        """See `Clock.now`: the same instant as a date."""
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def heard(self, instant: Instant, sent: Instant, received: Instant) -> None:
        """The database said `instant` between two readings of `raw`."""
        # It said so at the latest just now, and not before it was asked.
        low, high = instant - received, instant - sent
        if self._heard_at is None or not low - _SET_ANEW < self._offset < high + _SET_ANEW:
            # Once the first answer is there, nothing before it counts.
            self._least = 0.0 if self._heard_at is None else self._least
            self._offset = low
        else:
            # The fastest answers tell most, but even that wears off: clocks drift.
            self._offset = min(max(low, self._carried_on(received)), high)
        self._heard_at = received

    def at_least(self, instant: Instant) -> None:
        """It is this late already."""
        self._least = max(self._least, instant)


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
