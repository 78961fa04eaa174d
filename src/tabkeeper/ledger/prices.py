"""Prices of a configuration's providers, and the terms on which a session may be held.

Lists are resolved from the configuration when first needed and again when they run out; their rows are kept in
the price book.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import BudgetExceededError, NoPriceError
from tabkeeper.ledger.cards import card_of_provider
from tabkeeper.ledger.instants import micros
from tabkeeper.ledger.pricebook import PriceBook
from tabkeeper.ledger.rates import RateCard, longest_within, worst_case
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.ledger.types import HoldRequest
from tabkeeper.money import ZERO, Money

_SHORTEST = 1.0
"""Seconds; a session that may not live even this long is not worth creating."""

_MOST_TERMS = 4096

_Terms = tuple[int, float, Money | None, Decimal | None, int]


class Prices:
    """The price list of each provider, by name."""

    def __init__(self, providers: Mapping[str, ProviderSettings]) -> None:
        self._providers = providers
        self._published: dict[str, tuple[int, RateCard]] = {}
        self._resolved: dict[str, RateCard] = {}
        self.book = PriceBook()
        self._terms: dict[_Terms, tuple[float | None, Money]] = {}

    def current(self, provider: str, now: datetime) -> RateCard:
        """Return the list that the configuration gives a provider at an instant.

        Raises:
            NoPriceError: it gives none.
            ConfigError: it names a list that does not exist.
        """
        known = self._resolved.get(provider)
        if known is not None and known.is_valid_at(now):
            return known
        if provider not in self._providers:
            raise NoPriceError(
                f"provider {provider!r} is not in the configuration, so nobody knows what it costs"
            )
        card = self._resolved[provider] = card_of_provider(provider, self._providers[provider], now)
        return card

    def published(self, provider: str, now: datetime) -> tuple[int, RateCard] | None:
        """Return the list's row and the list, if it is in the database and valid."""
        known = self._published.get(provider)
        return known if known is not None and known[1].is_valid_at(now) else None

    def publish_all(self, tx: Transaction, now: datetime) -> dict[str, tuple[int, RateCard]]:
        """Write all lists down; a provider without prices is refused later, when a session is asked for."""
        rows = {}
        for name in self._providers:
            with contextlib.suppress(NoPriceError):
                rows[name] = self.publish(tx, name, now)
        return rows

    def publish(self, tx: Transaction, provider: str, now: datetime) -> tuple[int, RateCard]:
        """Write a provider's list down and return its row; see `current` for what it raises."""
        card = self.current(provider, now)
        return self.book.put(tx, provider, card, micros(now)), card

    def remember(self, rows: Mapping[str, tuple[int, RateCard]]) -> None:
        """Use these rows from now on: the transaction that wrote them is committed."""
        self._published.update(rows)

    def terms(self, card_id: int, card: RateCard, ask: HoldRequest) -> tuple[float, Money]:
        """Return how long the session may live, in seconds, and the worst case of that.

        Raises:
            NoPriceError: there is no worst case.
            BudgetExceededError: even a short life costs more than `max_session_cost`.
        """
        key = (card_id, ask.max_seconds, ask.max_session_cost, ask.proxy_price, ask.proxy_bytes)
        if key not in self._terms:
            if len(self._terms) >= _MOST_TERMS:
                self._terms.clear()
            self._terms[key] = terms(card, ask.max_seconds, ask.max_session_cost)
        seconds, amount = self._terms[key]
        if seconds is None:
            cap = ask.max_session_cost or ZERO
            raise BudgetExceededError(
                budget="max_session_cost",
                limit=cap,
                spent=ZERO,
                held=ZERO,
                needed=amount,
                resets_at=None,
                subject=f'a session of "{ask.platform}" at {ask.provider}',
            )
        return seconds, amount


def terms(card: RateCard, max_seconds: float, cap: Money | None) -> tuple[float | None, Money]:
    """Return how long a session may live, None if `cap` pays for no life at all, and the worst case of that."""
    if cap is None:
        return max_seconds, worst_case(card, max_seconds)
    shortest = min(_SHORTEST, max_seconds)
    longest = longest_within(card, cap)
    if longest < shortest or worst_case(card, shortest) > cap:
        return None, worst_case(card, shortest)
    seconds = max_seconds if math.isinf(longest) else min(max_seconds, longest)
    return seconds, worst_case(card, seconds)
