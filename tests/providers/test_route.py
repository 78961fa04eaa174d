"""Routing: an order of all providers, by price or by rungs; told as stories and tried with Hypothesis."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.money import Money
from tabkeeper.providers.route import Candidate, Ladder, by_cost

RUNGS = ("local", "cheap", "strong")
costs = st.none() | st.integers(0, 5).map(Money)


def ladder(**changes) -> Ladder:
    return Ladder(RUNGS, **({"after": 2, "hold": 600.0, "successes": 3} | changes))


@given(st.lists(costs, max_size=8), st.randoms(use_true_random=False))
def test_by_cost_orders_everybody_the_same_way_whatever_comes_first(prices, chance):
    candidates = [Candidate(name=f"p{i}", position=i, cost=cost) for i, cost in enumerate(prices)]
    order = by_cost(candidates)
    assert sorted(order) == sorted(c.name for c in candidates)
    shuffled = list(candidates)
    chance.shuffle(shuffled)
    assert by_cost(shuffled) == order
    by_name = {c.name: c for c in candidates}
    for earlier, later in pairwise(order):
        a, b = by_name[earlier], by_name[later]
        assert b.cost is None or (a.cost is not None and a.cost <= b.cost)
        if a.cost == b.cost:
            assert a.position < b.position


def test_the_first_rung_comes_first_and_one_failure_changes_nothing():
    steps = ladder()
    assert steps.order(0) == RUNGS
    assert not steps.trouble("local", 1)
    steps.success("local", 2)
    assert not steps.trouble("local", 3)
    assert steps.order(4) == RUNGS


def test_failures_in_a_row_take_the_next_rung_and_leave_the_lower_ones_for_the_last_resort():
    steps = ladder()
    assert [steps.trouble("local", at) for at in (1, 2)] == [False, True]
    assert steps.order(3) == ("cheap", "strong", "local")
    assert steps.below("local", 3)
    assert not steps.below("strong", 3)
    steps.trouble("cheap", 4)
    assert steps.trouble("cheap", 5)
    assert steps.order(6) == ("strong", "cheap", "local")


def test_the_top_rung_stays_whatever_fails():
    steps = ladder(after=1)
    for at in range(20):
        steps.trouble("local", at)
        steps.trouble("cheap", at)
        steps.trouble("strong", at)
    assert steps.order(20)[0] == "strong"


def test_what_happens_on_other_rungs_does_not_count():
    steps = ladder(after=1)
    assert steps.trouble("local", 0)
    for at in range(1, 10):
        assert not steps.trouble("local", at)
        assert not steps.trouble("strong", at)
    assert steps.order(10)[0] == "cheap"


def test_down_again_only_after_enough_time_and_enough_successes():
    steps = ladder(after=1)
    steps.trouble("local", 0)
    steps.success("cheap", 1)
    steps.success("cheap", 2)
    assert steps.order(10_000)[0] == "cheap", "two successes are not three"
    steps.success("cheap", 3)
    assert steps.order(599)[0] == "cheap", "it is not time yet"
    assert steps.order(600)[0] == "local"


def test_who_falls_back_soon_waits_twice_as_long():
    steps = ladder(after=1, successes=1, hold=100.0)
    now, waits = 0.0, []
    for _ in range(7):
        steps.trouble("local", now)
        steps.success("cheap", now)
        waits.append(steps.rests_until - now)
        now = steps.rests_until
    assert waits == [100, 200, 400, 800, 1600, 1600, 1600]
    now += 10_000
    steps.success("local", now)
    steps.trouble("local", now)
    assert steps.rests_until - now == 100, "after a long good time it begins anew"


@given(
    st.lists(
        st.tuples(st.sampled_from(RUNGS), st.booleans(), st.integers(0, 400)),
        max_size=80,
    ),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_a_ladder_is_deterministic_total_and_moves_one_rung_at_a_time(events, after, successes):
    one, two = (Ladder(RUNGS, after=after, hold=600.0, successes=successes) for _ in range(2))
    now = 0.0
    for name, well, pause in events:
        now += pause
        before = one.level(now)
        for steps in (one, two):
            if well:
                steps.success(name, now)
            else:
                steps.trouble(name, now)
        assert sorted(one.order(now)) == sorted(RUNGS)
        assert one.order(now) == two.order(now)
        assert one.order(now)[0] == RUNGS[one.level(now)]
        assert one.level(now) - before in ({0, -1} if well else {0, 1, -1})
        assert one.level(now + 1e9) <= one.level(now), "time alone never escalates"
