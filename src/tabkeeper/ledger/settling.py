"""Draws up a session's bill: lines by its frozen prices, the month's allowance, shares of leases, hourly sums.

Which windows pay, and whether the session may be settled at all, is the journal's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tabkeeper.ledger.instants import DAY_US, HOUR_US, micros, moment
from tabkeeper.ledger.pricebook import PriceBook
from tabkeeper.ledger.rates import Line, RateCard, lines, rounding_part
from tabkeeper.ledger.shares import divide
from tabkeeper.ledger.transaction import Row, Transaction
from tabkeeper.money import Money

SUMS = (
    "cost_n", "idle_n", "rounding_n", "failed_n", "sessions", "failed_sessions", "leases", "reused", "failures",
    "session_us", "leased_us", "waited_us", "bytes",
)  # fmt: skip
LINE_SUMS = ("amount_n", "raw_qty", "billed_qty", "included_qty")


def _upsert(table: str, keys: Sequence[str], sums: Sequence[str]) -> str:
    columns = [*keys, *sums]
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(':' + c for c in columns)}) "  # noqa: S608 - our names
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET "
        + ", ".join(f"{c} = {table}.{c} + excluded.{c}" for c in sums)
    )


_ADD_HOUR = _upsert("rollup_hour", ("hour_at", "provider", "platform", "tenant"), SUMS)
_ADD_DAY = _upsert("rollup_day", ("day_at", "provider", "platform", "tenant"), SUMS)
_ADD_LINE = _upsert("rollup_line", ("hour_at", "provider", "platform", "tenant", "kind"), LINE_SUMS)
_ADD_DAY_LINE = _upsert("rollup_day_line", ("day_at", "provider", "platform", "tenant", "kind"), LINE_SUMS)


@dataclass(slots=True)
class Bill:
    """A session's bill before it is written."""

    hold: Row
    op: Mapping[str, Any]
    cost: Money
    lines: list[Line]
    leases: list[Row]
    shares: list[Money]
    idle: Money
    rounding: Money
    sums: dict[str, dict[str, int]] = field(default_factory=dict)

    def write(self, tx: Transaction, entry_id: int) -> None:
        """Write lines, shares, the session's end and the sums."""
        if self.lines:
            tx.many(
                "INSERT INTO entry_line (entry_id, kind, raw_qty, billed_qty, included_qty, amount_n) "
                "VALUES (:entry_id, :kind, :raw_qty, :billed_qty, :included_qty, :amount_n)",
                [{"entry_id": entry_id, **_line_values(line)} for line in self.lines],
            )
        if self.cost and self.leases:
            tx.many(
                "UPDATE lease SET cost_n = :cost_n WHERE id = :id",
                [{"cost_n": s.nanos, "id": le.id} for le, s in zip(self.leases, self.shares, strict=True)],
            )
        tx.run(
            "UPDATE session SET state = :state, ended_at = :at, close_reason = :reason, connect_sealed = NULL, "
            "uses = :uses, failures = :failures, cost_n = :cost, idle_n = :idle, "
            "rounding_n = :rounding, seconds_us = :us, quality = :quality, bytes = :bytes WHERE id = :id",
            state=self.op["state"],
            at=self.op["at"],
            reason=self.op["reason"],
            uses=len(self.leases),
            failures=sum(lease.outcome != "ok" for lease in self.leases),
            cost=self.cost.nanos,
            idle=self.idle.nanos,
            rounding=self.rounding.nanos,
            us=self.op["seconds_us"],
            quality=self.op["quality"],
            bytes=sum(lease.bytes for lease in self.leases),
            id=self.hold.session_id,
        )
        self._write_sums(tx)

    def _write_sums(self, tx: Transaction) -> None:
        hour = {"hour_at": self.hold.held_at // HOUR_US * HOUR_US}
        day = {"day_at": self.hold.held_at // DAY_US * DAY_US}
        where = {"provider": self.hold.provider, "platform": self.hold.platform}
        by_tenant: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SUMS, 0))
        own = by_tenant[self.hold.tenant]
        failed = self.op["state"] == "failed"
        own["sessions"] += 1
        own["failed_sessions"] += failed
        own["cost_n"] += self.idle.nanos
        own["idle_n"] += self.idle.nanos
        own["failed_n"] += self.idle.nanos if failed else 0
        own["rounding_n"] += self.rounding.nanos
        own["session_us"] += self.op["seconds_us"]
        for lease, share in zip(self.leases, self.shares, strict=True):
            theirs = by_tenant[lease.tenant]
            bad = lease.outcome != "ok"
            theirs["cost_n"] += share.nanos
            theirs["failed_n"] += share.nanos if bad else 0
            theirs["leases"] += 1
            theirs["reused"] += not lease.is_new
            theirs["failures"] += bad
            theirs["leased_us"] += max(0, lease.end_age_us - lease.start_age_us)
            theirs["waited_us"] += lease.waited_us
            theirs["bytes"] += lease.bytes
        for tenant in sorted(by_tenant):
            tx.run(_ADD_HOUR, tenant=tenant, **hour, **where, **by_tenant[tenant])
            tx.run(_ADD_DAY, tenant=tenant, **day, **where, **by_tenant[tenant])
        if self.lines:
            common = {"tenant": self.hold.tenant, **hour, **day, **where}
            rows = [{**common, **_line_values(line)} for line in self.lines]
            tx.many(_ADD_LINE, rows)
            tx.many(_ADD_DAY_LINE, rows)


def _line_values(line: Line) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "raw_qty": line.raw_qty,
        "billed_qty": line.billed_qty,
        "included_qty": line.included_qty,
        "amount_n": line.amount.nanos,
    }


def draw_up(tx: Transaction, prices: PriceBook, hold: Row, op: Mapping[str, Any]) -> Bill:
    """Price the usage `op` of the session of `hold`, taking from the month's allowance what is left of it."""
    card = prices.card(tx, hold.rate_card_id)
    seconds = op["seconds_us"] / 1_000_000
    left = _allowance_left(tx, hold, card)
    # Traffic that the card does not charge for must not keep the rest from being settled.
    traffic = op["proxy_bytes"] if card.component("proxy_bytes") else 0
    bill = lines(card, seconds, proxy_bytes=traffic, included_left=left)
    _use_allowance(tx, hold, card, bill)
    cost = Money(sum(line.amount.nanos for line in bill))
    leases = tx.rows(
        "SELECT id, tenant, outcome, is_new, start_age_us, end_age_us, waited_us, bytes FROM lease "
        "WHERE session_id = :s ORDER BY use_number, start_age_us, id",
        s=hold.session_id,
    )
    ages = [(lease.start_age_us / 1_000_000, lease.end_age_us / 1_000_000) for lease in leases]
    shares, idle = divide(card, cost, seconds, ages)
    return Bill(
        hold=hold,
        op=op,
        cost=cost,
        lines=bill,
        leases=leases,
        shares=shares,
        idle=idle,
        rounding=rounding_part(card, bill),
    )


def _allowance_left(tx: Transaction, hold: Row, card: RateCard) -> dict[str, int]:
    """Read, and lock, what is left of this month's included quantities."""
    left = {}
    for part in sorted(card.components, key=lambda part: part.kind):
        if not part.included_qty:
            continue
        row = tx.row(
            "INSERT INTO allowance (provider, plan, kind, month_at) VALUES (:provider, :plan, :kind, :month) "
            "ON CONFLICT (provider, plan, kind, month_at) DO UPDATE SET used_qty = allowance.used_qty "
            "RETURNING used_qty",
            provider=hold.provider,
            plan=card.plan,
            kind=part.kind,
            month=_month_at(hold.held_at),
        )
        assert row is not None
        left[part.kind] = max(0, part.included_qty - row.used_qty)
    return left


def _use_allowance(tx: Transaction, hold: Row, card: RateCard, bill: list[Line]) -> None:
    for line in bill:
        if line.included_qty:
            tx.run(
                "UPDATE allowance SET used_qty = used_qty + :qty "
                "WHERE provider = :provider AND plan = :plan AND kind = :kind AND month_at = :month",
                qty=line.included_qty,
                provider=hold.provider,
                plan=card.plan,
                kind=line.kind,
                month=_month_at(hold.held_at),
            )


def _month_at(at: int) -> int:
    return micros(moment(at).replace(day=1, hour=0, minute=0, second=0, microsecond=0))
