"""The decision: who gets which session, what is created, evicted, closed, refused. One function, no I/O.

`plan` looks at what is, never at what happened, so a lost or doubled event cannot jam the pool. It applies its own
actions to the view as it goes (docs/decisions/0002), so the state is changed before any I/O starts, and planning
again changes nothing. What it promises, tested on random views: it is safe (no limit is passed), complete (nobody
waits beside a session that is free for them), stable, and punctual (nothing becomes due before `wake_at`).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge
from itertools import islice

from tabkeeper.clock import Instant
from tabkeeper.pool.lanes import LaneView, ProviderView
from tabkeeper.pool.model import (
    ENDING,
    EVICTED_IN_USE,
    NEVER,
    SERVING,
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
    Session,
    State,
)
from tabkeeper.pool.view import View

_NEAR = 64
"""So many of a lane's idle sessions are looked at for one that is in the hands of the process that asks."""
MOST_WEIGHED = 64
"""So many lanes' idle sessions are compared at an eviction; weighing one takes tens of microseconds."""


def plan(view: View, now: Instant) -> list[Action]:
    """Decide everything that can be decided at `now`, apply it to the view, and return it in order."""
    actions: list[Action] = []
    late: list[Request] = []
    unwanted: list[Session] = []
    if view.learning:
        view.raise_limits(now)
    for thing in view.pop_due(now):
        if isinstance(thing, Request):
            late.append(thing)
        elif thing.state is State.IDLE and thing.fresh_until > now:
            unwanted.append(thing)
        else:
            _session_due(view, thing, now, actions)
    late += (request for request in view.newcomers if request.waiting and request.deadline <= now)
    for request in late:  # it may still be granted what is there, but nothing is begun for it
        view.lane(request.lane).uncovered.discard(request)
    if not view.draining:
        _grant(view, now, actions)
    for session in unwanted:  # only now, so that a request of this very instant still finds it
        if session.state is State.IDLE:
            view.decide_keep(session)
            if session.keep_until <= now:
                end_session(view, session, "idle", now, actions)
            elif session.stale_at <= now:
                begin_check(view, session, now, actions)
        view.watch(session)
    refusals = [
        Refuse(request, view.lane(request.lane).waiting.position(request), why_waiting(view, request, now))
        for request in late
        if request.waiting
    ]
    for refusal in refusals:
        view.remove_request(refusal.request)
    actions += refusals
    if not view.draining:
        _create(view, now, actions)
        while view.takes_in_use and view.to_grant:  # a lease that was ended made room under a tenant's limit
            _grant(view, now, actions)
            _create(view, now, actions)
        _create_ahead(view, now, actions)
    for request in view.newcomers:
        if request.waiting:
            view.watch(request)
    view.newcomers.clear()
    return actions


def wake_at(view: View) -> Instant:
    """Return the next instant at which time alone may make something due (infinity if never)."""
    return view.next_instant()


def end_session(view: View, session: Session, reason: str, now: Instant, actions: list[Action]) -> None:
    """Start a session's end: it takes no lease any more and keeps its place until that is confirmed."""
    session.reason = reason
    session.close_by = now + view.rules.close_timeout
    view.move(session, State.DRAINING, now)
    actions.append(Close(session))


def begin_check(view: View, session: Session, now: Instant, actions: list[Action]) -> None:
    """Let nobody have a session before it is known to be well."""
    view.move(session, State.UNHEALTHY, now)
    actions.append(Check(session))


def _session_due(view: View, session: Session, now: Instant, actions: list[Action]) -> None:
    if session.state is State.IDLE:
        end_session(view, session, "age", now, actions)
    elif session.state is State.UNHEALTHY:
        end_session(view, session, "unhealthy", now, actions)
    elif session.state is State.LEASED and session.lease_ends <= now:
        actions.append(Reclaim(session, session.uses))
        end_session(view, session, "lease expired", now, actions)
    elif session.state is State.LEASED:
        session.leak_at = float("inf")
        actions.append(ReportLeak(session, session.uses))
        view.watch(session)
    elif session.state in ENDING:
        actions.append(GiveUpPlace(session))
        view.move(session, State.CLOSED, now)


# ── sessions that are free, requests that wait ──────────────────────────────────────────────────────────────────────


def _grant(view: View, now: Instant, actions: list[Action]) -> None:
    """Match waiting requests to idle sessions, the most recently used first (but see `_idle_for`)."""
    if not view.to_grant:
        return
    for key in _by_urgency(view, view.to_grant):
        lane = view.lanes[key]
        while lane.idle and (request := lane.waiting.head(view.full_tenants)) is not None:
            session = lane.idle.get(request.wants) or _idle_for(lane, request)
            if session.fresh_until <= now:
                end_session(view, session, "age", now, actions)
                continue
            if session.stale_at <= now:
                begin_check(view, session, now, actions)
                continue
            rival = _rival(view, lane, session, request, now)
            if rival is not None:
                end_session(view, session, "evicted", now, actions)
                view.cover(rival, session)
                continue
            view.lease(session, request, now)
            actions.append(Grant(request, session, session.uses))
    view.stuck.update(key for key in view.to_grant if view.lanes[key].idle and view.lanes[key].waiting)
    view.to_grant.clear()


def _idle_for(lane: LaneView, request: Request) -> Session:
    """Choose among a lane's idle sessions: the last used, but rather one that the request's process has in its hands.

    To take a session over from another process costs a look at the ledger, which is more than a warm lease does.
    """
    last = lane.idle[next(reversed(lane.idle))]
    recent = map(lane.idle.__getitem__, islice(reversed(lane.idle), _NEAR))
    return next((session for session in recent if session.home == request.home), last)


def _by_urgency(view: View, lanes: Iterable[Lane]) -> list[Lane]:
    """Order lanes by their first waiter, so that tenants' limits and equal runs come out the same every time."""
    keyed = []
    for key in lanes:
        head = view.lanes[key].waiting.head(view.full_tenants)
        if head is not None:
            keyed.append((view.lanes[key].waiting.key(head), key))
    return [key for _, key in sorted(keyed)]


def _rival(view: View, lane: LaneView, session: Session, request: Request, now: Instant) -> Request | None:
    """Find a request of another lane that should have this idle session's place before `request` has the session.

    Reuse is cheaper than a new session, so within a step of priority it wins; but a request that is a whole step
    ahead (in priority, or in time waited) must not starve because its platform has no sessions yet.
    """
    if not _obstacles(view, lane, view.providers[session.provider]):
        return None
    step = lane.waiting.step_of(request)
    aside: set[Lane] = set()
    view.set_aside(lane.key, aside)
    found = None
    while found is None and (wanting := view.next_wanting(aside)) is not None:
        key, rival = wanting
        if lane.waiting.step_of(rival) >= step:
            break
        other = view.lanes[key]
        providers = _usable(view, other, now) if now >= other.poor_until else []
        if all(_obstacles(view, other, p) for p in providers) and any(
            _makes_room(view, other, p, session) for p in providers
        ):  # else it needs no place, or this one does not help it
            found = rival
        else:
            view.set_aside(key, aside)
    view.put_back(aside)
    return found


def _makes_room(view: View, lane: LaneView, provider: ProviderView, session: Session) -> bool:
    """Say whether the end of `session` removes every obstacle to one more session of the lane at the provider."""
    full = _obstacles(view, lane, provider)
    return bool(full) and _frees(session, full, lane, provider)


def _frees(session: Session, full: list[str], lane: LaneView, provider: ProviderView) -> bool:
    return (
        ("platform" not in full or session.lane.platform == lane.key.platform)
        and ("provider" not in full or session.provider == provider.name)
        and ("identity" not in full or session.lane == lane.key)
    )


# ── requests for which a session must be created ────────────────────────────────────────────────────────────────────


def _create(view: View, now: Instant, actions: list[Action]) -> None:
    """Cover waiting requests by creations, or by the places of sessions that end; best request first."""
    _leave_places_not_needed(view, now)
    if view.rules.tenant_limits:  # a request may have been held back when a creation became nobody's
        for session in list(view.spare.values()):
            view.uncover(session)
    aside: set[Lane] = set()
    while (view.idle or view.vacating or view.takeable or len(view.sessions) < view.rules.max_sessions) and (
        wanting := view.next_wanting(aside)
    ) is not None:
        key, request = wanting
        lane = view.lanes[key]
        if now < lane.poor_until and lane.live:  # those who queue are served by what is paid for already
            view.set_aside(key, aside)
            continue
        providers = _usable(view, lane, now)
        chosen = next((p for p in providers if not _obstacles(view, lane, p)), None)
        if chosen is not None:
            session = _new_session(view, lane, chosen, request.tenant, now)
            session.home = request.home
            view.cover(request, session)
            actions.append(Create(session))
            continue
        victim = _victim(view, lane, providers, request, now)
        if victim is None:
            full = view.by_platform[key.platform] >= lane.rules.max_sessions
            # With time a request may take a session in use.
            all_asked = not view.takes_in_use and len(providers) == len(lane.rules.providers)
            if key.identity is not None and lane.places:
                view.park(key)  # its one session is in use
            elif full and all_asked:
                # So nothing on the platform can go, and time alone will not change that.
                view.park(key)
            elif all_asked and all(p.sessions >= p.limit for p in providers):
                # The same at each provider: those who wait for one that hangs cost the others nothing.
                view.park_at(key, lane.rules.providers)
            else:
                view.set_aside(key, aside)
            continue
        if victim.state in SERVING:
            if now < lane.poor_until:
                view.set_aside(key, aside)
                continue
            in_use = victim.state is State.LEASED
            end_session(view, victim, EVICTED_IN_USE if in_use else "evicted", now, actions)
            if in_use:  # its holder's tenant may have more leases now, so everybody is asked again
                view.put_back(aside)
                aside.clear()
        view.cover(request, victim)
        if view.takes_in_use and view.to_grant:
            break  # what idles is lent before anything makes room for those who may have it now
    view.put_back(aside)


def _leave_places_not_needed(view: View, now: Instant) -> None:
    """Let nobody wait for a place to become free while there is room already: they ask again, in their order."""
    if len(view.sessions) >= view.rules.max_sessions:
        return
    for session in list(view.placed.values()):
        assert session.covers is not None
        lane = view.lanes[session.covers.lane]
        if any(not _obstacles(view, lane, provider) for provider in _usable(view, lane, now)):
            view.uncover(session)


def _usable(view: View, lane: LaneView, now: Instant) -> list[ProviderView]:
    """Providers that may be asked for a session of the lane now, in the order of the platform's route."""
    if now < lane.wants_at:
        return []
    return [
        view.providers[name]
        for name in view.route(lane.key.platform, now)
        if view.providers[name].retry_at <= now and (now >= lane.paid_from or name in lane.fits)
    ]


def _obstacles(view: View, lane: LaneView, provider: ProviderView) -> list[str]:
    """Name the limits that leave no room for one more session of this lane at this provider."""
    full = []
    if len(view.sessions) >= view.rules.max_sessions:
        full.append("pool")
    if view.by_platform[lane.key.platform] >= lane.rules.max_sessions:
        full.append("platform")
    if provider.sessions >= provider.limit:
        full.append("provider")
    if lane.key.identity is not None and lane.places:
        full.append("identity")
    return full


def _victim(
    view: View, lane: LaneView, providers: list[ProviderView], request: Request, now: Instant
) -> Session | None:
    """Find a session whose place would make room: one that ends anyway, else the idle one least worth keeping.

    If there is none, one is taken from the least important holder, where the platform allows that.
    """
    fulls = [(provider, _obstacles(view, lane, provider)) for provider in providers]
    for session in view.vacating.values():
        if any(_frees(session, full, lane, provider) for provider, full in fulls):
            return session
    for provider, full in fulls:
        found = _least_worth(view, lane, provider, full, now)
        if found is not None:
            return found
    return _taken_in_use(view, lane, fulls, request)


def _taken_in_use(
    view: View, lane: LaneView, fulls: list[tuple[ProviderView, list[str]]], request: Request
) -> Session | None:
    """Of the holders less important than the request whose session would make room, the least important's.

    Among equals the one who has it for longest loses it. What a holder's priority had grown to by waiting counts for
    it; the request's own counts as it was asked for, so that two callers can never take from each other in turn.
    """
    for priority in sorted(view.takeable):
        if priority >= request.priority:
            break
        for session in view.takeable[priority].values():
            if lane.key.identity is not None and session.lane == lane.key:
                continue  # callers of one identity share its session; they take turns
            assert session.covers is not None
            behind = lane.waiting.step_of(request) >= lane.waiting.step_of(session.covers)
            if behind and request.arrived_at <= session.leased_at:
                continue  # it waited beside the holder, whose turn came first
            if any(_frees(session, full, lane, provider) for provider, full in fulls):
                return session
    return None


def _least_worth(
    view: View, lane: LaneView, provider: ProviderView, full: list[str], now: Instant
) -> Session | None:
    """Of the idle sessions whose end makes room here, the one to go: by value, or the longest idle.

    A lane's sessions are used from the top of its stack, so only the longest idle of each lane is weighed.
    """
    if view.rules.eviction == "value":
        lanes = view.lanes_of[lane.key.platform] if "platform" in full else view.idle_lanes.values()
        lowest = (next((s for s in v.idle.values() if _frees(s, full, lane, provider)), None) for v in lanes)
        weighed = islice((session for session in lowest if session is not None), MOST_WEIGHED)
        return min(weighed, key=lambda s: (view.keeper.value(s, now), s.idle_since), default=None)
    if "platform" in full:
        lanes = view.lanes_of[lane.key.platform]
        idle: Iterable[Session] = merge(*(v.idle.values() for v in lanes), key=lambda s: s.idle_since)
    elif "provider" in full:
        idle = provider.idle.values()
    else:
        idle = view.idle.values()
    return next((session for session in idle if _frees(session, full, lane, provider)), None)


def _new_session(view: View, lane: LaneView, provider: ProviderView, tenant: str, now: Instant) -> Session:
    rules = lane.rules
    session = Session(
        id=view.new_id(),
        lane=lane.key,
        provider=provider.name,
        tenant=tenant,
        created_at=now,
        fresh_until=now + rules.session_ttl,
        dies_at=now + longest_life(view, lane.key),
    )
    view.add_session(session)
    return session


def _create_ahead(view: View, now: Instant, actions: list[Action]) -> None:
    """Create what is expected to be needed soon, where there is room and nobody waits; nothing makes room for it."""
    for lane, ahead in view.pop_ahead(now):
        if lane.live or lane.waiting or now < lane.poor_until:
            continue
        providers = _usable(view, lane, now)
        roomy = next((p for p in providers if not _obstacles(view, lane, p)), None)
        if roomy is None or roomy.name != ahead.provider:
            continue  # it was weighed by another one's prices
        session = _new_session(view, lane, roomy, lane.last_tenant, now)
        session.ahead = ahead
        actions.append(Create(session))


def longest_life(view: View, lane: Lane) -> float:
    """Seconds a session can live at most: its last lease may begin at the end of its time to live."""
    rules = view.rules.platforms[lane.platform]
    return rules.session_ttl + rules.lease_timeout + view.rules.close_timeout


# ── for people ──────────────────────────────────────────────────────────────────────────────────────────────────────


def why_waiting(view: View, request: Request, now: Instant) -> str:
    """Say in a few words what stands between a request and a session."""
    lane = view.lane(request.lane)
    platform = request.lane.platform
    if view.tenant_full(request.tenant):
        return f"tenant {request.tenant!r} holds all {view.leased_by_tenant[request.tenant]} leases it may"
    if lane.blocked_by:
        return lane.blocked_by
    if lane.key.identity is not None and view.by_platform[platform] and lane.places and not lane.spare:
        states = {session.state for session in view.sessions.values() if session.lane == lane.key}
        if states & {State.LEASED, *ENDING}:
            return f"the one session of its identity is {min(states)}"
    if request.covered_by is not None and request.covered_by.state is State.CREATING:
        return f"a session is still being created at {request.covered_by.provider!r}"
    counts = f"{view.by_state[State.LEASED]} leased, {view.by_state[State.CREATING]} being created"
    if view.by_platform[platform] >= lane.rules.max_sessions:
        return f"platform {platform!r} has all {lane.rules.max_sessions} sessions it may"
    if len(view.sessions) >= view.rules.max_sessions:
        return f"the pool has all {view.rules.max_sessions} sessions it may ({counts})"
    waits = []
    for name in lane.rules.providers:
        provider = view.providers[name]
        error = provider.gate.last_error
        if provider.retry_at == NEVER:
            waits.append(f"{name!r} is tried with one session after {error}")
        elif provider.retry_at > now:
            after = f" after {error}" if error else ", it has had its creations of this minute"
            waits.append(f"{name!r} is left alone for {provider.retry_at - now:.0f} s{after}")
        elif provider.sessions >= provider.limit:
            waits.append(f"{name!r} has all {provider.limit} sessions it may")
    if waits:
        return "provider " + "; ".join(waits)
    if lane.waiting.head() is request:
        return "none is idle, and to create one takes longer than that"
    return f"others come first ({counts})"
