"""Writes what happened to money: holds, voids, settlements, each with its entry, postings and sums.

Every function runs inside a transaction of the writer's and may be repeated: done twice, it is done once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabkeeper.errors import IdempotencyConflictError, LedgerError
from tabkeeper.ledger.budgets import Denial, WindowBook, admit, post, tell
from tabkeeper.ledger.pricebook import PriceBook
from tabkeeper.ledger.settling import Bill, draw_up
from tabkeeper.ledger.transaction import Row, Transaction
from tabkeeper.money import Money

Payload = Mapping[str, Any]
"""An operation as plain data, fit for JSON: text, integers, None."""


@dataclass(slots=True)
class Books:
    """What the writer remembers between transactions; all of it can be read again."""

    windows: WindowBook
    prices: PriceBook

    def forget(self) -> None:
        """After a rollback: trust nothing that was read or made in it."""
        self.windows.forget()
        self.prices.forget()


def digest(facts: Mapping[str, Any]) -> str:
    """SHA-256 of plain facts, whatever their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def usage_digest(op: Payload) -> str:
    """Tell one usage of a session from another."""
    own = op.get("own_bytes")
    facts = {key: op[key] for key in ("seconds_us", "proxy_bytes", "quality")}
    return digest(facts if own is None else facts | {"own_bytes": own})


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A hold as the database has it."""

    rate_card_id: int
    amount_n: int
    max_us: int
    held_at: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A session's end as the database has it."""

    cost_n: int
    idle_n: int
    rounding_n: int
    is_estimate: bool = False
    """It was booked before, by an estimate, and better is known now."""


def hold(tx: Transaction, books: Books, ask: Payload) -> Denial | Held:
    """Set aside a session's worst case in all its windows, or return which refused.

    Raises:
        IdempotencyConflictError: the session id was used for another request, or its hold is over.
    """
    session_id, at, amount = ask["session_id"], ask["at"], ask["amount_n"]
    facts = {key: ask[key] for key in ("platform", "provider", "tenant", "max_us", "cap_n")}
    own = {"proxy_price": ask.get("proxy_price"), "proxy_bytes": ask.get("proxy_bytes", 0)}
    if own["proxy_price"] is not None:
        facts |= own
    payload_hash = digest(facts)
    found = hold_row(tx, session_id)
    if found is not None:
        return _same_hold(found, payload_hash, facts)
    places = []
    if not ask["is_free"]:
        places = books.windows.places(tx, ask["platform"], ask["provider"], ask["tenant"], at)
        denial = admit(tx, places, amount, session_id, at)
        if denial is not None:
            return denial
    tx.run(
        "INSERT INTO session (id, platform, provider, tenant, process_id, created_at, expires_at, rate_card_id) "
        "VALUES (:session_id, :platform, :provider, :tenant, :process_id, :at, :expires_at, :rate_card_id)",
        **{k: ask[k] for k in _SESSION_COLUMNS},
    )
    tx.run(
        "INSERT INTO hold (session_id, payload_hash, rate_card_id, amount_n, max_us, proxy_price, proxy_bytes, "
        "held_at, expires_at) VALUES (:session_id, :payload_hash, :rate_card_id, :amount_n, :held_us, "
        ":proxy_price, :proxy_bytes, :at, :expires_at)",
        payload_hash=payload_hash,
        **own,
        **{k: ask[k] for k in ("session_id", "rate_card_id", "amount_n", "held_us", "at", "expires_at")},
    )
    entry_id = entry(tx, f"hold:{session_id}", payload_hash, "hold", session_id, effective_at=at, at=at)
    postings(tx, entry_id, [place.window_id for place in places], d_held=amount)
    return Held(
        rate_card_id=ask["rate_card_id"],
        amount_n=amount,
        max_us=ask["held_us"],
        held_at=at,
        expires_at=ask["expires_at"],
    )


_SESSION_COLUMNS = (
    "session_id", "platform", "provider", "tenant", "process_id", "at", "expires_at", "rate_card_id",
)  # fmt: skip


def activate(tx: Transaction, op: Payload) -> None:
    """Note the provider's id of a session that now runs."""
    tx.run(
        "UPDATE session SET provider_session_id = :provider_session_id, pid = :pid, pid_started_at = :pid_started_at, "
        "active_at = :at, connect_sealed = :connect_sealed, identity = :identity, "
        "state = CASE WHEN state = 'creating' THEN 'active' ELSE state END "
        "WHERE id = :session_id AND ended_at IS NULL",
        identity=op.get("identity"),
        connect_sealed=op.get("connect_sealed"),  # a spool of an earlier version has none
        **{k: op[k] for k in ("provider_session_id", "pid", "pid_started_at", "at", "session_id")},
    )


def void(tx: Transaction, op: Payload) -> None:
    """Give a hold back in full: proof is at hand that nothing was started.

    Raises:
        IdempotencyConflictError: the session was settled, so something was started.
    """
    session_id, at = op["session_id"], op["at"]
    found = hold_row(tx, session_id, lock=True)
    if found is None or found.state == "voided":
        return
    if found.state == "settled":
        raise IdempotencyConflictError(
            f"session {session_id} is settled already, so its hold cannot be voided"
        )
    entry_id = entry(
        tx,
        f"void:{session_id}",
        "",
        "void",
        session_id,
        effective_at=found.held_at,
        at=at,
        reason=op["reason"],
    )
    windows = held_windows(tx, session_id)
    for window_id in windows:
        post(tx, window_id, d_held=-found.amount_n, d_spent=0, d_forced=0, at=at)
    postings(tx, entry_id, windows, d_held=-found.amount_n)
    tx.run("UPDATE hold SET state = 'voided', resolved_at = :at WHERE session_id = :s", at=at, s=session_id)
    tx.run(
        "UPDATE session SET state = 'void', ended_at = :at, close_reason = :reason, connect_sealed = NULL "
        "WHERE id = :s",
        at=at,
        reason=op["reason"],
        s=session_id,
    )


def settle(tx: Transaction, books: Books, op: Payload) -> Settled:
    """Book what a session cost, once; asked again, return what was booked. See `Ledger.settle`."""
    session_id, at = op["session_id"], op["at"]
    found = hold_row(tx, session_id, lock=True)
    if found is None:
        raise LedgerError(f"session {session_id} has no hold, so there is nothing to settle")
    if op["quality"] == "estimate" and op["seconds_us"] is None:
        op = {**op, "seconds_us": max(0, min(at - found.held_at, found.max_us))}
    payload_hash = usage_digest(op)
    if found.state != "open":
        _check_settled(tx, found, op, payload_hash)
        return _settled(tx, op)
    bill = draw_up(tx, books.prices, found, op)
    cost = bill.cost.nanos
    entry_id = entry(
        tx,
        f"settle:{session_id}",
        payload_hash,
        "settle",
        session_id,
        amount=cost,
        effective_at=found.held_at,
        at=at,
        quality=op["quality"],
        reason=op["reason"],
    )
    bill.write(tx, entry_id)
    windows = held_windows(tx, session_id)
    forced = max(0, cost - found.amount_n)
    for window_id in windows:
        post(tx, window_id, d_held=-found.amount_n, d_spent=cost, d_forced=forced, at=at)
    postings(tx, entry_id, windows, d_held=-found.amount_n, d_spent=cost, d_forced=forced)
    tx.run("UPDATE hold SET state = 'settled', resolved_at = :at WHERE session_id = :s", at=at, s=session_id)
    _tell_troubles(tx, op, bill, forced, at)
    return Settled(cost_n=cost, idle_n=bill.idle.nanos, rounding_n=bill.rounding.nanos)


def _tell_troubles(tx: Transaction, op: Payload, bill: Bill, forced: int, at: int) -> None:
    session_id = op["session_id"]
    if forced > 0:
        tell(
            tx,
            key=f"overrun|{session_id}",
            kind="overrun",
            at=at,
            amount_n=forced,
            session_id=session_id,
            detail=f"the session cost {bill.cost}, {Money(forced)} more than was held",
        )
    if op["quality"] == "estimate":
        tell(
            tx,
            key=f"estimate|{session_id}",
            kind="estimate",
            at=at,
            amount_n=bill.cost.nanos,
            session_id=session_id,
            detail=op["reason"],
        )


def _check_settled(tx: Transaction, found: Row, op: Payload, payload_hash: str) -> None:
    if found.state == "voided":
        raise IdempotencyConflictError(
            f"session {op['session_id']} was voided as never started, but now {op['seconds_us'] / 1e6:.3f} s "
            "of it are to be paid; look at its provider's bill"
        )
    if op["quality"] == "estimate":
        return  # a second opinion about the same end, and a worse one
    booked = tx.rows(
        "SELECT payload_hash FROM entry WHERE session_id = :s AND quality <> 'estimate' AND (kind = 'settle' "
        "OR (kind = 'adjust' AND quality = :quality AND payload_hash <> ''))",
        s=op["session_id"],
        quality=op["quality"],
    )
    if booked and payload_hash not in {row.payload_hash for row in booked}:
        raise IdempotencyConflictError(
            f"session {op['session_id']} was settled with another usage (settle:{op['session_id']}); "
            "a correction is an entry of its own"
        )


def _same_hold(found: Row, payload_hash: str, facts: Mapping[str, Any]) -> Held:
    if found.payload_hash != payload_hash:
        mine = {"platform": found.platform, "provider": found.provider, "tenant": found.tenant}
        differs = [key for key, value in mine.items() if facts[key] != value] or [
            "max_seconds, max_session_cost or proxy"
        ]
        raise IdempotencyConflictError(
            f"session id {found.session_id} was held before with another {' and '.join(differs)} "
            f"(hold:{found.session_id}); choose a new id"
        )
    if found.state != "open":
        raise IdempotencyConflictError(f"the hold of session {found.session_id} is {found.state} already")
    return Held(
        rate_card_id=found.rate_card_id,
        amount_n=found.amount_n,
        max_us=found.max_us,
        held_at=found.held_at,
        expires_at=found.expires_at,
    )


def hold_row(tx: Transaction, session_id: str, *, lock: bool = False) -> Row | None:
    """Return a hold with whose it is; with `lock` nobody else may change it until we commit."""
    return tx.row(
        _HOLD + (" FOR UPDATE OF h" if lock and tx.is_postgres else ""),
        s=session_id,
    )


_HOLD = (
    "SELECT h.session_id, h.payload_hash, h.rate_card_id, h.amount_n, h.max_us, "
    "h.proxy_price, h.proxy_bytes, h.state, h.held_at, h.expires_at, "
    "s.platform, s.provider, s.tenant FROM hold h JOIN session s ON s.id = h.session_id WHERE h.session_id = :s"
)


def _settled(tx: Transaction, op: Payload) -> Settled:
    row = tx.row("SELECT cost_n, idle_n, rounding_n, quality FROM session WHERE id = :s", s=op["session_id"])
    assert row is not None
    return Settled(
        cost_n=row.cost_n,
        idle_n=row.idle_n,
        rounding_n=row.rounding_n,
        is_estimate=row.quality == "estimate" and op["quality"] != "estimate",
    )


def held_windows(tx: Transaction, session_id: str) -> list[int]:
    """Return the windows that a hold counts in, in order of their ids."""
    rows = tx.rows(
        "SELECT p.window_id FROM entry e JOIN posting p ON p.entry_id = e.id "
        "WHERE e.session_id = :s AND e.kind = 'hold' ORDER BY p.window_id",
        s=session_id,
    )
    return [row.window_id for row in rows]


def entry(
    tx: Transaction,
    idem_key: str,
    payload_hash: str,
    kind: str,
    session_id: str,
    *,
    effective_at: int,
    at: int,
    amount: int = 0,
    quality: str = "measured",
    reason: str = "",
    corrects_id: int | None = None,
) -> int:
    """Write an entry and return its number."""
    row = tx.row(
        "INSERT INTO entry (idem_key, payload_hash, kind, session_id, amount_n, effective_at, recorded_at, quality, "
        "reason, corrects_id) VALUES (:idem_key, :hash, :kind, :s, :amount, :effective_at, :at, :quality, :reason, "
        ":corrects_id) RETURNING id",
        idem_key=idem_key,
        hash=payload_hash,
        kind=kind,
        s=session_id,
        amount=amount,
        effective_at=effective_at,
        at=at,
        quality=quality,
        reason=reason,
        corrects_id=corrects_id,
    )
    assert row is not None
    return int(row.id)


def postings(
    tx: Transaction,
    entry_id: int,
    windows: Sequence[int],
    *,
    d_held: int,
    d_spent: int = 0,
    d_forced: int = 0,
) -> None:
    """Write what an entry does to each of its windows."""
    if windows:
        tx.many(
            "INSERT INTO posting (entry_id, window_id, d_held_n, d_spent_n, d_forced_n) VALUES (:e, :w, :h, :sp, :f)",
            [{"e": entry_id, "w": w, "h": d_held, "sp": d_spent, "f": d_forced} for w in windows],
        )
