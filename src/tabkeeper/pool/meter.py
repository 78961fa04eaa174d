"""A price list as a curve: what a session of some age has cost, fast enough to ask hundreds of times per decision.

Figures are floats of nano-dollars: they weigh chances and never reach the books. What is booked is worked out
exactly in `ledger.rates`, against which this is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from tabkeeper.clock import Instant
from tabkeeper.ledger.rates import SESSION_KIND, TIME_KINDS, RateCard

_FINE_MS = 1000
"""Steps of time up to this are too short to wait for their end."""

_NOISE = 1e-7
"""Of a step; less is noise of float arithmetic, and begins no step."""


class Meter:
    """What a session costs by its age alone; traffic is the lease's business and the same wherever it runs."""

    __slots__ = ("_parts", "fee", "linear_from", "rate")

    def __init__(self, card: RateCard) -> None:
        self.fee = float(sum(part.nanos(1) for part in card.components if part.kind == SESSION_KIND))
        """Nano-dollars for creating a session."""
        timed = [c for c in card.components if c.kind in TIME_KINDS and c.unit_price > 0]
        self._parts = [
            (float(c.unit_price) * 1e9 / c.per_qty, float(c.increment_qty), float(c.min_qty)) for c in timed
        ]
        self.rate = 1000 * sum(price for price, _, _ in self._parts)
        """Nano-dollars for a second, in the long run."""
        fine = all(step <= _FINE_MS for _, step, _ in self._parts)
        self.linear_from: Instant = (
            max((least for _, _, least in self._parts), default=0.0) / 1000 if fine else float("inf")
        )
        """The age from which each second costs the same: there is no paid time to wait for any more."""

    def bill(self, age: float) -> float:
        """Nano-dollars that a session of `age` seconds has cost."""
        return self.mean_bill(age, (0.0,))

    def mean_bill(self, age: float, more: Sequence[float]) -> float:
        """The mean of `bill` over the ages `age + m`, for each m of `more`; in one call, as it is asked so often."""
        total = 0.0
        for price, step, least in self._parts:
            scale = 1000 / step
            for seconds in more:
                used = (ceil((age + seconds) * scale - _NOISE) or 1) * step
                total += price * max(used, least)
        return self.fee + total / len(more)

    def paid_until(self, age: float) -> float:
        """The age until which a session of `age` seconds costs no more than now; infinite if time is free."""
        ends = (
            max(ceil(age * 1000 / step - _NOISE) or 1, least // step) * step for _, step, least in self._parts
        )
        return min(ends, default=float("inf")) / 1000

    @property
    def is_free(self) -> bool:
        """Whether neither creating a session nor its time costs anything."""
        return not self._parts and not self.fee
