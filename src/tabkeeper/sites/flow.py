"""Workers to stalls at least cost: a flow, solved first as if no single worker were barred, then put right. Pure.

Workers of one crew cost the same, so that there are few of them while nobody is barred. What that solution knows of
prices stays true afterwards: bars only take ways away. So most workers keep their stall, and each of the few that
may not needs one shortest path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from operator import add, sub

from tabkeeper.sites import ranked


@dataclass(frozen=True, slots=True)
class Stall:
    """Where workers may go."""

    places: Sequence[int]
    """What each more of them adds to the cost; rising, and less than one unit of any other cost in all."""
    gate: int = 0
    """The limit that it shares with other stalls; 0 if it shares none."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers that cost the same."""

    costs: Sequence[int | None]
    """By stall; None where none of them may go."""
    barred: Sequence[frozenset[int]] = ()
    """By worker: the stalls that bar this one alone."""


_FEW = 12
"""So many crews are settled sooner without a guess."""
_TRIES = 30
"""How often a guess is improved before it is given up as a bad one."""
_OUTSIDE = -1
"""Where workers come from."""


def settle(
    stalls: Sequence[Stall], rooms: Mapping[int, int], crews: Sequence[Crew], *, scale: int
) -> list[list[tuple[int, int]]]:
    """Say who goes to each stall, as (crew, worker): as many as can, at the least cost, in the lowest places.

    Args:
        stalls: where they may go.
        rooms: by gate, how many may be behind it.
        crews: who there is.
        scale: more than all places taken together could add up to.
    """
    flow = _Flow(stalls, rooms, crews, scale)
    if len(crews) > _FEW:
        if flow.guess():
            return flow.put_right()
        flow = _Flow(stalls, rooms, crews, scale)
    for index, crew in enumerate(crews):
        for _ in crew.barred:
            flow.enter(index)
    return flow.put_right()


class _Flow:
    """One more worker at a time goes the cheapest way that leaves all of them at least cost.

    A worker goes to a stall and may send one that is there to another stall, and so on; in the end a stall takes
    one more place, or one that was left empty is filled. To be idle costs more than any way, so that nobody idles who
    could work. Levels are potentials: measured from them, no step is shorter than nothing.
    """

    def __init__(
        self, stalls: Sequence[Stall], rooms: Mapping[int, int], crews: Sequence[Crew], scale: int
    ) -> None:
        self._stalls = stalls
        self._crews = crews
        self._idle_node = len(stalls)
        self._sink = len(stalls) + 1
        self._gates = {gate: self._sink + n for n, gate in enumerate(rooms, start=1)}
        self._gated = [*(bool(stall.gate) for stall in stalls), False]
        self._room = {self._gates[gate]: room for gate, room in rooms.items()}
        self._behind: dict[int, list[int]] = {node: [] for node in self._room}
        for i, stall in enumerate(stalls):
            if stall.gate:
                self._behind[self._gates[stall.gate]].append(i)
        workers = sum(len(crew.barred) for crew in crews)
        dearest = max((cost for crew in crews for cost in crew.costs if cost is not None), default=0) * scale
        self._idle = (dearest + scale) * (workers + 1)
        never = self._never = 8 * self._idle
        self._rows = [
            [*(never if cost is None else cost * scale for cost in crew.costs), self._idle] for crew in crews
        ]
        """By crew, and later by worker: what each stall costs."""
        self._taken = [0] * (len(stalls) + 1)
        """By stall: places in use."""
        self._next = [self._way_out(i) for i in range(len(stalls) + 1)]
        """By stall: what one more place adds."""
        self._has: list[dict[int, int]] = [{} for _ in range(len(stalls) + 1)]
        """By stall: how many of each row are there."""
        self._levels = [0] * (self._sink + 1 + len(rooms))

    def enter(self, row: int) -> None:
        """Let one more worker in, to whom a place is given that nobody has."""
        self._move(row, *self._way(row, self._next))

    def guess(self) -> bool:
        """Let all in at once, as if one price told them apart, and improve on it; say whether that led to the best."""
        who = [index for index, crew in enumerate(self._crews) for _ in crew.barred]
        stalls, rows = self._stalls, self._rows
        weights = list(map(sub, rows[0], rows[-1]))
        where = ranked.columns(
            weights,
            [stall.places for stall in stalls],
            [stall.gate for stall in stalls],
            {gate: self._room[node] for gate, node in self._gates.items()},
        )
        if len(where) < len(who):
            return False
        for row, stall in zip(who, ranked.in_order([rows[row] for row in who], where), strict=True):
            self._arrive(row, stall)
            self._take(stall, 1)
        others = range(len(stalls), len(self._levels))
        return self._level([*sorted(range(len(stalls)), key=weights.__getitem__), *others])

    def _level(self, order: Sequence[int]) -> bool:
        """Find levels for those who are in, moving them round as long as that saves anything; False if it is long.

        Args:
            order: the nodes as they most likely follow each other on a way, in one direction or the other.
        """
        levels = self._levels
        before: dict[int, int] = {}
        changed = set(order)
        steps: dict[int, list[int]] = {}
        tries = 0
        while changed:
            for node in order:
                if node not in changed:
                    continue
                changed.discard(node)
                if node <= self._idle_node and self._has[node] and node not in steps:
                    steps[node] = self._onward(node)
                here = levels[node]
                nearer = [
                    (other, here + step)
                    for other, (step, level) in enumerate(zip(steps.get(node, ()), levels, strict=False))
                    if here + step < level
                ]
                nearer += ((other, here + step) for other, step in self._between(node))
                for other, there in nearer:
                    if there < levels[other]:
                        levels[other] = there
                        before[other] = node
                        changed.add(other)
            ring = _ring(before)
            if ring:
                tries += 1
                if tries > _TRIES:
                    return False
                self._turn(ring)
                for one in ring:
                    steps.pop(one, None)
                before.clear()
                # What was known before may lie far below what holds now.
                levels[:] = [0] * len(levels)
                changed = set(order)
            order = order[::-1]
        return True

    def _onward(self, stall: int) -> list[int]:
        """What it takes to send somebody on from a stall, by where."""
        ways = []
        for one in self._has[stall]:
            row = self._rows[one]
            here = row[stall]
            ways.append([there - here for there in row])
        return ways[0] if len(ways) == 1 else list(map(min, *ways))

    def _turn(self, ring: Sequence[int]) -> None:
        """Move everybody one step along a way that ends where it begins."""
        steps = list(zip(ring, [*ring[1:], ring[0]], strict=True))
        moved = []
        for node, goal in steps:
            if goal > self._idle_node:
                if node <= self._idle_node:
                    self._take(node, 1)
            elif node > self._idle_node:
                self._take(goal, -1)
            else:
                moved.append((self._leave(node, goal), goal))
        for one, goal in moved:
            self._arrive(one, goal)

    def put_right(self) -> list[list[tuple[int, int]]]:
        """Replace the crews by their workers, each with its own bars."""
        wanted = [dict(has) for has in self._has]
        self._has = [{} for _ in wanted]
        rows, self._rows = self._rows, []
        names: list[tuple[int, int]] = []
        left: list[int] = []
        for index, crew in enumerate(self._crews):
            asked = [i for i, has in enumerate(wanted) if index in has]
            # Those with the least choice first.
            for worker in sorted(
                range(len(crew.barred)), key=lambda n: (-len(crew.barred[n].intersection(asked)), n)
            ):
                row = rows[index].copy()
                for i in crew.barred[worker]:
                    row[i] = self._never
                number = len(names)
                names.append((index, worker))
                self._rows.append(row)
                free = [i for i in asked if wanted[i].get(index) and i not in crew.barred[worker]]
                if not free:
                    left.append(number)
                    continue
                stall = max(free, key=lambda i: wanted[i][index])
                wanted[stall][index] -= 1
                self._has[stall][number] = 1
        empty = [sum(has.values()) for has in wanted]
        for number in left:
            ways = [-level if n else self._never for n, level in zip(empty, self._levels, strict=False)]
            last = self._way(number, ways)
            self._move(number, *last, fills=True)
            empty[last[0][1]] -= 1
        return [sorted(names[number] for number in has) for has in self._has[:-1]]

    def _way(self, row: int, ends: Sequence[int]) -> tuple[tuple[int, int], dict[int, int]]:
        """Find the cheapest way: its last step, and by node the one before it.

        Args:
            row: who sets out.
            ends: what it adds to stay at a stall.
        """
        levels, rows = self._levels, self._rows
        distance: dict[int, int] = {}
        before: dict[int, int] = {}
        heap: list[tuple[int, int]] = []
        best, last = self._never * 2, (_OUTSIDE, self._idle_node)
        filling = ends is not self._next
        node = _OUTSIDE
        moving, asked = [(0, row)], {row}
        """Who may be sent on from the node, and what it took to get them free. Nobody is asked twice."""
        while True:
            for here, who in moving:
                steps = rows[who]
                through = list(map(add, steps, ends))
                least = min(through)
                if here + least < best:
                    best, last = here + least, (node, through.index(least))
                # Only what is nearer than the end can lead there on a shorter way.
                near = best - here
                for other, (step, level) in enumerate(zip(steps, levels, strict=False)):
                    if step - level < near:
                        there = here + step - level
                        if other not in distance or there < distance[other]:
                            distance[other] = there
                            before[other] = node
                            if filling or self._gated[other] or not self._has[other].keys() <= asked:
                                heappush(heap, (there, other))
            # Of stalls that share no limit, the ends know what one more place is worth.
            if node != _OUTSIDE and (filling or node > self._idle_node or self._gated[node]):
                here = distance[node] + levels[node]
                for other, step in self._between(node):
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
            moving = []
            if node <= self._idle_node:
                here = there + levels[node]
                if here + ends[node] < best:
                    best, last = here + ends[node], (before[node], node)
                new = self._has[node].keys() - asked
                asked |= new
                moving = [(here - rows[one][node], one) for one in sorted(new)]
        for one, there in distance.items():
            if there < best:
                levels[one] += there - best
        return last, before

    def _way_out(self, stall: int) -> int:
        """What one more place at a stall adds, if there is one without another stall's giving one up."""
        if stall == self._idle_node:
            return 0
        one, taken = self._stalls[stall], self._taken[stall]
        if taken == len(one.places) or (one.gate and not self._room[self._gates[one.gate]]):
            return self._never
        return one.places[taken]

    def _between(self, node: int) -> Iterable[tuple[int, int]]:
        """Steps that move no worker: one stall takes a place more, another one less."""
        if node < self._idle_node:
            stall, taken = self._stalls[node], self._taken[node]
            if taken < len(stall.places):
                yield self._gates.get(stall.gate, self._sink), stall.places[taken]
            return
        if node == self._idle_node:
            yield self._sink, 0
            return
        if node == self._sink:
            for gate, behind in self._behind.items():
                if any(self._taken[i] for i in behind):
                    yield gate, 0
            if self._taken[self._idle_node]:
                yield self._idle_node, 0
            giving: Iterable[int] = (i for i, stall in enumerate(self._stalls) if not stall.gate)
        else:
            if self._room[node]:
                yield self._sink, 0
            giving = self._behind[node]
        for i in giving:
            if self._taken[i]:
                yield i, -self._stalls[i].places[self._taken[i] - 1]

    def _move(
        self, row: int, last: tuple[int, int], before: Mapping[int, int], *, fills: bool = False
    ) -> None:
        """Move everybody one step along a way, the last one first."""
        node, goal = last
        if not fills:
            self._take(goal, 1)
        while True:
            if goal > self._idle_node:
                if node <= self._idle_node:
                    self._take(node, 1)
            elif node > self._idle_node:
                self._take(goal, -1)
            else:
                self._arrive(row if node == _OUTSIDE else self._leave(node, goal), goal)
            if node == _OUTSIDE:
                return
            node, goal = before[node], node

    def _take(self, stall: int, change: int) -> None:
        self._taken[stall] += change
        gate = 0 if stall == self._idle_node else self._gates.get(self._stalls[stall].gate, 0)
        if gate:
            self._room[gate] -= change
        for i in self._behind.get(gate, (stall,)):
            self._next[i] = self._way_out(i)

    def _arrive(self, row: int, stall: int) -> None:
        has = self._has[stall]
        has[row] = has.get(row, 0) + 1

    def _leave(self, stall: int, goal: int) -> int:
        """Take the one that is best sent on away from a stall, and say which row it is."""
        has, rows = self._has[stall], self._rows
        best = min(has, key=lambda one: rows[one][goal] - rows[one][stall])
        has[best] -= 1
        if not has[best]:
            del has[best]
        return best


def _ring(before: Mapping[int, int]) -> list[int]:
    """Return the nodes of a way that ends where it begins, in its order; none if there is no such way."""
    seen: dict[int, int] = {}
    for start in before:
        node = start
        while node in before and node not in seen:
            seen[node] = start
            node = before[node]
        if seen.get(node) == start and node in before:
            ring = [node]
            while before[ring[-1]] != node:
                ring.append(before[ring[-1]])
            return ring[::-1]
    return []
