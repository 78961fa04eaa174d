"""What must hold of a pool after every decision, by brute force and written from the design, not from the planner.

Nothing here is indexed or clever: it counts from the lists of sessions and requests each time. `Judge` follows a run
of plans, replays each action on its own copy of the facts, and says in an AssertionError what was wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fractions import Fraction

from tabkeeper.money import ZERO
from tabkeeper.pool.model import (
    Action,
    Check,
    Close,
    Create,
    GiveUpPlace,
    Grant,
    Lane,
    Reclaim,
    Refuse,
    ReportLeak,
    Request,
    Rules,
    Session,
    State,
)
from tabkeeper.pool.view import View
from tabkeeper.providers.breaker import Gate

ENDINGS = (State.DRAINING, State.LOST)

Order = tuple[int, Fraction, float, int]


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Places:
    """How many sessions there are under each limit."""

    rules: Rules
    learnt: dict[str, int] = field(default_factory=dict)
    """Limits of providers that their refusals taught."""
    pool: int = 0
    platform: Counter[str] = field(default_factory=Counter)
    provider: Counter[str] = field(default_factory=Counter)
    identity: Counter[Lane] = field(default_factory=Counter)

    def take(self, lane: Lane, provider: str, number: int = 1) -> None:
        self.pool += number
        self.platform[lane.platform] += number
        self.identity[lane] += number
        self.provider[provider] += number

    def full(self, lane: Lane, provider: str) -> set[str]:
        """Name the limits that leave no place for one more."""
        provider_limit = self.rules.provider_limits.get(provider, self.rules.max_sessions)
        provider_limit = min(provider_limit, self.learnt.get(provider, provider_limit))
        named = {
            "pool": self.pool >= self.rules.max_sessions,
            "platform": self.platform[lane.platform] >= self.rules.platforms[lane.platform].max_sessions,
            "provider": self.provider[provider] >= provider_limit,
            "identity": lane.identity is not None and self.identity[lane] >= 1,
        }
        return {name for name, is_full in named.items() if is_full}

    def exceeded(self) -> list[str]:
        found = []
        if self.pool > self.rules.max_sessions:
            found.append(f"pool {self.pool}")
        for name, rules in self.rules.platforms.items():
            if self.platform[name] > rules.max_sessions:
                found.append(f"platform {name} {self.platform[name]}")
        for name, limit in self.rules.provider_limits.items():
            if self.provider[name] > limit:
                found.append(f"provider {name} {self.provider[name]}")
        found += [f"identity {lane} {n}" for lane, n in self.identity.items() if lane.identity and n > 1]
        return found


def places(view: View) -> Places:
    counted = Places(view.rules, {name: p.gate.ceiling.limit for name, p in view.providers.items()})
    for session in view.sessions.values():
        assert session.state is not State.CLOSED, f"{session} is closed and still there"
        counted.take(session.lane, session.provider)
    return counted


def frees(session: Session, full: set[str], lane: Lane, provider: str) -> bool:
    """Say whether the session's place, once free, makes room where these limits leave none."""
    if "platform" in full and session.lane.platform != lane.platform:
        return False
    if "identity" in full and session.lane != lane:
        return False
    return not ("provider" in full and session.provider != provider)


def leases_of(view: View) -> Counter[str]:
    return Counter(
        s.covers.tenant for s in view.sessions.values() if s.state is State.LEASED and s.covers is not None
    )


def gates_of(view: View) -> dict[str, Gate]:
    """Copies of the providers' gates."""
    return {name: deepcopy(provider.gate) for name, provider in view.providers.items()}


def route_of(view: View, platform: str, now: float) -> list[str]:
    """The platform's providers in the order in which they are to be asked."""
    named = list(view.rules.platforms[platform].providers)
    if platform in view.ladders:
        level = view.ladders[platform].level(now)
        return named[level:] + named[:level][::-1]
    costs = view.costs.get(platform, {})
    if view.rules.platforms[platform].routing == "cheapest" and costs:
        return sorted(named, key=lambda name: (costs[name] is None, costs[name] or ZERO))
    return named


def usable_providers(
    view: View, lane: Lane, now: float, gates: Mapping[str, Gate] | None = None
) -> list[str]:
    """Providers that may be asked for a session of the lane now, in the order of the platform's route.

    `gates` are those of an earlier moment.
    """
    state = view.lanes[lane]
    if now < state.wants_at:
        return []
    gates = gates or {name: provider.gate for name, provider in view.providers.items()}
    return [
        name
        for name in route_of(view, lane.platform, now)
        if gates[name].free_at <= now and (state.paid_from <= now or name in state.fits)
    ]


# ── what must hold at every instant at which nothing is booked ──────────────────────────────────────────────────────


def check_safe(view: View) -> None:
    """No limit is passed, nobody shares a lease, nobody is in a lane that belongs to somebody else."""
    assert not (over := places(view).exceeded()), f"limits passed: {over}"
    for tenant, held in leases_of(view).items():
        limit = view.rules.tenant_limits.get(tenant)
        assert limit is None or held <= limit, f"tenant {tenant} holds {held} of {limit}"
    holders = [s.covers for s in view.sessions.values() if s.state is State.LEASED]
    assert None not in holders, "a lease without a holder"
    assert len({r.id for r in holders if r}) == len(holders), "one request holds two sessions"
    for session in view.sessions.values():
        holder = session.covers
        if holder is None:
            continue
        if session.state in {State.LEASED, State.CREATING}:
            assert holder.lane == session.lane, f"{session} serves {holder} of another lane"
        if session.state is State.LEASED:
            assert session.lane.owner in {None, holder.tenant}, f"{session} is lent to {holder.tenant}"
            assert not holder.waiting, f"{holder} holds a lease and waits"
        else:
            assert holder.waiting, f"{session} is meant for {holder}, who left"
            assert holder.covered_by is session, f"{session} and {holder} do not agree"


def check_complete(view: View, now: float) -> None:
    """Nobody waits for what is there."""
    if view.draining:
        return
    held = leases_of(view)
    limits = view.rules.tenant_limits
    free = {s.lane for s in view.sessions.values() if s.state is State.IDLE and s.fresh_until > now}
    spare = {s.lane for s in view.sessions.values() if s.state is State.CREATING and s.covers is None}
    promised, taken = promises(view), places(view)
    for request in view.requests.values():
        limit = limits.get(request.tenant)
        if limit is not None and held[request.tenant] >= limit:
            continue
        assert request.lane not in free, f"{request} waits beside an idle session of its lane"
        if limit is not None and held[request.tenant] + promised[request.tenant] >= limit:
            continue
        covering = request.covered_by
        if covering is not None and covering.state in ENDINGS:
            room = [
                name
                for name in usable_providers(view, request.lane, now)
                if not taken.full(request.lane, name)
            ]
            assert not room, f"{request} waits for the place of {covering} although there is room at {room}"
        if covering is None:
            assert request.lane not in spare, (
                f"{request} is not covered by a creation that is meant for nobody"
            )
            way = how_to_help(view, request, now, taken)
            assert way is None, f"{request} waits uncovered although there is {way}"


def promises(view: View) -> Counter[str]:
    return Counter(r.tenant for r in view.requests.values() if r.covered_by is not None)


def poor(view: View, request: Request, now: float) -> bool:
    """Say whether a budget has just refused the request's lane, so that nobody is evicted for it.

    Nor is anything bought for it while it has living sessions: its queue is served by these.
    """
    return now < view.lanes[request.lane].poor_until


def how_to_help(view: View, request: Request, now: float, taken: Places) -> str | None:
    """Name a way to make a session for the request, if there is one."""
    lane = request.lane
    if poor(view, request, now) and any(
        s.lane == request.lane and s.state not in {*ENDINGS, State.CLOSED} for s in view.sessions.values()
    ):
        return None
    for name in usable_providers(view, request.lane, now):
        full = taken.full(lane, name)
        if not full:
            return f"room at {name}"
        for session in view.sessions.values():
            if (
                session.state is State.IDLE
                and frees(session, full, lane, name)
                and not poor(view, request, now)
            ):
                return f"{session} to evict for {name}"
            if (
                frees(session, full, lane, name)
                and may_be_taken(view, session, request)
                and first_in_lane(view, request)
                and not poor(view, request, now)
            ):
                return f"{session} to take from its holder for {name}"
    return None


def may_be_taken(view: View, session: Session, request: Request) -> bool:
    """Say whether a session in use may be taken from its holder for the request."""
    if session.state is not State.LEASED or not view.rules.platforms[session.lane.platform].evict_in_use:
        return False
    if request.lane.identity is not None and session.lane == request.lane:
        return False
    return held_priority(view.rules, session) < request.priority and not turn_came_first(
        view.rules, session, request
    )


def grown(rules: Rules, request: Request, now: float) -> int:
    """What a priority has grown to by waiting."""
    return request.priority + int((now - request.arrived_at) // rules.aging)


def step(rules: Rules, request: Request) -> int:
    return int(request.arrived_at // rules.aging) - request.priority


def turn_came_first(rules: Rules, session: Session, request: Request) -> bool:
    """Say whether the request waited when the holder got the session, and was not ahead of it."""
    assert session.covers is not None
    return request.arrived_at <= session.leased_at and step(rules, session.covers) <= step(rules, request)


def held_priority(rules: Rules, session: Session) -> int:
    """What the holder's priority had grown to when it was served."""
    assert session.covers is not None
    return grown(rules, session.covers, session.leased_at)


def first_in_lane(view: View, request: Request) -> bool:
    """Say whether nobody of its lane can be ahead of it, whoever's turn it is: who is first decides what is taken."""

    others = (r for r in view.requests.values() if r.lane == request.lane and r.covered_by is None)
    return all(
        step(view.rules, other) > step(view.rules, request) for other in others if other is not request
    )


def check_not_overdue(view: View, now: float) -> None:
    """Time has no unfinished business."""
    for session in view.sessions.values():
        if session.state is State.IDLE:
            due = min(session.keep_until, session.fresh_until, session.stale_at)
        elif session.state is State.UNHEALTHY:
            due = session.check_by
        elif session.state is State.LEASED:
            due = session.lease_ends
        elif session.state in ENDINGS:
            due = session.close_by
        else:
            continue
        assert due > now, f"{session} was due at {due}, it is {now}"
    for request in view.requests.values():
        assert request.deadline > now, f"{request} should have left at {request.deadline}, it is {now}"


def check_indexes(view: View) -> None:
    """Every counter and index equals a recount from scratch."""
    sessions = list(view.sessions.values())
    waiting = list(view.requests.values())

    def same(name: str, kept: Counter[str] | Counter[State], counted: Counter[str] | Counter[State]) -> None:
        assert +kept == +counted, f"{name}: kept {+kept}, counted {+counted}"
        assert min(kept.values(), default=0) >= 0, f"{name} is negative"

    same("by_platform", view.by_platform, Counter(s.lane.platform for s in sessions))
    same("by_state", view.by_state, Counter(s.state for s in sessions))
    same("waiting_by_tenant", view.waiting_by_tenant, Counter(r.tenant for r in waiting))
    same("leased_by_tenant", view.leased_by_tenant, leases_of(view))
    same("promised_by_tenant", view.promised_by_tenant, promises(view))
    held = [
        (held_priority(view.rules, s), s.leased_at, s.id)
        for s in sessions
        if s.state is State.LEASED and view.rules.platforms[s.lane.platform].evict_in_use
    ]
    kept = [(priority, s.leased_at, s.id) for priority, of in view.takeable.items() for s in of.values()]
    assert sorted(held) == sorted(kept), f"takeable: kept {kept}, counted {held}"
    for of_priority in view.takeable.values():
        assert of_priority, "an empty priority is kept"
    full = {t for t, limit in view.rules.tenant_limits.items() if leases_of(view)[t] >= limit}
    assert view.full_tenants == full, f"full tenants: kept {view.full_tenants}, counted {full}"

    def of(kept: Iterable[Session], counted: Iterable[Session], name: str) -> None:
        kept_ids, counted_ids = [s.id for s in kept], [s.id for s in counted]
        assert sorted(kept_ids) == sorted(counted_ids), f"{name}: kept {kept_ids}, counted {counted_ids}"

    idle = [s for s in sessions if s.state is State.IDLE]
    of(view.idle.values(), idle, "idle")
    for kept in (
        view.idle,
        *(p.idle for p in view.providers.values()),
        *(v.idle for v in view.lanes.values()),
    ):
        since = [s.idle_since for s in kept.values()]
        assert since == sorted(since), f"idle sessions are not in the order of their idleness: {since}"
    of(
        view.vacating.values(),
        [s for s in sessions if s.state in ENDINGS and s.covers is None],
        "vacating",
    )
    of(
        view.placed.values(),
        [s for s in sessions if s.state in ENDINGS and s.covers is not None],
        "placed",
    )
    for name, provider in view.providers.items():
        assert provider.retry_at == provider.gate.free_at, f"{name} is free at {provider.gate.free_at}"
        assert provider.limit == provider.gate.ceiling.limit, f"limit of {name}"
        probe = provider.gate.breaker.probe
        assert probe is None or view.sessions[probe].state is State.CREATING, f"{probe} is not being tried"
        assert provider.sessions == sum(s.provider == name for s in sessions), f"sessions of {name}"
        of(provider.idle.values(), [s for s in idle if s.provider == name], f"idle of {name}")
    for key, lane in view.lanes.items():
        of(lane.idle.values(), [s for s in idle if s.lane == key], f"idle of {key}")
        unmeant = [s for s in sessions if s.state is State.CREATING and s.covers is None and s.lane == key]
        of(lane.spare.values(), unmeant, f"spare of {key}")
        of([s for s in view.spare.values() if s.lane == key], unmeant, f"spare in {key}")
        assert lane.places == sum(s.lane == key for s in sessions), f"places in {key}: kept {lane.places}"
        living = sum(s.lane == key and s.state not in ENDINGS for s in sessions)
        assert lane.live == living, f"living in {key}: kept {lane.live}, counted {living}"
        mine = {r.id for r in waiting if r.lane == key}
        assert {r.id for r in lane.waiting} == mine, f"waiting in {key}"
        assert len(lane.waiting) == len(mine)
        bare = {r.id for r in waiting if r.lane == key and r.covered_by is None}
        assert {r.id for r in lane.uncovered} == bare, f"uncovered in {key}"
    in_use = {s.lane for s in sessions} | {r.lane for r in waiting}
    unused = {key for key in view.lanes if key.identity is not None} - in_use
    assert not unused, f"lanes of identities that nobody uses are kept: {unused}"
    for request in waiting:
        assert request.waiting, f"{request} is kept and does not wait"
        covering = request.covered_by
        if covering is not None:
            assert covering.covers is request, f"{covering} and {request} do not agree"
            assert covering.id in view.sessions, f"{request} is covered by {covering}, which is gone"
            assert covering.state in {State.CREATING, *ENDINGS}, f"{request} is covered by {covering}"


def check_all(view: View, now: float) -> None:
    """Everything that must hold whenever no plan is booked."""
    check_indexes(view)
    check_safe(view)
    check_not_overdue(view, now)
    check_complete(view, now)


def fingerprint(view: View) -> tuple[object, ...]:
    """Everything about a view that means something; lazy indexes do not."""
    return (
        [
            (
                s.id,
                str(s.state),
                s.uses,
                s.keep_until,
                s.close_by,
                s.lease_ends,
                s.leak_at,
                s.stale_at,
                s.check_by,
                s.covers and s.covers.id,
            )
            for s in view.sessions.values()
        ],
        [(r.id, r.covered_by and r.covered_by.id) for r in view.requests.values()],
    )


# ── what must hold of each plan ─────────────────────────────────────────────────────────────────────────────────────


class Shares:
    """Least served by weight first; who was away is not owed for it. Plain fractions."""

    def __init__(self, rules: Rules) -> None:
        self._weights = rules.tenant_weights
        self._start: dict[str, Fraction] = {}
        self._clock = Fraction(0)

    def of(self, tenant: str) -> Fraction:
        return self._start.get(tenant, Fraction(0))

    def came(self, tenant: str) -> None:
        self._start[tenant] = max(self.of(tenant), self._clock)

    def served(self, tenant: str) -> None:
        self._clock = self.of(tenant)
        self._start[tenant] = self._clock + Fraction(1, self._weights.get(tenant, 1))


@dataclass
class _Facts:
    """A plain copy of a view, taken before a plan."""

    places: Places
    state: dict[str, State]
    fresh_until: dict[str, float]
    stale_at: dict[str, float]
    idle_since: dict[str, float]
    uses: dict[str, int]
    leased_at: dict[str, float]
    priority: dict[str, int]
    """Of holders."""
    waiting: dict[int, Request]
    holder: dict[str, str]
    held_by: dict[str, Request]
    leases: Counter[str]
    covered: dict[int, bool]
    creations: Counter[Lane]
    gates: dict[str, Gate]


class Judge:
    """Follows a run: told of every request and shown every plan, it replays the plan's actions in their order."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.shares = Shares(view.rules)
        self._places_then = Places(view.rules)
        self.plans = 0
        self.ahead = 0
        """Sessions created before anybody asked."""
        self._robbed: set[str] = set()
        """Tenants that lost a lease in this plan: only then they could have another."""

    def asked(self, request: Request) -> None:
        """To be told before the view is."""
        if all(other.tenant != request.tenant for other in self.view.requests.values()):
            self.shares.came(request.tenant)

    def order(self, request: Request) -> Order:
        step = int(request.arrived_at // self.view.rules.aging) - request.priority
        return (step, self.shares.of(request.tenant), request.arrived_at, request.id)

    def before(self) -> _Facts:
        view = self.view
        sessions = view.sessions.values()
        return _Facts(
            places=places(view),
            state={s.id: s.state for s in sessions},
            fresh_until={s.id: s.fresh_until for s in sessions},
            stale_at={s.id: s.stale_at for s in sessions},
            idle_since={s.id: s.idle_since for s in sessions},
            uses={s.id: s.uses for s in sessions},
            leased_at={s.id: s.leased_at for s in sessions},
            priority={s.id: held_priority(view.rules, s) for s in sessions if s.state is State.LEASED},
            waiting=dict(view.requests),
            holder={s.id: s.covers.tenant for s in sessions if s.state is State.LEASED and s.covers},
            held_by={s.id: s.covers for s in sessions if s.state is State.LEASED and s.covers},
            leases=leases_of(view),
            covered={r.id: r.covered_by is not None for r in view.requests.values()},
            creations=Counter(s.lane for s in sessions if s.state is State.CREATING),
            gates=gates_of(view),
        )

    def judge(self, facts: _Facts, actions: list[Action], now: float) -> None:
        """Replay a plan on the facts from before it, then look at the view after it."""
        self.plans += 1
        self._robbed.clear()
        for name, gate in facts.gates.items():
            if gate.ceiling.tick(now):
                facts.places.learnt[name] = gate.ceiling.limit
        for action in actions:
            match action:
                case Grant(request, session, use):
                    self._places_then = replace(
                        facts.places,
                        platform=facts.places.platform.copy(),
                        provider=facts.places.provider.copy(),
                        identity=facts.places.identity.copy(),
                    )
                    self._granted(facts, request, session, use, now)
                case Create(session):
                    self._created(facts, session, now)
                case Refuse(request):
                    assert request.id in facts.waiting, f"{request} is refused and does not wait"
                    assert request.deadline <= now, f"{request} is refused before its time"
                    limit = self.view.rules.tenant_limits.get(request.tenant)
                    full = limit is not None and facts.leases[request.tenant] >= limit
                    if not full and not self.view.draining:
                        assert not self._idle(facts, request.lane, now), (
                            f"{request} is refused beside a session"
                        )
                    del facts.waiting[request.id]
                case Reclaim(session, use):
                    assert facts.state[session.id] is State.LEASED
                    assert use == facts.uses[session.id]
                    facts.leases[facts.holder[session.id]] -= 1
                case ReportLeak(session, use):
                    assert facts.state[session.id] is State.LEASED
                    assert use == facts.uses[session.id]
                case Close(session):
                    self._closing(facts, session, now)
                case Check(session):
                    assert facts.state[session.id] is State.IDLE, f"{session} is not idle and is checked"
                    assert facts.stale_at[session.id] <= now, f"{session} is checked before it is stale"
                    facts.state[session.id] = State.UNHEALTHY
                case GiveUpPlace(session):
                    assert facts.state[session.id] in ENDINGS, session
                    assert session.close_by <= now, f"{session} is given up before its time"
                    facts.state[session.id] = State.CLOSED
                    facts.places.take(session.lane, session.provider, -1)
        self._agrees(facts)
        self._no_envy(actions, now)

    def _agrees(self, facts: _Facts) -> None:
        after = {s.id: s.state for s in self.view.sessions.values()}
        told = {which: state for which, state in facts.state.items() if state is not State.CLOSED}
        assert told == after, f"actions say {told}, the view says {after}"
        assert set(facts.waiting) == set(self.view.requests), "the actions do not explain who left"

    def _idle(self, facts: _Facts, lane: Lane, now: float) -> list[Session]:
        return [
            s
            for s in self.view.sessions.values()
            if s.lane == lane
            and facts.state.get(s.id) is State.IDLE
            and min(facts.fresh_until[s.id], facts.stale_at[s.id]) > now
        ]

    def _granted(self, facts: _Facts, request: Request, session: Session, use: int, now: float) -> None:
        assert not self.view.draining, "a grant while draining"
        assert request.id in facts.waiting, f"{request} is granted and does not wait"
        idle = self._idle(facts, request.lane, now)
        assert session in idle, f"{session} is not idle and fresh, and is granted to {request}"
        assert session.lane.owner in {None, request.tenant}
        newest = max(facts.idle_since[s.id] for s in idle)
        if any(s.id == request.wants for s in idle):
            newest = facts.idle_since[request.wants]
            assert session.id == request.wants, f"{request} wanted {request.wants} and got {session}"
        assert facts.idle_since[session.id] == newest, f"{session} is not the most recently used"
        assert use == facts.uses[session.id] + 1
        rules = self.view.rules.platforms[session.lane.platform]
        assert use <= rules.max_uses, f"{session} is used {use} times of {rules.max_uses}"
        if (
            session.state is State.LEASED
        ):  # else it was lost in the same plan, to somebody who could not have it before
            assert now < session.lease_ends <= session.dies_at, f"{session} is lent for longer than it lives"
            assert session.lease_ends <= now + request.lease_seconds
        limits = self.view.rules.tenant_limits

        def may(tenant: str) -> bool:
            return tenant not in limits or facts.leases[tenant] < limits[tenant]

        assert may(request.tenant), f"{request} is granted past its tenant's limit"
        rivals = [r for r in facts.waiting.values() if r.lane == request.lane and may(r.tenant)]
        best = min(rivals, key=self.order)
        assert best is request, f"{request} is granted before {best}"
        # Where one tenant's limit decides between lanes, its own better request comes first there too.
        if request.tenant in limits and facts.leases[request.tenant] + 1 == limits[request.tenant]:
            for rival in facts.waiting.values():
                if rival.tenant == request.tenant and self.order(rival) < self.order(request):
                    others = self._idle(facts, rival.lane, now)
                    ahead = [
                        r
                        for r in facts.waiting.values()
                        if r.lane == rival.lane and may(r.tenant) and self.order(r) < self.order(rival)
                    ]
                    assert len(others) <= len(ahead), f"{request} uses up its tenant's limit before {rival}"
        self.shares.served(request.tenant)
        facts.leases[request.tenant] += 1
        facts.uses[session.id] = use
        facts.leased_at[session.id], facts.priority[session.id] = now, grown(self.view.rules, request, now)
        facts.holder[session.id], facts.held_by[session.id] = request.tenant, request
        facts.state[session.id] = State.LEASED
        del facts.waiting[request.id]

    def _created(self, facts: _Facts, session: Session, now: float) -> None:
        assert not self.view.draining, "a creation while draining"
        lane = session.lane
        usable = usable_providers(self.view, lane, now, facts.gates)
        assert session.provider in usable, f"{session} is created where it may not be: {usable}"
        roomy = [name for name in usable if not facts.places.full(lane, name)]
        assert session.provider in roomy, f"{session} has no room"
        assert roomy[0] == session.provider, f"{session}: {roomy[0]} comes first"
        meant = session.covers
        if session.ahead is not None:
            self._created_ahead(facts, session, now)
            return
        assert meant is not None, f"{session} is created for nobody"
        assert meant.id in facts.waiting
        assert meant.deadline > now, f"{session} is created for {meant}, whose time is up"
        waiting = sum(r.lane == lane for r in facts.waiting.values())
        under_way = facts.creations[lane]
        assert under_way < waiting, f"{session}: {under_way} creations under way for {waiting} waiting"
        self._began(facts, session, now)

    def _began(self, facts: _Facts, session: Session, now: float) -> None:
        facts.creations[session.lane] += 1
        facts.places.take(session.lane, session.provider)
        facts.gates[session.provider].began(session.id, now)
        facts.state[session.id] = State.CREATING

    def _created_ahead(self, facts: _Facts, session: Session, now: float) -> None:
        """Only where that is wanted, at its time, one at a time, and while nobody waits for a session of the lane."""
        assert self.view.rules.platforms[session.lane.platform].prewarm, (
            f"{session} was not to be created ahead"
        )
        assert session.ahead is not None
        assert session.ahead.at <= now, f"{session} is created before its time"
        assert session.ahead.provider == session.provider, f"{session}: it was weighed by other prices"
        assert not any(r.lane == session.lane for r in facts.waiting.values()), f"{session}: somebody waits"
        live = [
            s
            for s in self.view.sessions.values()
            if s.lane == session.lane
            and s is not session
            and facts.state[s.id] not in {*ENDINGS, State.CLOSED}
        ]
        assert not live, f"{session} is created beside {live}"
        self.ahead += 1
        self._began(facts, session, now)

    def _closing(self, facts: _Facts, session: Session, now: float) -> None:
        unwanted = facts.state[session.id] is State.IDLE and session.reason in {"idle", "age"}
        if unwanted and facts.fresh_until[session.id] > now and not self.view.draining:
            limits = self.view.rules.tenant_limits
            for request in facts.waiting.values():
                full = request.tenant in limits and facts.leases[request.tenant] >= limits[request.tenant]
                assert full or request.lane != session.lane, f"{session} is closed before {request} had it"
        if session.reason == "evicted in use":
            self._taken(facts, session, now)
        if session.reason == "evicted":
            meant = session.covers
            assert meant is not None, f"{session} is evicted for nobody"
            assert meant.id in facts.waiting
            lane = meant.lane
            assert not poor(self.view, meant, now), f"{session} is evicted for a lane without money"
            assert lane != session.lane, f"{session} is evicted for {meant}, who could have had it"
            assert facts.state[session.id] is State.IDLE, (
                f"{session} is evicted from {facts.state[session.id]}"
            )
            usable = usable_providers(self.view, lane, now, facts.gates)
            fulls = {n: facts.places.full(lane, n) for n in usable}
            assert all(fulls.values()), f"{session} is evicted beside room: {fulls}"
            if not self._rivals_turn(facts, session, meant):
                self._least_worth(facts, session, fulls, lane, now)
            assert any(full and frees(session, full, lane, n) for n, full in fulls.items()), (
                f"{session} is evicted and makes no room for {meant}: {fulls}"
            )
        facts.state[session.id] = State.DRAINING

    def _taken(self, facts: _Facts, session: Session, now: float) -> None:
        meant = session.covers
        assert meant is not None, f"{session} is taken from its holder for nobody"
        assert meant.id in facts.waiting
        assert facts.state[session.id] is State.LEASED, f"{session} is not in use"
        assert not poor(self.view, meant, now), f"{session} is taken for a lane without money"
        fulls = {
            n: facts.places.full(meant.lane, n)
            for n in usable_providers(self.view, meant.lane, now, facts.gates)
        }
        assert all(fulls.values()), f"{session} is taken from its holder beside room: {fulls}"

        def would_do(other: Session) -> bool:
            return any(frees(other, full, meant.lane, n) for n, full in fulls.items())

        def takeable(other: Session) -> bool:
            return (
                facts.state.get(other.id) is State.LEASED
                and self.view.rules.platforms[other.lane.platform].evict_in_use
                and facts.priority[other.id] < meant.priority
                and not (
                    meant.arrived_at <= facts.leased_at[other.id]
                    and step(self.view.rules, facts.held_by[other.id]) <= step(self.view.rules, meant)
                )
                and (other.lane != meant.lane or meant.lane.identity is None)
            )

        assert takeable(session), f"{session} may not be taken from its holder for {meant}"
        assert would_do(session), f"{session} is taken and makes no room for {meant}: {fulls}"
        for other in self.view.sessions.values():
            if other is session or not would_do(other):
                continue
            assert facts.state.get(other.id) is not State.IDLE, f"{session} is taken beside idle {other}"
            unmeant = facts.state.get(other.id) in ENDINGS and other.id in self.view.vacating
            assert not unmeant, f"{session} is taken although {other} ends anyway"
            if takeable(other):
                ours = (facts.priority[session.id], facts.leased_at[session.id])
                theirs = (facts.priority[other.id], facts.leased_at[other.id])
                assert ours <= theirs, f"{session} is taken, and {other} is less important or older"
        facts.leases[facts.holder[session.id]] -= 1
        self._robbed.add(facts.holder[session.id])

    def _rivals_turn(self, facts: _Facts, session: Session, meant: Request) -> bool:
        """Say whether the session was taken from waiters of its own lane; then `meant` must be a whole step ahead."""
        limits = self.view.rules.tenant_limits
        waiters = [
            r
            for r in facts.waiting.values()
            if r.lane == session.lane
            and (r.tenant not in limits or facts.leases[r.tenant] < limits[r.tenant])
        ]
        if not waiters or meant.lane == session.lane:
            return False
        best = min(waiters, key=self.order)
        assert self.order(meant)[0] < self.order(best)[0], f"{session} is taken from {best} for {meant}"
        return True

    def _least_worth(
        self, facts: _Facts, session: Session, fulls: dict[str, set[str]], lane: Lane, now: float
    ) -> None:
        for name, full in fulls.items():
            if not frees(session, full, lane, name):
                continue
            idle = [
                s
                for s in self.view.sessions.values()
                if facts.state.get(s.id) is State.IDLE and frees(s, full, lane, name)
            ]
            if self.view.rules.eviction == "lru":
                oldest = min(facts.idle_since[s.id] for s in idle)
                assert facts.idle_since[session.id] == oldest, f"{session} is not the longest idle"
            else:
                of_lane = [s for s in idle if s.lane == session.lane]
                oldest = min(facts.idle_since[s.id] for s in of_lane)
                assert facts.idle_since[session.id] == oldest, (
                    f"{session} is not the longest idle of its lane"
                )
                self._worth_least_of_lanes(session, idle, now)
            ending = [
                s
                for s in self.view.vacating.values()
                if facts.state.get(s.id) in ENDINGS and frees(s, full, lane, name)
            ]
            assert not ending, f"{session} is evicted although {ending} end anyway"
            return

    def _worth_least_of_lanes(self, session: Session, idle: list[Session], now: float) -> None:
        """Each lane's longest idle session is worth at least as much; what was learnt since can only be left aside."""
        last: dict[Lane, Session] = {}
        for other in sorted(idle, key=lambda s: s.idle_since, reverse=True):
            last[other.lane] = other
        worth = {
            s.id: self.view.keeper.value(s, now) for s in [*last.values(), session] if s.verdict is not None
        }
        least = min(worth.values())
        assert worth[session.id] <= least + 1e-6 * abs(least), f"{session} is worth {worth}"

    def _no_envy(self, actions: list[Action], now: float) -> None:
        """No uncovered request could use what this plan gave to a worse one."""
        view = self.view
        if view.draining:
            return
        promised, held, taken = promises(view), leases_of(view), places(view)
        limits = view.rules.tenant_limits
        for action in actions:
            if isinstance(action, Grant):
                self._no_starving(action, now)
                continue
            if isinstance(action, Create) and action.session.ahead is not None:
                continue  # the last thing a plan does, with the room that nobody needed
            if isinstance(action, Create):
                made = action.session
                taken.take(made.lane, made.provider, -1)
            elif isinstance(action, Close) and action.session.reason.startswith("evicted"):
                made = action.session
            else:
                continue
            lucky = made.covers
            assert lucky is not None
            for request in view.requests.values():
                ours, theirs = self.order(request), self.order(lucky)
                # Turns go on after a grant, so of an eviction in between only the steps can be compared.
                worse = ours > theirs if isinstance(action, Create) else ours[0] >= theirs[0]
                if request.covered_by is not None or worse or poor(view, request, now):
                    continue
                if request.tenant in self._robbed and request.tenant in limits:
                    continue
                limit = limits.get(request.tenant)
                same = request.tenant == lucky.tenant
                if limit is not None and held[request.tenant] + promised[request.tenant] - same >= limit:
                    continue
                for name in usable_providers(view, request.lane, now):
                    full = taken.full(request.lane, name)
                    room = not full
                    if isinstance(action, Close):
                        room = frees(made, full, request.lane, name) and not poor(view, request, now)
                        if made.reason == "evicted in use":
                            room = room and request.priority >= lucky.priority
                    assert not room, f"{request} could have had what {lucky} got: {action}"
            if isinstance(action, Create):
                taken.take(made.lane, made.provider)

    def _no_starving(self, grant: Grant, now: float) -> None:
        """No uncovered request a whole step ahead of the granted one could have had the session's place."""
        session, places_then = grant.session, self._places_then
        for request in self.view.requests.values():
            if request.covered_by is not None or request.tenant in self.view.rules.tenant_limits:
                continue
            if poor(self.view, request, now):
                continue
            if self.order(request)[0] >= self.order(grant.request)[0] or request.lane == session.lane:
                continue
            lane = request.lane
            fulls = [(n, places_then.full(lane, n)) for n in usable_providers(self.view, request.lane, now)]
            if all(full for _, full in fulls):  # else it did not need the place, when this was decided
                helped = any(frees(session, full, lane, name) for name, full in fulls)
                assert not helped, f"{request} starves: {grant.request} got {session}"
