"""Lanes: who waits in each, what idles there, and for which waiting request a session should be created next."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from tabkeeper.clock import Instant
from tabkeeper.pool.model import Lane, PlatformRules, Request, Rules, Session
from tabkeeper.pool.queue import Key, Turns, WaitQueue
from tabkeeper.providers.breaker import Gate


class LaneView:
    """One lane: its waiting requests, its idle sessions (last used on top), its creations under way."""

    __slots__ = (
        "blocked_by",
        "fits",
        "idle",
        "key",
        "last_tenant",
        "live",
        "paid_from",
        "places",
        "poor_until",
        "rules",
        "spare",
        "uncovered",
        "waiting",
        "wants_at",
    )

    def __init__(self, key: Lane, rules: PlatformRules, aging: float, turns: Turns) -> None:
        self.key = key
        self.rules = rules
        self.waiting = WaitQueue(aging, turns)
        """Everybody who waits."""
        self.uncovered = WaitQueue(aging, turns)
        """Those of them for whom no creation is under way."""
        self.idle: dict[str, Session] = {}
        self.spare: dict[str, Session] = {}
        """Being created, and meant for nobody: their request left."""
        self.wants_at: Instant = 0.0
        """No creation is begun before then (a budget said no)."""
        self.paid_from: Instant = 0.0
        """Until then only providers in `fits` are used (`on_exceed = "fallback"`)."""
        self.fits: frozenset[str] = frozenset()
        """Providers whose worst case fitted into what a budget had left."""
        self.poor_until: Instant = 0.0
        """Until then nobody is evicted for it, and nothing is bought while sessions of it live: a budget has just
        said no, and may again."""
        self.live = 0
        """Sessions that serve it or will: all but those on their way out."""
        self.places = 0
        """Sessions that take a place: all there are."""
        self.last_tenant = ""
        """Who had the last lease."""
        self.blocked_by = ""
        """What the last budget that said no had to say, for people; empty once one says yes."""


class ProviderView:
    """One provider account: its sessions, and when one more may be created."""

    __slots__ = ("gate", "idle", "limit", "name", "retry_at", "sessions")

    def __init__(self, name: str, gate: Gate) -> None:
        self.name = name
        self.gate = gate
        self.sessions = 0
        self.idle: OrderedDict[str, Session] = OrderedDict()
        self.limit = gate.ceiling.limit
        """Sessions at once, as the gate says."""
        self.retry_at: Instant = gate.free_at
        """No creation is begun before then, as the gate says; never while one session is being tried."""


class Lanes:
    """All lanes of a pool and the limits of its tenants.

    Which request wants a session next is found without looking at every lane: each offers its first, and lanes that
    cannot be helped now are parked until something happens on their platform or at their providers.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.turns = Turns(rules.tenant_weights)
        self.lanes: dict[Lane, LaneView] = {}
        self.lanes_of: dict[str, list[LaneView]] = defaultdict(list)
        self.waiting_by_tenant: Counter[str] = Counter()
        self.leased_by_tenant: Counter[str] = Counter()
        self.promised_by_tenant: Counter[str] = Counter()
        """Creations under way that are meant for a tenant's requests."""
        self._wanting: list[tuple[Key, Lane]] = []
        self._bounds: dict[Lane, Key] = {}
        """The key under which a lane stands in `_wanting`: never above that of its first uncovered request."""
        self._parked: dict[str, set[Lane]] = {}
        self._parked_at: dict[str, set[Lane]] = {}
        self._full_for: dict[Lane, tuple[str, ...]] = {}
        """Lanes all of whose providers are full, and which those are."""

    def lane(self, key: Lane) -> LaneView:
        """Return the lane, made on first use."""
        found = self.lanes.get(key)
        if found is None:
            rules = self.rules.platforms[key.platform]
            found = self.lanes[key] = LaneView(key, rules, self.rules.aging, self.turns)
            self.lanes_of[key.platform].append(found)
        return found

    def tenant_full(self, tenant: str) -> bool:
        """Say whether the tenant holds as many leases as it may."""
        limit = self.rules.tenant_limits.get(tenant)
        return limit is not None and self.leased_by_tenant[tenant] >= limit

    def tenant_promised(self, tenant: str) -> bool:
        """Say whether leases and creations under way already use up the tenant's limit."""
        limit = self.rules.tenant_limits.get(tenant)
        return limit is not None and self.leased_by_tenant[tenant] + self.promised_by_tenant[tenant] >= limit

    def promised_tenants(self) -> list[str]:
        """Tenants for whom no further creation may begin."""
        return [tenant for tenant in self.rules.tenant_limits if self.tenant_promised(tenant)]

    def forget_lane(self, lane: LaneView) -> None:
        """Nobody is in the lane any more, and it would not be needed again."""
        del self.lanes[lane.key]
        self.lanes_of[lane.key.platform].remove(lane)
        self._bounds.pop(lane.key, None)
        self._parked.get(lane.key.platform, set()).discard(lane.key)
        self._leave_queues_at_providers(lane.key)

    def _offer(self, lane: Lane, key: Key) -> None:
        known = self._bounds.get(lane)
        if known is None or key < known:
            self._bounds[lane] = key
            heappush(self._wanting, (key, lane))
            if len(self._wanting) > 2 * len(self._bounds) + 64:
                self._wanting = [(bound, which) for which, bound in self._bounds.items()]
                heapify(self._wanting)

    def _offer_head(self, lane: Lane) -> None:
        self._bounds.pop(lane, None)
        head = self.lanes[lane].uncovered.head()
        if head is not None:
            self._offer(lane, self.lanes[lane].uncovered.key(head))

    def next_wanting(self, aside: set[Lane]) -> tuple[Lane, Request] | None:
        """The request for which a session should be created next, over all lanes.

        Lanes that must come back later are noted in `aside`; whoever asks calls `put_back` when they are done.
        """
        promised = self.promised_tenants() if self.rules.tenant_limits else ()
        while self._wanting:
            key, lane_key = self._wanting[0]
            if self._bounds.get(lane_key) != key:
                heappop(self._wanting)
                continue
            if lane_key in self._full_for or lane_key in self._parked.get(lane_key.platform, ()):
                del self._bounds[lane_key]
                continue
            head = self.lanes[lane_key].uncovered.head(promised)
            if head is None:
                self.set_aside(lane_key, aside)
                continue
            true = self.lanes[lane_key].uncovered.key(head)
            if true == key:
                return lane_key, head
            del self._bounds[lane_key]
            self._offer(lane_key, true)
            if promised:
                aside.add(lane_key)  # a tenant that may be helped later could stand before this head
        return None

    def set_aside(self, lane: Lane, aside: set[Lane]) -> None:
        """Do not offer the lane again before `put_back`."""
        self._bounds.pop(lane, None)
        aside.add(lane)

    def put_back(self, aside: set[Lane]) -> None:
        """Let `next_wanting` offer these lanes again."""
        for lane in aside:
            self._offer_head(lane)

    def park(self, lane: Lane) -> None:
        """Do not offer the lane in `next_wanting` until something happens on its platform."""
        self._parked.setdefault(lane.platform, set()).add(lane)
        self._bounds.pop(lane, None)

    def _unpark(self, platform: str) -> None:
        for key in self._parked.pop(platform, ()):
            self._offer_head(key)

    def park_at(self, lane: Lane, providers: Iterable[str]) -> None:
        """Do not offer the lane in `next_wanting` until something happens at one of these providers."""
        names = self._full_for[lane] = tuple(providers)
        for name in names:
            self._parked_at.setdefault(name, set()).add(lane)
        self._bounds.pop(lane, None)

    def _unpark_at(self, provider: str) -> None:
        for key in list(self._parked_at.get(provider, ())):
            self._leave_queues_at_providers(key)
            self._offer_head(key)

    def _leave_queues_at_providers(self, lane: Lane) -> None:
        for name in self._full_for.pop(lane, ()):
            self._parked_at[name].discard(lane)
