"""Where price lists come from: the built-in ones of `rates.toml`, and those that a configuration writes itself.

The built-in lists hold only documented figures, each with its source and the day it was read. What a list
costs is worked out in `rates`.
"""

from __future__ import annotations

import difflib
import tomllib
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from tabkeeper.config import ProviderSettings, RateSettings
from tabkeeper.errors import ConfigError, NoPriceError
from tabkeeper.ledger.rates import Component, RateCard

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""Beginning of price lists that have no date of their own."""

_HOUR_MS = 3_600_000
_GB = 1_000_000_000


@cache
def all_cards() -> tuple[RateCard, ...]:
    """Return every built-in price list, by plan and then by date."""
    text = files("tabkeeper.ledger").joinpath("rates.toml").read_text(encoding="utf-8")
    cards = [_card_from_toml(table) for table in tomllib.loads(text)["card"]]
    return tuple(sorted(cards, key=lambda card: (card.plan, card.effective_from)))


def find_card(plan: str, at: datetime) -> RateCard:
    """Return the built-in price list of a plan that is valid at an instant.

    Raises:
        ConfigError: there is no such plan; the message names the nearest.
        NoPriceError: the plan's prices are not known for that instant.
    """
    dated = [card for card in all_cards() if card.plan == plan]
    if not dated:
        known = sorted({card.plan for card in all_cards()})
        near = difflib.get_close_matches(plan, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"there is no built-in price list {plan!r}; {hint}")
    for card in dated:
        if card.is_valid_at(at):
            return card
    raise NoPriceError(
        f"the prices of {plan!r} are known only from {dated[0].effective_from:%Y-%m-%d}, not at {at:%Y-%m-%d}; "
        "write rates of your own for the provider"
    )


def card_from_settings(rates: RateSettings, name: str = "own") -> RateCard:
    """Make a price list of a configuration's own figures."""
    max_bytes = None if rates.max_gb is None else int(rates.max_gb * _GB)
    time_step = int(rates.increment.total_seconds() * 1000)
    parts = [
        Component(
            kind="time",
            unit="hour",
            unit_price=rates.per_hour,
            per_qty=_HOUR_MS,
            increment_qty=max(1, time_step),
            min_qty=int(rates.minimum.total_seconds() * 1000),
            included_qty=int(rates.included_hours * _HOUR_MS),
        ),
        Component(kind="proxy_bytes", unit="GB", unit_price=rates.per_gb, per_qty=_GB, cap_qty=max_bytes),
    ]
    if rates.per_session:
        parts.insert(0, Component(kind="session", unit="session", unit_price=rates.per_session))
    return RateCard(plan=name, effective_from=ALWAYS, source="configuration", components=tuple(parts))


def card_of_provider(name: str, provider: ProviderSettings, at: datetime) -> RateCard:
    """Return the price list of a provider of the configuration: its own rates, a built-in plan, or free if local.

    Raises:
        ConfigError: it names a plan that does not exist.
        NoPriceError: nobody said what the provider costs.
    """
    if provider.rates is not None:
        return card_from_settings(provider.rates, name)
    if provider.plan is not None:
        card = find_card(provider.plan, at)
        if provider.max_gb is None:
            return card
        return card.with_cap("proxy_bytes", int(provider.max_gb * _GB))
    if provider.kind == "local":
        return card_from_settings(RateSettings(), name)
    raise NoPriceError(
        f"nobody knows what provider {name!r} costs; set providers.{name}.rates (all zero if it is free) or a plan"
    )


def _card_from_toml(table: dict[str, Any]) -> RateCard:
    parts = [_component_from_toml(part) for part in table["component"]]
    return RateCard(
        plan=table["plan"],
        effective_from=_midnight_utc(table["effective_from"]),
        effective_to=_midnight_utc(table["effective_to"]) if "effective_to" in table else None,
        source=table["source"],
        checked_at=table["checked_at"],
        note=" ".join(table.get("note", "").split()),
        components=tuple(parts),
    )


def _component_from_toml(part: dict[str, Any]) -> Component:
    return Component(**{**part, "unit_price": Decimal(part["unit_price"])})


def _midnight_utc(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)
