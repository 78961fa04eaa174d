"""Strategies as pure functions: always one of the candidates, the same for the same input, fair where that is meant."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.proxies.model import proxy_from_url
from tabkeeper.proxies.pool import ProxyPool
from tabkeeper.proxies.strategies import Candidate, Strategy, choose

NAMES = st.text(alphabet="abcdef", min_size=1, max_size=3)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        id=NAMES,
        weight=st.integers(1, 9),
        price=st.none() | st.decimals(0, 20, places=2),
        latency=st.none() | st.floats(0.001, 5),
        in_use=st.integers(0, 5),
        uses=st.integers(0, 9),
        chosen_at=st.integers(0, 9),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one.id,
)
CHANCE = st.floats(0, 1, exclude_max=True)
STRATEGY = st.sampled_from(get_args(Strategy))


@given(STRATEGY, CANDIDATES, CHANCE, st.text(min_size=1), st.randoms())
def test_the_order_of_candidates_does_not_matter(strategy, candidates, chance, key, shuffler) -> None:
    found = choose(strategy, candidates, chance=chance, key=key)
    assert found in candidates
    shuffled = candidates.copy()
    shuffler.shuffle(shuffled)
    assert choose(strategy, shuffled, chance=chance, key=key) == found


@given(CANDIDATES)
def test_each_picks_what_its_name_says(candidates) -> None:
    assert choose("least_used", candidates).in_use == min(one.in_use for one in candidates)
    prices = [one.price for one in candidates if one.price is not None]
    assert choose("cheapest", candidates).price == (min(prices) if prices else None)
    slowest_first = [one.latency for one in candidates]
    assert choose("fastest", candidates).latency == (
        None if None in slowest_first else min(one for one in slowest_first if one is not None)
    )
    assert choose("round_robin", candidates).chosen_at == min(one.chosen_at for one in candidates)


@given(CANDIDATES, st.text(min_size=1))
def test_a_key_stays_where_it_is_when_another_proxy_goes(candidates, key) -> None:
    found = choose("sticky", candidates, key=key)
    for gone in candidates:
        left = [one for one in candidates if one is not gone]
        if gone is not found:
            assert choose("sticky", left, key=key) == found


def test_a_sticky_choice_without_a_key_says_so() -> None:
    with pytest.raises(ValueError, match="needs a session key"):
        choose("sticky", [Candidate(id="a")])


@given(CANDIDATES, st.integers(0, 1000))
def test_weights_are_shares(candidates, seed) -> None:
    rng = Random(seed)
    count = 2000
    seen = Counter(choose("weighted", candidates, chance=rng.random()).id for _ in range(count))
    whole = sum(one.weight for one in candidates)
    for one in candidates:
        expected = one.weight / whole
        assert abs(seen[one.id] / count - expected) < 0.08


def _pool(seed: int) -> ProxyPool:
    proxies = [proxy_from_url(f"http://host{i}:80", id=f"p{i}") for i in range(5)]
    return ProxyPool(proxies, rng=Random(seed))


@pytest.mark.parametrize("strategy", get_args(Strategy))
def test_a_seed_repeats_every_choice(strategy) -> None:
    one, two = _pool(7), _pool(7)
    first = [one.choose(strategy, key=f"k{i}").id for i in range(50)]
    assert first == [two.choose(strategy, key=f"k{i}").id for i in range(50)]
    assert len(set(first)) > 1 or strategy in {"fastest", "cheapest", "least_used"}


def test_round_robin_passes_nobody_over() -> None:
    pool = _pool(1)
    seen = [pool.choose("round_robin").id for _ in range(10)]
    assert seen == ["p0", "p1", "p2", "p3", "p4"] * 2


def test_prices_stay_exact() -> None:
    proxy = ProxyPool([proxy_from_url("http://a:1", id="a")]).get("a")
    assert proxy.cost(5) is None
    from dataclasses import replace

    priced = replace(proxy, price_per_gb=Decimal("7.35"))
    assert str(priced.cost(1_000_000_000)) == "$7.35"
    assert priced.cost(1).nanos == 8  # 7.35 nano-dollars: never rounded in our favour
