"""Prices worked out by hand, and the laws that hold for every price list."""

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.config import ProviderSettings, RateSettings
from tabkeeper.errors import ConfigError, NoPriceError
from tabkeeper.ledger.cards import all_cards, card_from_settings, card_of_provider, find_card
from tabkeeper.ledger.rates import (
    Component,
    Line,
    RateCard,
    accrued,
    is_free,
    lines,
    longest_within,
    price,
    rounding_part,
    worst_case,
)
from tabkeeper.money import ZERO, Money

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
GB = 10**9


def card(*components, **more):
    return RateCard(plan="test", effective_from=START, components=components, **more)


def hourly(per_hour="0.12", **more):
    return Component(kind="time", unit="hour", unit_price=Decimal(per_hour), per_qty=3_600_000, **more)


def traffic(per_gb="8", **more):
    return Component(kind="proxy_bytes", unit="GB", unit_price=Decimal(per_gb), per_qty=GB, **more)


LIVES = (5, 30, 61, 300, 3600, 21_600)

# Worked out by hand from the providers' pages: started minutes x rate / 60, started half minutes x price of a
# unit, seconds x GB x $0.0000166667. Nano-dollars beyond the ninth place are rounded half to even.
BY_HAND = {
    # 1, 1, 2, 5, 60, 360 minutes at $0.05 / 60 = $0.000833333..., plus $0.01 for the browser
    ("anchor/credits", "2026-08-01"): "0.010833333 0.010833333 0.011666667 0.014166667 0.06 0.31",
    # ... at $0.09 / 60 = $0.0015
    ("anchor/credits", "2026-10-06"): "0.0115 0.0115 0.013 0.0175 0.10 0.55",
    # ... at $0.02 / 60 = $0.000333333...
    ("browser-use/payg", "2026-11-21"): "0.000333333 0.000333333 0.000666667 0.001666667 0.02 0.12",
    ("browser-use/scaleup", "2026-11-21"): "0.000333333 0.000333333 0.000666667 0.001666667 0.02 0.12",
    ("browser-use/direct", "2026-11-21"): "0.000333333 0.000333333 0.000666667 0.001666667 0.02 0.12",
    # ... at $0.12 / 60 = $0.002
    ("browserbase/developer", "2026-11-21"): "0.002 0.002 0.004 0.01 0.12 0.72",
    # ... at $0.10 / 60 = $0.001666666...
    ("browserbase/startup", "2026-11-21"): "0.001666667 0.001666667 0.003333333 0.008333333 0.10 0.60",
    # 1, 1, 3, 10, 120, 720 units
    ("browserless/prototyping", "2026-11-21"): "0.0020 0.0020 0.0060 0.020 0.240 1.440",
    ("browserless/starter", "2026-11-21"): "0.0017 0.0017 0.0051 0.017 0.204 1.224",
    ("browserless/scale", "2026-11-21"): "0.0015 0.0015 0.0045 0.015 0.180 1.080",
    # 1, 1, 1, 1, 1, 6 whole hours in advance
    ("hyperbrowser/x402", "2026-11-21"): "0.10 0.10 0.10 0.10 0.10 0.60",
    # 5, 30, 61, 300, 3600, 21600 seconds x 1 GB: 83333.5, 500001, 1016668.7, ... nano-dollars
    ("kernel/headless", "2026-11-21"): "0.000083334 0.000500001 0.001016669 0.00500001 0.06000012 0.36000072",
    # ... x 8 GB: 666668, 4000008, 8133349.6, ...
    ("kernel/headful", "2026-11-21"): "0.000666668 0.004000008 0.00813335 0.04000008 0.48000096 2.88000576",
    # ... x 48 GB
    (
        "kernel/headful-gpu",
        "2026-11-21",
    ): "0.004000008 0.024000048 0.048800098 0.24000048 2.88000576 17.28003456",
    ("steel/launch", "2026-11-21"): "0.001666667 0.001666667 0.003333333 0.008333333 0.10 0.60",
    # 1, 1, 2, 5, 60, 360 minutes at $0.08 / 60 = $0.001333333...
    ("steel/scale", "2026-11-21"): "0.001333333 0.001333333 0.002666667 0.006666667 0.08 0.48",
}


@pytest.mark.parametrize(("plan", "day"), BY_HAND)
def test_every_built_in_list_charges_what_was_worked_out_by_hand(plan, day):
    found = find_card(plan, datetime.fromisoformat(f"{day}T00:00+00:00"))
    assert [price(found, life).text() for life in LIVES] == [
        Money.parse(text).text() for text in BY_HAND[plan, day].split()
    ]


def test_no_built_in_list_is_missing_from_the_table_above():
    assert {(c.plan, c.effective_from) for c in all_cards()} == {
        (plan, find_card(plan, datetime.fromisoformat(f"{day}T00:00+00:00")).effective_from)
        for plan, day in BY_HAND
    }


def test_built_in_lists_name_their_source_and_day_and_never_overlap():
    cards = all_cards()
    for one in cards:
        assert one.source.startswith("https://")
        assert one.checked_at == date(2026, 11, 20)
        assert one.effective_from.date() <= one.checked_at
        assert one.component("proxy_bytes") is not None or "not published" in one.note
    for one, following in pairwise(cards):
        if one.plan == following.plan:
            assert one.effective_to is not None
            assert one.effective_to <= following.effective_from
    assert len({c.fingerprint for c in cards}) == len(cards)


def test_the_dated_successor_takes_over_at_midnight_utc():
    change = datetime(2026, 10, 6, tzinfo=UTC)
    assert price(find_card("anchor/credits", change - timedelta(microseconds=1)), 3600) == Money.parse("0.06")
    assert price(find_card("anchor/credits", change), 3600) == Money.parse("0.10")


def test_an_unknown_plan_names_the_nearest_and_a_time_before_the_list_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'browserbase/developer'"):
        find_card("browserbase/develloper", NOW)
    with pytest.raises(NoPriceError, match="known only from 2026-07-10"):
        find_card("anchor/credits", datetime(2025, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("seconds", "billed"),
    [
        (0, 30_000), (0.001, 30_000), (1, 30_000), (29, 30_000), (29.999, 30_000), (30, 30_000),
        (30.000000000000004, 30_000), (30.001, 60_000), (31, 60_000), (60, 60_000), (60.001, 90_000),
    ],
)  # fmt: skip
def test_time_is_billed_in_started_steps(seconds, billed):
    (line,) = lines(card(hourly(increment_qty=30_000)), seconds)
    assert line.billed_qty == billed


def test_a_minimum_counts_before_and_stops_counting_after_it():
    minute = card(hourly("3.60", min_qty=60_000))
    assert [price(minute, s).text() for s in (0, 59.9, 60, 60.5)] == ["0.06", "0.06", "0.06", "0.0605"]


def test_a_bill_has_one_line_per_component_with_raw_and_billed_quantities():
    everything = card(
        Component(kind="session", unit="session", unit_price=Decimal("0.01")),
        hourly(increment_qty=60_000),
        traffic("8", increment_qty=1_000_000, min_qty=1_000_000),
        Component(kind="captcha", unit="captcha", unit_price=Decimal("0.003")),
    )
    assert lines(everything, 61.5, proxy_bytes=1_500_000, quantities={"captcha": 2}) == [
        Line(kind="session", raw_qty=1, billed_qty=1, amount=Money.parse("0.01")),
        Line(kind="time", raw_qty=61_500, billed_qty=120_000, amount=Money.parse("0.004")),
        Line(kind="proxy_bytes", raw_qty=1_500_000, billed_qty=2_000_000, amount=Money.parse("0.016")),
        Line(kind="captcha", raw_qty=2, billed_qty=2, amount=Money.parse("0.006")),
    ]


def test_no_traffic_costs_nothing_even_where_there_is_a_minimum():
    assert price(card(traffic(min_qty=1_000_000)), 60) == ZERO
    assert price(card(traffic(min_qty=1_000_000)), 60, proxy_bytes=1) == Money.parse("0.008")


def test_what_is_left_of_the_allowance_is_free_and_nothing_more():
    developer = find_card("browserbase/developer", NOW)
    (line, _) = lines(developer, 90, included_left={"time": 60_000})
    assert (line.billed_qty, line.included_qty, line.amount) == (120_000, 60_000, Money.parse("0.002"))
    assert price(developer, 90, included_left={"time": 10**12}) == ZERO
    assert price(developer, 90) == Money.parse("0.004"), "an allowance that nobody mentions is used up"
    no_allowance = card(hourly())
    assert price(no_allowance, 90, included_left={"time": 10**12}) == price(no_allowance, 90)


def test_the_part_owed_to_rounding_up_is_told_apart():
    minutes = card(hourly("3.60", increment_qty=60_000), traffic(increment_qty=1_000_000))
    bill = lines(minutes, 61, proxy_bytes=1)
    assert rounding_part(minutes, bill) == Money.parse("0.059") + Money.parse("0.008") - Money(8)
    assert rounding_part(minutes, lines(minutes, 120)) == ZERO
    some_free = card(hourly("3.60", increment_qty=60_000, included_qty=120_000))
    assert rounding_part(some_free, lines(some_free, 61, included_left={"time": 120_000})) == ZERO
    assert rounding_part(some_free, lines(some_free, 61, included_left={"time": 60_000})) == Money.parse(
        "0.059"
    )


def test_something_charged_by_quantity_without_a_cap_has_no_worst_case():
    with pytest.raises(NoPriceError, match=r"charges \$8 per GB of proxy_bytes .* set max_gb"):
        worst_case(card(hourly(), traffic()), 60)
    assert worst_case(card(hourly(), traffic("0")), 60) == Money.parse("0.002")
    assert worst_case(card(hourly(), traffic(cap_qty=GB)), 60) == Money.parse("8.002")
    assert worst_case(card(hourly(), traffic()).with_cap("proxy_bytes", 0), 60) == Money.parse("0.002")


def test_a_quantity_without_a_price_is_refused_unless_all_is_free():
    with pytest.raises(NoPriceError, match="no price for captcha"):
        lines(card(hourly()), 1, quantities={"captcha": 1})
    assert price(card(hourly("0")), 1, proxy_bytes=5) == ZERO
    with pytest.raises(NoPriceError, match="no price for proxy_bytes"):
        lines(find_card("hyperbrowser/x402", NOW), 1, proxy_bytes=1)


def test_only_a_list_of_zeros_is_free():
    assert is_free(card())
    assert is_free(card(hourly("0"), traffic("0")))
    assert not is_free(card(hourly("0"), traffic("0.01", cap_qty=0)))


def test_the_longest_life_is_zero_when_even_the_first_step_costs_too_much_and_endless_when_free():
    minutes = card(hourly(increment_qty=60_000))
    assert longest_within(minutes, Money.parse("0.001999999")) == 0
    assert longest_within(minutes, Money.parse("0.002")) == 60
    assert longest_within(minutes, Money.parse("0.0035")) == 60
    assert longest_within(card(hourly("0")), ZERO) == math.inf
    assert longest_within(card(Component(kind="session", unit="s", unit_price=Decimal(1))), ZERO) == 0


def test_own_rates_become_a_list():
    own = card_from_settings(
        RateSettings(
            per_session="0.01", per_hour="0.36", increment="30s", minimum="1m", per_gb="5", max_gb="0.1",
            included_hours="2.5",
        ),
        "lab",
    )  # fmt: skip
    assert own.plan == "lab"
    assert price(own, 31) == Money.parse("0.016")
    assert price(own, 61) == Money.parse("0.019")
    assert worst_case(own, 61) == Money.parse("0.519")
    assert own.component("time").included_qty == 9_000_000
    assert is_free(card_from_settings(RateSettings()))


def test_a_provider_is_priced_by_its_rates_or_plan_is_free_if_local_and_is_refused_otherwise():
    url = "ws://127.0.0.1:9222"
    assert is_free(card_of_provider("local", ProviderSettings(kind="local"), NOW))
    hosted = ProviderSettings(kind="cdp", url=url, plan="steel/launch", max_gb="0.001")
    assert worst_case(card_of_provider("steel", hosted, NOW), 60) == Money.parse("0.011666667")
    uncapped = ProviderSettings(kind="cdp", url=url, plan="steel/launch")
    with pytest.raises(NoPriceError, match="set max_gb"):
        worst_case(card_of_provider("steel", uncapped, NOW), 60)
    with pytest.raises(NoPriceError, match=r"providers\.lab\.rates"):
        card_of_provider("lab", ProviderSettings(kind="cdp", url=url), NOW)
    own = ProviderSettings(kind="cdp", url=url, rates=RateSettings(per_hour="1"))
    assert price(card_of_provider("lab", own, NOW), 3600) == Money.parse("1")


def test_a_card_survives_json_and_its_fingerprint_changes_with_prices_only():
    for one in all_cards():
        assert RateCard.from_json(one.to_json()) == one
        assert RateCard.from_json(one.to_json()).fingerprint == one.fingerprint
    plain = card(hourly())
    assert plain.fingerprint == card(hourly(), note="x", effective_to=NOW).fingerprint
    assert plain.fingerprint != card(hourly("0.13")).fingerprint
    assert plain.fingerprint != card(hourly(cap_qty=1)).fingerprint


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"format": 2}', '{"format": 1, "effective_to": null, "checked_at": null}']
)
def test_json_that_is_no_card_is_refused(text):
    with pytest.raises(ValueError, match="rate card"):
        RateCard.from_json(text)


def test_a_list_that_contradicts_itself_cannot_be_made():
    with pytest.raises(ValueError, match="priced twice"):
        card(hourly(), hourly())
    with pytest.raises(ValueError, match="ends before it begins"):
        card(effective_to=START)
    with pytest.raises(ValueError, match="time zone"):
        RateCard(plan="x", effective_from=datetime(2026, 1, 1))
    for wrong in ({"per_qty": 0}, {"increment_qty": 0}, {"min_qty": -1}, {"unit_price": Decimal("NaN")}):
        with pytest.raises(ValueError):
            Component(**{"kind": "time", "unit": "h", "unit_price": Decimal(1), **wrong})
    for wrong in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match="cannot live"):
            lines(card(hourly()), wrong)


prices = st.decimals(0, 1000, places=10)
steps = st.integers(1, 100_000)


@st.composite
def rate_cards(draw):
    parts = [
        Component(
            kind=draw(st.sampled_from(["time", "units", "gb_second"])), unit="u", unit_price=draw(prices),
            per_qty=draw(st.integers(1000, 4_000_000)), increment_qty=draw(steps),
            min_qty=draw(st.integers(0, 200_000)), included_qty=draw(st.integers(0, 10**9)),
        ),
        Component(
            kind="proxy_bytes", unit="GB", unit_price=draw(prices), per_qty=draw(st.integers(1000, 2 * GB)),
            increment_qty=draw(steps), min_qty=draw(st.integers(0, 2_000_000)), cap_qty=draw(st.integers(0, GB)),
        ),
    ]  # fmt: skip
    if draw(st.booleans()):
        parts.append(Component(kind="session", unit="session", unit_price=draw(prices)))
    return card(*draw(st.permutations(parts)))


lives = st.integers(0, 40_000_000).map(lambda ms: ms / 1000)


@given(rate_cards(), lives, lives)
def test_the_cost_accrued_never_falls_with_age(rates, one, other):
    younger, older = sorted((one, other))
    assert ZERO <= accrued(rates, 0) <= accrued(rates, younger) <= accrued(rates, older)


@given(rate_cards(), lives, lives, st.data())
def test_nothing_costs_more_than_the_worst_case(rates, one, other, data):
    life, longest = sorted((one, other))
    used = data.draw(st.integers(0, rates.component("proxy_bytes").cap_qty))
    assert price(rates, life, used) <= worst_case(rates, longest)


@given(rate_cards(), lives)
def test_the_longest_life_is_exact_to_the_millisecond(rates, life):
    cap = worst_case(rates, life)
    longest = longest_within(rates, cap)
    assert longest >= life
    if longest < math.inf:
        assert worst_case(rates, longest) <= cap < worst_case(rates, longest + 0.001)


@given(rate_cards(), lives, st.integers(0, GB), st.integers(0, 10**9))
def test_each_line_is_at_most_half_a_nano_dollar_off_the_exact_sum(rates, life, used, left):
    for line in lines(rates, life, proxy_bytes=used, included_left=dict.fromkeys(("time", "units"), left)):
        part = rates.component(line.kind)
        exact = Fraction(part.unit_price) * (line.billed_qty - line.included_qty) / part.per_qty * 10**9
        assert abs(exact - line.amount.nanos) <= Fraction(1, 2)
        assert line.billed_qty >= line.raw_qty
        assert 0 <= line.included_qty <= line.billed_qty
        assert line.billed_qty == part.min_qty or line.billed_qty % part.increment_qty == 0
    bill = lines(rates, life, proxy_bytes=used)
    assert ZERO <= rounding_part(rates, bill) <= Money(sum(line.amount.nanos for line in bill))


@given(rate_cards(), st.lists(lives, min_size=2, max_size=12))
def test_shares_of_leases_and_gaps_add_up_to_the_whole_cost(rates, ages):
    moments = sorted(ages)
    shares = [accrued(rates, b) - accrued(rates, a) for a, b in pairwise(moments)]
    assert all(share >= ZERO for share in shares)
    whole = accrued(rates, moments[0]).nanos + sum(share.nanos for share in shares)
    assert whole == price(rates, moments[-1]).nanos
