"""Corrects what a settled session was booked with, by one more entry in the windows and the hour of its hold.

What is booked is never changed: an adjustment is the difference between the bill that was and the bill that should
be, worked out under the hold's lock. So who asks twice, or at once with others, finds nothing left to correct.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tabkeeper.ledger.budgets import post, tell
from tabkeeper.ledger.comparing import Figures, between, bill_of
from tabkeeper.ledger.journal import (
    Books,
    Payload,
    Settled,
    entry,
    held_windows,
    hold_row,
    settle,
    usage_digest,
)
from tabkeeper.ledger.rates import OWN_PROXY_KIND, Line, RateCard, rounding_part
from tabkeeper.ledger.settling import (
    SUMS,
    add_sums,
    ages_of,
    allowance_left,
    leases_of,
    use_allowance,
    write_lines,
    write_shares,
)
from tabkeeper.ledger.shares import divide
from tabkeeper.ledger.transaction import Row, Transaction
from tabkeeper.money import Money

_OVER_LIMIT = "SELECT held_n + spent_n + :delta - limit_n AS over, forced_n FROM budget_window WHERE id = :w"
_OVER_LIMIT_POSTGRES = _OVER_LIMIT + " FOR UPDATE"
_RANK = {"estimate": 0, "measured": 1, "provider": 2}
"""Whose word counts more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What became of one correction: a session's cost before and after, and the entry if one was needed."""

    before_n: int
    cost_n: int
    idle_n: int
    rounding_n: int
    entry_id: int | None = None


def settle_or_correct(tx: Transaction, books: Books, op: Payload) -> Settled:
    """Settle; if that was done before by an estimate, correct it by what is known now."""
    settled = settle(tx, books, op)
    if not settled.is_estimate:
        return settled
    figures = Figures(
        seconds_us=op["seconds_us"], proxy_bytes=op["proxy_bytes"], own_bytes=op.get("own_bytes")
    )
    done = correct(
        tx,
        books,
        op["session_id"],
        figures,
        quality=op["quality"],
        at=op["at"],
        reason=f"measured after all: {op['reason']}",
        payload_hash=usage_digest(op),
    )
    assert done is not None, "what is settled can be corrected"
    return Settled(cost_n=done.cost_n, idle_n=done.idle_n, rounding_n=done.rounding_n)


def correct(
    tx: Transaction,
    books: Books,
    session_id: str,
    figures: Figures,
    *,
    quality: str,
    at: int,
    reason: str,
    payload_hash: str = "",
) -> Correction | None:
    """Make a settled session cost what `figures` come to; None if it is not settled, or better known already."""
    hold = hold_row(tx, session_id, lock=True)
    if hold is None or hold.state != "settled":
        return None
    session = tx.row(
        "SELECT state, quality, cost_n, idle_n, rounding_n, seconds_us FROM session WHERE id = :s",
        s=session_id,
    )
    assert session is not None
    if _RANK[quality] < _RANK[session.quality]:
        return None
    card = books.prices.of(tx, hold)
    booked = booked_lines(tx, session_id)
    left = allowance_left(tx, hold, card)
    traffic, own = booked.get("proxy_bytes"), booked.get(OWN_PROXY_KIND)
    bill = bill_of(
        card,
        figures,
        seconds_us=session.seconds_us,
        proxy_bytes=traffic.raw_qty if traffic else 0,
        own_bytes=own.raw_qty if own else None,
        included_left={
            kind: qty + (booked[kind].included_qty if kind in booked else 0) for kind, qty in left.items()
        },
    )
    change = between(booked, bill)
    before = Correction(
        before_n=session.cost_n, cost_n=session.cost_n, idle_n=session.idle_n, rounding_n=session.rounding_n
    )
    # That an estimate turned out right is worth an entry, too: it is none any more.
    if not change and session.quality != "estimate":
        return before
    seconds_us = session.seconds_us if figures.seconds_us is None else figures.seconds_us
    return rewrite(
        tx,
        hold,
        session,
        card=card,
        bill=bill,
        change=change,
        seconds_us=seconds_us,
        quality=quality,
        at=at,
        reason=reason,
        payload_hash=payload_hash,
    )


def rewrite(
    tx: Transaction,
    hold: Row,
    session: Row,
    *,
    card: RateCard,
    bill: list[Line],
    change: list[Line],
    seconds_us: int,
    quality: str,
    at: int,
    reason: str,
    payload_hash: str = "",
) -> Correction:
    """Book `change`, so that a settled session costs what `bill` says: one entry, and all that hangs on it."""
    session_id = hold.session_id
    cost = Money(sum(line.amount.nanos for line in bill))
    delta = cost.nanos - session.cost_n
    entry_id = _write_entry(tx, hold, delta, quality=quality, at=at, reason=reason, payload_hash=payload_hash)
    use_allowance(tx, hold, card, change)
    write_lines(tx, hold, entry_id, change)
    leases = leases_of(tx, session_id)
    shares, idle = divide(card, cost, seconds_us / 1_000_000, ages_of(leases))
    rounding = Money(min(rounding_part(card, bill).nanos, max(0, cost.nanos)))
    _move_sums(tx, hold, session, leases, shares, idle=idle, rounding=rounding, seconds_us=seconds_us)
    _write_moves(tx, entry_id, session, leases, shares, idle=idle, rounding=rounding, seconds_us=seconds_us)
    write_shares(tx, leases, shares)
    tx.run(
        "UPDATE session SET cost_n = :cost, idle_n = :idle, rounding_n = :rounding, seconds_us = :us, "
        "quality = :quality WHERE id = :s",
        cost=cost.nanos,
        idle=idle.nanos,
        rounding=rounding.nanos,
        us=seconds_us,
        quality=quality,
        s=session_id,
    )
    return Correction(
        before_n=session.cost_n,
        cost_n=cost.nanos,
        idle_n=idle.nanos,
        rounding_n=rounding.nanos,
        entry_id=entry_id,
    )


def booked_lines(tx: Transaction, session_id: str) -> dict[str, Line]:
    """Return the sums of a session's lines so far, by kind."""
    rows = tx.rows(
        "SELECT n.kind, SUM(n.raw_qty) AS raw_qty, SUM(n.billed_qty) AS billed_qty, "
        "SUM(n.included_qty) AS included_qty, SUM(n.amount_n) AS amount_n "
        "FROM entry e JOIN entry_line n ON n.entry_id = e.id WHERE e.session_id = :s GROUP BY n.kind",
        s=session_id,
    )
    return {
        row.kind: Line(
            kind=row.kind,
            raw_qty=int(row.raw_qty),
            billed_qty=int(row.billed_qty),
            included_qty=int(row.included_qty),
            amount=Money(int(row.amount_n)),
        )
        for row in rows
    }


def _write_entry(
    tx: Transaction, hold: Row, delta: int, *, quality: str, at: int, reason: str, payload_hash: str
) -> int:
    known = tx.row(
        "SELECT MAX(CASE WHEN kind = 'settle' THEN id END) AS settled, "
        "SUM(CASE WHEN kind = 'adjust' THEN 1 ELSE 0 END) AS adjusted FROM entry WHERE session_id = :s",
        s=hold.session_id,
    )
    assert known is not None
    number = int(known.adjusted) + 1
    entry_id = entry(
        tx,
        # Numbered, not told apart by content: a provider may come back to what it said before.
        f"adjust:{hold.session_id}:{number}",
        payload_hash,
        "adjust",
        hold.session_id,
        amount=delta,
        effective_at=hold.held_at,
        at=at,
        quality=quality,
        reason=reason,
        corrects_id=known.settled,
    )
    for window_id in held_windows(tx, hold.session_id):
        over, forced = _over_limit(tx, window_id, delta)
        post(tx, window_id, d_held=0, d_spent=delta, d_forced=forced, at=at)
        tx.run(
            "INSERT INTO posting (entry_id, window_id, d_spent_n, d_forced_n) VALUES (:e, :w, :spent, :forced)",
            e=entry_id,
            w=window_id,
            spent=delta,
            forced=forced,
        )
        if over:
            _tell_overrun(tx, hold, window_id, number=number, over=over, at=at)
    return entry_id


def _over_limit(tx: Transaction, window_id: int, delta: int) -> tuple[int, int]:
    """Return by how much an adjustment passes a window's limit, and how much of that has to be forced.

    They differ where more was forced before than the limit was passed by: nobody admitted this money all the same.
    """
    if delta <= 0:
        return 0, 0
    row = tx.row(
        _OVER_LIMIT_POSTGRES if tx.is_postgres else _OVER_LIMIT,
        delta=delta,
        w=window_id,
    )
    assert row is not None
    over = int(row.over)
    return max(0, min(over, delta)), max(0, over - int(row.forced_n))


def _tell_overrun(tx: Transaction, hold: Row, window_id: int, *, number: int, over: int, at: int) -> None:
    window = tx.row(
        "SELECT b.name, w.limit_n FROM budget_window w JOIN budget b ON b.id = w.budget_id WHERE w.id = :w",
        w=window_id,
    )
    assert window is not None
    tell(
        tx,
        key=f"overrun|{hold.session_id}|{number}|{window_id}",
        kind="overrun",
        at=at,
        budget=window.name,
        window_id=window_id,
        amount_n=over,
        limit_n=window.limit_n,
        session_id=hold.session_id,
        detail=f"its provider billed more than was booked, which passes the limit by {Money(over)}",
    )


def _move_sums(
    tx: Transaction,
    hold: Row,
    session: Row,
    leases: list[Row],
    shares: list[Money],
    *,
    idle: Money,
    rounding: Money,
    seconds_us: int,
) -> None:
    by_tenant: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SUMS, 0))
    own = by_tenant[hold.tenant]
    more_idle = idle.nanos - session.idle_n
    own["cost_n"] += more_idle
    own["idle_n"] += more_idle
    own["failed_n"] += more_idle if session.state == "failed" else 0
    own["rounding_n"] += rounding.nanos - session.rounding_n
    own["session_us"] += seconds_us - session.seconds_us
    for lease, share in zip(leases, shares, strict=True):
        more = share.nanos - lease.cost_n
        by_tenant[lease.tenant]["cost_n"] += more
        by_tenant[lease.tenant]["failed_n"] += more if lease.outcome != "ok" else 0
    add_sums(tx, hold, by_tenant)


def _write_moves(
    tx: Transaction,
    entry_id: int,
    session: Row,
    leases: list[Row],
    shares: list[Money],
    *,
    idle: Money,
    rounding: Money,
    seconds_us: int,
) -> None:
    """Keep what moved, so that what was known before can still be told."""
    moves = [
        ("", idle.nanos - session.idle_n, rounding.nanos - session.rounding_n, seconds_us - session.seconds_us),
        *(
            (lease.id, share.nanos - lease.cost_n, 0, 0)
            for lease, share in zip(leases, shares, strict=True)
        ),
    ]  # fmt: skip
    rows = [
        {"e": entry_id, "lease": lease, "cost": cost, "rounding": more, "us": us}
        for lease, cost, more, us in moves
        if cost or more or us
    ]
    if rows:
        tx.many(
            "INSERT INTO entry_share (entry_id, lease_id, cost_n, rounding_n, seconds_us) "
            "VALUES (:e, :lease, :cost, :rounding, :us)",
            rows,
        )
