"""Takes over budgets from a configuration: new versions, changed limits, budgets that are no more.

A change of limit moves the open windows to the new version with all that was spent; a change of period, zone
or scope begins a new count. What a lowered limit leaves uncovered is recorded as forced, never hidden.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tabkeeper.config import BudgetSettings
from tabkeeper.ledger.budgets import as_row, set_thresholds, tell_crossings
from tabkeeper.ledger.transaction import Transaction

RUNS = "run:"
"""Tenants whose name begins so are runs; their budgets come and go with them and are in no configuration."""

_COLUMNS = (
    "name", "scope_kind", "scope_value", "period", "timezone", "mode", "limit_n", "thresholds", "on_exceed",
)  # fmt: skip
_SHAPE = ("scope_kind", "scope_value", "period", "timezone")


def apply_budgets(tx: Transaction, wanted: Sequence[BudgetSettings], at: int) -> bool:
    """Make the current budgets those of `wanted`, and those of runs; return whether anything changed."""
    return _apply(tx, wanted, at, f"NOT (scope_kind = 'tenant' AND scope_value LIKE '{RUNS}%')")


def cap_run(tx: Transaction, run_id: str, cap: BudgetSettings | None, at: int) -> bool:
    """Make `cap` the budget of one run, or take it away; return whether anything changed."""
    return _apply(
        tx, [] if cap is None else [cap], at, "scope_kind = 'tenant' AND scope_value = :tenant", run_id
    )


def tenant_of_run(run_id: str) -> str:
    """Name the tenant that a run's sessions are charged to."""
    return f"{RUNS}{run_id}"


def _apply(tx: Transaction, wanted: Sequence[BudgetSettings], at: int, which: str, run_id: str = "") -> bool:
    # The epoch row is the lock under which budgets change; the number tells other processes.
    tx.run("UPDATE ledger_meta SET value = value WHERE key = 'epoch'")
    query = f"SELECT * FROM budget WHERE effective_to IS NULL AND {which}"  # noqa: S608 - our words
    found = tx.rows(query, tenant=tenant_of_run(run_id)) if run_id else tx.rows(query)
    existing = {row.name: row for row in found}
    changed = False
    for settings in wanted:
        new = as_row(settings)
        old = existing.pop(settings.name, None)
        if old is not None and all(getattr(old, column) == new[column] for column in _COLUMNS):
            continue
        changed = True
        if old is not None:
            _retire(tx, old.id, at)
        budget_id = _insert(tx, new, at)
        if old is not None and all(getattr(old, column) == new[column] for column in _SHAPE):
            _move_windows(tx, old.id, budget_id, new, at)
    for old in existing.values():
        changed = True
        _retire(tx, old.id, at)
    if changed:
        tx.run("UPDATE ledger_meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE key = 'epoch'")
    return changed


def _retire(tx: Transaction, budget_id: int, at: int) -> None:
    tx.run("UPDATE budget SET effective_to = :at WHERE id = :b", at=at, b=budget_id)


def _insert(tx: Transaction, new: dict[str, Any], at: int) -> int:
    latest = tx.row("SELECT MAX(version) AS version FROM budget WHERE name = :name", name=new["name"])
    version = (latest.version or 0) + 1 if latest else 1
    row = tx.row(
        "INSERT INTO budget (name, version, scope_kind, scope_value, period, timezone, mode, limit_n, thresholds, "
        "on_exceed, effective_from) VALUES (:name, :version, :scope_kind, :scope_value, :period, :timezone, :mode, "
        ":limit_n, :thresholds, :on_exceed, :at) RETURNING id",
        version=version,
        at=at,
        **new,
    )
    assert row is not None
    return int(row.id)


def _move_windows(tx: Transaction, old_id: int, new_id: int, new: dict[str, Any], at: int) -> None:
    windows = tx.rows(
        "UPDATE budget_window SET budget_id = :new, mode = :mode, limit_n = :limit "
        "WHERE budget_id = :old AND end_at > :at RETURNING id, held_n, spent_n, forced_n",
        new=new_id,
        old=old_id,
        mode=new["mode"],
        limit=new["limit_n"],
        at=at,
    )
    for window in windows:
        set_thresholds(tx, window.id, new["limit_n"], json.loads(new["thresholds"]))
        committed = window.held_n + window.spent_n
        tell_crossings(tx, window.id, "spent", before=0, after=window.spent_n, at=at)
        tell_crossings(tx, window.id, "committed", before=0, after=committed, at=at)
        uncovered = committed - new["limit_n"] - window.forced_n
        if uncovered > 0:
            _force(tx, window.id, new_id, uncovered, at)


def _force(tx: Transaction, window_id: int, budget_id: int, amount: int, at: int) -> None:
    tx.run("UPDATE budget_window SET forced_n = forced_n + :f WHERE id = :w", f=amount, w=window_id)
    entry = tx.row(
        "INSERT INTO entry (idem_key, payload_hash, kind, amount_n, effective_at, recorded_at, reason) "
        "VALUES (:key, '', 'limit', 0, :at, :at, 'limit lowered under what was held and spent') RETURNING id",
        key=f"limit:{budget_id}:{window_id}",
        at=at,
    )
    assert entry is not None
    tx.run(
        "INSERT INTO posting (entry_id, window_id, d_forced_n) VALUES (:entry, :w, :f)",
        entry=entry.id,
        w=window_id,
        f=amount,
    )
