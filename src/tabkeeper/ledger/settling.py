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
from tabkeeper.ledger.rates import Line, RateCard, lines, own_traffic, rounding_part
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
        write_lines(tx, self.hold, entry_id, self.lines)
        if self.cost and self.leases:
            write_shares(tx, self.leases, self.shares)
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
        add_sums(tx, self.hold, by_tenant)


def add_sums(tx: Transaction, hold: Row, by_tenant: Mapping[str, Mapping[str, int]]) -> None:
    """Add to the hour and the day of a hold, for each tenant; `SUMS` names what."""
    hour = {"hour_at": hold.held_at // HOUR_US * HOUR_US}
    day = {"day_at": hold.held_at // DAY_US * DAY_US}
    where = {"provider": hold.provider, "platform": hold.platform}
    for tenant in sorted(by_tenant):
        tx.run(_ADD_HOUR, tenant=tenant, **hour, **where, **by_tenant[tenant])
        tx.run(_ADD_DAY, tenant=tenant, **day, **where, **by_tenant[tenant])


def write_lines(tx: Transaction, hold: Row, entry_id: int, bill: Sequence[Line]) -> None:
    """Write the lines of an entry, and add them to the sums of its hold's hour and day."""
    if not bill:
        return
    tx.many(
        "INSERT INTO entry_line (entry_id, kind, raw_qty, billed_qty, included_qty, amount_n) "
        "VALUES (:entry_id, :kind, :raw_qty, :billed_qty, :included_qty, :amount_n)",
        [{"entry_id": entry_id, **_line_values(line)} for line in bill],
    )
    common = {
        "tenant": hold.tenant,
        "provider": hold.provider,
        "platform": hold.platform,
        "hour_at": hold.held_at // HOUR_US * HOUR_US,
        "day_at": hold.held_at // DAY_US * DAY_US,
    }
    rows = [{**common, **_line_values(line)} for line in bill]
    tx.many(_ADD_LINE, rows)
    tx.many(_ADD_DAY_LINE, rows)


def write_shares(tx: Transaction, leases: Sequence[Row], shares: Sequence[Money]) -> None:
    """Write what each lease bears."""
    tx.many(
        "UPDATE lease SET cost_n = :cost_n WHERE id = :id",
        [{"cost_n": share.nanos, "id": lease.id} for lease, share in zip(leases, shares, strict=True)],
    )


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
    card = prices.of(tx, hold)
    seconds = op["seconds_us"] / 1_000_000
    left = allowance_left(tx, hold, card)
    # Traffic that the card does not charge for must not keep the rest from being settled.
    traffic = op["proxy_bytes"] if card.component("proxy_bytes") else 0
    own = own_traffic(card, op.get("own_bytes"))
    bill = lines(card, seconds, proxy_bytes=traffic, quantities=own, included_left=left)
    use_allowance(tx, hold, card, bill)
    cost = Money(sum(line.amount.nanos for line in bill))
    leases = leases_of(tx, hold.session_id)
    shares, idle = divide(card, cost, seconds, ages_of(leases))
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


def leases_of(tx: Transaction, session_id: str) -> list[Row]:
    """Return the leases of a session in the order of its use."""
    return tx.rows(
        "SELECT id, tenant, outcome, is_new, start_age_us, end_age_us, waited_us, bytes, cost_n FROM lease "
        "WHERE session_id = :s ORDER BY use_number, start_age_us, id",
        s=session_id,
    )


def ages_of(leases: Sequence[Row]) -> list[tuple[float, float]]:
    """Return the session's age in seconds at each lease's start and end."""
    return [(lease.start_age_us / 1_000_000, lease.end_age_us / 1_000_000) for lease in leases]


def allowance_left(tx: Transaction, hold: Row, card: RateCard) -> dict[str, int]:
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


def use_allowance(tx: Transaction, hold: Row, card: RateCard, bill: Sequence[Line]) -> None:
    """Take what is free on a bill from the month's allowance; give back what a correction frees."""
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
