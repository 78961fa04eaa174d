"""What a session costs: price lists as data, and pure functions from a usage to exact money.

Quantities are integers (milliseconds, bytes, counts) and every line is rounded once, half to even, to a
nano-dollar. This room reads no clock, no file and no database; the built-in lists are in `cards`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

from tabkeeper.errors import NoPriceError
from tabkeeper.money import NANOS_PER_DOLLAR, ZERO, Money

TIME_KINDS = frozenset({"time", "units", "gb_second"})
"""Kinds that meter the session's life in milliseconds: plain time, virtual units of time, memory over time."""

OWN_PROXY_KIND = "own_proxy_bytes"
"""Traffic through a proxy of the user's own, which its session's provider neither sees nor bills."""

BYTE_KINDS = frozenset({"proxy_bytes", OWN_PROXY_KIND})
"""Kinds that meter traffic in bytes."""

SESSION_KIND = "session"
"""The kind of a fee for each session created: its quantity is always one."""

_LONGEST_LIFE_MS = 10 * 366 * 86_400_000
_FORMAT = 1
_GB = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing that a provider charges for.

    All quantities are in the meter's own unit: milliseconds for `TIME_KINDS`, bytes for `BYTE_KINDS`, one for
    ``session``, a count for any other kind. ``unit_price`` dollars buy ``per_qty`` of them; what people call
    that amount is ``unit``. So a Browserless unit is ``per_qty=30_000`` (ms), a GB-second of an 8 GB browser
    is ``per_qty=125``.
    """

    kind: str
    unit: str
    unit_price: Decimal
    per_qty: int = 1
    increment_qty: int = 1
    """Billed in whole steps of this, rounded up."""
    min_qty: int = 0
    """The least that is billed once there is anything to bill."""
    included_qty: int = 0
    """Free of charge in a calendar month (UTC), over all sessions of the plan."""
    cap_qty: int | None = None
    """The most that one session may use; needed for a worst case of anything but time and fees."""

    def __post_init__(self) -> None:
        if not self.unit_price.is_finite() or self.unit_price < 0:
            raise ValueError(f"{self.kind}: {self.unit_price!r} is not a price")
        if self.per_qty < 1 or self.increment_qty < 1 or self.min_qty < 0 or self.included_qty < 0:
            raise ValueError(f"{self.kind}: quantities must not be negative, nor steps zero")
        if self.cap_qty is not None and self.cap_qty < 0:
            raise ValueError(f"{self.kind}: a cap must not be negative")

    def billed(self, raw_qty: int) -> int:
        """Round a metered quantity up to what the provider bills.

        A session that exists has begun its first step of time, so time and fees are never billed as nothing;
        traffic and counts are, if there were none.
        """
        if raw_qty == 0 and self.kind not in TIME_KINDS:
            return 0
        steps = -(-max(raw_qty, 1) // self.increment_qty)
        return max(self.min_qty, steps * self.increment_qty)

    def amount(self, qty: int) -> Money:
        """Price a quantity exactly, then round it once."""
        return Money(self.nanos(qty))

    def nanos(self, qty: int) -> int:
        """As `amount`, in nano-dollars and without a bound."""
        numerator, denominator = self.unit_price.as_integer_ratio()
        return _half_even(qty * numerator * NANOS_PER_DOLLAR, denominator * self.per_qty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a session's bill; `billed_qty - included_qty` is what `amount` pays for."""

    kind: str
    raw_qty: int
    billed_qty: int
    included_qty: int = 0
    amount: Money = ZERO


@dataclass(frozen=True, kw_only=True)
class RateCard:
    """A dated price list. It never changes: a new price is a new card that begins where the old one ends."""

    plan: str
    """Name such as ``browserbase/developer``."""
    effective_from: datetime
    effective_to: datetime | None = None
    """First instant at which it no longer holds; None while it does."""
    source: str = ""
    """Where the prices were read."""
    checked_at: date | None = None
    note: str = ""
    """What the source leaves open, and how it was read."""
    components: tuple[Component, ...] = ()

    def __post_init__(self) -> None:
        kinds = [component.kind for component in self.components]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"{self.plan}: a kind is priced twice: {', '.join(kinds)}")
        for instant in (self.effective_from, self.effective_to):
            if instant is not None and instant.tzinfo is None:
                raise ValueError(f"{self.plan}: instants of a price list need a time zone")
        if self.effective_to is not None and self.effective_to <= self.effective_from:
            raise ValueError(f"{self.plan}: the list ends before it begins")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of plan, beginning and prices; closing a card or adding a note does not change it."""
        data = self.as_dict()
        facts = [data["plan"], data["effective_from"], data["components"]]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def is_valid_at(self, at: datetime) -> bool:
        """Tell whether this card prices a session that is created at `at`."""
        return self.effective_from <= at and (self.effective_to is None or at < self.effective_to)

    def component(self, kind: str) -> Component | None:
        """Return the component of that kind, or None if the card does not charge for it."""
        return next((component for component in self.components if component.kind == kind), None)

    def with_cap(self, kind: str, cap_qty: int) -> RateCard:
        """Return a copy in which a session may use at most `cap_qty` of that kind (if it is charged at all)."""
        parts = (replace(c, cap_qty=cap_qty) if c.kind == kind else c for c in self.components)
        return replace(self, components=tuple(parts))

    def with_own_proxy(self, price_per_gb: Decimal | None, cap_qty: int) -> RateCard:
        """Return a copy that also charges for traffic through a proxy of one's own; itself without a price.

        Args:
            price_per_gb: dollars for 10^9 bytes.
            cap_qty: the most bytes that one session may move.
        """
        if not price_per_gb:
            return self
        own = Component(kind=OWN_PROXY_KIND, unit="GB", unit_price=price_per_gb, per_qty=_GB, cap_qty=cap_qty)
        return replace(self, components=(*self.components, own))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; prices are text."""
        return {
            "format": _FORMAT,
            "plan": self.plan,
            "effective_from": self.effective_from.isoformat(),
            "effective_to": self.effective_to.isoformat() if self.effective_to else None,
            "source": self.source,
            "checked_at": self.checked_at.isoformat() if self.checked_at else None,
            "note": self.note,
            "components": [
                {
                    "kind": c.kind,
                    "unit": c.unit,
                    "unit_price": str(c.unit_price),
                    "per_qty": c.per_qty,
                    "increment_qty": c.increment_qty,
                    "min_qty": c.min_qty,
                    "included_qty": c.included_qty,
                    "cap_qty": c.cap_qty,
                }
                for c in self.components
            ],
        }

    def to_json(self) -> str:
        """One line of JSON from which `from_json` makes an equal card."""
        return json.dumps(self.as_dict(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> RateCard:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is no rate card, or of a format that this version does not know.
        """
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
            raise ValueError(f"this is not a rate card of format {_FORMAT}")
        ends, checked = data.pop("effective_to"), data.pop("checked_at")
        try:
            return cls(
                plan=data.pop("plan"),
                effective_from=datetime.fromisoformat(data.pop("effective_from")),
                effective_to=datetime.fromisoformat(ends) if ends else None,
                checked_at=date.fromisoformat(checked) if checked else None,
                components=tuple(
                    Component(**{**part, "unit_price": Decimal(part["unit_price"])})
                    for part in data.pop("components")
                ),
                **data,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"this rate card is incomplete: {error}") from None


def lines(
    card: RateCard,
    seconds: float,
    *,
    proxy_bytes: int = 0,
    quantities: Mapping[str, int] | None = None,
    included_left: Mapping[str, int] | None = None,
) -> list[Line]:
    """Bill one session, one line for each component of the card.

    Args:
        card: the price list frozen for the session.
        seconds: the session's life.
        proxy_bytes: traffic through a proxy that the provider charges for.
        quantities: amounts of other kinds, such as solved captchas.
        included_left: what is left of the month's allowance by kind; none is assumed where it is not said.

    Raises:
        NoPriceError: a quantity was used that the card has no price for.
    """
    used = {SESSION_KIND: 1, "proxy_bytes": proxy_bytes, **(quantities or {})}
    life_ms = _milliseconds(seconds)
    out = []
    for part in card.components:
        raw = life_ms if part.kind in TIME_KINDS else used.get(part.kind, 0)
        if raw < 0:
            raise ValueError(f"{part.kind}: a session cannot use {raw}")
        billed = part.billed(raw)
        free = min(billed, part.included_qty, (included_left or {}).get(part.kind, 0))
        line = Line(
            kind=part.kind,
            raw_qty=raw,
            billed_qty=billed,
            included_qty=free,
            amount=part.amount(billed - free),
        )
        out.append(line)
    unpriced = [k for k, qty in used.items() if qty and k != SESSION_KIND and card.component(k) is None]
    if unpriced and not is_free(card):
        raise NoPriceError(f"the price list {card.plan!r} has no price for {', '.join(unpriced)}")
    return out


def own_traffic(card: RateCard, counted: int | None) -> dict[str, int]:
    """Return what went through a proxy of one's own as the card charges for it; all it allows, if nobody counted."""
    part = card.component(OWN_PROXY_KIND)
    if part is None:
        return {}
    assert part.cap_qty is not None, "what has a price has a bound"
    return {OWN_PROXY_KIND: part.cap_qty if counted is None else counted}


def price(
    card: RateCard,
    seconds: float,
    proxy_bytes: int = 0,
    *,
    quantities: Mapping[str, int] | None = None,
    included_left: Mapping[str, int] | None = None,
) -> Money:
    """Total of `lines`."""
    bill = lines(card, seconds, proxy_bytes=proxy_bytes, quantities=quantities, included_left=included_left)
    return Money(sum(line.amount.nanos for line in bill))


def worst_case(card: RateCard, max_seconds: float) -> Money:
    """Most that a session of at most `max_seconds` can cost: every cap reached, no allowance left.

    Raises:
        NoPriceError: something is charged by quantity and nothing limits that quantity.
    """
    caps: dict[str, int] = {}
    for part in card.components:
        if part.kind in TIME_KINDS or part.kind == SESSION_KIND:
            continue
        if part.cap_qty is None:
            if part.unit_price == 0:
                continue
            raise NoPriceError(
                f"the price list {card.plan!r} charges ${part.unit_price} per {part.unit} of {part.kind} and "
                'nothing limits it, so a session has no worst case; set max_gb ("0" if there is none)'
            )
        caps[part.kind] = part.cap_qty
    return price(card, max_seconds, quantities=caps)


def longest_within(card: RateCard, cap: Money) -> float:
    """Longest life, in seconds, whose worst case is at most `cap`.

    Returns 0 if not even the shortest session fits, and infinity if ten years do (as when time is free).

    Raises:
        NoPriceError: as `worst_case`.
    """
    timed = [part for part in card.components if part.kind in TIME_KINDS]
    left = cap.nanos - worst_case(card, 0).nanos + sum(part.nanos(part.billed(0)) for part in timed)

    def affordable(life_ms: int) -> bool:
        return sum(part.nanos(part.billed(life_ms)) for part in timed) <= left

    if not affordable(0):
        return 0.0
    if affordable(_LONGEST_LIFE_MS):
        return math.inf
    fits, too_long = 0, _LONGEST_LIFE_MS
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if affordable(middle):
            fits = middle
        else:
            too_long = middle
    return fits / 1000


def accrued(card: RateCard, age_seconds: float) -> Money:
    """What a session of this age already costs, traffic aside; it never falls as the session ages.

    At age 0 it is what creating the session costs whatever follows: the fee and the first step of time.
    """
    return price(card, max(0.0, age_seconds))


def rounding_part(card: RateCard, bill: list[Line]) -> Money:
    """Part of a bill that pays for increments and minimums, not for what was really used."""
    extra = 0
    for line in bill:
        part = card.component(line.kind)
        if part is not None and line.billed_qty > line.raw_qty:
            used = max(0, line.raw_qty - line.included_qty)
            extra += line.amount.nanos - part.amount(used).nanos
    return Money(extra)


def is_free(card: RateCard) -> bool:
    """Tell whether nothing on the card costs anything."""
    return all(component.unit_price == 0 for component in card.components)


def _milliseconds(seconds: float) -> int:
    """Whole milliseconds begun; noise of float arithmetic below a microsecond begins none."""
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(f"a session cannot live {seconds} seconds")
    return -(-round(seconds * 1_000_000) // 1000)


def _half_even(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    if rest * 2 > denominator or (rest * 2 == denominator and whole % 2):
        return whole + 1
    return whole
