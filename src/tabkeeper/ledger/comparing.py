"""What a provider says against what was booked: a bill by its figures, the lines between, tolerance, capture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tabkeeper.ledger.rates import OWN_PROXY_KIND, SESSION_KIND, Line, RateCard, lines, own_traffic
from tabkeeper.money import ZERO, Money

SAID_KIND = "provider"
"""Kind of the line between what a provider says it billed and what its quantities come to by our price list."""

OURS = frozenset({SESSION_KIND, OWN_PROXY_KIND})
"""Kinds that are in no sum a provider tells."""

_PPM = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is said of one session in its whole life; None means that nothing is said."""

    seconds_us: int | None = None
    proxy_bytes: int | None = None
    own_bytes: int | None = None
    """Through a proxy of one's own: no provider knows of it, but a late measure of ours may."""
    cost: Money | None = None
    """Billed for time and traffic; fees for a session as such, and proxies of one's own, are not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far two sums may lie apart before somebody is told: by the larger of both allowances."""

    absolute: Money = ZERO
    relative: float = 0.0
    """A share of the larger sum."""

    def is_passed(self, ours: Money, theirs: Money) -> bool:
        """Tell whether they lie too far apart."""
        apart = abs(ours.nanos - theirs.nanos)
        most = max(abs(ours.nanos), abs(theirs.nanos))
        return apart > self.absolute.nanos and apart * _PPM > most * round(self.relative * _PPM)


def bill_of(
    card: RateCard,
    figures: Figures,
    *,
    seconds_us: int,
    proxy_bytes: int,
    own_bytes: int | None = None,
    included_left: Mapping[str, int],
) -> list[Line]:
    """Price a session by a provider's figures, and by ours where it says nothing.

    A price list's lines explain what they can; where the provider says what it billed, one more line makes up the
    rest. Fees that belong to a session as such are ours to know: no provider tells them apart.

    Args:
        card: the price list frozen for the session.
        figures: what the provider says.
        seconds_us: our measure of its life.
        proxy_bytes: our measure of its traffic.
        own_bytes: our measure of what went through a proxy of its own; None if nobody counted.
        included_left: what is left of the month's allowance, with what this session had of it.
    """
    seconds = (seconds_us if figures.seconds_us is None else figures.seconds_us) / 1_000_000
    traffic = proxy_bytes if figures.proxy_bytes is None else figures.proxy_bytes
    # Traffic that the price list does not charge for is no reason to fail.
    bill = lines(
        card,
        seconds,
        proxy_bytes=traffic if card.component("proxy_bytes") else 0,
        quantities=own_traffic(card, own_bytes if figures.own_bytes is None else figures.own_bytes),
        included_left=included_left,
    )
    if figures.cost is not None:
        explained = sum(line.amount.nanos for line in bill if line.kind not in OURS)
        rest = figures.cost.nanos - explained
        if rest:
            bill.append(Line(kind=SAID_KIND, raw_qty=0, billed_qty=0, amount=Money(rest)))
    return bill


def between(booked: Mapping[str, Line], wanted: Sequence[Line]) -> list[Line]:
    """Return the lines that turn what is booked into what is wanted; empty if nothing that counts differs.

    Args:
        booked: the sums of a session's lines so far, by kind.
        wanted: the bill that they should add up to.
    """
    found = []
    counts = False
    target = {line.kind: line for line in wanted}
    for kind in sorted(booked.keys() | target.keys()):
        old, new = booked.get(kind, _nothing(kind)), target.get(kind, _nothing(kind))
        line = Line(
            kind=kind,
            raw_qty=new.raw_qty - old.raw_qty,
            billed_qty=new.billed_qty - old.billed_qty,
            included_qty=new.included_qty - old.included_qty,
            amount=new.amount - old.amount,
        )
        # A few milliseconds within one billed minute are no news.
        counts = counts or bool(line.billed_qty or line.included_qty or line.amount)
        if line.raw_qty or line.billed_qty or line.included_qty or line.amount:
            found.append(line)
    return found if counts else []


def capture_rate(ours: Money, theirs: Money) -> float | None:
    """Return the part of a provider's bill that we had booked by ourselves; None if it billed nothing."""
    return ours.nanos / theirs.nanos if theirs.nanos else None


def _nothing(kind: str) -> Line:
    return Line(kind=kind, raw_qty=0, billed_qty=0)
