"""What a user can set of the pool, the ledger, budgets, platforms and tenants: one model for each section."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from tabkeeper.config.proxy import StrategyName
from tabkeeper.config.values import AnyDuration, Dollars, Duration, Name, Settings, Zone
from tabkeeper.money import ZERO, Money

KeepChoice = Literal["value", "fixed", "always", "never"]

ResourceKind = Literal["image", "font", "media", "stylesheet", "trackers"]


class PoolSettings(Settings):
    """Limits and habits of the whole pool."""

    max_sessions: int = Field(
        10, ge=1, description="Sessions alive at once, those being created or closed included."
    )
    max_queued: int = Field(
        1000, ge=1, description="Requests that may wait; the next one is refused at once."
    )
    queue_timeout: Duration = Field(
        timedelta(seconds=30), description="How long a request waits if it does not say."
    )
    session_ttl: Duration = Field(
        timedelta(minutes=10), description="A session older than this takes no new lease."
    )
    keep: KeepChoice = Field(
        "value",
        description="How long idle sessions are kept. value: as long as it is cheaper in expectation than a new "
        "session (those that cost nothing: idle_timeout); fixed: idle_timeout; always: until too old or evicted; "
        "never: not at all.",
    )
    idle_timeout: Duration = Field(
        timedelta(minutes=1),
        description="An idle session is closed after this time, where `keep` does not decide by value.",
    )
    cold_start_cost: Dollars = Field(
        ZERO,
        description="What a new session costs you beyond the provider's bill, such as a login or a user who waits; "
        "more of it keeps sessions longer.",
    )
    prewarm: bool = Field(
        default=False,
        description="Create a session before anybody asks, where the learnt gaps say that it is worth its cost. What a "
        "ready session is worth is `cold_start_cost`; without that none is created. Never past a limit or a budget.",
    )
    lease_timeout: Duration = Field(
        timedelta(minutes=5), description="A lease not released by then is reclaimed and its session closed."
    )
    leak_after: Duration = Field(
        timedelta(minutes=2),
        description="A lease held this long is logged once, with the place that took it.",
    )
    aging: Duration = Field(
        timedelta(seconds=10), description="A waiting request gains one step of priority in this time."
    )
    priorities: tuple[int, int] = Field(
        (-100, 100), description="Lowest and highest priority a request may ask for."
    )
    eviction: Literal["value", "lru"] = Field(
        "value",
        description="Which idle session makes room at a limit: the one least worth keeping, or the least recently "
        "used.",
    )
    evict_in_use: bool = Field(
        default=False,
        description="At a limit where no idle session can make room, a request takes the place of the session whose "
        "holder has the lowest priority, if that is lower than its own; the holder gets `LeaseLostError`.",
    )
    create_timeout: Duration = Field(
        timedelta(seconds=60), description="A provider must have a session ready by then."
    )
    close_timeout: Duration = Field(
        timedelta(seconds=10), description="A closing session keeps its slot for at most this time."
    )
    clean_timeout: Duration = Field(
        timedelta(seconds=5),
        description="Closing a lease's pages may take this long; then the session is closed.",
    )
    shutdown_grace: AnyDuration = Field(
        timedelta(seconds=10), description="How long running leases may finish when the pool closes."
    )
    heartbeat: Duration = Field(
        timedelta(seconds=10),
        description="How often this process says that it is alive; in a shared pool, a process that is not heard of "
        "for this long is taken for dead.",
    )
    shared: bool | Literal["auto"] = Field(
        "auto",
        description="Whether all processes with the same ledger.url and pool.name are one pool. auto: they are where "
        "the ledger is on PostgreSQL; true: an error where it is not; false: each has a pool of its own.",
    )
    name: Name = Field("main", description="Processes of one name share one pool.")
    takeover: Literal["wait", "refuse"] = Field(
        "wait",
        description="What a process does that finds its shared pool run by processes of another version or "
        "configuration. wait: its callers queue until those have left, then it takes over what idles; refuse: it does "
        "not start.",
    )

    @field_validator("shared", mode="before")
    @classmethod
    def _check_shared(cls, value: object) -> object:
        known = {"auto", "true", "false"}
        if not isinstance(value, bool) and str(value).lower() not in known:
            raise ValueError('write "auto", true or false')
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.priorities
        if low > high:
            raise ValueError(f"priorities: the lowest comes first, so write [{high}, {low}]")
        if self.heartbeat > timedelta(seconds=30):
            raise ValueError("heartbeat: at most 30s; a process not heard of for 90s is taken for dead")
        return self


class ToleranceSettings(Settings):
    """How far a provider's bill may differ from ours: by the larger of both."""

    absolute: Dollars = Field(Money.parse("0.01"), description='Dollars, as text: "0.01".')
    relative: float = Field(0.02, ge=0, le=1, description="Share of the larger sum.")


class LedgerSettings(Settings):
    """Where costs are kept."""

    url: str = Field(
        "sqlite:///tabkeeper.db", description="SQLAlchemy URL: sqlite:///file or postgresql://user@host/db."
    )
    direct_url: str | None = Field(
        None,
        description="Address that reaches PostgreSQL itself, if url goes through a pooler such as PgBouncer; a shared "
        "pool listens there.",
    )
    timezone: Zone = Field("UTC", description="Zone of the days and months in reports.")
    report_folder: Path | None = Field(
        None, description="Folder in which each day's and month's report is left as a page, once it is over."
    )
    auto_upgrade: bool = Field(
        default=True,
        description="Create or upgrade the schema at start; off: `tabkeeper db upgrade` does it.",
    )
    reconcile_every: Duration = Field(
        timedelta(minutes=15), description="How often providers are asked what they billed."
    )
    reconcile_back: Duration = Field(
        timedelta(days=2), description="What ended longer ago is left to `tabkeeper reconcile --since`."
    )
    reconcile_most: int = Field(
        200, ge=1, description="Sessions of one provider that are asked for each time; the next time goes on."
    )
    reconcile_tolerance: ToleranceSettings = Field(
        ToleranceSettings(),
        description="Differences past it raise an alert; all of them become adjustments.",
    )


class SecuritySettings(Settings):
    """Keys for what is stored. Write them by reference, never into the file itself."""

    keys: tuple[SecretStr, ...] = Field(
        (),
        description='For encryption at rest, such as ["env:TABKEEPER_KEY"]: the first encrypts, all decrypt. Without '
        "one, nothing secret is stored.",
    )
    identity_key: SecretStr | None = Field(
        None,
        description='For the hashes by which identities are known, such as "env:TABKEEPER_IDENTITY_KEY". Without it '
        "each pool makes its own at start.",
    )


class BudgetSettings(Settings):
    """One budget. A session must fit into every budget that applies to it."""

    name: Name = Field(description="Shown in reports and errors; a budget is known by it.")
    limit: Dollars = Field(description='Dollars per period, as text: "5.00".')
    period: Literal["day", "week", "month", "total"] = Field(
        "day", description="Length of a window; weeks start on Monday."
    )
    timezone: Zone = Field("UTC", description="Zone whose midnight starts a window.")
    mode: Literal["hard", "soft"] = Field(
        "hard", description="hard refuses what would pass the limit; soft only counts."
    )
    thresholds: tuple[float, ...] = Field(
        (0.5, 0.8, 1.0), description="Shares of the limit at which an alert is written, once per window."
    )
    on_exceed: Literal["deny", "wait", "fallback"] = Field(
        "deny",
        description="deny: clear error; wait: until money is free or the next window; "
        "fallback: a cheaper provider that fits.",
    )
    platform: str | None = Field(None, description="Count only this platform.")
    provider: str | None = Field(None, description="Count only this provider.")
    tenant: str | None = Field(None, description="Count only this tenant; it then gets sessions of its own.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.limit.nanos == 0 and self.mode == "hard":
            raise ValueError(
                "limit: a hard budget of zero refuses everything; set a limit or remove the budget"
            )
        scopes = [s for s in (self.platform, self.provider, self.tenant) if s is not None]
        if len(scopes) > 1:
            raise ValueError("set at most one of platform, provider, tenant")
        if any(not 0 < t <= 10 for t in self.thresholds):
            raise ValueError("thresholds are shares of the limit, such as 0.8")
        return self


class PlatformSettings(Settings):
    """A named kind of work with limits of its own. Unset values are taken from the pool."""

    providers: tuple[str, ...] = Field(
        ("local",), min_length=1, description="Providers, in order of preference."
    )
    routing: Literal["ordered", "cheapest", "escalate"] = Field(
        "ordered",
        description="Which provider comes first: ordered: the first named; cheapest: by expected cost of a lease; "
        "escalate: the cheapest until leases fail or are blocked, then the next.",
    )
    escalate_after: int = Field(
        2, ge=1, description="escalate: failures or blocks in a row after which the next provider is used."
    )
    escalate_hold: Duration = Field(
        timedelta(minutes=10),
        description="escalate: the earliest time to go back down; doubles on a relapse.",
    )
    escalate_successes: int = Field(
        5, ge=0, description="escalate: leases that must succeed before it goes back down."
    )
    max_sessions: int | None = Field(None, ge=1, description="Sessions at once for this platform.")
    session_ttl: Duration | None = Field(None, description="As pool.session_ttl.")
    keep: KeepChoice | None = Field(None, description="As pool.keep.")
    idle_timeout: Duration | None = Field(None, description="As pool.idle_timeout.")
    cold_start_cost: Dollars | None = Field(None, description="As pool.cold_start_cost.")
    prewarm: bool | None = Field(None, description="As pool.prewarm.")
    evict_in_use: bool | None = Field(
        None, description="As pool.evict_in_use: whether its sessions may be taken from their holders."
    )
    lease_timeout: Duration | None = Field(None, description="As pool.lease_timeout.")
    queue_timeout: Duration | None = Field(None, description="As pool.queue_timeout.")
    use_timeout: Duration = Field(timedelta(seconds=60), description="Longest time of one `use()` operation.")
    max_uses: int | None = Field(None, ge=1, description="Leases a session serves before it is closed.")
    block: tuple[ResourceKind, ...] = Field((), description="What pages must not load.")
    create_attempts: int = Field(
        3, ge=1, description="Failed creations a request survives before it gets the error."
    )
    retry_base: Duration = Field(
        timedelta(milliseconds=500), description="First pause after a failed creation; doubles."
    )
    retry_max: Duration = Field(timedelta(seconds=30), description="Longest pause after failed creations.")
    identity: Literal["exclusive", "shared"] = Field(
        "exclusive",
        description="How leases of one identity use its one session: one after the other, or together.",
    )
    max_session_cost: Dollars | None = Field(None, description="A session is closed before it costs more.")
    proxies: tuple[str, ...] = Field(
        (), description='Ids of the proxies that its sessions go through, or ["*"] for all; none if empty.'
    )
    proxy_strategy: StrategyName | None = Field(
        None,
        description='How a new session\'s proxy is chosen; as proxy_pool.strategy if unset. "sticky": by key.',
    )


class TenantSettings(Settings):
    """Who is charged."""

    max_sessions: int | None = Field(None, ge=1, description="Leases of this tenant at once.")
    weight: int = Field(1, ge=1, description="Share among tenants of one priority.")
