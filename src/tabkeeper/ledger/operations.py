"""Operations as plain data: what each means, and how a lease or a change of state becomes a row.

Operations survive in the spool file, so their names and fields are a format: add, never rename.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabkeeper.ledger import adjusting, alerting, drift, journal, periods, reconcile
from tabkeeper.ledger.budgets import StaleBudgetsError, WindowBook, tell
from tabkeeper.ledger.instants import length_us, micros
from tabkeeper.ledger.journal import Books
from tabkeeper.ledger.pricebook import PriceBook
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.ledger.types import LeaseUsage, StateChange

_LEASE = (
    "INSERT INTO lease (id, session_id, use_number, platform, provider, tenant, priority, requested_at, granted_at, "
    "released_at, waited_us, start_age_us, end_age_us, is_new, outcome, error, bytes, place, tags) VALUES (:id, "
    ":session_id, :use_number, :platform, :provider, :tenant, :priority, :requested_at, :granted_at, :released_at, "
    ":waited_us, :start_age_us, :end_age_us, :is_new, :outcome, :error, :bytes, :place, :tags) "
    "ON CONFLICT (id) DO NOTHING"
)
_EVENT = (
    "INSERT INTO session_event (session_id, at, old, new, reason) VALUES (:session_id, :at, :old, :new, :reason) "
    "ON CONFLICT (session_id, at, old, new) DO NOTHING"
)
_STATE = "UPDATE session SET state = :new WHERE id = :session_id AND ended_at IS NULL"


class LedgerOperations:
    """Carries operations out for the writer."""

    def __init__(self) -> None:
        self._books = Books(windows=WindowBook(), prices=PriceBook())

    def begin(self, tx: Transaction) -> None:
        """See `store.Operations`."""
        self._books.windows.refresh(tx)

    def forget(self) -> None:
        """See `store.Operations`."""
        self._books.forget()

    def apply(self, tx: Transaction, operation: Mapping[str, Any]) -> Any:
        """See `store.Operations`."""
        match operation["op"]:
            case "hold":
                return self._hold(tx, operation)
            case "activate":
                return journal.activate(tx, operation)
            case "void":
                return journal.void(tx, operation)
            case "settle":
                return adjusting.settle_or_correct(tx, self._books, operation)
            case "reconcile":
                return reconcile.apply(tx, self._books, operation)
            case "period":
                return periods.apply(tx, self._books, operation)
            case "drift":
                return drift.apply(tx, operation)
            case "lease":
                return tx.run(_LEASE, **operation["row"])
            case "state":
                tx.run(_EVENT, **operation["row"])
                return tx.run(_STATE, **_only(operation["row"], "new", "session_id"))
            case "heartbeat":
                return _heartbeat(tx, operation)
            case "release":
                return _release(tx, operation)
            case "released":
                return tx.run(
                    "UPDATE release_outbox SET confirmed_at = :at WHERE session_id = :session_id",
                    **_only(operation, "at", "session_id"),
                )
            case "alert":
                values = {key: value for key, value in operation.items() if key != "op"}
                return tell(tx, **values)
            case "alert_delivered" | "alert_failed":
                return alerting.apply(tx, operation)
            case unknown:
                raise ValueError(f"the ledger knows no operation {unknown!r}")

    def write_rows(self, tx: Transaction, kind: str, rows: Sequence[Any]) -> None:
        """See `store.Operations`."""
        if kind == "lease":
            tx.many(_LEASE, map(lease_row, rows))
            return
        tx.many(_EVENT, map(state_row, rows))
        tx.many(_STATE, _states(rows))

    def as_operation(self, kind: str, row: Any) -> dict[str, Any]:
        """See `store.Operations`."""
        return {"op": kind, "row": lease_row(row) if kind == "lease" else state_row(row)}

    def _hold(self, tx: Transaction, operation: Mapping[str, Any]) -> Any:
        try:
            return journal.hold(tx, self._books, operation)
        except StaleBudgetsError:
            # Another process changed a budget between our look at it and our hold; look again, once.
            self._books.forget()
            self._books.windows.refresh(tx)
            return journal.hold(tx, self._books, operation)


def _states(changes: Sequence[StateChange]) -> Iterator[dict[str, Any]]:
    return ({"new": change.new, "session_id": change.session_id} for change in changes)


def _only(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: values[key] for key in keys}


def lease_row(usage: LeaseUsage) -> dict[str, Any]:
    """Tell a lease as columns of a ``lease`` row."""
    return {
        "id": usage.lease_id,
        "session_id": usage.session_id,
        "use_number": usage.use_number,
        "platform": usage.platform,
        "provider": usage.provider,
        "tenant": usage.tenant,
        "priority": usage.priority,
        "requested_at": micros(usage.requested_at),
        "granted_at": micros(usage.granted_at),
        "released_at": micros(usage.released_at),
        "waited_us": length_us(usage.waited),
        "start_age_us": length_us(usage.start_age),
        "end_age_us": length_us(usage.end_age),
        "is_new": int(usage.is_new),
        "outcome": usage.outcome,
        "error": usage.error,
        "bytes": usage.bytes_received,
        "place": usage.place,
        "tags": json.dumps({str(k): str(v) for k, v in usage.tags.items()}, sort_keys=True)
        if usage.tags
        else "{}",
    }


def state_row(change: StateChange) -> dict[str, Any]:
    """Tell a change of state as columns of a ``session_event`` row."""
    return {
        "session_id": change.session_id,
        "at": micros(change.at),
        "old": change.old,
        "new": change.new,
        "reason": change.reason,
    }


def _heartbeat(tx: Transaction, operation: Mapping[str, Any]) -> None:
    tx.run(
        "UPDATE process SET heartbeat_at = :at, snapshot = COALESCE(CAST(:snapshot AS TEXT), snapshot) "
        "WHERE id = :process_id",
        **_only(operation, "at", "snapshot", "process_id"),
    )
    # Leasing and releasing are not written one by one, so open sessions are brought up to date here.
    tx.many(
        "UPDATE session SET state = :state, uses = :uses WHERE id = :id AND ended_at IS NULL "
        "AND (state <> :state OR uses <> :uses)",
        operation["sessions"],
    )


def _release(tx: Transaction, operation: Mapping[str, Any]) -> None:
    tx.run(
        "INSERT INTO release_outbox (session_id, provider, provider_session_id, reason, queued_at, attempts, "
        "last_error) SELECT s.id, s.provider, s.provider_session_id, CAST(:reason AS TEXT), :at, 1, "
        "CAST(:error AS TEXT) FROM session s WHERE s.id = :session_id ON CONFLICT (session_id) DO UPDATE "
        "SET attempts = release_outbox.attempts + 1, last_error = excluded.last_error",
        **_only(operation, "session_id", "reason", "at", "error"),
    )
