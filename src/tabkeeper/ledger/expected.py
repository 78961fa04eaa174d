"""What a session, and so a lease, may be expected to cost under a price list: from lengths learnt to exact money.

`Lengths` is a bounded histogram that forgets; its weights are integers, so no amount passes through a float. Which
provider is chosen for its price is decided in `providers.route`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from tabkeeper.ledger.rates import RateCard, price
from tabkeeper.money import Money

PRIOR_SECONDS = (30, 60, 120, 300)
"""Lives that are assumed, alike likely, of a platform of which nothing is known yet."""

_UNIT = 1 << 24
_KEPT = 63
_OF = 64
"""Each new length leaves 63/64 of the weight of those before, so that about the last hundred decide."""
_LONGEST_MS = 31 * 86_400_000


class Lengths:
    """A histogram of lengths on a geometric scale (about a fifth apart), the newest with the most weight.

    Each bin keeps the mean of what fell into it, so that lengths that are always the same stay exact. At most 128
    bins, whatever comes.
    """

    __slots__ = ("_bins",)

    def __init__(self, seconds: Sequence[float] = ()) -> None:
        self._bins: dict[int, tuple[int, int]] = {}
        for length in seconds:
            self.add(length)

    def __bool__(self) -> bool:
        return bool(self._bins)

    def add(self, seconds: float) -> None:
        """Learn a length; what is negative counts as nothing, what is longer than a month as a month."""
        ms = min(max(0, round(seconds * 1000)), _LONGEST_MS)
        faded = {}
        for key, (weight, total) in self._bins.items():
            left = weight * _KEPT // _OF
            if left:
                faded[key] = (left, total * left // weight)
        key = _bin(ms)
        weight, total = faded.get(key, (0, 0))
        faded[key] = (weight + _UNIT, total + ms * _UNIT)
        self._bins = faded

    def points(self) -> list[tuple[int, int]]:
        """Return (milliseconds, weight) pairs, shortest first; together they are the distribution."""
        return sorted((total // weight, weight) for weight, total in self._bins.values())


def _bin(ms: int) -> int:
    """Number of the bin: four to an octave, from the two bits after the highest."""
    if ms < 4:
        return ms
    octave = ms.bit_length()
    return octave * 4 + (ms >> (octave - 3) & 3)


class Mean:
    """A mean that forgets as `Lengths` does, of whole numbers; exact as a fraction."""

    __slots__ = ("_total", "_weight")

    def __init__(self) -> None:
        self._weight = self._total = 0

    def add(self, number: int) -> None:
        """Learn a number."""
        left = self._weight * _KEPT // _OF
        self._total = self._total * left // self._weight if self._weight else 0
        self._weight = left + _UNIT
        self._total += number * _UNIT

    @property
    def value(self) -> Fraction | None:
        """The mean; None before the first number."""
        return Fraction(self._total, self._weight) if self._weight else None


class Habits:
    """What is known of a platform's use: how long its leases and sessions last, what a session serves and loads."""

    __slots__ = ("bytes", "leases", "sessions", "uses")

    def __init__(self) -> None:
        self.leases = Lengths()
        self.sessions = Lengths()
        self.uses = Mean()
        self.bytes = Mean()

    def lease_over(self, seconds: float) -> None:
        """A lease ended after this time."""
        self.leases.add(seconds)

    def session_over(self, seconds: float, *, uses: int, received: int) -> None:
        """A session ended after this life, having served so many leases and received so many bytes."""
        self.sessions.add(seconds)
        self.uses.add(uses)
        self.bytes.add(received)

    def lives(self, longest: float) -> list[tuple[int, int]]:
        """Return how long sessions live: as learnt, else as leases last, else the prior; none longer than `longest`."""
        known = self.sessions or self.leases
        points = known.points() if known else [(seconds * 1000, 1) for seconds in PRIOR_SECONDS]
        bound = max(1, round(longest * 1000))
        return [(min(ms, bound), weight) for ms, weight in points]

    def cost_of_a_lease(
        self, card: RateCard, *, longest: float, included_left: Mapping[str, int] | None = None
    ) -> Money:
        """Return what a lease on a session of this card costs on average: the session's bill over its leases."""
        traffic = card.component("proxy_bytes")
        received = self.bytes.value or Fraction(0)
        charged = 0 if traffic is None or traffic.cap_qty == 0 else round(received)
        if traffic is not None and traffic.cap_qty:
            charged = min(charged, traffic.cap_qty)
        return expected_cost(
            card,
            self.lives(longest),
            uses=max(Fraction(1), self.uses.value or Fraction(1)),
            proxy_bytes=charged,
            included_left=included_left,
        )


def expected_cost(
    card: RateCard,
    lives: Sequence[tuple[int, int]],
    *,
    uses: Fraction | int = 1,
    proxy_bytes: int = 0,
    included_left: Mapping[str, int] | None = None,
) -> Money:
    """Return a session's mean bill over a distribution of lives, for each of its `uses`, rounded once, half to even.

    Args:
        card: the price list.
        lives: (milliseconds, weight) pairs; weights are positive integers.
        uses: how many leases share the bill.
        proxy_bytes: traffic that is charged for.
        included_left: what is left of the month's allowance by kind; none is assumed where it is not said.
    """
    total = weights = 0
    for ms, weight in lives:
        bill = price(card, ms / 1000, proxy_bytes=proxy_bytes, included_left=included_left)
        total += weight * bill.nanos
        weights += weight
    return Money(round(Fraction(total, weights) / uses))
