"""How long a lease may run before it costs more than its own cap. Pure arithmetic on a price list."""

from __future__ import annotations

from tabkeeper.ledger.rates import OWN_PROXY_KIND, RateCard, accrued
from tabkeeper.money import Money


def most_bytes(card: RateCard) -> int | None:
    """Return after how many bytes a session is ended so that its traffic costs no more than was held for it.

    That is nine tenths of the cap of the price list, so that what is still on its way when it ends fits, too. None
    if traffic costs nothing.
    """
    return _bound(card, "proxy_bytes")


def most_own_bytes(card: RateCard) -> int | None:
    """Return the same for what it moves through a proxy of one's own; None if that costs nothing."""
    return _bound(card, OWN_PROXY_KIND)


def _bound(card: RateCard, kind: str) -> int | None:
    traffic = card.component(kind)
    if traffic is None or not traffic.cap_qty or not traffic.unit_price:
        return None
    return traffic.cap_qty * 9 // 10


def charged_bytes(card: RateCard, received: int) -> int:
    """Return how much of what a session received the provider charges as traffic.

    A cap of zero (``max_gb = "0"``) says that the session uses none of the provider's proxies: then it is nothing.
    """
    traffic = card.component("proxy_bytes")
    return 0 if traffic is None or traffic.cap_qty == 0 else received


def not_the_leases(card: RateCard, start_age: float, *, first: bool) -> Money:
    """Return what a session had accrued before a lease that is not the lease's to pay.

    The fee and minimum that are due from the first instant belong to the session's first lease; what accrued
    while it was being created, or between leases, is idle cost.
    """
    before = accrued(card, start_age)
    return before - accrued(card, 0) if first else before


def affordable_seconds(card: RateCard, age: float, before: Money, cap: Money, longest: float) -> float:
    """Return for how many seconds from `age` on a lease may run within `cap`.

    Args:
        card: the session's price list; its accrued cost never falls.
        age: the session's age now, in seconds.
        before: what the session had accrued that is not the lease's (see `not_the_leases`).
        cap: most that the lease may cost.
        longest: an upper bound in seconds.

    Returns:
        Whole milliseconds as seconds; 0 if not even a moment fits.
    """
    fits, breaks = 0, int(longest * 1000) + 1
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        if accrued(card, age + middle / 1000) - before <= cap:
            fits = middle
        else:
            breaks = middle
    return fits / 1000
