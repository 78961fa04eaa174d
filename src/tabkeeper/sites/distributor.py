"""Which session visits which target next: the most pairs, among these the cheapest, then the oldest targets. Pure.

Targets that are alike but for their age, and sessions that cost the same, are counted together, and where nobody has a
reason to go is left out. What remains is a small flow of least cost; see `flow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import groupby
from operator import itemgetter

from tabkeeper.sites import flow


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
    kinds = _kinds(free, stalls)
    bars = _Bars(free)
    stalls = _worth_it(stalls, kinds, bars)
    barred = bars.by_session(stalls)
    who = flow.settle(
        [flow.Stall(stall.places, stall.gate) for stall in stalls],
        {stall.gate: stall.terms.room for stall in stalls if stall.gate},
        [flow.Crew(kind.costs(stalls), [barred[one.id] for one in kind.members]) for kind in kinds],
        # One nano-dollar outweighs every order of targets.
        scale=len(line) * len(free) + 1,
    )
    return sorted(
        Pair(line[place].id, kinds[kind].members[n].id)
        for stall, there in zip(stalls, who, strict=True)
        for place, (kind, n) in zip(stall.places, there, strict=False)
    )


_FEW = 12
"""So many prices are faster to rank sites by than to look beforehand which sites no price makes worth a visit."""


@dataclass(slots=True)
class _Stall:
    """Targets that are alike: of the same terms, and avoiding the same."""

    terms: Terms
    avoid: frozenset[str]
    gate: int
    """Which limit they share with other stalls."""
    places: list[int]
    """Their places in the whole line, the oldest first."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Sessions that cost the same everywhere, and may go to the same stalls but for those that bar one of them."""

    like: Free
    """Any of them."""
    members: list[Free] = field(default_factory=list)

    def costs(self, stalls: Sequence[_Stall]) -> list[int | None]:
        """Return what a page costs on one of them, by stall; None where none of them may go."""
        like = self.like
        return [
            None
            if like.proxy and stall.terms.kinds and like.kind not in stall.terms.kinds
            else stall.terms.cost(like)
            for stall in stalls
        ]


class _Bars:
    """Which sessions a stall bars for their own sake, or for their proxy's. It is slow, so few stalls are asked."""

    def __init__(self, free: Sequence[Free]) -> None:
        self._proxies: dict[str, list[str]] = {}
        for one in free:
            if one.proxy:
                self._proxies.setdefault(one.proxy, []).append(one.id)
        self._sessions = {one.id for one in free}
        self._known: dict[int, frozenset[str]] = {}

    def of(self, stall: _Stall) -> frozenset[str]:
        """Return their ids."""
        barred = self._known.get(id(stall))
        if barred is None:
            refused = (stall.terms.blocked | stall.avoid) & self._proxies.keys()
            barred = frozenset(one for name in refused for one in self._proxies[name])
            if stall.avoid:
                barred |= stall.avoid & self._sessions
            self._known[id(stall)] = barred
        return barred

    def by_session(self, stalls: Sequence[_Stall]) -> dict[str, frozenset[int]]:
        """Return the stalls that bar a session, as their places among these."""
        found: dict[str, list[int]] = {one: [] for one in self._sessions}
        for i, stall in enumerate(stalls):
            for one in self.of(stall):
                found[one].append(i)
        return {one: frozenset(where) for one, where in found.items()}


def _stalls(line: Sequence[Waiting], sites: Mapping[str, Terms], free: Sequence[Free]) -> list[_Stall]:
    """Group the line. Sites of one kind of targets and of the same terms share a stall: their room is cut off here."""
    known = frozenset(one.id for one in free) | frozenset(one.proxy for one in free)
    grouped: dict[tuple[str, frozenset[str]], list[int]] = {}
    for place, target in enumerate(line):
        # What no session here has need not be avoided.
        avoid = target.avoid & known if target.avoid else target.avoid
        key = (target.site, avoid)
        group = grouped.get(key)
        if group is None:
            group = grouped[key] = []
        if len(group) < len(free):
            group.append(place)
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
            stalls.append(_Stall(terms, avoid, gate, group))
            continue
        like = (terms.blocked & known, terms.kinds, terms.page_ms, terms.page_bytes, avoid)
        stall = merged.get(like)
        if stall is None:
            stall = merged[like] = _Stall(terms, avoid, 0, group[: terms.room])
            stalls.append(stall)
        else:
            stall.places = sorted(stall.places + group[: terms.room])[: len(free)]
    return stalls


def _kinds(free: Sequence[Free], stalls: Sequence[_Stall]) -> list[_Kind]:
    """Group sessions, the dearest first: these keep to the lightest pages, so those that come later move few."""
    takes_time = any(stall.terms.page_ms for stall in stalls)
    takes_bytes = any(stall.terms.page_bytes for stall in stalls)
    kinds: dict[tuple[int, int, str, bool], _Kind] = {}
    for session in free:
        key = (
            session.rate if takes_time else 0,
            session.price_per_gb if takes_bytes else 0,
            session.kind if session.proxy else "",
            bool(session.proxy),
        )
        kinds.setdefault(key, _Kind(session)).members.append(session)
    return [kinds[key] for key in sorted(kinds, reverse=True)]


def _worth_it(stalls: Sequence[_Stall], kinds: Sequence[_Kind], bars: _Bars) -> list[_Stall]:
    """Leave out the stalls where nobody has a reason to go.

    A session needs no more choice than its best targets, as many as there are sessions: did it go elsewhere, one of
    these would be free, since all others together take fewer. Targets that share their room with others may be out
    of reach, so they never count as choice.
    """
    if len(kinds) > _FEW:
        stalls = _not_outdone(stalls, kinds, bars)
    enough = sum(len(kind.members) for kind in kinds)
    if sum(len(stall.places) for stall in stalls if not stall.gate) < enough:
        return list(stalls)
    kept: set[int] = set()
    for kind in kinds:
        choice = _Choice([one.id for one in kind.members], enough)
        for i, places in _best_first(kind, stalls):
            kept.add(i)
            if not stalls[i].gate:
                choice.add(places, bars.of(stalls[i]))
                if choice.enough():
                    break
    return [stalls[i] for i in sorted(kept)]


def _not_outdone(stalls: Sequence[_Stall], kinds: Sequence[_Kind], bars: _Bars) -> list[_Stall]:
    """Leave out the stalls that have enough others before them for every session, whatever it costs.

    These are no slower, and lighter by so much that even the cheapest traffic shows it. It saves to rank them all for
    each price there is.
    """
    sessions = [one for kind in kinds for one in kind.members]
    cheapest = min(one.price_per_gb for one in sessions)
    if cheapest <= 0 or min(one.rate for one in sessions) < 0:
        return list(stalls)
    shows = -(-1_000_000_000 // cheapest)
    weights = [stall.terms.page_bytes for stall in stalls]
    if max(weights, default=0) - min(weights, default=0) < shows:
        return list(stalls)
    choice = _Choice([one.id for one in sessions], len(sessions))
    lightest: list[tuple[int, int]] = []
    """Minus their bytes, and which: what is chosen from, the heaviest first."""
    kept = []
    for i in sorted(range(len(stalls)), key=lambda i: (stalls[i].terms.page_ms, stalls[i].terms.page_bytes)):
        stall = stalls[i]
        if lightest and stall.terms.page_bytes + lightest[0][0] >= shows and choice.enough():
            continue
        kept.append(i)
        if stall.gate or stall.terms.kinds:
            continue
        heappush(lightest, (-stall.terms.page_bytes, i))
        choice.add(len(stall.places), bars.of(stall))
        while choice.enough():
            heaviest = stalls[lightest[0][1]]
            choice.add(-len(heaviest.places), bars.of(heaviest))
            if not choice.enough():
                choice.add(len(heaviest.places), bars.of(heaviest))
                break
            heappop(lightest)
    return [stalls[i] for i in sorted(kept)]


class _Choice:
    """How many targets each of some sessions may choose from."""

    def __init__(self, sessions: Iterable[str], enough: int) -> None:
        self._all = 0
        self._enough = enough
        self._wanted = enough
        """How many it takes at least: a bound, worked out anew only once it is reached."""
        self._barred = dict.fromkeys(sessions, 0)

    def add(self, places: int, barred: frozenset[str]) -> None:
        """Count more targets, which some may not visit."""
        self._all += places
        if places < 0:
            self._wanted = self._enough
        for one in barred & self._barred.keys():
            self._barred[one] += places

    def enough(self) -> bool:
        """Say whether each has enough of them."""
        if self._all >= self._wanted:
            self._wanted = self._enough + max(self._barred.values())
        return self._all >= self._wanted


def _best_first(kind: _Kind, stalls: Sequence[_Stall]) -> Iterator[tuple[int, int]]:
    """Yield stalls and how many more of their targets come next: cheap ones first, then the oldest."""
    costs = kind.costs(stalls)
    ranked = sorted((cost, i) for i, cost in enumerate(costs) if cost is not None)
    for _, tied in groupby(ranked, key=itemgetter(0)):
        alike = [i for _, i in tied]
        if len(alike) == 1:
            yield alike[0], len(stalls[alike[0]].places)
        else:
            for _, stall in sorted((place, i) for i in alike for place in stalls[i].places):
                yield stall, 1
