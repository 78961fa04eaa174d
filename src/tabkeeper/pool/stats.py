"""What a pool is doing at a moment, as plain figures: the models of `pool.stats()`."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from tabkeeper.config import Dollars
from tabkeeper.money import ZERO, Money
from tabkeeper.pool.kept import Kept
from tabkeeper.profiles.figures import ProfileStats


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


class WholeStats(Frozen):
    """Sessions and requests of all processes that share the pool; of a pool of one process, its own."""

    sessions: int = 0
    idle: int = 0
    leased: int = 0
    creating: int = 0
    unhealthy: int = 0
    ending: int = 0
    queued: int = 0


class PoolStats(Frozen):
    """Sessions and requests of the pool; counters run from the pool's start.

    Of a pool that processes share this is what one of them has; `whole` is that of all.
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
    whole: WholeStats = WholeStats()
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
