"""Dividing a bill: nothing is lost, nobody pays less than nothing, whatever the ages say."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.config import RateSettings
from tabkeeper.ledger.cards import card_from_settings
from tabkeeper.ledger.rates import price
from tabkeeper.ledger.shares import divide
from tabkeeper.money import ZERO, Money

BY_MINUTE = card_from_settings(
    RateSettings.model_validate(
        {"per_hour": "0.60", "increment": "1m", "minimum": "1m", "per_session": "0.03"}
    )
)


def _cents(amounts):
    return [amount.nanos / 10_000_000 for amount in amounts]


def test_the_first_lease_bears_fee_and_minimum_and_whoever_starts_a_minute_pays_it():
    shares, idle = divide(BY_MINUTE, price(BY_MINUTE, 290), 290, [(2, 50), (61, 118), (119, 130)])
    assert _cents(shares) == [4, 0, 1]
    # Minute 2 was begun between the leases, 4 and 5 after them.
    assert _cents([idle]) == [3]


def test_without_a_lease_everything_is_idle():
    assert divide(BY_MINUTE, price(BY_MINUTE, 90), 90, []) == ([], Money.parse("0.05"))


def test_a_free_session_has_free_shares():
    assert divide(BY_MINUTE, ZERO, 90, [(0, 10)]) == ([ZERO], ZERO)


def test_a_bill_other_than_the_meter_scales_all_shares():
    shares, idle = divide(BY_MINUTE, Money.parse("0.10"), 120, [(0, 60), (60, 90)])
    assert _cents(shares) == [8, 2]
    assert idle == ZERO


def test_a_bill_of_traffic_alone_is_shared_by_those_who_were_there():
    card = card_from_settings(RateSettings(per_gb=Decimal(8), max_gb=Decimal(1)))
    assert divide(card, Money(7), 60, [(0, 1), (1, 2)]) == ([Money(4), Money(3)], ZERO)
    assert divide(card, Money(7), 60, []) == ([], Money(7))


@given(
    cost=st.integers(0, 10**12).map(Money),
    seconds=st.floats(0, 10_000),
    ages=st.lists(st.tuples(st.floats(0, 20_000), st.floats(0, 20_000)), max_size=8),
)
def test_shares_and_idle_are_the_cost_whatever_the_ages_say(cost, seconds, ages):
    shares, idle = divide(BY_MINUTE, cost, seconds, ages)
    assert sum((share.nanos for share in shares), idle.nanos) == cost.nanos
    assert min([idle, *shares]) >= ZERO
