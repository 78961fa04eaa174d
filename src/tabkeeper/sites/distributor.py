"""Which session visits which target next: the most pairs, among these the cheapest, then the oldest targets. Pure.

Targets that are alike but for their age, and sessions that cost the same, are counted together, and where nobody has a
reason to go is left out. What remains is a small flow of least cost; see `flow`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby, islice
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
    kinds = _kinds(free)
    stalls = _worth_it(_stalls(line, sites, free), kinds)
    bars = _Bars(stalls)
    who = flow.settle(
        [flow.Stall(stall.places, stall.gate) for stall in stalls],
        {stall.gate: stall.terms.room for stall in stalls if stall.gate},
        [flow.Crew(kind.costs(stalls), [bars.of(one) for one in kind.members]) for kind in kinds],
        # One nano-dollar outweighs every order of targets.
        scale=len(line) * len(free) + 1,
    )
    return sorted(
        Pair(target, kinds[kind].members[n].id)
        for stall, there in zip(stalls, who, strict=True)
        for target, (kind, n) in zip(stall.targets, there, strict=False)
    )


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
    """Which stalls bar a session for its own sake, or for its proxy's."""

    def __init__(self, stalls: Sequence[_Stall]) -> None:
        self._proxies: dict[str, set[int]] = {}
        self._sessions: dict[str, set[int]] = {}
        for i, stall in enumerate(stalls):
            for name in stall.terms.blocked:
                self._proxies.setdefault(name, set()).add(i)
            for name in stall.avoid:
                self._proxies.setdefault(name, set()).add(i)
                self._sessions.setdefault(name, set()).add(i)

    def of(self, session: Free) -> frozenset[int]:
        """Return them, as their places among all stalls."""
        through = self._proxies.get(session.proxy, ()) if session.proxy else ()
        return frozenset(through).union(self._sessions.get(session.id, ()))


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


def _kinds(free: Sequence[Free]) -> list[_Kind]:
    """Group sessions, the dearest first: these keep to the lightest pages, so those that come later move few."""
    kinds: dict[tuple[int, int, str, bool], _Kind] = {}
    for session in free:
        key = (session.rate, session.price_per_gb, session.kind if session.proxy else "", bool(session.proxy))
        kinds.setdefault(key, _Kind(session)).members.append(session)
    return [kinds[key] for key in sorted(kinds, reverse=True)]


def _worth_it(stalls: Sequence[_Stall], kinds: Sequence[_Kind]) -> list[_Stall]:
    """Leave out the stalls where nobody has a reason to go.

    A session needs no more choice than its best targets, as many as there are sessions: did it go elsewhere, one of
    these would be free, since all others together take fewer.
    """
    enough = sum(len(kind.members) for kind in kinds)
    bars = _Bars(stalls)
    # Targets that share their room with others may be out of reach, so they never count as choice.
    kept = {i for i, stall in enumerate(stalls) if stall.gate}
    for kind in kinds:
        best = _best_first(kind, stalls)
        usual = list(islice(best, enough))
        kept.update(usual)
        counts = Counter(usual)
        more: list[int] = []
        for member in kind.members:
            barred = bars.of(member)
            missing = sum(counts[i] for i in barred & counts.keys())
            for place in count():
                if not missing:
                    break
                if place == len(more):
                    more.extend(islice(best, 1))
                    if place == len(more):
                        break
                if more[place] not in barred:
                    kept.add(more[place])
                    missing -= 1
    return [stalls[i] for i in sorted(kept)]


def _best_first(kind: _Kind, stalls: Sequence[_Stall]) -> Iterator[int]:
    """Yield the stall of each target, the cheapest first, and the oldest of those that cost the same."""
    costs = kind.costs(stalls)
    ranked = sorted((cost, i) for i, cost in enumerate(costs) if cost is not None and not stalls[i].gate)
    for _, tied in groupby(ranked, key=itemgetter(0)):
        yield from (i for _, i in sorted((place, i) for _, i in tied for place in stalls[i].places))
