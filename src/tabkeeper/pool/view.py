"""What the planner sees: every session, every waiting request and every limit of one pool, indexed.

The view keeps its indexes true through a few verbs (`add`, `move`, `cover` …) and decides nothing; `plan.py`
does. Nothing here awaits, reads a clock or touches the outside, so between two events it cannot change.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush

from tabkeeper.clock import Instant
from tabkeeper.money import Money
from tabkeeper.pool.keep import Keeper
from tabkeeper.pool.lanes import Lanes, LaneView, ProviderView
from tabkeeper.pool.model import (
    ENDING,
    FOLLOWS,
    NEVER,
    SERVING,
    Ahead,
    Lane,
    Request,
    Rules,
    Session,
    State,
)
from tabkeeper.pool.timers import Timers
from tabkeeper.providers.breaker import Gate
from tabkeeper.providers.route import Ladder


class View(Lanes, Timers):
    """The state of one pool. Change it only through its methods and through `plan`."""

    def __init__(self, rules: Rules, new_id: Callable[[], str], keeper: Keeper | None = None) -> None:
        Lanes.__init__(self, rules)
        Timers.__init__(self)
        self.keeper = keeper or Keeper(rules, {})
        self.new_id = new_id
        """Makes the ids of sessions; they must never repeat, not even in other processes."""
        self.sessions: dict[str, Session] = {}
        self.requests: dict[int, Request] = {}
        names = {name for platform in rules.platforms.values() for name in platform.providers}
        self.providers = {
            name: ProviderView(
                name,
                Gate(
                    rules.provider_limits.get(name, rules.max_sessions),
                    threshold=rules.breaker_failures.get(name, 3),
                    per_minute=rules.provider_paces.get(name),
                ),
            )
            for name in sorted(names)
        }
        self.routes: dict[str, tuple[str, ...]] = {
            name: platform.providers for name, platform in rules.platforms.items()
        }
        """In which order each platform asks its providers, where no ladder decides."""
        self.ladders: dict[str, Ladder] = {
            name: Ladder(
                p.providers, after=p.escalate_after, hold=p.escalate_hold, successes=p.escalate_successes
            )
            for name, p in rules.platforms.items()
            if p.routing == "escalate"
        }
        self.costs: dict[str, dict[str, Money | None]] = {}
        """What a lease is expected to cost, by platform and provider; for people."""
        self.learning: set[str] = set()
        """Providers whose limit of sessions is learnt and will be tried again."""
        self.by_platform: Counter[str] = Counter()
        self.by_state: Counter[State] = Counter()
        self.idle: OrderedDict[str, Session] = OrderedDict()
        """All idle sessions, the longest idle first."""
        self.takeable: dict[int, dict[str, Session]] = {}
        """Leased sessions that may be taken from their holders, the longest leased first, by what the holder's priority
        had grown to by waiting when it got the session."""
        self.idle_lanes: dict[Lane, LaneView] = {}
        """Lanes that have idle sessions."""
        self.spare: dict[str, Session] = {}
        """Sessions being created that are meant for nobody: their requests left."""
        self.vacating: dict[str, Session] = {}
        """Ending sessions whose place is meant for nobody yet."""
        self.placed: dict[str, Session] = {}
        """Ending sessions whose place is meant for somebody."""
        self.ahead: dict[Lane, Ahead] = {}
        """Sessions to be created before anybody asks, for lanes that have none."""
        self._aheads: list[tuple[Instant, int, Lane]] = []
        self.takes_in_use = any(platform.evict_in_use for platform in rules.platforms.values())
        self.draining = False
        """No grants and no creations any more."""
        self.to_grant: set[Lane] = set()
        """Lanes in which something may have become grantable."""
        self.full_tenants: set[str] = set()
        """Tenants at their limit of leases."""
        self.stuck: set[Lane] = set()
        """Lanes with idle sessions whose waiters all belong to full tenants."""
        self.newcomers: list[Request] = []
        """Requests that no plan has seen yet."""

    # ── providers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def route(self, platform: str, now: Instant) -> tuple[str, ...]:
        """Return all providers of a platform in the order in which they are to be asked."""
        ladder = self.ladders.get(platform)
        return self.routes[platform] if ladder is None else ladder.order(now)

    def gate_changed(self, provider: ProviderView, now: Instant) -> None:
        """Take over what a provider's gate says, and see to it that a plan is made when that changes with time."""
        gate = provider.gate
        provider.limit = gate.ceiling.limit
        self._unpark_at(provider.name)
        if gate.ceiling.raise_at < NEVER:
            self.learning.add(provider.name)
            self.wake_at_least(gate.ceiling.raise_at)
        else:
            self.learning.discard(provider.name)
        provider.retry_at = gate.free_at
        if now < provider.retry_at < NEVER:
            self.wake_at_least(provider.retry_at)

    def raise_limits(self, now: Instant) -> None:
        """Let providers try one session more than was learnt, where it is time."""
        for name in sorted(self.learning):
            if self.providers[name].gate.ceiling.tick(now):
                self.gate_changed(self.providers[name], now)

    # ── requests ───────────────────────────────────────────────────────────────────────────────────────────────────

    def add_request(self, request: Request) -> None:
        """Let a request wait."""
        lane = self.lane(request.lane)
        self.ahead.pop(request.lane, None)
        self.requests[request.id] = request
        self.newcomers.append(request)
        if not self.waiting_by_tenant[request.tenant]:
            self.turns.joined(request.tenant)
        self.waiting_by_tenant[request.tenant] += 1
        lane.waiting.add(request)
        self.to_grant.add(lane.key)
        self._want(lane, request)

    def remove_request(self, request: Request) -> None:
        """Let a request go: it was granted, refused or cancelled. What was meant for it serves the next."""
        if not request.waiting:
            return
        request.waiting = False
        del self.requests[request.id]
        self.waiting_by_tenant[request.tenant] -= 1
        lane = self.lane(request.lane)
        lane.waiting.discard(request)
        lane.uncovered.discard(request)
        if request.covered_by is not None:
            self.uncover(request.covered_by)
        self.forget_if_unused(lane)

    def forget_if_unused(self, lane: LaneView) -> None:
        """Identities come and go without end, so their lanes are kept only while somebody is in them."""
        if lane.key.identity is None or lane.places or lane.waiting or self.lanes.get(lane.key) is not lane:
            return
        self.forget_lane(lane)
        self.to_grant.discard(lane.key)
        self.stuck.discard(lane.key)

    def _want(self, lane: LaneView, request: Request) -> None:
        """Cover a request by a creation that is meant for nobody, else let `next_wanting` offer it."""
        if lane.spare and not self.tenant_promised(request.tenant):
            self.cover(request, next(iter(lane.spare.values())))
            return
        lane.uncovered.add(request)
        self._offer(lane.key, lane.uncovered.key(request))

    # ── what is meant for whom ─────────────────────────────────────────────────────────────────────────────────────

    def cover(self, request: Request, session: Session) -> None:
        """Mean a session being created, or the place of one that is ending, for a request."""
        lane = self.lane(request.lane)
        lane.uncovered.discard(request)
        lane.spare.pop(session.id, None)
        self.spare.pop(session.id, None)
        self.vacating.pop(session.id, None)
        if session.state in ENDING:
            self.placed[session.id] = session
        request.covered_by = session
        session.covers = request
        self.promised_by_tenant[request.tenant] += 1

    def uncover(self, session: Session) -> None:
        """The session or place is free of its meaning: the best uncovered request of the lane takes it, if any."""
        request = session.covers
        self.placed.pop(session.id, None)
        if request is not None:
            session.covers = None
            request.covered_by = None
            self.promised_by_tenant[request.tenant] -= 1
            if request.waiting:
                self._want(self.lane(request.lane), request)
        if session.state is State.CREATING:
            lane = self.lane(session.lane)
            best = lane.uncovered.head(self.promised_tenants() if self.rules.tenant_limits else ())
            if best is not None:
                self.cover(best, session)
            else:
                lane.spare[session.id] = self.spare[session.id] = session
        elif session.state in ENDING:
            self.vacating[session.id] = session
            self._unpark_at(session.provider)

    # ── sessions ───────────────────────────────────────────────────────────────────────────────────────────────────

    def add_session(self, session: Session) -> None:
        """Take a place for a session that is about to be created."""
        assert session.state is State.CREATING, session
        assert session.id not in self.sessions, session
        self.sessions[session.id] = session
        self.by_platform[session.lane.platform] += 1
        self.by_state[State.CREATING] += 1
        self.lane(session.lane).live += 1
        self.lane(session.lane).places += 1
        provider = self.providers[session.provider]
        provider.sessions += 1
        provider.gate.began(session.id, session.created_at)
        if provider.gate.free_at != provider.retry_at:
            self.gate_changed(provider, session.created_at)
        self.lane(session.lane).spare[session.id] = self.spare[session.id] = session

    def move(self, session: Session, state: State, now: Instant) -> None:
        """Change a session's state, and every index with it."""
        old = session.state
        assert state in FOLLOWS[old], f"session {session.id} cannot go from {old} to {state}"
        lane = self.lane(session.lane)
        if old is State.IDLE:
            del lane.idle[session.id]
            del self.idle[session.id]
            del self.providers[session.provider].idle[session.id]
            if not lane.idle:
                del self.idle_lanes[lane.key]
        elif old is State.LEASED:
            self._lease_over(session, now)
        elif old is State.CREATING:
            lane.spare.pop(session.id, None)
            self.spare.pop(session.id, None)
            provider = self.providers[session.provider]
            provider.gate.ended(session.id)
            if provider.gate.free_at != provider.retry_at:
                self.gate_changed(provider, now)
        session.state = state
        if old in SERVING and state not in SERVING:
            lane.live -= 1
            if not lane.live and lane.rules.prewarm and (session.ahead is None or session.uses):
                self._look_ahead(lane, now)  # once in a gap: what was created in vain is not created again
        self.by_state[old] -= 1
        self.by_state[state] += 1
        if old is State.CREATING and session.covers is not None:
            self.uncover(session)
        if state in {State.IDLE, State.UNHEALTHY} and old not in {State.IDLE, State.UNHEALTHY}:
            # A plan that finds no use for it decides how long; a check does not make it wanted for longer.
            session.keep_until, session.verdict = now, None
        if state is State.UNHEALTHY:
            session.check_by = now + self.rules.check_timeout
        if state is State.IDLE:
            session.idle_since = now
            session.stale_at = now + lane.rules.stale_after
            if old is State.CREATING:
                self.keeper.created(session, now)
            lane.idle[session.id] = session
            self.idle_lanes[lane.key] = lane
            self.idle[session.id] = session
            self.providers[session.provider].idle[session.id] = session
            self.to_grant.add(session.lane)
        elif state in ENDING:
            self.vacating[session.id] = session
        elif state is State.CLOSED:
            self._remove(session)
        if self._parked:
            self._unpark(session.lane.platform)
        if self._full_for:
            self._unpark_at(session.provider)
        self.watch(session)
        if state is State.CLOSED:
            self.forget_if_unused(lane)

    def _look_ahead(self, lane: LaneView, now: Instant) -> None:
        if lane.waiting:
            return
        found = self.keeper.ahead(lane.key, self.route(lane.key.platform, now)[0], now)
        if found is not None:
            self.ahead[lane.key] = found
            self._ticket += 1
            heappush(self._aheads, (found.at, self._ticket, lane.key))
            self.wake_at_least(found.at)

    def pop_ahead(self, now: Instant) -> list[tuple[LaneView, Ahead]]:
        """Return what was to be created by `now` before anybody asked, in order of time."""
        due = []
        while self._aheads and self._aheads[0][0] <= now:
            at, _, key = heappop(self._aheads)
            found = self.ahead.get(key)
            if found is not None and found.at == at:
                del self.ahead[key]
                due.append((self.lane(key), found))
        return due

    def decide_keep(self, session: Session) -> None:
        """Decide until when an idle session is kept, unless that is decided."""
        if session.verdict is None:
            session.verdict = self.keeper.decide(session, session.idle_since)
            session.keep_until = session.verdict.until

    def _lease_over(self, session: Session, now: Instant) -> None:
        holder = session.covers
        assert holder is not None
        self._not_takeable(session, holder)
        session.covers = None
        self.keeper.gaps.ended(session.lane, now, now - session.leased_at)
        session.lease_ends = session.leak_at = NEVER
        self.leased_by_tenant[holder.tenant] -= 1
        if holder.tenant in self.full_tenants:
            self.full_tenants.discard(holder.tenant)
            self.to_grant |= self.stuck
            self.stuck.clear()

    def lease(self, session: Session, request: Request, now: Instant) -> None:
        """Give an idle session to a waiting request."""
        self.move(session, State.LEASED, now)
        self.remove_request(request)
        session.uses += 1
        session.covers = request
        session.lease_ends = min(now + request.lease_seconds, session.dies_at)
        session.leak_at = now + self.rules.leak_after
        session.leased_at = now
        self._takeable(session, request)
        self.keeper.gaps.started(session.lane, request.arrived_at)
        self.turns.served(request.tenant)
        self.lane(session.lane).last_tenant = request.tenant
        self.leased_by_tenant[request.tenant] += 1
        if self.tenant_full(request.tenant):
            self.full_tenants.add(request.tenant)
        self.watch(session)

    def share(self, session: Session, priority: int) -> None:
        """Another one shares a lease: its holder is as important as the most important of them."""
        holder = session.covers
        if session.state is State.LEASED and holder is not None and priority > holder.priority:
            self._not_takeable(session, holder)
            holder.priority = priority
            self._takeable(session, holder)

    def _held_priority(self, session: Session, holder: Request) -> int:
        return holder.priority + int((session.leased_at - holder.arrived_at) // self.rules.aging)

    def _takeable(self, session: Session, holder: Request) -> None:
        if self.lane(session.lane).rules.evict_in_use:
            self.takeable.setdefault(self._held_priority(session, holder), {})[session.id] = session

    def _not_takeable(self, session: Session, holder: Request) -> None:
        priority = self._held_priority(session, holder)
        of_priority = self.takeable.get(priority, {})
        if of_priority.pop(session.id, None) is not None and not of_priority:
            del self.takeable[priority]

    def _remove(self, session: Session) -> None:
        self.vacating.pop(session.id, None)
        del self.sessions[session.id]
        self.by_state[State.CLOSED] -= 1
        self.by_platform[session.lane.platform] -= 1
        self.providers[session.provider].sessions -= 1
        self.lane(session.lane).places -= 1
        if session.covers is not None:
            self.uncover(session)
            self.vacating.pop(session.id, None)
