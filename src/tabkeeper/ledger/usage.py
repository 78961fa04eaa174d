"""Reads what a platform's sessions and leases were like lately, and what was used of this month's allowances."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

from tabkeeper.ledger.expected import Habits
from tabkeeper.ledger.instants import micros

_MOST = 200
"""Older ones have no weight any more; see `expected.Lengths`."""


def habits(connection: Connection, platform: str) -> Habits:
    """Learn from the newest sessions and leases of a platform, oldest first."""
    found = Habits()
    leases = connection.execute(
        text(
            "SELECT end_age_us - start_age_us AS us FROM lease WHERE platform = :p "
            "ORDER BY granted_at DESC LIMIT :most"
        ),
        {"p": platform, "most": _MOST},
    ).all()
    for row in reversed(leases):
        found.lease_over(row.us / 1_000_000)
    sessions = connection.execute(
        text(
            "SELECT seconds_us, uses, bytes FROM session WHERE platform = :p AND ended_at IS NOT NULL "
            "AND seconds_us > 0 AND uses > 0 ORDER BY created_at DESC LIMIT :most"
        ),
        {"p": platform, "most": _MOST},
    ).all()
    for row in reversed(sessions):
        found.session_over(row.seconds_us / 1_000_000, uses=row.uses, received=row.bytes)
    return found


def allowances_used(connection: Connection, now: datetime) -> dict[tuple[str, str, str], int]:
    """Return what was used of this month's allowances, by provider, plan and kind."""
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    rows = connection.execute(
        text("SELECT provider, plan, kind, used_qty FROM allowance WHERE month_at = :month"),
        {"month": micros(month)},
    )
    return {(row.provider, row.plan, row.kind): int(row.used_qty) for row in rows}
