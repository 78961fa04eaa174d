"""Reads what a platform's sessions and leases were like lately, and what was used of this month's allowances."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from tabkeeper.ledger.expected import Habits
from tabkeeper.ledger.instants import micros

_MOST = 200
"""Older ones have no weight any more; see `expected.Lengths`."""


MOST_REPLAYED = 20_000
"""Leases that a start learns from at most; older ones weigh next to nothing."""

_MOST_CREATIONS = 200


class UsedLease(NamedTuple):
    """A lease of the usage log: for whom, and when. Instants in microseconds since 1970."""

    platform: str
    tenant: str
    identity: str | None
    requested_at: int
    granted_at: int
    released_at: int


MOST_COUNTED = 20_000
"""Leases over which reuse is told at most; more would not change the share."""


class Reuse(NamedTuple):
    """How many leases there were, and how many of them found a session that was there already."""

    leases: int
    reused: int

    @property
    def share(self) -> float:
        """0..1; 0 without leases."""
        return self.reused / self.leases if self.leases else 0.0


class Readied(NamedTuple):
    """A session that became ready."""

    provider: str
    seconds: float
    """What that took."""


def latest_leases(connection: Connection, since: datetime) -> list[UsedLease]:
    """Return the newest leases granted since an instant, the oldest of them first."""
    rows = connection.execute(
        text(
            "SELECT l.platform, l.tenant, s.identity, l.requested_at, l.granted_at, l.released_at FROM lease l "
            "LEFT JOIN session s ON s.id = l.session_id WHERE l.granted_at >= :since "
            "ORDER BY l.granted_at DESC, l.id DESC LIMIT :most"
        ),
        {"since": micros(since), "most": MOST_REPLAYED},
    ).all()
    return [UsedLease(*row) for row in reversed(rows)]


def reuse_since(connection: Connection, since: datetime) -> Reuse:
    """Count the newest leases that were granted since an instant and are over."""
    row = connection.execute(
        text(
            "SELECT COUNT(*) AS leases, COALESCE(SUM(is_new), 0) AS fresh FROM (SELECT is_new FROM lease "
            "WHERE granted_at >= :since ORDER BY granted_at DESC LIMIT :most) AS newest"
        ),
        {"since": micros(since), "most": MOST_COUNTED},
    ).one()
    return Reuse(row.leases, row.leases - int(row.fresh))


def latest_creations(connection: Connection, since: datetime) -> list[Readied]:
    """Return how long the newest sessions created since an instant took to become ready, the oldest first."""
    rows = connection.execute(
        text(
            "SELECT provider, active_at - created_at AS us FROM session WHERE created_at >= :since "
            "AND active_at IS NOT NULL ORDER BY created_at DESC, id DESC LIMIT :most"
        ),
        {"since": micros(since), "most": _MOST_CREATIONS},
    ).all()
    return [Readied(row.provider, max(0, row.us) / 1_000_000) for row in reversed(rows)]


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
