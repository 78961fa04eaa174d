"""Counts what a view alone tells, which in a shared pool is the same in every process: places taken, and providers."""

from __future__ import annotations

from tabkeeper.clock import Instant
from tabkeeper.pool.lanes import ProviderView
from tabkeeper.pool.model import NEVER, State
from tabkeeper.pool.stats import ProviderStats, WholeStats
from tabkeeper.pool.view import View


def whole_stats(view: View) -> WholeStats:
    """Count sessions and requests of all processes."""
    states = view.by_state
    return WholeStats(
        sessions=len(view.sessions),
        idle=states[State.IDLE],
        leased=states[State.LEASED],
        creating=states[State.CREATING],
        unhealthy=states[State.UNHEALTHY],
        ending=states[State.DRAINING] + states[State.LOST],
        queued=len(view.requests),
    )


def provider_stats(provider: ProviderView, now: Instant) -> ProviderStats:
    """Tell whether more sessions may be created at a provider, and what was learnt about it."""
    gate = provider.gate
    left = gate.free_at - now
    return ProviderStats(
        state=gate.breaker.state(now),
        sessions=provider.sessions,
        max_sessions=provider.limit,
        learnt_max_sessions=gate.ceiling.learnt,
        creates_per_minute=gate.pace.per_minute,
        retry_in=round(max(0.0, left), 3) if left < NEVER else 0.0,
        last_error=gate.last_error,
    )
