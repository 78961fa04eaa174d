"""Budgets and their windows: which apply, whether a session fits into all of them, who is told.

Every balance lives in one row of ``budget_window`` and is changed by one conditional statement; there is no
second copy to disagree with, and nothing is ever reset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from tabkeeper.config import BudgetSettings
from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.ledger.windows import Period, window_bounds

_PPM = 1_000_000

_OPEN_WINDOW = (
    "INSERT INTO budget_window (budget_id, start_at, end_at, label, mode, limit_n) "
    "SELECT b.id, :start, :end, CAST(:label AS TEXT), b.mode, b.limit_n FROM budget b "
    "WHERE b.id = :b AND b.effective_to IS NULL ON CONFLICT (budget_id, start_at) DO NOTHING"
)
# Whether the change just made crossed a threshold: asked in the same statement, as it rarely did.
_CROSSES = (
    "EXISTS (SELECT 1 FROM window_threshold t WHERE t.window_id = budget_window.id "
    "AND t.amount_n > {after} - {change} AND t.amount_n <= {after})"
)
_COMMITTED = "(budget_window.held_n + budget_window.spent_n)"
_ADMIT = (
    "UPDATE budget_window SET held_n = held_n + :a WHERE id = :w AND budget_id = :b "  # noqa: S608 - our names
    "AND (mode = 'soft' OR :a = 0 OR held_n + spent_n + :a <= limit_n) RETURNING held_n, spent_n, "
    + _CROSSES.format(after=_COMMITTED, change=":a")
    + " AS crosses"
)
_POST = (
    "UPDATE budget_window SET held_n = held_n + :h, spent_n = spent_n + :s, forced_n = forced_n + :f "  # noqa: S608
    "WHERE id = :w RETURNING held_n, spent_n, ("
    + _CROSSES.format(after="budget_window.spent_n", change=":s")
    + " OR "
    + _CROSSES.format(after=_COMMITTED, change="(:h + :s)")
    + ") AS crosses"
)
# The share lock keeps the budget's version from being closed while its window is made.
_OPEN_WINDOW_POSTGRES = _OPEN_WINDOW.replace("ON CONFLICT", "FOR SHARE OF b ON CONFLICT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The current version of a budget, as the database has it."""

    id: int
    name: str
    scope_kind: str
    scope_value: str
    period: Period
    timezone: str
    on_exceed: str

    def applies(self, platform: str, provider: str, tenant: str) -> bool:
        """Tell whether a session of these counts in it."""
        match self.scope_kind:
            case "platform":
                return self.scope_value == platform
            case "provider":
                return self.scope_value == provider
            case "tenant":
                return self.scope_value == tenant
            case _:
                return True


@dataclass(frozen=True, slots=True)
class Place:
    """A window that something is to be posted to."""

    window_id: int
    budget: Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """The budget that refused, and its window at that moment (nano-dollars, microseconds)."""

    budget: Budget
    limit_n: int
    spent_n: int
    held_n: int
    needed_n: int
    end_at: int


class StaleBudgetsError(Exception):
    """Another process changed a budget a moment ago; read them again. Never leaves the ledger."""


def current(tx: Transaction) -> list[Budget]:
    """Read the budgets in force, by id."""
    rows = tx.rows(
        "SELECT id, name, scope_kind, scope_value, period, timezone, on_exceed FROM budget "
        "WHERE effective_to IS NULL ORDER BY id"
    )
    return [
        Budget(
            id=r.id,
            name=r.name,
            scope_kind=r.scope_kind,
            scope_value=r.scope_value,
            period=cast("Period", r.period),
            timezone=r.timezone,
            on_exceed=r.on_exceed,
        )
        for r in rows
    ]


class WindowBook:
    """Finds the windows of an instant, creating them when first needed; remembers their numbers."""

    def __init__(self) -> None:
        self._budgets: list[Budget] | None = None
        self._epoch = ""
        self._known: dict[tuple[int, int], tuple[int, int, int]] = {}

    def forget(self) -> None:
        """Drop what was remembered: it may have been rolled back, or changed by others."""
        self._budgets = None
        self._known.clear()

    def refresh(self, tx: Transaction) -> None:
        """Notice budgets that other processes changed; called once in each transaction."""
        row = tx.row("SELECT value FROM ledger_meta WHERE key = 'epoch'")
        epoch = row.value if row else ""
        if self._budgets is None or epoch != self._epoch:
            self.forget()
            self._budgets, self._epoch = current(tx), epoch

    def places(self, tx: Transaction, platform: str, provider: str, tenant: str, at: int) -> list[Place]:
        """Return the windows that a session created at `at` counts in, in order of their ids."""
        if self._budgets is None:
            self.refresh(tx)
        assert self._budgets is not None
        found = [
            Place(self._window(tx, budget, at), budget)
            for budget in self._budgets
            if budget.applies(platform, provider, tenant)
        ]
        return sorted(found, key=lambda place: place.window_id)

    def _window(self, tx: Transaction, budget: Budget, at: int) -> int:
        # One remembered window for each budget is enough: instants move on.
        latest = self._known.get((budget.id, 0))
        if latest and latest[1] <= at < latest[2]:
            return latest[0]
        bounds = window_bounds(budget.period, budget.timezone, moment(at))
        start, end = micros(bounds.start), micros(bounds.end)
        window_id = _open_window(tx, budget.id, start, end, bounds.label)
        self._known[budget.id, 0] = (window_id, start, end)
        return window_id


def _open_window(tx: Transaction, budget_id: int, start: int, end: int, label: str) -> int:
    row = tx.row("SELECT id FROM budget_window WHERE budget_id = :b AND start_at = :s", b=budget_id, s=start)
    if row:
        return int(row.id)
    created = tx.run(
        _OPEN_WINDOW_POSTGRES if tx.is_postgres else _OPEN_WINDOW,
        b=budget_id,
        start=start,
        end=end,
        label=label,
    )
    row = tx.row(
        "SELECT w.id, w.limit_n, b.thresholds FROM budget_window w JOIN budget b ON b.id = w.budget_id "
        "WHERE w.budget_id = :b AND w.start_at = :s",
        b=budget_id,
        s=start,
    )
    if row is None:
        raise StaleBudgetsError
    if created:
        set_thresholds(tx, row.id, row.limit_n, json.loads(row.thresholds))
    return int(row.id)


def set_thresholds(tx: Transaction, window_id: int, limit_n: int, shares: Sequence[int]) -> None:
    """Write down the amounts at which a window's alerts are due; `shares` are millionths of the limit."""
    tx.run("DELETE FROM window_threshold WHERE window_id = :w", w=window_id)
    for ppm in shares:
        tx.run(
            "INSERT INTO window_threshold (window_id, share_ppm, amount_n) VALUES (:w, :ppm, :amount)",
            w=window_id,
            ppm=ppm,
            amount=max(1, -(-limit_n * ppm // _PPM)),
        )


def admit(tx: Transaction, places: Sequence[Place], amount: int, session_id: str, at: int) -> Denial | None:
    """Hold `amount` in every window, or in none and say which refused.

    Raises:
        StaleBudgetsError: a window belongs to a newer version of its budget.
    """
    taken: list[tuple[Place, Any]] = []
    for place in places:
        after = tx.row(
            _ADMIT,
            a=amount,
            w=place.window_id,
            b=place.budget.id,
        )
        if after is None:
            for earlier, _ in taken:
                tx.run(
                    "UPDATE budget_window SET held_n = held_n - :a WHERE id = :w",
                    a=amount,
                    w=earlier.window_id,
                )
            return _denied(tx, place, amount, session_id, at)
        taken.append((place, after))
    for place, after in taken:
        if not after.crosses:
            continue
        committed = after.held_n + after.spent_n
        tell_crossings(tx, place.window_id, "committed", before=committed - amount, after=committed, at=at)
    return None


def _denied(tx: Transaction, place: Place, amount: int, session_id: str, at: int) -> Denial:
    row = tx.row(
        "UPDATE budget_window SET denied = denied + 1 WHERE id = :w AND budget_id = :b "
        "RETURNING limit_n, spent_n, held_n, end_at",
        w=place.window_id,
        b=place.budget.id,
    )
    if row is None:
        raise StaleBudgetsError
    tell(
        tx,
        key=f"denied|{place.window_id}",
        kind="denied",
        at=at,
        budget=place.budget.name,
        window_id=place.window_id,
        amount_n=amount,
        limit_n=row.limit_n,
        session_id=session_id,
    )
    return Denial(
        budget=place.budget,
        limit_n=row.limit_n,
        spent_n=row.spent_n,
        held_n=row.held_n,
        needed_n=amount,
        end_at=row.end_at,
    )


def post(tx: Transaction, window_id: int, *, d_held: int, d_spent: int, d_forced: int, at: int) -> None:
    """Change a window's balances without asking; the entry's posting is the caller's to write."""
    after = tx.row(
        _POST,
        h=d_held,
        s=d_spent,
        f=d_forced,
        w=window_id,
    )
    assert after is not None, f"posting to window {window_id}, which does not exist"
    if not after.crosses:
        return
    tell_crossings(tx, window_id, "spent", before=after.spent_n - d_spent, after=after.spent_n, at=at)
    committed = after.held_n + after.spent_n
    tell_crossings(tx, window_id, "committed", before=committed - d_held - d_spent, after=committed, at=at)


def tell_crossings(tx: Transaction, window_id: int, metric: str, *, before: int, after: int, at: int) -> None:
    """Write an alert for each threshold in (before, after]; the window's row must be locked by us."""
    if after <= before:
        return
    tx.run(
        "INSERT INTO alert_event (dedupe_key, kind, at, budget, window_id, metric, share_ppm, amount_n, limit_n) "
        "SELECT 'threshold|' || CAST(w.id AS TEXT) || '|' || CAST(:metric AS TEXT) || '|' "
        "|| CAST(t.share_ppm AS TEXT), 'threshold', :at, b.name, w.id, CAST(:metric AS TEXT), t.share_ppm, "
        ":after, w.limit_n FROM window_threshold t JOIN budget_window w ON w.id = t.window_id "
        "JOIN budget b ON b.id = w.budget_id "
        "WHERE t.window_id = :w AND t.amount_n > :before AND t.amount_n <= :after "
        "ON CONFLICT (dedupe_key) DO NOTHING",
        w=window_id,
        metric=metric,
        before=before,
        after=after,
        at=at,
    )


def tell(
    tx: Transaction,
    *,
    key: str,
    kind: str,
    at: int,
    budget: str | None = None,
    window_id: int | None = None,
    amount_n: int = 0,
    limit_n: int | None = None,
    session_id: str | None = None,
    detail: str = "",
) -> None:
    """Write an alert unless the same one was written before."""
    tx.run(
        "INSERT INTO alert_event (dedupe_key, kind, at, budget, window_id, amount_n, limit_n, session_id, detail) "
        "VALUES (:key, :kind, :at, :budget, :window, :amount, :limit, :session, :detail) "
        "ON CONFLICT (dedupe_key) DO NOTHING",
        key=key,
        kind=kind,
        at=at,
        budget=budget,
        window=window_id,
        amount=amount_n,
        limit=limit_n,
        session=session_id,
        detail=detail,
    )


def as_row(settings: BudgetSettings) -> dict[str, Any]:
    """Tell a configured budget as columns of a ``budget`` row."""
    scopes = [(k, getattr(settings, k)) for k in ("platform", "provider", "tenant") if getattr(settings, k)]
    kind, value = scopes[0] if scopes else ("pool", "")
    shares = sorted({round(threshold * _PPM) for threshold in settings.thresholds})
    return {
        "name": settings.name,
        "scope_kind": kind,
        "scope_value": value,
        "period": settings.period,
        "timezone": settings.timezone,
        "mode": settings.mode,
        "limit_n": settings.limit.nanos,
        "thresholds": json.dumps(shares),
        "on_exceed": settings.on_exceed,
    }
