"""Who is next among waiting requests: an order that ages, is fair among tenants, and never needs re-sorting.

A request's effective priority is `priority + waited / aging`. Of two requests both grow equally fast, so their
order never changes: it is the order of `arrived - priority * aging`. Cut into steps of `aging`, that number is
the request's *step*; within a step tenants take turns by weight, within a tenant the first comes first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from tabkeeper.pool.model import Request

Key = tuple[int, int, float, int]
"""(step, tenant's turn, arrival, id): the smallest is next."""


class Turns:
    """How much each tenant has been served, so that the least served (by weight) is next.

    Start-time fair queueing: a tenant that was away comes back without credit for its absence.
    Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
    """

    _UNIT = 720_720  # divisible by every weight up to 16, so that turns stay exact integers

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._tags: dict[str, int] = {}
        self._now = 0

    def of(self, tenant: str) -> int:
        """The tenant's start tag: smaller is sooner; never falls."""
        return self._tags.get(tenant, 0)

    def joined(self, tenant: str) -> None:
        """Note that the tenant waits again after it had nobody waiting."""
        if self._tags.get(tenant, 0) < self._now:
            self._tags[tenant] = self._now

    def served(self, tenant: str) -> None:
        """Count one grant."""
        self._now = self._tags.get(tenant, 0)
        self._tags[tenant] = self._now + self._UNIT // self._weights.get(tenant, 1)


@dataclass(slots=True)
class _Step:
    """The requests of one step of priority: a heap per tenant, and a lazy heap of tenants."""

    heaps: dict[str, list[tuple[float, int, Request]]] = field(default_factory=dict)
    tenants: list[tuple[int, float, int, str]] = field(default_factory=list)


class WaitQueue:
    """Waiting requests in the order in which they are to be served. All operations are O(log n) amortised.

    Removal is lazy: entries of requests that left are dropped when they come up, and swept when they outnumber
    the living.
    """

    def __init__(self, aging: float, turns: Turns) -> None:
        self._aging = aging
        self._turns = turns
        self._members: dict[int, Request] = {}
        self._steps: dict[int, _Step] = {}
        self._order: list[int] = []
        self._entries = 0

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, request: Request) -> bool:
        return request.id in self._members

    def __iter__(self) -> Iterator[Request]:
        return iter(self._members.values())

    def step_of(self, request: Request) -> int:
        """The request's step: smaller is sooner; one step of priority weighs as much as one `aging` of waiting."""
        return int(request.arrived_at // self._aging) - request.priority

    def key(self, request: Request) -> Key:
        """Where the request stands now."""
        return (self.step_of(request), self._turns.of(request.tenant), request.arrived_at, request.id)

    def add(self, request: Request) -> None:
        """Put a request in (again)."""
        if request.id in self._members:
            return
        self._members[request.id] = request
        number = self.step_of(request)
        step = self._steps.get(number)
        if step is None:
            step = self._steps[number] = _Step()
            heappush(self._order, number)
        entry = (request.arrived_at, request.id, request)
        heap = step.heaps.setdefault(request.tenant, [])
        heappush(heap, entry)
        self._entries += 1
        if heap[0] is entry:
            turn = self._turns.of(request.tenant)
            heappush(step.tenants, (turn, request.arrived_at, request.id, request.tenant))

    def discard(self, request: Request) -> None:
        """Take a request out if it is in."""
        if self._members.pop(request.id, None) is not None and self._entries > 2 * len(self._members) + 64:
            self._sweep()

    def head(self, skip: Collection[str] = ()) -> Request | None:
        """Who is next, not counting tenants in `skip`."""
        passed: list[int] = []
        found: Request | None = None
        while self._order:
            number = self._order[0]
            step = self._steps[number]
            found = self._head_of(step, skip)
            if found is not None:
                break
            heappop(self._order)
            if step.tenants:
                passed.append(number)  # only skipped tenants are left in it
            else:
                del self._steps[number]
        for number in passed:
            heappush(self._order, number)
        return found

    def _head_of(self, step: _Step, skip: Collection[str]) -> Request | None:
        skipped: list[tuple[int, float, int, str]] = []
        found: Request | None = None
        while step.tenants:
            entry = step.tenants[0]
            tenant = entry[3]
            first = self._first(step, tenant)
            if first is None:
                heappop(step.tenants)
                continue
            true = (self._turns.of(tenant), first.arrived_at, first.id, tenant)
            if entry != true:
                heappop(step.tenants)
                if true > entry:  # a smaller one was pushed when it came up
                    heappush(step.tenants, true)
                continue
            if tenant in skip:
                skipped.append(heappop(step.tenants))
                continue
            found = first
            break
        for entry in skipped:
            heappush(step.tenants, entry)
        return found

    def _first(self, step: _Step, tenant: str) -> Request | None:
        heap = step.heaps.get(tenant)
        while heap:
            request = heap[0][2]
            if self._members.get(request.id) is request:
                return request
            heappop(heap)
            self._entries -= 1
        step.heaps.pop(tenant, None)
        return None

    def _sweep(self) -> None:
        living = list(self._members.values())
        self._members, self._steps, self._order, self._entries = {}, {}, [], 0
        for request in living:
            self.add(request)

    def position(self, request: Request) -> int:
        """Place in the queue, 1 is next. O(n): for messages, not for decisions."""
        mine = self.key(request)
        return 1 + sum(self.key(other) < mine for other in self._members.values())
