"""Reads what was booked, line by line: the rows that every export is made of. As of an entry, the same rows for ever.

Rows come in the order in which they count (by instant, then by number), and a few thousand at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text

from tabkeeper.ledger.instants import moment
from tabkeeper.ledger.rates import Component, RateCard
from tabkeeper.money import Money
from tabkeeper.reports.figures import Span

_AT_ONCE = 5000
_NO_TAGS = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedLine:
    """One line of one entry, with whose it is. Quantities are milliseconds, bytes or counts, as on the price list."""

    entry_id: int
    entry: str
    """settle or adjust."""
    kind: str
    """time, session, proxy_bytes ...; provider is what a provider says beyond what its quantities explain."""
    amount: Money
    raw_qty: int
    billed_qty: int
    included_qty: int
    effective_at: datetime
    """When it counts: the instant of the session's hold."""
    recorded_at: datetime
    ended_at: datetime
    quality: str
    session_id: str
    provider_session_id: str | None
    state: str
    """How the session ended: closed, failed, lost ..."""
    platform: str
    provider: str
    tenant: str
    """Whose request created the session."""
    card_id: int
    card: RateCard
    proxy_price: Decimal | None
    """Dollars for 10^9 bytes through the session's own proxy."""
    tags: Mapping[str, str]
    """Of the session's leases, those on which all of them agree."""

    @property
    def price(self) -> Component | None:
        """The price it was charged by; None if it is on no price list."""
        return self.card.with_own_proxy(self.proxy_price, 0).component(self.kind)

    @property
    def vendor(self) -> str:
        """Who sells it: the plan's first part, such as ``browserbase``, or the provider's own name."""
        return self.card.plan.partition("/")[0] if "/" in self.card.plan else self.provider


def booked_lines(conn: Connection, span: Span, upto: int) -> Iterator[BookedLine]:
    """Yield the lines of all entries that count in a span and have at most the number `upto`."""
    bounds = {"start": span.start, "end": span.end, "upto": upto}
    cards: dict[int, RateCard] = {}
    tags = _tags(conn, bounds)
    rows = conn.execution_options(yield_per=_AT_ONCE).execute(_LINES, bounds)
    for row in rows:
        card = cards.get(row.card_id)
        if card is None:
            card = cards[row.card_id] = RateCard.from_json(row.document)
        yield BookedLine(
            entry_id=int(row.id),
            entry=row.entry,
            kind=row.kind,
            amount=Money(int(row.amount_n)),
            raw_qty=int(row.raw_qty),
            billed_qty=int(row.billed_qty),
            included_qty=int(row.included_qty),
            effective_at=moment(row.effective_at),
            recorded_at=moment(row.recorded_at),
            ended_at=moment(row.ended_at),
            quality=row.quality,
            session_id=row.session_id,
            provider_session_id=row.provider_session_id,
            state=row.state,
            platform=row.platform,
            provider=row.provider,
            tenant=row.tenant,
            card_id=int(row.card_id),
            card=card,
            proxy_price=None if row.proxy_price is None else Decimal(row.proxy_price),
            tags=tags.get(row.session_id, {}),
        )


def _tags(conn: Connection, bounds: Mapping[str, int]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for session_id, written, tagged, leases in conn.execute(_TAGS, bounds):
        if tagged == leases:
            own = {str(key): str(value) for key, value in json.loads(written).items()}
            before = found.get(session_id)
            found[session_id] = own if before is None else dict(before.items() & own.items())
    return {session_id: dict(sorted(tags.items())) for session_id, tags in found.items() if tags}


_LINES = text("""
    SELECT e.id, e.kind AS entry, e.effective_at, e.recorded_at, e.quality, e.session_id,
           n.kind, n.amount_n, n.raw_qty, n.billed_qty, n.included_qty,
           s.platform, s.provider, s.tenant, s.state, s.provider_session_id, s.ended_at,
           c.id AS card_id, c.document, h.proxy_price
      FROM entry e JOIN entry_line n ON n.entry_id = e.id JOIN session s ON s.id = e.session_id
      JOIN rate_card c ON c.id = s.rate_card_id JOIN hold h ON h.session_id = s.id
     WHERE e.effective_at >= :start AND e.effective_at < :end AND e.id <= :upto
     ORDER BY e.effective_at, e.id, n.kind""")

# One row for each session and set of tags, with how many of its leases have tags at all.
_TAGS = text(f"""
    SELECT l.session_id, l.tags,
           (SELECT COUNT(*) FROM lease t WHERE t.session_id = l.session_id AND t.tags <> '{_NO_TAGS}') AS tagged,
           (SELECT COUNT(*) FROM lease t WHERE t.session_id = l.session_id) AS leases
      FROM entry e JOIN lease l ON l.session_id = e.session_id
     WHERE e.effective_at >= :start AND e.effective_at < :end AND e.id <= :upto AND e.kind = 'settle'
       AND l.tags <> '{_NO_TAGS}'
     GROUP BY l.session_id, l.tags ORDER BY l.session_id, l.tags""")  # noqa: S608 - a constant
