"""What a pool has and does at this moment, counted: from its view and counters to the plain figures of `stats`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from tabkeeper.clock import Clock, Instant
from tabkeeper.ledger.rates import OWN_PROXY_KIND, RateCard, accrued
from tabkeeper.money import ZERO, Money
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.health import MB
from tabkeeper.pool.kept import kept
from tabkeeper.pool.model import ENDING, NEVER, Request, Session, State
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.pool.stats import (
    BudgetStats,
    CleaningStats,
    CostStats,
    HealthStats,
    JobStats,
    PlaceStats,
    PlatformStats,
    PoolStats,
    PrewarmStats,
    RouteStats,
    SessionStats,
)
from tabkeeper.pool.tally import provider_stats, whole_stats
from tabkeeper.pool.view import View
from tabkeeper.profiles.figures import ProfileStats
from tabkeeper.reports.standing import Standing


def _by_name(counted: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (name, result), number in sorted(counted.items()):
        found.setdefault(name, {})[result] = number
    return found


def session_stats(running: Running, clock: Clock) -> SessionStats:
    """Tell of one open session."""
    session, health, now = running.session, running.health, clock.monotonic()
    today = clock.now()

    def instant(at: Instant) -> datetime:
        return today - timedelta(seconds=now - at)

    def wall(at: Instant) -> datetime | None:
        return instant(at) if at else None

    began = running.sent_at if running.sent else session.created_at
    return SessionStats(
        id=session.id,
        platform=session.lane.platform,
        provider=session.provider,
        tenant=session.tenant,
        identity=session.lane.identity[:8] if session.lane.identity else None,
        state=str(session.state),
        uses=session.uses,
        created_at=instant(began),
        last_used=wall(running.last_used),
        last_refresh=wall(running.last_refresh),
        last_check=wall(running.checked_at),
        health=health.score,
        memory_mb=None if health.memory is None else round(health.memory / MB, 1),
        cost=_so_far(running, running.hold.card, now - began) if running.hold and running.sent else ZERO,
        idle_since=instant(session.idle_since) if session.state is State.IDLE else None,
        kept=kept(session.verdict, instant) if session.state is State.IDLE and session.verdict else None,
        fresh_until=instant(session.fresh_until) if session.fresh_until < NEVER else None,
        lease_ends=instant(session.lease_ends) if session.lease_ends < NEVER else None,
        ending=session.reason if session.state in ENDING else "",
    )


def _so_far(running: Running, card: RateCard, age: float) -> Money:
    """Return what a session costs already: its time, and what went through a proxy of its own."""
    own = card.component(OWN_PROXY_KIND)
    moved = 0 if running.relay is None else running.relay.moved
    return accrued(card, age) + (own.amount(moved) if own is not None else ZERO)


def take_stats(
    view: View,
    mine: Sequence[Session],
    waiting: Sequence[Request],
    counts: Counts,
    profiles: ProfileStats,
    *,
    sessions: Sessions,
    clock: Clock,
    jobs: dict[str, JobStats],
    books: Standing,
) -> PoolStats:
    """Count what a pool holds now: of a shared one, what this process has of it."""
    now = clock.monotonic()
    ages = [now - session.created_at for session in mine]
    states = Counter(session.state for session in mine)
    places = Counter((s.lane.platform, s.provider, str(s.state)) for s in mine)
    scores = [running.health.score for running in sessions.running.values()] or [1.0]
    platforms = {name: dict.fromkeys(PlatformStats.model_fields, 0) for name in view.rules.platforms}
    for session in mine:
        row = platforms[session.lane.platform]
        row["sessions"] += 1
        key = "ending" if session.state in ENDING else str(session.state)
        if key in row:
            row[key] += 1
    for request in waiting:
        platforms[request.lane.platform]["queued"] += 1
    for name, row in platforms.items():
        row["max_sessions"] = view.rules.platforms[name].max_sessions
    return PoolStats(
        sessions=len(mine),
        max_sessions=view.rules.max_sessions,
        idle=states[State.IDLE],
        leased=states[State.LEASED],
        creating=states[State.CREATING],
        unhealthy=states[State.UNHEALTHY],
        ending=states[State.DRAINING] + states[State.LOST],
        queued=len(waiting),
        max_queued=view.rules.max_queued,
        whole=whole_stats(view),
        leases=counts.leases,
        reused=counts.reused,
        refused=counts.refused,
        creations=counts.creations,
        creations_failed=counts.creations_failed,
        leaks=counts.leaks,
        reclaimed=counts.reclaimed,
        lost=counts.lost,
        evicted_in_use=counts.evicted_in_use,
        dirty=counts.dirty,
        peak_sessions=counts.peak_sessions,
        peak_queued=counts.peak_queued,
        mean_wait_seconds=counts.waited / counts.leases if counts.leases else 0.0,
        platforms={name: PlatformStats(**row) for name, row in platforms.items()},
        providers={name: provider.sessions for name, provider in view.providers.items()},
        accounts={name: provider_stats(provider, now) for name, provider in view.providers.items()},
        routes={name: _route(view, name, now) for name in view.rules.platforms},
        profiles=profiles,
        tenants=dict(Counter(one.covers.tenant for one in mine if one.state is State.LEASED and one.covers)),
        average_age_seconds=sum(ages) / len(ages) if ages else 0.0,
        errors=dict(counts.troubles),
        health=HealthStats(
            checks=counts.checks,
            checks_failed=counts.checks_failed,
            recovered=counts.recovered,
            refreshes=counts.refreshes,
            refreshes_failed=counts.refreshes_failed,
            mean_score=sum(scores) / len(scores),
            lowest_score=min(scores),
        ),
        cleaning=CleaningStats(closes=sessions.closes, retried=sessions.closes_failed),
        prewarm=PrewarmStats(
            created=counts.prewarmed,
            used=counts.prewarm_used,
            in_vain=sessions.prewarmed_in_vain,
            wasted=sessions.wasted,
        ),
        jobs=jobs,
        places=tuple(
            PlaceStats(platform=platform, provider=provider, state=state, sessions=number)
            for (platform, provider, state), number in sorted(places.items())
        ),
        queue_wait=counts.queue_wait.stats(),
        create_seconds={name: histogram.stats() for name, histogram in counts.create_seconds.items()},
        lease_results=_by_name(counts.lease_results),
        creation_results=_by_name(counts.creation_results),
        costs=tuple(
            CostStats(platform=c.platform, provider=c.provider, total=c.total, today=c.today)
            for c in books.costs
        ),
        budgets=tuple(
            BudgetStats(name=b.name, limit=b.limit, spent=b.spent, held=b.held) for b in books.budgets
        ),
        alerts=dict(books.alerts),
        open_sessions=tuple(session_stats(running, clock) for running in sessions.running.values()),
    )


def _route(view: View, platform: str, now: Instant) -> RouteStats:
    ladder = view.ladders.get(platform)
    costs = view.costs.get(platform, {})
    return RouteStats(
        routing=view.rules.platforms[platform].routing,
        order=view.route(platform, now),
        level=0 if ladder is None else ladder.level(now),
        costs={name: None if cost is None else cost.text() for name, cost in costs.items()},
    )
