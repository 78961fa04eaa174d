"""What a pool is doing at this moment, as plain numbers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tabkeeper.pool.model import ENDING, State
from tabkeeper.pool.view import View
from tabkeeper.profiles.figures import ProfileStats


class Frozen(BaseModel):
    """Base of the pool's figures; `model_dump_json()` gives plain JSON."""

    model_config = ConfigDict(frozen=True)


class PlatformStats(Frozen):
    """Sessions and requests of one platform."""

    sessions: int = 0
    idle: int = 0
    leased: int = 0
    creating: int = 0
    ending: int = 0
    queued: int = 0
    max_sessions: int = 0


class PoolStats(Frozen):
    """Sessions and requests of the whole pool; counters run from the pool's start.

    `reuse_rate` is the share of leases that found a session already there.
    """

    sessions: int
    max_sessions: int
    idle: int
    leased: int
    creating: int
    unhealthy: int
    ending: int
    queued: int
    max_queued: int
    leases: int
    reused: int
    refused: int
    creations: int
    creations_failed: int
    leaks: int
    reclaimed: int
    lost: int
    dirty: int
    peak_sessions: int
    peak_queued: int
    mean_wait_seconds: float
    platforms: dict[str, PlatformStats]
    providers: dict[str, int]
    tenants: dict[str, int]
    profiles: ProfileStats

    @property
    def reuse_rate(self) -> float:
        """Share of leases on a session that had served before, 0..1."""
        return self.reused / self.leases if self.leases else 0.0


class Counts:
    """Counters of one pool, raised where the event happens."""

    __slots__ = (
        "creations",
        "creations_failed",
        "dirty",
        "leaks",
        "leases",
        "longest_wait",
        "lost",
        "peak_queued",
        "peak_sessions",
        "reclaimed",
        "refused",
        "reused",
        "waited",
    )

    def __init__(self) -> None:
        self.leases = self.reused = self.refused = self.creations = self.creations_failed = 0
        self.dirty = self.leaks = self.reclaimed = self.lost = self.peak_queued = self.peak_sessions = 0
        self.waited = self.longest_wait = 0.0

    def waited_for(self, seconds: float) -> None:
        """Count how long a request waited that was served, or given up."""
        self.longest_wait = max(self.longest_wait, seconds)

    def take_longest_wait(self) -> float:
        """Return the longest wait since this was last asked."""
        longest, self.longest_wait = self.longest_wait, 0.0
        return longest

    def saw_sessions(self, number: int) -> None:
        """Remember the most sessions there were at once."""
        self.peak_sessions = max(self.peak_sessions, number)


def take_stats(view: View, counts: Counts, profiles: ProfileStats) -> PoolStats:
    """Count what the view holds now."""
    platforms = {name: dict.fromkeys(PlatformStats.model_fields, 0) for name in view.rules.platforms}
    for session in view.sessions.values():
        row = platforms[session.lane.platform]
        row["sessions"] += 1
        key = "ending" if session.state in ENDING else str(session.state)
        if key in row:
            row[key] += 1
    for request in view.requests.values():
        platforms[request.lane.platform]["queued"] += 1
    for name, row in platforms.items():
        row["max_sessions"] = view.rules.platforms[name].max_sessions
    return PoolStats(
        sessions=len(view.sessions),
        max_sessions=view.rules.max_sessions,
        idle=view.by_state[State.IDLE],
        leased=view.by_state[State.LEASED],
        creating=view.by_state[State.CREATING],
        unhealthy=view.by_state[State.UNHEALTHY],
        ending=view.by_state[State.DRAINING] + view.by_state[State.LOST],
        queued=len(view.requests),
        max_queued=view.rules.max_queued,
        leases=counts.leases,
        reused=counts.reused,
        refused=counts.refused,
        creations=counts.creations,
        creations_failed=counts.creations_failed,
        leaks=counts.leaks,
        reclaimed=counts.reclaimed,
        lost=counts.lost,
        dirty=counts.dirty,
        peak_sessions=counts.peak_sessions,
        peak_queued=counts.peak_queued,
        mean_wait_seconds=counts.waited / counts.leases if counts.leases else 0.0,
        platforms={name: PlatformStats(**row) for name, row in platforms.items()},
        providers={name: provider.sessions for name, provider in view.providers.items()},
        profiles=profiles,
        tenants={name: n for name, n in view.leased_by_tenant.items() if n},
    )
