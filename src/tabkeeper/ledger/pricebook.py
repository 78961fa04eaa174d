"""Keeps price lists in the database: one row for each list that was ever in force for a provider.

A running session keeps the row that it was held with, whatever the configuration says later.
"""

from __future__ import annotations

from decimal import Decimal

from tabkeeper.ledger.instants import micros
from tabkeeper.ledger.rates import RateCard
from tabkeeper.ledger.transaction import Row, Transaction


class PriceBook:
    """Price lists by the number of their row; rows never change but for their end."""

    def __init__(self) -> None:
        self._cards: dict[int, RateCard] = {}

    def forget(self) -> None:
        """Drop what was remembered; see `Books.forget`."""
        self._cards.clear()

    def card(self, tx: Transaction, card_id: int) -> RateCard:
        """Return the list of a row."""
        known = self._cards.get(card_id)
        if known is None:
            row = tx.row("SELECT document FROM rate_card WHERE id = :id", id=card_id)
            assert row is not None, f"rate card {card_id} is gone"
            known = self._cards[card_id] = RateCard.from_json(row.document)
        return known

    def of(self, tx: Transaction, hold: Row) -> RateCard:
        """Return what a held session is charged by: its provider's list, and its own proxy's price if it has one."""
        price = None if hold.proxy_price is None else Decimal(hold.proxy_price)
        return self.card(tx, hold.rate_card_id).with_own_proxy(price, hold.proxy_bytes)

    def put(self, tx: Transaction, provider: str, card: RateCard, at: int) -> int:
        """Make `card` the provider's current list, closing the one before if it differs; return its row."""
        if tx.is_postgres:
            tx.run("LOCK TABLE rate_card IN SHARE ROW EXCLUSIVE MODE")
        current = tx.row(
            "SELECT id, fingerprint, document, effective_from FROM rate_card "
            "WHERE provider = :p AND effective_to IS NULL",
            p=provider,
        )
        starts = micros(card.effective_from)
        if current is not None:
            # Caps are not part of a fingerprint's facts in every version, so the whole text decides.
            if current.fingerprint == card.fingerprint and current.document == card.to_json():
                return int(current.id)
            starts = max(at, current.effective_from + 1)
            tx.run("UPDATE rate_card SET effective_to = :at WHERE id = :id", at=starts, id=current.id)
        row = tx.row(
            "INSERT INTO rate_card (provider, plan, effective_from, fingerprint, source, document, imported_at) "
            "VALUES (:provider, :plan, :starts, :fingerprint, :source, :document, :at) RETURNING id",
            provider=provider,
            plan=card.plan,
            starts=starts,
            fingerprint=card.fingerprint,
            source=card.source,
            document=card.to_json(),
            at=at,
        )
        assert row is not None
        for part in card.components:
            tx.run(
                "INSERT INTO rate_component (rate_card_id, kind, unit, unit_price, per_qty, increment_qty, min_qty, "
                "included_qty, cap_qty) VALUES (:id, :kind, :unit, :price, :per, :step, :least, :included, :cap)",
                id=row.id,
                kind=part.kind,
                unit=part.unit,
                price=str(part.unit_price),
                per=part.per_qty,
                step=part.increment_qty,
                least=part.min_qty,
                included=part.included_qty,
                cap=part.cap_qty,
            )
        return int(row.id)
