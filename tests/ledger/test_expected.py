"""What a lease is expected to cost: every built-in price list by hand, and the laws of the average."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.config import RateSettings
from tabkeeper.ledger.cards import all_cards, card_from_settings, find_card
from tabkeeper.ledger.expected import PRIOR_SECONDS, Habits, Lengths, Mean, expected_cost
from tabkeeper.ledger.rates import price
from tabkeeper.money import ZERO, Money
from tabkeeper.providers.route import Candidate, by_cost

LIVES = (5, 30, 61, 300, 3600, 21_600)
NOW = datetime(2026, 11, 21, tzinfo=UTC)

# From the published prices with pencil and paper; what lies beyond the ninth place is rounded half to even.
# Started minutes of the six lives: 1, 1, 2, 5, 60, 360. Started half minutes: 1, 1, 3, 10, 120, 720.
# Started hours: 1, 1, 1, 1, 1, 6. Seconds: 5, 30, 61, 300, 3600, 21600.
TABLE = {
    # $0.01 a browser + minutes x $0.05 / 60: 0.01 + 0.00083333..., 0.01 + 0.00166666..., 0.01 + 0.00416666..., ...
    ("anchor/credits", "2026-08-01"): "0.010833333 0.010833333 0.011666667 0.014166667 0.06 0.31",
    # $0.01 + minutes x $0.09 / 60 = $0.0015: 0.01 + 0.0015, 0.01 + 0.003, 0.01 + 0.0075, 0.01 + 0.09, 0.01 + 0.54
    ("anchor/credits", "2026-11-21"): "0.0115 0.0115 0.013 0.0175 0.10 0.55",
    # minutes x $0.02 / 60 = $0.00033333...: x 2 = 0.00066666..., x 5 = 0.00166666..., x 60 = 0.02, x 360 = 0.12
    ("browser-use/payg", "2026-11-21"): "0.000333333 0.000333333 0.000666667 0.001666667 0.02 0.12",
    ("browser-use/scaleup", "2026-11-21"): "0.000333333 0.000333333 0.000666667 0.001666667 0.02 0.12",
    ("browser-use/direct", "2026-11-21"): "0.000333333 0.000333333 0.000666667 0.001666667 0.02 0.12",
    # minutes x $0.12 / 60 = $0.002
    ("browserbase/developer", "2026-11-21"): "0.002 0.002 0.004 0.01 0.12 0.72",
    # minutes x $0.10 / 60 = $0.00166666...: x 2 = 0.00333333..., x 5 = 0.00833333..., x 360 = 0.6
    ("browserbase/startup", "2026-11-21"): "0.001666667 0.001666667 0.003333333 0.008333333 0.10 0.60",
    # half minutes x $0.0020
    ("browserless/prototyping", "2026-11-21"): "0.0020 0.0020 0.0060 0.0200 0.2400 1.4400",
    # half minutes x $0.0017: x 3 = 0.0051, x 10 = 0.017, x 120 = 0.204, x 720 = 1.224
    ("browserless/starter", "2026-11-21"): "0.0017 0.0017 0.0051 0.0170 0.2040 1.2240",
    # half minutes x $0.0015
    ("browserless/scale", "2026-11-21"): "0.0015 0.0015 0.0045 0.0150 0.1800 1.0800",
    # hours x $0.10
    ("hyperbrowser/x402", "2026-11-21"): "0.10 0.10 0.10 0.10 0.10 0.60",
    # seconds x $0.0000166667: 0.0000833335 (to even: ...334), 0.000500001, 0.0010166687, 0.00500001, 0.06000012, ...
    ("kernel/headless", "2026-11-21"): "0.000083334 0.000500001 0.001016669 0.00500001 0.06000012 0.36000072",
    # seconds x 8 x $0.0000166667 = $0.0001333336: x 5 = 0.000666668, x 61 = 0.0081333496, x 3600 = 0.48000096
    ("kernel/headful", "2026-11-21"): "0.000666668 0.004000008 0.00813335 0.04000008 0.48000096 2.88000576",
    # seconds x 48 x $0.0000166667 = $0.0008000016: x 5 = 0.004000008, x 61 = 0.0488000976, x 21600 = 17.28003456
    (
        "kernel/headful-gpu",
        "2026-11-21",
    ): "0.004000008 0.024000048 0.048800098 0.24000048 2.88000576 17.28003456",
    # minutes x $0.10 / 60
    ("steel/launch", "2026-11-21"): "0.001666667 0.001666667 0.003333333 0.008333333 0.10 0.60",
    # minutes x $0.08 / 60 = $0.00133333...: x 2 = 0.00266666..., x 5 = 0.00666666..., x 360 = 0.48
    ("steel/scale", "2026-11-21"): "0.001333333 0.001333333 0.002666667 0.006666667 0.08 0.48",
}

# The least of each column of the lists of today, read off the table.
CHEAPEST_OF_ALL = ("kernel/headless", *["browser-use/direct"] * 5)
# ... of some accounts that somebody may have: each wins somewhere.
SOME = ("anchor/credits", "browserless/scale", "kernel/headful", "steel/launch", "hyperbrowser/x402")
CHEAPEST_OF_SOME = (
    "kernel/headful",  # 0.000666668 before 0.0015 and 0.001666667
    "browserless/scale",  # 0.0015 before 0.001666667
    "steel/launch",  # 0.003333333 before 0.0045
    "steel/launch",  # 0.008333333 before 0.0150
    "anchor/credits",  # 0.10, as steel and hyperbrowser have: the platform's order decides
    "anchor/credits",  # 0.55 before 0.60
)


def instant(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def test_every_built_in_list_is_in_the_table():
    assert {(card.plan, card.effective_to is None) for card in all_cards()} == {
        (plan, day == "2026-11-21") for plan, day in TABLE
    }


@pytest.mark.parametrize(("plan", "day"), TABLE)
def test_the_expected_cost_of_a_certain_life_is_what_was_worked_out_by_hand(plan: str, day: str):
    card = find_card(plan, instant(day))
    found = [expected_cost(card, [(life * 1000, 7)]) for life in LIVES]
    assert found == [Money.parse(text) for text in TABLE[plan, day].split()]
    learnt = [Habits() for _ in LIVES]
    for habits, life in zip(learnt, LIVES, strict=True):
        for _ in range(100):
            habits.session_over(float(life), uses=1, received=0)
    assert [habits.cost_of_a_lease(card, longest=1e6) for habits in learnt] == found


@pytest.mark.parametrize("column", range(len(LIVES)))
def test_cheapest_picks_the_least_of_the_table(column: int):
    def winner(plans):
        return by_cost(
            Candidate(
                name=plan,
                position=place,
                cost=expected_cost(find_card(plan, NOW), [(LIVES[column] * 1000, 1)]),
            )
            for place, plan in enumerate(plans)
        )[0]

    everything = sorted(plan for plan, day in TABLE if day == "2026-11-21")
    assert winner(everything) == CHEAPEST_OF_ALL[column]
    assert winner(SOME) == CHEAPEST_OF_SOME[column]


def test_what_is_left_of_the_month_makes_a_list_cheap():
    """61 s are two minutes of $0.12 / 60 each; one of them is free, or both."""
    card = find_card("browserbase/developer", NOW)
    lives = [(61_000, 1)]
    assert expected_cost(card, lives) == Money.parse("0.004")
    assert expected_cost(card, lives, included_left={"time": 60_000}) == Money.parse("0.002")
    assert expected_cost(card, lives, included_left={"time": 10**9}) == ZERO


def test_lives_are_weighed_and_leases_share_the_bill():
    """Three of four sessions live 5 s, one 61 s: (3 x $0.002 + $0.004) / 4 = $0.0025; five leases: $0.0005."""
    card = find_card("browserbase/developer", NOW)
    lives = [(5_000, 3), (61_000, 1)]
    assert expected_cost(card, lives) == Money.parse("0.0025")
    assert expected_cost(card, lives, uses=5) == Money.parse("0.0005")


def test_before_anything_is_known_the_stated_prior_counts():
    """30, 60, 120 and 300 s are 1, 1, 2 and 5 minutes of $0.002: nine for four sessions."""
    card = find_card("browserbase/developer", NOW)
    assert PRIOR_SECONDS == (30, 60, 120, 300)
    habits = Habits()
    assert habits.cost_of_a_lease(card, longest=600) == Money.parse("0.0045")
    assert habits.cost_of_a_lease(card, longest=60) == Money.parse("0.002")
    habits.lease_over(119)
    assert habits.cost_of_a_lease(card, longest=600) == Money.parse("0.004")
    habits.session_over(299, uses=2, received=0)
    assert habits.cost_of_a_lease(card, longest=600) == Money.parse("0.005")


def test_traffic_counts_where_it_is_charged_for():
    habits = Habits()
    habits.session_over(60, uses=1, received=10_000_000)
    rates = {"per_hour": Decimal("0.06"), "per_gb": Decimal(10)}
    charged = card_from_settings(RateSettings(**rates, max_gb=Decimal(1)))
    assert habits.cost_of_a_lease(charged, longest=600) == Money.parse("0.101")
    none_of_it = card_from_settings(RateSettings(**rates, max_gb=Decimal(0)))
    assert habits.cost_of_a_lease(none_of_it, longest=600) == Money.parse("0.001")
    capped = card_from_settings(RateSettings(**rates, max_gb=Decimal("0.001")))
    assert habits.cost_of_a_lease(capped, longest=600) == Money.parse("0.011")


@given(st.lists(st.floats(-10, 1e9, allow_nan=False), max_size=300))
def test_lengths_are_bounded_and_stay_within_what_was_learnt(seconds: list[float]):
    points = Lengths(seconds).points()
    assert len(points) <= 150
    assert bool(points) == bool(seconds)
    limits = [min(max(0, round(s * 1000)), 31 * 86_400_000) for s in seconds]
    assert all(min(limits) <= ms <= max(limits) and weight > 0 for ms, weight in points)


@given(st.integers(0, 10**7), st.integers(1, 2000))
def test_a_length_that_is_always_the_same_stays_exact(ms: int, times: int):
    lengths, mean = Lengths(), Mean()
    for _ in range(times % 300 + 1):
        lengths.add(ms / 1000)
        mean.add(ms)
    assert [point for point, _ in lengths.points()] == [ms]
    assert mean.value == ms


def test_old_lengths_are_forgotten():
    lengths = Lengths([10.0] * 500)
    for _ in range(200):
        lengths.add(100.0)
    (_, old), (_, new) = lengths.points()
    assert Fraction(old, old + new) < Fraction(1, 20)


@given(
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 2**40)), min_size=1, max_size=20),
    st.sampled_from(all_cards()),
)
def test_an_expected_cost_lies_between_the_least_and_the_most(lives, card):
    bills = [price(card, ms / 1000) for ms, _ in lives]
    assert min(bills) <= expected_cost(card, lives) <= max(bills)
