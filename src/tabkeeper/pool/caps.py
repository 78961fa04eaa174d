"""How long a lease may run before it costs more than its own cap. Pure arithmetic on a price list."""

from __future__ import annotations

from tabkeeper.ledger.rates import RateCard, accrued
from tabkeeper.money import ZERO, Money


def affordable_seconds(card: RateCard, start_age: float, age: float, cap: Money, longest: float) -> float:
    """Return for how many seconds from `age` on a lease that began at `start_age` may run within `cap`.

    Args:
        card: the session's price list; its accrued cost never falls.
        start_age: age from which the session's cost is the lease's, in seconds (0 for a session's first lease).
        age: the session's age now.
        cap: most that the lease may cost.
        longest: an upper bound in seconds.

    Returns:
        Whole milliseconds as seconds; 0 if not even a moment fits.
    """
    start = accrued(card, start_age) if start_age > 0 else ZERO
    fits, breaks = 0, int(longest * 1000) + 1
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        if accrued(card, age + middle / 1000) - start <= cap:
            fits = middle
        else:
            breaks = middle
    return fits / 1000
