"""Which session visits which target next: the most pairs, among these the cheapest, then the oldest targets. Pure.

Targets that are alike but for their age, and sessions that are alike, are counted together; what is left is a small
flow of least cost, one shortest path for each session.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import add


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A target that may be waiting for a session."""

    id: int
    """The lower, the older: who has waited longer is served first."""
    site: str
    avoid: frozenset[str] = frozenset()
    """Ids of sessions and of proxies that it must not get (again)."""
    done: bool = False
    """Nothing is left to do: it is skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """A session that has nothing to do."""

    id: str
    proxy: str = ""
    """The id of the proxy that it goes through; empty if there is none."""
    kind: str = ""
    """That proxy's type."""
    rate: int = 0
    """What an hour of it costs, in nano-dollars."""
    price_per_gb: int = 0
    """What 10^9 bytes through it cost, in nano-dollars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a site bears and refuses now, and what a page of it takes."""

    room: int
    """Sessions that may still begin to work on it."""
    blocked: frozenset[str] = frozenset()
    """Ids of proxies that it refuses."""
    kinds: frozenset[str] = frozenset()
    """Types of proxies that may visit it; all if empty. A session without a proxy always may."""
    page_ms: int = 0
    page_bytes: int = 0

    def cost(self, session: Free) -> int:
        """Return what a page of this site is expected to cost on a session, in nano-dollars."""
        return (
            session.rate * self.page_ms // 3_600_000 + session.price_per_gb * self.page_bytes // 1_000_000_000
        )

    def bears(self, session: Free) -> bool:
        """Say whether the site lets a session in."""
        if not session.proxy:
            return True
        return session.proxy not in self.blocked and (not self.kinds or session.kind in self.kinds)


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """What is to be done: this target on this session."""

    target: int
    session: str


def may_meet(target: Waiting, session: Free, site: Terms) -> bool:
    """Say whether a target may be worked on by a session, room aside."""
    return (
        not target.done
        and site.bears(session)
        and session.id not in target.avoid
        and session.proxy not in target.avoid
    )


def match(targets: Iterable[Waiting], sessions: Iterable[Free], sites: Mapping[str, Terms]) -> list[Pair]:
    """Pair targets with sessions, each at most once, and return the pairs, oldest target first.

    As many pairs as can be made; among the ways to make them one whose expected cost is least; among these one
    whose targets are the oldest (the sum of their places in the line is least). The same input, in whatever order,
    gives the same pairs. Targets of a site that is not in `sites` are left alone.

    >>> sites = {"shop.example": Terms(room=2)}
    >>> match([Waiting(id=1, site="shop.example")], [Free(id="a"), Free(id="b")], sites)
    [Pair(target=1, session='a')]

    Args:
        targets: those to choose from.
        sessions: those that are free.
        sites: by the names that targets use.
    """
    free = sorted(sessions, key=lambda one: one.id)
    line = sorted((one for one in targets if not one.done and one.site in sites), key=lambda one: one.id)
    if not free or not line:
        return []
    stalls = _stalls(line, sites, free)
    crews = _crews(free, stalls)
    if not crews:
        return []
    flow = _Flow(stalls, crews, len(line))
    for index, crew in enumerate(crews):
        for _ in crew.members:
            flow.add(index)
    return sorted(flow.pairs())


_OUTSIDE, _IDLE = -1, -2
"""Where sessions come from, and where they go that find nothing to do."""


@dataclass(slots=True)
class _Stall:
    """Targets that are alike: of the same terms, and avoiding the same."""

    terms: Terms
    avoid: frozenset[str]
    gate: int
    """Which limit they share with other stalls."""
    targets: list[int] = field(default_factory=list)
    """Their ids, oldest first."""
    places: list[int] = field(default_factory=list)
    """Their places in the whole line."""


@dataclass(slots=True)
class _Crew:
    """Sessions that are alike: whatever one may visit, the others may at the same cost."""

    costs: list[int | None]
    """By stall; None where they must not go."""
    members: list[str] = field(default_factory=list)


def _stalls(line: Sequence[Waiting], sites: Mapping[str, Terms], free: Sequence[Free]) -> list[_Stall]:
    """Group the line. Sites of one kind of targets and of the same terms share a stall: their room is cut off here."""
    known = frozenset(one.id for one in free) | frozenset(one.proxy for one in free)
    grouped: dict[tuple[str, frozenset[str]], list[tuple[int, int]]] = {}
    for place, target in enumerate(line):
        # What no session here has need not be avoided.
        avoid = target.avoid & known if target.avoid else target.avoid
        key = (target.site, avoid)
        group = grouped.get(key)
        if group is None:
            group = grouped[key] = []
        if len(group) < len(free):
            group.append((target.id, place))
    sorts: dict[str, int] = {}
    for site, _ in grouped:
        sorts[site] = sorts.get(site, 0) + 1
    stalls: list[_Stall] = []
    merged: dict[tuple[frozenset[str], frozenset[str], int, int, frozenset[str]], _Stall] = {}
    gates: dict[str, int] = {}
    for (site, avoid), group in grouped.items():
        terms = sites[site]
        if terms.room <= 0:
            continue
        if sorts[site] > 1:
            gate = gates.setdefault(site, len(gates) + 1)
            stalls.append(_stall(terms, avoid, gate, group))
            continue
        like = (terms.blocked & known, terms.kinds, terms.page_ms, terms.page_bytes, avoid)
        stall = merged.get(like)
        if stall is None:
            stall = merged[like] = _stall(terms, avoid, 0, [])
            stalls.append(stall)
        for number, place in group[: terms.room]:
            stall.targets.append(number)
            stall.places.append(place)
    for stall in merged.values():
        order = sorted(range(len(stall.places)), key=stall.places.__getitem__)[: len(free)]
        stall.targets = [stall.targets[i] for i in order]
        stall.places = [stall.places[i] for i in order]
    return stalls


def _stall(terms: Terms, avoid: frozenset[str], gate: int, group: Collection[tuple[int, int]]) -> _Stall:
    return _Stall(terms, avoid, gate, [target for target, _ in group], [place for _, place in group])


def _crews(free: Sequence[Free], stalls: Sequence[_Stall]) -> list[_Crew]:
    likes: dict[tuple[int, int, str, bool], list[int | None]] = {}
    crews: dict[tuple[int | None, ...], _Crew] = {}
    barred: dict[str, list[int]] = {}
    for i, stall in enumerate(stalls):
        for name in stall.avoid | stall.terms.blocked:
            barred.setdefault(name, []).append(i)
    for session in free:
        # What a session costs and where its kind may go is worked out once for all that are priced alike.
        like = (session.rate, session.price_per_gb, session.kind, bool(session.proxy))
        usual = likes.get(like)
        if usual is None:
            usual = likes[like] = [
                stall.terms.cost(session)
                if not session.proxy or not stall.terms.kinds or session.kind in stall.terms.kinds
                else None
                for stall in stalls
            ]
        costs = usual.copy()
        for i in barred.get(session.proxy, ()) if session.proxy else ():
            costs[i] = None
        for i in barred.get(session.id, ()):
            if session.id in stalls[i].avoid:
                costs[i] = None
        crews.setdefault(tuple(costs), _Crew(costs)).members.append(session.id)
    # The dearest first: these keep to the lightest pages, so those that come later move few of them.
    fit = [crew for crew in crews.values() if any(cost is not None for cost in crew.costs)]
    return sorted(fit, key=lambda crew: -max(cost for cost in crew.costs if cost is not None))


class _Flow:
    """Sessions are let in one after the other, each by the cheapest path that leaves all pairs at least cost.

    A session that is let in goes to a stall and may send one that works there on to another stall, and so on, until
    a target is found for the last of them. Nodes of the paths are stalls, and gates (limits that several stalls
    share) that are full. To idle costs more than any path, so that no session idles that could work. Levels are
    potentials: measured from them, no step is shorter than nothing.
    """

    def __init__(self, stalls: Sequence[_Stall], crews: Sequence[_Crew], line: int) -> None:
        self._stalls = stalls
        self._crews = crews
        sessions = sum(len(crew.members) for crew in crews)
        # One nano-dollar outweighs every order of targets.
        scale = line * sessions + 1
        dearest = max(cost for crew in crews for cost in crew.costs if cost is not None) * scale
        self._idle = (dearest + scale) * (sessions + 1)
        never = self._never = 8 * self._idle
        self._costs = [[never if cost is None else cost * scale for cost in crew.costs] for crew in crews]
        self._taken = [0] * len(stalls)
        self._room = {stall.gate: stall.terms.room for stall in stalls if stall.gate}
        self._behind: dict[int, list[int]] = {gate: [] for gate in self._room}
        for i, stall in enumerate(stalls):
            if stall.gate:
                self._behind[stall.gate].append(i)
        self._gate0 = len(stalls) - 1
        """A gate's node is so much higher as its number, which begins with 1."""
        self._next = [self._leave(i) for i in range(len(stalls))]
        """By stall: what its next target adds."""
        self._has: list[dict[int, int]] = [{} for _ in stalls]
        """By stall: how many of each crew work there."""
        self._moves: list[list[int]] = [[] for _ in stalls]
        """By stall: what it adds to send one that works there, whoever is best, to each of the stalls."""
        self._levels = [0] * (len(stalls) + len(self._room))

    def add(self, crew: int) -> None:
        """Let one more session of a crew in."""
        levels, following = self._levels, self._next
        distance: dict[int, int] = {}
        before: dict[int, int] = {}
        settled: list[int] = []
        heap: list[tuple[int, int]] = []
        best, end = self._idle, (_OUTSIDE, _IDLE)
        node, here, steps = _OUTSIDE, 0, self._costs[crew]
        while True:
            ways: list[tuple[int, int]] = []
            if steps:
                through = list(map(add, steps, following))
                least = min(through)
                if here + least < best:
                    best, end = here + least, (node, through.index(least))
                # Only what is nearer than the end can lead there on a shorter way.
                near = best - here
                ways = [
                    (i, step)
                    for i, (step, level) in enumerate(zip(steps, levels, strict=False))
                    if step - level < near
                ]
            if node != _OUTSIDE:
                ways += self._gate_ways(node)
            for other, step in ways:
                there = here + step - levels[other]
                if there < best and (other not in distance or there < distance[other]):
                    distance[other] = there
                    before[other] = node
                    heappush(heap, (there, other))
            while heap and heap[0][0] > distance[heap[0][1]]:
                heappop(heap)
            if not heap or heap[0][0] >= best:
                break
            there, node = heappop(heap)
            settled.append(node)
            here = there + levels[node]
            steps = self._moves[node] if node <= self._gate0 else []
            if steps and here + self._idle - self._dearest(node) < best:
                best, end = here + self._idle - self._dearest(node), (node, _IDLE)
        for one in settled:
            levels[one] += distance[one] - best
        self._shift(crew, end, before)

    def _leave(self, stall: int) -> int:
        one, taken = self._stalls[stall], self._taken[stall]
        if taken == len(one.places) or (one.gate and not self._room[one.gate]):
            return self._never
        return one.places[taken]

    def _dearest(self, stall: int) -> int:
        return max(self._costs[crew][stall] for crew in self._has[stall])

    def _gate_ways(self, node: int) -> Iterable[tuple[int, int]]:
        """Through a full gate, one stall may have its next target if another gives up its last."""
        if node <= self._gate0:
            stall, taken = self._stalls[node], self._taken[node]
            if stall.gate and not self._room[stall.gate] and taken < len(stall.places):
                yield self._gate0 + stall.gate, stall.places[taken]
            return
        for i in self._behind[node - self._gate0]:
            if self._taken[i]:
                yield i, -self._stalls[i].places[self._taken[i] - 1]

    def _shift(self, crew: int, end: tuple[int, int], before: Mapping[int, int]) -> None:
        """Move everybody one step along the path that was found, the last one first."""
        node, goal = end
        if goal != _IDLE:
            self._take(goal, 1)
        while True:
            if goal > self._gate0:
                self._take(node, 1)
            elif node > self._gate0:
                self._take(goal, -1)
            else:
                one = crew if node == _OUTSIDE else self._sent(node, goal)
                if goal != _IDLE:
                    self._arrives(one, goal)
            if node == _OUTSIDE:
                return
            node, goal = before[node], node

    def _take(self, stall: int, change: int) -> None:
        self._taken[stall] += change
        gate = self._stalls[stall].gate
        if gate:
            self._room[gate] -= change
        for i in self._behind.get(gate, (stall,)):
            self._next[i] = self._leave(i)

    def _sent(self, stall: int, goal: int) -> int:
        """Take the one that is best sent on away from a stall, and say of which crew it is."""
        has, costs = self._has[stall], self._costs
        added = self._idle if goal == _IDLE else 0
        best = min(has, key=lambda one: (added or costs[one][goal]) - costs[one][stall])
        has[best] -= 1
        if not has[best]:
            del has[best]
            self._moves[stall] = []
            for one in has:
                self._offers(one, stall)
        return best

    def _arrives(self, crew: int, stall: int) -> None:
        has = self._has[stall]
        has[crew] = has.get(crew, 0) + 1
        if has[crew] == 1:
            self._offers(crew, stall)

    def _offers(self, crew: int, stall: int) -> None:
        costs = self._costs[crew]
        own = costs[stall]
        moves = [cost - own for cost in costs]
        known = self._moves[stall]
        self._moves[stall] = list(map(min, known, moves)) if known else moves

    def pairs(self) -> Iterable[Pair]:
        """Say who works where, members and targets in their order."""
        members = [iter(crew.members) for crew in self._crews]
        for stall, has in zip(self._stalls, self._has, strict=True):
            targets = iter(stall.targets)
            for crew in sorted(has):
                for _ in range(has[crew]):
                    yield Pair(next(targets), next(members[crew]))
