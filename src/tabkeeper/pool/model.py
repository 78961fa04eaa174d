"""The nouns of the pool as plain data: requests, sessions, their states, and the actions a plan consists of.

Nothing here decides or does anything; `view.py` keeps these values indexed and `plan.py` decides about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from tabkeeper.clock import Instant

KeepRule = Literal["value", "fixed", "always", "never"]
"""How long idle sessions are kept; see `keep`."""

NEVER: Instant = float("inf")

Routing = Literal["ordered", "cheapest", "escalate"]
"""How a platform's providers are put in order; see `providers.route`."""


class State(StrEnum):
    """Where a session is in its life. Every state but CLOSED takes a place under the limits."""

    CREATING = "creating"
    IDLE = "idle"
    LEASED = "leased"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    LOST = "lost"
    CLOSED = "closed"


FOLLOWS: Mapping[State, frozenset[State]] = {
    State.CREATING: frozenset({State.IDLE, State.DRAINING, State.LOST, State.CLOSED}),
    State.IDLE: frozenset({State.LEASED, State.UNHEALTHY, State.DRAINING, State.LOST}),
    State.LEASED: frozenset({State.IDLE, State.UNHEALTHY, State.DRAINING, State.LOST}),
    State.UNHEALTHY: frozenset({State.IDLE, State.DRAINING, State.LOST}),
    State.DRAINING: frozenset({State.CLOSED}),
    State.LOST: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
"""Which states may follow which; `View.move` asserts it."""

ENDING = frozenset({State.DRAINING, State.LOST})
"""States of sessions that are on their way out but still keep their place."""


class Lane(NamedTuple):
    """Requests and sessions that fit each other without any further question.

    `owner` is the tenant the sessions belong to, or None where tenants share them. `identity` is the keyed hash of
    whose account is logged in, or None if it is nobody's; such a lane has an owner, and one session at a time. `proxy`
    is the one that its sessions go through, or None if it does not matter which. `home` is the one process that can
    use its sessions, on a board that several share, or None if all can.
    """

    platform: str
    owner: str | None = None
    identity: str | None = None
    proxy: str | None = None
    home: int | None = None


EVICTED_IN_USE = "evicted in use"
"""Why a session ends that was taken from its holder; `errors.LeaseLostError` says more of it."""

SERVING = frozenset(State) - ENDING - {State.CLOSED}
"""States of sessions that serve somebody or will."""


@dataclass(slots=True, eq=False)
class Request:
    """Somebody waits for a session. `id` counts arrivals, so it also breaks ties."""

    id: int
    lane: Lane
    tenant: str
    priority: int
    arrived_at: Instant
    deadline: Instant
    lease_seconds: float
    """How long the lease may last at most."""
    failures: int = 0
    """Creations begun for it that failed."""
    covered_by: Session | None = None
    """The session being created, or the place being vacated, that is meant for it."""
    waiting: bool = True
    wants: str = ""
    """The id of the session it would rather have than any other of its lane."""
    home: int = 0
    """Whose caller it is, on a board that several processes share."""

    def __repr__(self) -> str:
        return f"<Request {self.id} {self.lane.platform} p{self.priority} {self.tenant}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why an idle session is kept until when. Times in seconds, costs in nano-dollars (expectations)."""

    rule: str
    decided_at: Instant
    until: Instant
    level: int
    """How many leases ran beside it."""
    age: float = 0.0
    paid_for: float = 0.0
    """So many more seconds were paid for already."""
    gaps_seen: float = 0.0
    chance: float = 0.0
    """That it is used again by `until`."""
    fresh: float = 0.0
    """What a new session for the next lease costs."""
    waiting: float = 0.0
    """What it costs to wait until `until` in vain."""
    expected: float = 0.0
    """The next lease's cost with this decision; `fresh` if it is closed at once."""
    gap: float = 0.0
    """Half of the gaps are expected to be shorter."""
    rate: float = 0.0
    """What a second costs in the long run."""
    fee: float = 0.0
    """What the provider takes for creating a session."""
    cold_start: float = 0.0
    """What a new session costs beyond the provider's bill; part of `fresh`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """That a session is to be created before anybody asks, and why. Times in seconds, costs in nano-dollars."""

    at: Instant
    """When it is created, if nobody came by then."""
    until: Instant
    """When it is closed, if nobody came by then."""
    left_at: Instant
    """When the last lease ended."""
    provider: str
    """Whose prices this was weighed by."""
    gain: float
    """Expected; above 0."""
    worth: float
    """What it is worth that the next caller finds it ready."""
    in_vain: float
    """What it costs if nobody comes."""
    chance: float
    gaps_seen: float


@dataclass(slots=True, eq=False)
class Session:
    """One browser that somebody pays for, as the planner sees it."""

    id: str
    lane: Lane
    provider: str
    tenant: str
    """Whose budgets hold its cost."""
    created_at: Instant
    """When it was decided on; its age counts from here."""
    state: State = State.CREATING
    fresh_until: Instant = NEVER
    """It takes no new lease from then on."""
    dies_at: Instant = NEVER
    """It must be over by then: the money held for it reaches no further."""
    keep_until: Instant = NEVER
    """While idle: when it is closed."""
    close_by: Instant = NEVER
    """While ending: when its place is given up even without confirmation."""
    lease_ends: Instant = NEVER
    """While leased: when the lease is reclaimed."""
    leak_at: Instant = NEVER
    """While leased: when the holder is reported as a possible leak."""
    stale_at: Instant = NEVER
    """While idle: when it is no longer believed to be well, so that it is checked before anybody gets it."""
    check_by: Instant = NEVER
    """While unhealthy: when its check must have ended; what was not found well by then is closed."""
    idle_since: Instant = 0.0
    leased_at: Instant = 0.0
    ahead: Ahead | None = None
    """Why it was created though nobody asked; None if somebody did."""
    verdict: Verdict | None = None
    """While idle: why it is kept until then; None until that is decided."""
    uses: int = 0
    """Leases so far; the number of the running lease while leased. The pair (id, uses) is a lease's token."""
    covers: Request | None = None
    """While creating or ending: whom the session, or its place, is meant for."""
    reason: str = ""
    """Why it is ending, in a word or two."""
    timer_at: Instant = NEVER
    """When the view next looks at it; kept by the view."""
    home: int = 0
    """Which process has it in its hands, on a board that several share."""

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.lane.platform}@{self.provider} {self.state}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRules:
    """What the planner needs to know about a platform; times in seconds."""

    providers: tuple[str, ...]
    max_sessions: int
    session_ttl: float
    idle_timeout: float
    lease_timeout: float
    max_uses: int
    create_attempts: int
    retry_base: float
    retry_max: float
    stale_after: float = NEVER
    """Idle for this long, a session is checked before it is leased."""
    keep: KeepRule = "value"
    cold_start: float = 0.0
    """Nano-dollars that a new session costs beyond the provider's bill: a login, a user who waits."""
    prewarm: bool = False
    """Whether a session may be created before anybody asks for it."""
    evict_in_use: bool = False
    """Whether its sessions in use make room for requests of higher priority than their holders'."""
    routing: Routing = "ordered"
    escalate_after: int = 2
    escalate_hold: float = 600.0
    escalate_successes: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Limits and times the planner obeys; seconds and counts."""

    max_sessions: int
    max_queued: int
    aging: float
    close_timeout: float
    leak_after: float
    platforms: Mapping[str, PlatformRules]
    provider_limits: Mapping[str, int]
    """Absent: no limit."""
    eviction: Literal["value", "lru"] = "value"
    provider_paces: Mapping[str, int] = field(default_factory=dict)
    """Creations a minute; absent: no limit."""
    breaker_failures: Mapping[str, int] = field(default_factory=dict)
    """Failures in a row after which one session at a time is tried; absent: 3."""
    tenant_limits: Mapping[str, int] = field(default_factory=dict)
    tenant_weights: Mapping[str, int] = field(default_factory=dict)
    check_timeout: float = 30.0
    """A check of a session is given up after this time."""
    owning_tenants: frozenset[str] = frozenset()
    """Tenants with a budget of their own, whose sessions are never shared."""


# ── actions: what a plan consists of ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Grant:
    """The request gets the session; the lease's token is (session.id, use)."""

    request: Request
    session: Session
    use: int


@dataclass(frozen=True, slots=True)
class Create:
    """Start this session at its provider (the money is held first)."""

    session: Session


@dataclass(frozen=True, slots=True)
class Close:
    """End this session at its provider, because of `session.reason`."""

    session: Session


@dataclass(frozen=True, slots=True)
class Check:
    """Find out whether the session is well; nobody gets it before `Board.checked` says so."""

    session: Session


@dataclass(frozen=True, slots=True)
class Reclaim:
    """The lease is over because its time is; the session is closed in the same plan."""

    session: Session
    use: int


@dataclass(frozen=True, slots=True)
class ReportLeak:
    """The lease is held suspiciously long; say where it was taken."""

    session: Session
    use: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request waited until its deadline."""

    request: Request
    position: int
    blocked_by: str


@dataclass(frozen=True, slots=True)
class GiveUpPlace:
    """The session's end was not confirmed in time: its place is free, the release goes on without it."""

    session: Session


Action = Grant | Create | Close | Check | Reclaim | ReportLeak | Refuse | GiveUpPlace
