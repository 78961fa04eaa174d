"""A decision to keep an idle session, as plain figures for people and programs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from tabkeeper.clock import Instant
from tabkeeper.config import Dollars
from tabkeeper.money import Money
from tabkeeper.pool.model import NEVER, Verdict


class Kept(BaseModel):
    """Until when an idle session is kept, and the figures that say so. Money and chances are expectations.

    All but the first four are 0 where `rule` is not "value".
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    rule: str
    decided_at: datetime
    until: datetime | None
    """None: without end."""
    running_beside: int
    """Leases of its kind that ran when it became idle: so many callers must come back before it is needed."""
    per_hour: Dollars
    """What an hour of it costs."""
    fee: Dollars
    """What its provider takes for a new session."""
    cold_start: Dollars
    """``cold_start_cost``: what a new session costs beside its provider's bill."""
    new_session: Dollars
    """What the next lease costs with a new session, all in all."""
    expected: Dollars
    """What the next lease costs with this decision."""
    waiting: Dollars
    """What it costs to wait until `until` in vain."""
    paid_seconds: float | None
    """So long was paid for already when it became idle; None if its time costs nothing."""
    gap_seconds: float
    """Half of the gaps until the next use are expected to be shorter."""
    gaps_seen: float
    """Gaps that this was learnt from; later ones count for more."""
    chance: float
    """That it is used again by `until`, 0..1."""


def kept(verdict: Verdict, wall: Callable[[Instant], datetime]) -> Kept:
    """Return a verdict as plain figures; `wall` turns instants of the pool's clock into those of the world."""
    return Kept(
        rule=verdict.rule,
        decided_at=wall(verdict.decided_at),
        until=None if verdict.until == NEVER else wall(verdict.until),
        running_beside=verdict.level,
        per_hour=expected_money(verdict.rate * 3600),
        fee=expected_money(verdict.fee),
        cold_start=expected_money(verdict.cold_start),
        new_session=expected_money(verdict.fresh),
        expected=expected_money(verdict.expected),
        waiting=expected_money(verdict.waiting),
        paid_seconds=None if verdict.paid_for == NEVER else round(verdict.paid_for, 3),
        gap_seconds=round(verdict.gap, 1),
        gaps_seen=round(verdict.gaps_seen, 1),
        chance=round(verdict.chance, 4),
    )


def expected_money(amount: float) -> Money:
    """Return an expectation as money, to the microdollar: more digits would only look exact."""
    return Money(round(amount / 1000) * 1000)
