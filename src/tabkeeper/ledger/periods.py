"""What a provider billed a whole account in a period, against what our sessions of it came to.

What no session of ours explains is still paid. It is booked as an adjustment in the period's own windows, on a row of
its own whose platform is `UNATTRIBUTED`; asked again, that row is adjusted to what is known then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from tabkeeper.clock import Clock
from tabkeeper.ledger.adjusting import booked_lines, rewrite
from tabkeeper.ledger.alerting import Reads
from tabkeeper.ledger.budgets import Denial
from tabkeeper.ledger.comparing import OURS, SAID_KIND, Figures, between
from tabkeeper.ledger.instants import length_us, micros, moment
from tabkeeper.ledger.journal import Books, digest, entry, held_windows, hold, hold_row, postings
from tabkeeper.ledger.rates import TIME_KINDS, Line, RateCard
from tabkeeper.ledger.settling import Bill, allowance_left
from tabkeeper.ledger.store import Writer
from tabkeeper.ledger.transaction import Row, Transaction
from tabkeeper.money import ZERO, Money

UNATTRIBUTED = "(unattributed)"
"""Platform and tenant of what a provider billed beyond the sessions on record."""
_QUIET_US = length_us(120)
"""A provider's running total is taken for complete once nothing of ours ran there for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodComparison:
    """A provider's total of a period against ours, without fees for sessions as such."""

    provider: str
    start: datetime
    end: datetime
    ours: Money
    theirs: Money
    booked: Money
    """What of the difference is booked as `UNATTRIBUTED`; nothing where theirs is less than ours."""
    adjusted: bool
    """An entry was written just now (or would be, if only looking)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A provider's running total, as it was last read."""

    at: datetime
    seconds_us: int
    proxy_bytes: int


class OnlyLookingAtPeriod(Exception):  # noqa: N818 - no error: it undoes what would have been written
    """Carries a comparison out of a transaction that must leave no trace. Never leaves the ledger."""

    def __init__(self, comparison: PeriodComparison | None) -> None:
        super().__init__("undone")
        self.comparison = comparison


class Periods:
    """The totals of periods; get it as ``ledger.periods``."""

    def __init__(self, writer: Writer, read: Reads, clock: Clock, process_id: str) -> None:
        self._writer = writer
        self._read = read
        self._clock = clock
        self._process_id = process_id

    async def since(self, provider: str) -> datetime | None:
        """Return since when this ledger has prices of a provider: its totals of before are not ours.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        at = await self._read(
            lambda c: c.execute(
                text("SELECT MIN(imported_at) FROM rate_card WHERE provider = :p"), {"p": provider}
            ).scalar()
        )
        return None if at is None else moment(int(at))

    async def compared(self, provider: str, *, since: datetime) -> list[PeriodComparison]:
        """Return what is on record of periods that began since an instant, oldest first.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        return await self._read(lambda c: _compared(c, provider, micros(since)))

    async def reading(self, provider: str) -> Reading | None:
        """Return the running total at which the next period of a provider begins; None before the first.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        return await self._read(lambda c: _reading(c, provider))

    async def compare(
        self,
        provider: str,
        start: datetime,
        end: datetime,
        figures: Figures,
        *,
        reading: Reading | None = None,
        dry_run: bool = False,
    ) -> PeriodComparison | None:
        """Compare a period and book what no session of ours explains; None if it is not complete yet.

        Args:
            provider: whose.
            start: of the period; a session counts in it if it was created in it.
            end: of the period. The start itself: only keep `reading`.
            figures: what it billed in all.
            reading: its running total at the end, if that is how it counts.
            dry_run: write nothing.

        Raises:
            LedgerUnavailableError: the database is away; nothing was written.
        """
        operation = {
            "op": "period",
            "provider": provider,
            "start": micros(start),
            "end": micros(end),
            "seconds_us": figures.seconds_us,
            "proxy_bytes": figures.proxy_bytes,
            "cost_n": None if figures.cost is None else figures.cost.nanos,
            "reading": None if reading is None else [reading.seconds_us, reading.proxy_bytes],
            "process_id": self._process_id,
            "dry_run": dry_run,
            "at": micros(self._clock.now()),
        }
        try:
            # Not kept if the database is away: it is asked again.
            found: PeriodComparison | None = await self._writer.do(operation, keep=False)
        except OnlyLookingAtPeriod as looked:
            return looked.comparison
        return found


def apply(tx: Transaction, books: Books, operation: Mapping[str, Any]) -> PeriodComparison | None:
    """Carry out a comparison; see `LedgerOperations`."""
    found = _apply(tx, books, operation)
    if operation["dry_run"]:
        raise OnlyLookingAtPeriod(found)
    return found


def _apply(tx: Transaction, books: Books, operation: Mapping[str, Any]) -> PeriodComparison | None:
    where = {key: operation[key] for key in ("provider", "start", "end")}
    if tx.is_postgres:
        # Two processes that compare one period at once would both find nothing booked.
        tx.run("LOCK TABLE recon_period IN SHARE ROW EXCLUSIVE MODE")
    known = tx.row(
        "SELECT end_at, session_id FROM recon_period WHERE provider = :p AND start_at = :start",
        p=where["provider"],
        start=where["start"],
    )
    by_reading = operation["reading"] is not None
    if by_reading:
        # A total that was read while something ran, or was about to, belongs to no whole sessions.
        if tx.row(_STIRS, u=UNATTRIBUTED, quiet=where["end"] - _QUIET_US, **where):
            return None
        if known is not None and known.end_at > where["start"]:
            return None  # another process was here first
    elif tx.row(_NOT_COMPLETE, u=UNATTRIBUTED, **where):
        return None
    if where["start"] == where["end"]:
        _write(tx, operation, ours=0, theirs=0, booked=0, session_id=None)
        return None
    card_id = _card_id(tx, where)
    if card_id is None:
        return None
    card = books.prices.card(tx, card_id)
    ours = _ours(tx, where)
    more = _more(card, ours, operation)
    session_id = f"unattributed-{where['provider']}-{moment(where['start']):%Y%m%dT%H%M%S}"
    row = hold_row(tx, session_id, lock=True)
    if row is None and any(quantity > 0 for quantity in more.values()):
        row = _open(tx, books, session_id, card_id, operation)
    target = [] if row is None else _target(tx, row, card, more)
    booked = sum(line.amount.nanos for line in target)
    adjusted = row is not None and _adjust(tx, row, card, target, at=operation["at"])
    # What they billed less is told, and not booked: nobody can say which session it was.
    less = sum(_value(card, kind, -quantity) for kind, quantity in more.items() if quantity < 0)
    theirs = ours.amount + booked - less if operation["cost_n"] is None else operation["cost_n"]
    _write(
        tx,
        operation,
        ours=ours.amount,
        theirs=theirs,
        booked=booked,
        session_id=None if row is None else session_id,
    )
    return PeriodComparison(
        provider=where["provider"],
        start=moment(where["start"]),
        end=moment(where["end"]),
        ours=Money(ours.amount),
        theirs=Money(theirs),
        booked=Money(booked),
        adjusted=adjusted,
    )


@dataclass(frozen=True, slots=True)
class _Ours:
    amount: int
    milliseconds: int
    proxy_bytes: int


def _ours(tx: Transaction, where: Mapping[str, Any]) -> _Ours:
    """Add up what our sessions of a period were billed for."""
    rows = tx.rows(_OURS, u=UNATTRIBUTED, **where)
    by_kind = {row.kind: row for row in rows}
    return _Ours(
        amount=sum(int(row.amount_n) for row in rows if row.kind not in OURS),
        milliseconds=max((int(by_kind[kind].billed_qty) for kind in TIME_KINDS & by_kind.keys()), default=0),
        proxy_bytes=int(by_kind["proxy_bytes"].raw_qty) if "proxy_bytes" in by_kind else 0,
    )


def _more(card: RateCard, ours: _Ours, operation: Mapping[str, Any]) -> dict[str, int]:
    """Return by how much theirs is more than ours, by kind of line; dollars where they tell dollars."""
    if operation["cost_n"] is not None:
        return {SAID_KIND: operation["cost_n"] - ours.amount}
    found = {}
    if operation["seconds_us"] is not None:
        milliseconds = operation["seconds_us"] // 1000
        found = {
            part.kind: milliseconds - ours.milliseconds for part in card.components if part.kind in TIME_KINDS
        }
    if operation["proxy_bytes"] is not None and card.component("proxy_bytes"):
        found["proxy_bytes"] = operation["proxy_bytes"] - ours.proxy_bytes
    return found


def _value(card: RateCard, kind: str, quantity: int) -> int:
    part = card.component(kind)
    return quantity if part is None else part.amount(quantity).nanos


def _target(tx: Transaction, row: Row, card: RateCard, more: Mapping[str, int]) -> list[Line]:
    """Return the lines of what no session explains, the month's allowance counted."""
    booked = booked_lines(tx, row.session_id)
    left = allowance_left(tx, row, card)
    found = []
    for kind, quantity in sorted(more.items()):
        if quantity <= 0:
            continue
        if kind == SAID_KIND:
            found.append(Line(kind=kind, raw_qty=0, billed_qty=0, amount=Money(quantity)))
            continue
        had = booked[kind].included_qty if kind in booked else 0
        free = min(quantity, left.get(kind, 0) + had)
        amount = Money(_value(card, kind, quantity - free))
        found.append(Line(kind=kind, raw_qty=quantity, billed_qty=quantity, included_qty=free, amount=amount))
    return found


def _open(tx: Transaction, books: Books, session_id: str, card_id: int, operation: Mapping[str, Any]) -> Row:
    """Make the row that bears what no session explains: settled at once, with nothing, in the period's windows."""
    # Its middle: of all instants of a day the one that is least often another day elsewhere.
    at = (operation["start"] + operation["end"]) // 2
    facts = {
        "platform": UNATTRIBUTED,
        "provider": operation["provider"],
        "tenant": UNATTRIBUTED,
        "max_us": 0,
        "cap_n": None,
    }
    ask = {
        **facts,
        "session_id": session_id,
        "held_us": 0,
        "amount_n": 0,
        "is_free": False,
        "rate_card_id": card_id,
        "process_id": operation["process_id"],
        "at": at,
        "expires_at": operation["end"],
    }
    held = hold(tx, books, ask)
    assert not isinstance(held, Denial), "nothing always fits"
    row = hold_row(tx, session_id, lock=True)
    assert row is not None
    end = {
        "session_id": session_id,
        "seconds_us": 0,
        "quality": "measured",
        "state": "closed",
        "reason": "billed by its provider for a period, and no session of ours explains it",
        "at": operation["end"],
    }
    windows = held_windows(tx, session_id)
    entry_id = entry(
        tx,
        f"settle:{session_id}",
        digest(facts),
        "settle",
        session_id,
        effective_at=at,
        at=operation["at"],
        reason=end["reason"],
    )
    Bill(hold=row, op=end, cost=ZERO, lines=[], leases=[], shares=[], idle=ZERO, rounding=ZERO).write(
        tx, entry_id
    )
    postings(tx, entry_id, windows, d_held=0)
    tx.run(
        "UPDATE hold SET state = 'settled', resolved_at = :at WHERE session_id = :s",
        at=operation["at"],
        s=session_id,
    )
    return row


def _adjust(tx: Transaction, row: Row, card: RateCard, target: list[Line], *, at: int) -> bool:
    """Make the row cost what `target` says; say whether that took an entry."""
    change = between(booked_lines(tx, row.session_id), target)
    if not change:
        return False
    session = tx.row(
        "SELECT state, quality, cost_n, idle_n, rounding_n, seconds_us FROM session WHERE id = :s",
        s=row.session_id,
    )
    assert session is not None
    rewrite(
        tx,
        row,
        session,
        card=card,
        bill=target,
        change=change,
        seconds_us=1000 * max((line.billed_qty for line in target if line.kind in TIME_KINDS), default=0),
        quality="provider",
        at=at,
        reason="by its provider's total of the period",
    )
    return True


def _write(
    tx: Transaction,
    operation: Mapping[str, Any],
    *,
    ours: int,
    theirs: int,
    booked: int,
    session_id: str | None,
) -> None:
    said = {key: operation[key] for key in ("seconds_us", "proxy_bytes", "cost_n", "reading")}
    tx.run(
        _WRITE,
        provider=operation["provider"],
        start=operation["start"],
        end=operation["end"],
        at=operation["at"],
        ours=ours,
        theirs=theirs,
        booked=booked,
        session=session_id,
        said=json.dumps(said, sort_keys=True),
    )


def _card_id(tx: Transaction, where: Mapping[str, Any]) -> int | None:
    """Return the price list that was in force at a period's end."""
    row = tx.row(
        "SELECT id FROM rate_card WHERE provider = :provider AND effective_from < :end "
        "ORDER BY effective_from DESC LIMIT 1",
        provider=where["provider"],
        end=where["end"],
    )
    return None if row is None else int(row.id)


def _compared(connection: Connection, provider: str, since: int) -> list[PeriodComparison]:
    rows = connection.execute(
        text(
            "SELECT * FROM recon_period WHERE provider = :p AND start_at >= :since AND end_at > start_at "
            "ORDER BY start_at"
        ),
        {"p": provider, "since": since},
    )
    return [
        PeriodComparison(
            provider=row.provider,
            start=moment(int(row.start_at)),
            end=moment(int(row.end_at)),
            ours=Money(int(row.ours_n)),
            theirs=Money(int(row.theirs_n)),
            booked=Money(int(row.booked_n)),
            adjusted=False,
        )
        for row in rows
    ]


def _reading(connection: Connection, provider: str) -> Reading | None:
    row = connection.execute(
        text("SELECT end_at, said FROM recon_period WHERE provider = :p ORDER BY start_at DESC LIMIT 1"),
        {"p": provider},
    ).first()
    read = None if row is None else json.loads(row.said)["reading"]
    if row is None or read is None:
        return None
    return Reading(at=moment(int(row.end_at)), seconds_us=int(read[0]), proxy_bytes=int(read[1]))


# What may still change what our sessions of a period come to.
_NOT_COMPLETE = (
    "SELECT s.id FROM session s LEFT JOIN recon_item i ON i.session_id = s.id WHERE s.provider = :provider "
    "AND s.created_at >= :start AND s.created_at < :end AND s.platform <> :u AND (s.ended_at IS NULL "
    "OR (s.state <> 'void' AND s.provider_session_id IS NOT NULL "
    "AND (i.session_id IS NULL OR i.state = 'waiting'))) LIMIT 1"
)
# No session lives for longer than two days.
_STIRS = (
    "SELECT s.id FROM session s LEFT JOIN recon_item i ON i.session_id = s.id WHERE s.provider = :provider "
    "AND s.created_at >= :start - 172800000000 AND s.platform <> :u AND (s.ended_at IS NULL OR s.ended_at > :quiet "
    "OR s.created_at >= :end OR (s.created_at >= :start AND s.state <> 'void' AND s.provider_session_id IS NOT NULL "
    "AND (i.session_id IS NULL OR i.state = 'waiting'))) LIMIT 1"
)
_OURS = (
    "SELECT n.kind, SUM(n.amount_n) AS amount_n, SUM(n.raw_qty) AS raw_qty, SUM(n.billed_qty) AS billed_qty "
    "FROM session s JOIN entry e ON e.session_id = s.id JOIN entry_line n ON n.entry_id = e.id "
    "WHERE s.provider = :provider AND s.created_at >= :start AND s.created_at < :end AND s.platform <> :u "
    "GROUP BY n.kind"
)
_WRITE = (
    "INSERT INTO recon_period (provider, start_at, end_at, checked_at, ours_n, theirs_n, booked_n, session_id, said) "
    "VALUES (:provider, :start, :end, :at, :ours, :theirs, :booked, :session, :said) "
    "ON CONFLICT (provider, start_at) DO UPDATE SET end_at = excluded.end_at, checked_at = excluded.checked_at, "
    "ours_n = excluded.ours_n, theirs_n = excluded.theirs_n, booked_n = excluded.booked_n, "
    "session_id = excluded.session_id, said = excluded.said"
)
