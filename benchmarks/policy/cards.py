"""The rate cards of the replay, each twice: as the pool reads it, and as an independent meter bills it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from math import ceil

from tabkeeper.ledger.cards import ALWAYS
from tabkeeper.ledger.rates import Component, RateCard


@dataclass(frozen=True)
class Case:
    """One rate card of the replay."""

    name: str
    card: RateCard
    bill: Callable[[float], float]
    """Dollars for a session that lived so many seconds after its setup; knows nothing of `card`."""
    setup: float
    """Seconds that a creation takes and that are billed; callers do not wait for them in the replay."""
    overhead: float | None
    """Dollars a new session costs beyond its time, where every second has one price; else None."""
    per_second: float


def _pool_card(per_hour: str, *, fee: str = "0", step_s: int = 0, least_s: int = 0) -> RateCard:
    parts = [
        Component(
            kind="time",
            unit="hour",
            unit_price=Decimal(per_hour),
            per_qty=3_600_000,
            increment_qty=max(1, step_s * 1000),
            min_qty=least_s * 1000,
        )
    ]
    if fee != "0":
        parts.append(Component(kind="session", unit="session", unit_price=Decimal(fee)))
    return RateCard(plan="replay", effective_from=ALWAYS, components=tuple(parts))


def _case(
    name: str, per_hour: str, *, fee: str = "0", step_s: int = 0, least_s: int = 0, setup: int = 0
) -> Case:
    rate, entry = float(per_hour) / 3600, float(fee)

    def bill(seconds: float) -> float:
        billed = max(seconds + setup, least_s)
        if step_s:
            billed = step_s * ceil(round(billed / step_s, 9))
        return entry + rate * billed

    plain = not step_s and not least_s
    return Case(
        name=name,
        card=_pool_card(per_hour, fee=fee, step_s=step_s, least_s=least_s),
        bill=bill,
        setup=setup,
        overhead=entry + rate * setup if plain else None,
        per_second=rate,
    )


UNIT = "0.12"
"""$0.001 for each unit of 30 seconds, as dollars per hour."""

CASES = {
    case.name: case
    for case in (
        _case("fee.01+.05/h", "0.05", fee="0.01"),
        _case("fee.01+.05/h s30", "0.05", fee="0.01", setup=30),
        _case(".12/h min60", "0.12", least_s=60),
        _case(".12/h min60 s30", "0.12", least_s=60, setup=30),
        _case(".10/h persec", "0.10"),
        _case(".10/h persec s30", "0.10", setup=30),
        _case(".10/h persec s90", "0.10", setup=90),
        _case(".10/h permin", "0.10", step_s=60),
        _case(".10/h permin s30", "0.10", step_s=60, setup=30),
        _case("unit30s", UNIT, step_s=30),
        _case("unit30s s30", UNIT, step_s=30, setup=30),
    )
}
