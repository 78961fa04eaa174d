"""How long idle sessions are kept: small cases worked by hand, and the meter against the exact price."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.ledger.rates import price
from tabkeeper.pool.gaps import BANDS, LEVELS, MIDS, Gaps, PastLease, band_of
from tabkeeper.pool.keep import MARGIN, Keeper
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import Lane, Session, Verdict

from .builders import a_card, platform_rules, pool_rules

SHOP = Lane("shop")


def decide(meter: Meter, *, gap: float, lease: float = 10.0, age: float = 10.0) -> Verdict:
    """Decide after thirty leases of one caller at a time, `gap` seconds apart."""
    keeper = Keeper(pool_rules({"shop": platform_rules("hosted")}), {"hosted": meter})
    pace = gap + lease
    keeper.gaps.replay(PastLease(SHOP, n * pace, n * pace, n * pace + lease) for n in range(30))
    now = 10_000.0
    session = Session(
        id="s1", lane=SHOP, provider="hosted", tenant="default", created_at=now - age, fresh_until=now + 1e6
    )
    return keeper.decide(session, now)


def test_with_a_fee_a_gap_that_costs_less_than_the_fee_is_waited_out_and_a_longer_one_is_not():
    meter = Meter(a_card(fee="0.02", per_hour="3.60"))  # twenty seconds cost the fee
    kept = decide(meter, gap=5)
    assert 5 < kept.until - kept.decided_at < 20
    assert decide(meter, gap=200).until == 10_000.0


def test_where_every_second_has_one_price_and_a_new_session_costs_no_more_nothing_is_kept():
    assert decide(Meter(a_card(fee="0", per_hour="3.60")), gap=1).until == 10_000.0


def test_time_that_is_paid_for_is_waited_out_and_the_session_ends_just_before_its_edge():
    by_minute = Meter(a_card(fee="0", per_hour="3.60", step_s=60))
    kept = decide(by_minute, gap=500, age=70)
    assert kept.until - kept.decided_at == pytest.approx(50 - MARGIN)
    at_least_a_minute = Meter(a_card(fee="0", per_hour="3.60", least_s=60))
    kept = decide(at_least_a_minute, gap=500, age=10)
    assert kept.until - kept.decided_at == pytest.approx(50 - MARGIN)


@given(
    age=st.integers(0, 10_000_000).map(lambda ms: ms / 1000),
    step=st.sampled_from([0, 1, 30, 60]),
    least=st.sampled_from([0, 45, 60]),
)
def test_the_meter_agrees_with_the_exact_price(age: float, step: int, least: int):
    card = a_card(step_s=step, least_s=least)
    meter = Meter(card)
    assert meter.bill(age) == pytest.approx(price(card, age).nanos, abs=2000)
    until = meter.paid_until(age)
    assert until >= age - 1e-6
    assert meter.bill(until) == pytest.approx(meter.bill(age))
    assert meter.bill(until + 0.01) > meter.bill(age)


def test_places_that_many_leases_at_once_need_are_told_apart_by_how_many():
    """Of nine at once the last leaves for ten seconds and comes again; all but three leave for a quarter of an hour."""
    gaps, lane, now = Gaps(), Lane("shop"), 0.0
    for _ in range(9):
        gaps.started(lane, now)
    for _ in range(12):
        for _ in range(5):
            gaps.ended(lane, now + 5, 5.0)
            now += 15
            gaps.started(lane, now)
        for _ in range(6):
            gaps.ended(lane, now + 1, 5.0)
        now += 900
        for _ in range(6):
            gaps.started(lane, now)

    def soon(level: int) -> float:
        law = gaps.law(lane, level, [1 / len(MIDS)] * len(MIDS))
        assert sum(law) == pytest.approx(1)
        return sum(chance for chance, gap in zip(law, MIDS, strict=True) if gap < 30)

    assert soon(8) > 0.7, "five of six gaps of the ninth place are short"
    assert soon(3) < 0.2, "the fourth place is never needed again so soon"


def test_bands_of_levels_follow_each_other_and_the_last_takes_all_that_is_higher():
    bands = [band_of(level) for level in range(300)]
    assert bands[: LEVELS + 1] == [0, 1, 2, 3]
    assert bands == sorted(bands)
    assert set(bands) == set(range(BANDS))
    assert [bands.count(band) for band in range(4, 10)] == [2, 2, 4, 4, 8, 8]
