"""What the ledger's database says about the demo: the budget at this moment and at its peak, and the usage log.

It only reads, and beside the pool, so what it finds is what any other process would find.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text

from tabkeeper.demo.order import Served
from tabkeeper.money import ZERO, Money


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """The demo's one budget."""

    limit: Money
    spent: Money = ZERO
    held: Money = ZERO
    denied: int = 0


def budget_state(engine: Engine) -> BudgetState:
    """Read the budget as it is now."""
    with engine.connect() as connection:
        row = connection.execute(_STATE).one()
    return BudgetState(
        limit=Money(row.limit_n),
        spent=Money(int(row.spent_n)),
        held=Money(int(row.held_n)),
        denied=int(row.denied),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most that was ever spent or held in one window, looked at after every single posting."""

    committed: Money
    limit: Money
    postings: int


def budget_peak(engine: Engine) -> Peak:
    """Follow the journal from its first posting to its last."""
    with engine.connect() as connection:
        limit = int(connection.execute(_STATE).one().limit_n)
        rows = connection.execute(_POSTINGS).all()
    committed: dict[int, int] = {}
    peak = 0
    for window, change in rows:
        committed[window] = committed.get(window, 0) + int(change)
        peak = max(peak, committed[window])
    return Peak(committed=Money(peak), limit=Money(limit), postings=len(rows))


def served(engine: Engine, *, offset: float) -> list[Served]:
    """Read the usage log.

    Args:
        engine: the ledger's reader.
        offset: the wall clock's seconds since 1970 minus the monotonic clock's, by which the pool counts steps.
    """
    with engine.connect() as connection:
        rows = connection.execute(_LEASES).all()
    return [
        Served(
            id=row.id,
            platform=row.platform,
            tenant=row.tenant,
            priority=int(row.priority),
            requested=row.requested_at / 1e6 - offset,
            granted=row.granted_at / 1e6 - offset,
        )
        for row in rows
    ]


def paid_sessions(engine: Engine) -> dict[str, dict[str, Money]]:
    """Read what each provider's sessions cost, by the provider's own ids."""
    found: dict[str, dict[str, Money]] = {}
    with engine.connect() as connection:
        for row in connection.execute(_SESSIONS):
            found.setdefault(row.provider, {})[row.provider_session_id] = Money(int(row.cost_n))
    return found


_STATE = text("""
    SELECT b.limit_n, COALESCE(SUM(w.spent_n), 0) AS spent_n, COALESCE(SUM(w.held_n), 0) AS held_n,
           COALESCE(SUM(w.denied), 0) AS denied
      FROM budget b LEFT JOIN budget_window w ON w.budget_id = b.id GROUP BY b.id, b.limit_n""")

_POSTINGS = text("SELECT window_id, d_held_n + d_spent_n FROM posting ORDER BY entry_id, window_id")

_SESSIONS = text(
    "SELECT provider, provider_session_id, cost_n FROM session WHERE provider_session_id IS NOT NULL"
)

_LEASES = text(
    "SELECT id, platform, tenant, priority, requested_at, granted_at FROM lease ORDER BY granted_at"
)
