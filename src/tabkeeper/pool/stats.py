"""What a pool is doing at this moment, as plain numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from tabkeeper.clock import Clock, Instant
from tabkeeper.config import Dollars
from tabkeeper.ledger.rates import accrued
from tabkeeper.money import ZERO, Money
from tabkeeper.pool.health import MB
from tabkeeper.pool.kept import Kept, kept
from tabkeeper.pool.model import ENDING, NEVER, Request, Session, State
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.pool.view import ProviderView, View
from tabkeeper.profiles.figures import ProfileStats
from tabkeeper.reports.standing import Standing


class Frozen(BaseModel):
    """Base of the pool's figures; `model_dump_json()` gives plain JSON."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)


class PlatformStats(Frozen):
    """Sessions and requests of one platform."""

    sessions: int = 0
    idle: int = 0
    leased: int = 0
    creating: int = 0
    ending: int = 0
    queued: int = 0
    max_sessions: int = 0


class JobStats(Frozen):
    """How one job of the timetable goes; counted since the pool's start."""

    every_seconds: float
    runs: int
    failures: int
    running: bool
    last_run: datetime | None
    last_seconds: float | None
    last_result: str
    """"ok", "failed: " and why, or what the job had to say; empty before the first run."""
    next_run: datetime | None


class HealthStats(Frozen):
    """Checks of sessions since the pool's start, and the scores of those that are open."""

    checks: int = 0
    checks_failed: int = 0
    recovered: int = 0
    """Sessions whose score had been too low, and that were used again after a check."""
    refreshes: int = 0
    refreshes_failed: int = 0
    mean_score: float = 1.0
    lowest_score: float = 1.0

    @property
    def recovery_rate(self) -> float:
        """Share of sick sessions that recovered, 0..1; those that were replaced did not."""
        tried = self.recovered + self.checks_failed
        return self.recovered / tried if tried else 1.0


class CleaningStats(Frozen):
    """How sessions end; counted since the pool's start."""

    closes: int = 0
    retried: int = 0
    """Ends that the provider confirmed only after another attempt, or not yet."""

    @property
    def first_try_rate(self) -> float:
        """Share of ends that were confirmed at the first try, 0..1."""
        return 1 - self.retried / self.closes if self.closes else 1.0


class PrewarmStats(Frozen):
    """Sessions created before anybody asked for them; counted since the pool's start."""

    created: int = 0
    used: int = 0
    """Of those, sessions that a lease found ready, or under way."""
    in_vain: int = 0
    """Closed, and never leased."""
    wasted: Dollars = ZERO
    """What these cost."""


class Buckets(Frozen):
    """A histogram of seconds."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets but the last, which has none."""
    counts: tuple[int, ...]
    """Values in each bucket; one more than bounds."""
    total: float
    """Sum of the values."""


class PlaceStats(Frozen):
    """Sessions of one platform at one provider in one state."""

    platform: str
    provider: str
    state: str
    sessions: int


class CostStats(Frozen):
    """What closed sessions of a platform at a provider have cost: in all, and those begun today."""

    platform: str
    provider: str
    total: Dollars
    today: Dollars


class BudgetStats(Frozen):
    """The open window of a budget."""

    name: str
    limit: Dollars
    spent: Dollars
    held: Dollars


class SessionStats(Frozen):
    """One open session."""

    id: str
    platform: str
    provider: str
    tenant: str
    identity: str | None = None
    """First digits of the keyed hash of whose account is logged in; None if it is nobody's."""
    state: str
    uses: int
    created_at: datetime
    last_used: datetime | None
    last_refresh: datetime | None
    """When it was last kept alive without being used."""
    last_check: datetime | None
    health: float
    memory_mb: float | None
    cost: Dollars
    """What it has cost so far by its price list."""
    idle_since: datetime | None = None
    kept: Kept | None = None
    """While idle: until when, and why; None until that is decided."""
    fresh_until: datetime | None = None
    """It takes no new lease from then on."""
    lease_ends: datetime | None = None
    """While leased: when the lease is taken back."""
    ending: str = ""
    """While it ends: why."""


class ProviderStats(Frozen):
    """One provider account: whether more sessions may be created there, and what was learnt about it."""

    state: str
    """Of the breaker: closed (all is well), open (left alone), half-open (one session is tried)."""
    sessions: int
    max_sessions: int
    """As configured, told by the provider, or learnt from its refusals, whichever is least."""
    learnt_max_sessions: int | None
    creates_per_minute: int | None
    """As configured, or learnt from its refusals; None without a limit."""
    retry_in: float
    """Seconds for which it is left alone; 0 if it is not."""
    last_error: str


class RouteStats(Frozen):
    """In which order a platform asks its providers now, and what a lease there is expected to cost."""

    routing: str
    order: tuple[str, ...]
    level: int
    """The rung, from 0, with ``escalate``; else 0."""
    costs: dict[str, str | None]
    """Dollars as text; None if nobody knows. Empty with ``ordered``."""


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
    evicted_in_use: int
    """Leases whose session was taken for a request of higher priority."""
    dirty: int
    peak_sessions: int
    peak_queued: int
    mean_wait_seconds: float
    platforms: dict[str, PlatformStats]
    providers: dict[str, int]
    accounts: dict[str, ProviderStats]
    routes: dict[str, RouteStats]
    tenants: dict[str, int]
    profiles: ProfileStats
    average_age_seconds: float = 0.0
    errors: dict[str, int] = {}
    """Operations in `Lease.use` that failed, by kind: timeout, network, other."""
    health: HealthStats = HealthStats()
    cleaning: CleaningStats = CleaningStats()
    prewarm: PrewarmStats = PrewarmStats()
    jobs: dict[str, JobStats] = {}
    open_sessions: tuple[SessionStats, ...] = ()
    places: tuple[PlaceStats, ...] = ()
    queue_wait: Buckets = Buckets(bounds=(), counts=(0,), total=0.0)
    create_seconds: dict[str, Buckets] = {}
    """By provider."""
    lease_results: dict[str, dict[str, int]] = {}
    """By platform and how the lease ended: ok, failed, reclaimed, evicted, lost."""
    creation_results: dict[str, dict[str, int]] = {}
    """By provider: ok, failed."""
    costs: tuple[CostStats, ...] = ()
    """As of the last minute, like `budgets` and `alerts`."""
    budgets: tuple[BudgetStats, ...] = ()
    alerts: dict[str, int] = {}
    """Alerts raised by all processes of the ledger so far, by kind."""

    @property
    def error_rate(self) -> float:
        """Share of leases that ended otherwise than well, 0..1."""
        ended = [(how, n) for results in self.lease_results.values() for how, n in results.items()]
        number = sum(n for _, n in ended)
        return sum(n for how, n in ended if how != "ok") / number if number else 0.0

    @property
    def total_cost(self) -> Money:
        """Cost of all closed sessions on the ledger."""
        return sum((cost.total for cost in self.costs), ZERO)

    @property
    def utilisation(self) -> float:
        """Share of the places under the pool's limit that are leased, 0..1."""
        return self.leased / self.max_sessions

    @property
    def reuse_rate(self) -> float:
        """Share of leases on a session that had served before, 0..1."""
        return self.reused / self.leases if self.leases else 0.0


WAITS = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
CREATES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class Histogram:
    """Counts values by size."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def stats(self) -> Buckets:
        """Return it as plain figures."""
        return Buckets(bounds=self.bounds, counts=tuple(self.counts), total=self.total)


class Counts:
    """Counters of one pool, raised where the event happens."""

    __slots__ = (
        "checks",
        "checks_failed",
        "create_seconds",
        "creation_results",
        "creations",
        "creations_failed",
        "dirty",
        "evicted_in_use",
        "leaks",
        "lease_results",
        "leases",
        "longest_wait",
        "lost",
        "peak_queued",
        "peak_sessions",
        "prewarm_used",
        "prewarmed",
        "queue_wait",
        "reclaimed",
        "recovered",
        "refreshes",
        "refreshes_failed",
        "refused",
        "reused",
        "troubles",
        "waited",
    )

    def __init__(self) -> None:
        self.leases = self.reused = self.refused = self.creations = self.creations_failed = 0
        self.dirty = self.leaks = self.reclaimed = self.lost = self.evicted_in_use = 0
        self.peak_queued = self.peak_sessions = self.prewarmed = self.prewarm_used = 0
        self.checks = self.checks_failed = self.recovered = self.refreshes = self.refreshes_failed = 0
        self.troubles: Counter[str] = Counter()
        self.queue_wait = Histogram(WAITS)
        self.create_seconds: dict[str, Histogram] = {}
        self.lease_results: Counter[tuple[str, str]] = Counter()
        self.creation_results: Counter[tuple[str, str]] = Counter()
        self.waited = self.longest_wait = 0.0

    def created(self, provider: str, seconds: float) -> None:
        """Count a creation that worked."""
        self.creation_results[provider, "ok"] += 1
        self.create_seconds.setdefault(provider, Histogram(CREATES)).add(seconds)

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
        cost=accrued(running.hold.card, now - began) if running.hold and running.sent else ZERO,
        idle_since=instant(session.idle_since) if session.state is State.IDLE else None,
        kept=kept(session.verdict, instant) if session.state is State.IDLE and session.verdict else None,
        fresh_until=instant(session.fresh_until) if session.fresh_until < NEVER else None,
        lease_ends=instant(session.lease_ends) if session.lease_ends < NEVER else None,
        ending=session.reason if session.state in ENDING else "",
    )


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
        accounts={name: _account(provider, now) for name, provider in view.providers.items()},
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


def _account(provider: ProviderView, now: Instant) -> ProviderStats:
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


def _route(view: View, platform: str, now: Instant) -> RouteStats:
    ladder = view.ladders.get(platform)
    costs = view.costs.get(platform, {})
    return RouteStats(
        routing=view.rules.platforms[platform].routing,
        order=view.route(platform, now),
        level=0 if ladder is None else ladder.level(now),
        costs={name: None if cost is None else cost.text() for name, cost in costs.items()},
    )
