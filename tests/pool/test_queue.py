"""The queue beside a sorted list, and what its order promises: ageing, no starvation, fair shares, bounded memory."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabkeeper.pool.model import Request
from tabkeeper.pool.queue import Turns, WaitQueue

from .builders import a_request, pool_rules
from .reference import Shares

AGING = 10.0
TENANTS = ("acme", "beta", "zorg")
WEIGHTS = {"acme": 3, "zorg": 2}

arrivals = st.integers(0, 120).map(float)
priorities = st.integers(-3, 6)
requests = st.builds(
    lambda at, priority, tenant: a_request(at=at, priority=priority, tenant=tenant),
    arrivals,
    priorities,
    st.sampled_from(TENANTS),
)


def served_in_order(queue: WaitQueue, turns: Turns) -> list[Request]:
    order = []
    while (head := queue.head()) is not None:
        queue.discard(head)
        turns.served(head.tenant)
        order.append(head)
    return order


class SortedList:
    """The same queue, written from its description and sorted anew for each question."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.members: list[Request] = []

    def key(self, request: Request) -> tuple[int, Fraction, float, int]:
        step = int(request.arrived_at // AGING) - request.priority
        return (step, self.shares.of(request.tenant), request.arrived_at, request.id)

    def head(self, skip: set[str]) -> Request | None:
        return min((r for r in self.members if r.tenant not in skip), key=self.key, default=None)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), requests),
        st.tuples(st.just("serve"), st.sets(st.sampled_from(TENANTS), max_size=2)),
        st.tuples(st.just("leave"), st.integers(0, 200)),
        st.tuples(st.just("again"), st.integers(0, 200)),
        st.tuples(st.just("look"), st.sets(st.sampled_from(TENANTS))),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(operations)
def test_the_head_is_always_that_of_a_sorted_list(steps):
    turns, shares = Turns(WEIGHTS), Shares(pool_rules(tenant_weights=WEIGHTS))
    queue, plain = WaitQueue(AGING, turns), SortedList(shares)
    left: list[Request] = []

    def add(request: Request) -> None:
        if all(r.tenant != request.tenant for r in plain.members):
            turns.joined(request.tenant)
            shares.came(request.tenant)
        queue.add(request)
        plain.members.append(request)

    def take(request: Request) -> None:
        queue.discard(request)
        plain.members.remove(request)
        left.append(request)

    for what, about in steps:
        match what:
            case "add":
                add(about)
            case "again" if left:
                add(left.pop(about % len(left)))
            case "leave" if plain.members:
                take(plain.members[about % len(plain.members)])
            case "serve":
                head = queue.head(about)
                assert head is plain.head(about)
                if head is not None:
                    take(head)
                    turns.served(head.tenant)
                    shares.served(head.tenant)
            case "look":
                assert queue.head(about) is plain.head(about)
            case _:
                pass
        assert len(queue) == len(plain.members)
        assert set(queue) == set(plain.members)
        assert all(r in queue for r in plain.members)
    assert queue.head() is plain.head(set())
    for place, request in enumerate(sorted(plain.members, key=plain.key), start=1):
        assert queue.position(request) == place


@settings(max_examples=120, deadline=None)
@given(st.lists(requests, min_size=2, max_size=20))
def test_whoever_is_a_whole_step_ahead_in_aged_priority_is_served_first(waiting):
    """`priority + waited / aging`, with real numbers, decides wherever it differs by a step or more."""
    turns = Turns({})
    queue = WaitQueue(AGING, turns)
    for request in waiting:
        queue.add(request)
    order = served_in_order(queue, turns)
    now = 200.0
    for first, second in pairwise(order):
        ahead = first.priority + (now - first.arrived_at) / AGING
        behind = second.priority + (now - second.arrived_at) / AGING
        assert behind - ahead < 1


@settings(max_examples=120, deadline=None)
@given(st.lists(requests, min_size=2, max_size=20), st.sampled_from([0.5, 3.0, 10.0, 60.0]))
def test_nobody_who_came_too_much_later_goes_first_however_important(waiting, aging):
    turns = Turns({})
    queue = WaitQueue(aging, turns)
    for request in waiting:
        queue.add(request)
    order = served_in_order(queue, turns)
    for place, early in enumerate(order):
        for later in order[:place]:
            steps = max(later.priority - early.priority, -1) + 1
            assert later.arrived_at <= early.arrived_at + steps * aging, f"{later} went before {early}"


def test_within_a_step_tenants_are_served_by_weight_however_unevenly_they_ask():
    turns = Turns(WEIGHTS)
    queue = WaitQueue(AGING, turns)
    number = {"acme": 300, "beta": 1000, "zorg": 200}
    for tenant, many in number.items():
        for _ in range(many):
            queue.add(a_request(tenant=tenant))
    served: Counter[str] = Counter()
    for _ in range(600):
        head = queue.head()
        assert head is not None
        queue.discard(head)
        turns.served(head.tenant)
        served[head.tenant] += 1
        for one in TENANTS:
            for other in TENANTS:
                mine = served[one] / WEIGHTS.get(one, 1)
                theirs = served[other] / WEIGHTS.get(other, 1)
                assert mine - theirs <= 1, "nobody is ahead by more than one turn"
    assert served == {"acme": 300, "beta": 100, "zorg": 200}


def test_a_tenant_that_was_away_is_not_owed_for_it():
    turns = Turns({})
    queue = WaitQueue(AGING, turns)
    for _ in range(100):
        turns.served("beta")
    turns.joined("acme")
    for _ in range(10):
        queue.add(a_request(tenant="acme"))
        queue.add(a_request(tenant="beta"))
    assert Counter(r.tenant for r in served_in_order(queue, turns)[:10]) == {"acme": 5, "beta": 5}


def test_first_come_first_served_among_equals():
    turns = Turns({})
    queue = WaitQueue(AGING, turns)
    waiting = [a_request(at=at) for at in (3.0, 1.0, 2.0, 1.0)]
    for request in waiting:
        queue.add(request)
    order = served_in_order(queue, turns)
    assert order == [waiting[1], waiting[3], waiting[2], waiting[0]]


@pytest.mark.parametrize("kind", ["behind the head", "the head", "the same again", "turns change"])
def test_memory_stays_bounded_however_many_come_and_go(kind: str):
    turns = Turns({})
    queue = WaitQueue(AGING, turns)
    anchor = a_request(at=5.0)
    queue.add(anchor)
    same = a_request(at=4.0)
    for _ in range(5000):
        at = {"behind the head": 6.0, "the head": 4.0}.get(kind, 6.0)
        request = same if kind == "the same again" else a_request(at=at, tenant=f"t{_ % 3}")
        queue.add(request)
        if kind != "behind the head":
            queue.head()
        queue.discard(request)
        if kind == "turns change":
            turns.served(request.tenant)
            queue.head()
    queue.head()
    entries = sum(
        len(step.tenants) + sum(len(heap) for heap in step.heaps.values()) for step in queue._steps.values()
    )
    assert entries <= 400, f"{entries} entries are kept for one request"
    assert len(queue._order) <= 4


def test_a_long_queue_is_served_in_the_order_of_a_sort():
    chance = Random(7)
    turns = Turns({})
    queue = WaitQueue(AGING, turns)
    waiting = [a_request(at=float(chance.randrange(100)), priority=chance.randrange(5)) for _ in range(5000)]
    for request in waiting:
        queue.add(request)
    expected = sorted(waiting, key=lambda r: (int(r.arrived_at // AGING) - r.priority, r.arrived_at, r.id))
    assert served_in_order(queue, turns) == expected
