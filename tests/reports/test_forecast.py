"""Forecasts stay inside their window, keep their order, and say when they know too little."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.ledger.windows import window_bounds
from tabkeeper.money import ZERO, Money
from tabkeeper.reports.forecast import NEEDED_DAYS, Past, back_test, forecast

BERLIN, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
NOW = datetime(2026, 11, 18, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def steady(cost=1000, days=35, now=NOW):
    start = now.replace(minute=0, hour=0) - timedelta(days=days)
    return {start + HOUR * n: cost for n in range(int((now - start) / HOUR))}


def past(costs, now=NOW, zone=UTC_ZONE, since=None):
    return Past(costs, since=since or min(costs, default=None), now=now, zone=zone)


def outlook(history, period="day", spent=ZERO, held=ZERO):
    window = window_bounds(period, history.zone, history.now)
    return forecast(start=window.start, end=window.end, spent=spent, past=history, held=held)


def test_a_steady_past_is_expected_to_go_on_and_leaves_no_doubt():
    found = outlook(past(steady()), spent=Money(12_500))
    assert found.p10 == found.p50 == found.p90 == Money(24_000)
    assert found.run_rate == Money(24_000)
    assert found.is_forecast


def test_the_month_is_forecast_to_its_own_end():
    found = outlook(past(steady()), "month", spent=Money(1000 * (17 * 24 + 12) + 500))
    assert found.p50 == Money(30 * 24 * 1000)


@pytest.mark.parametrize("days", range(NEEDED_DAYS))
def test_fewer_than_seven_closed_days_give_a_run_rate_and_no_forecast(days):
    found = outlook(past(steady(days=days)), spent=Money(12_500))
    assert found.closed_days == days
    assert not found.is_forecast
    assert (found.p10, found.p50, found.p90) == (None, None, None)
    assert found.run_rate == Money(24_000)


def test_the_seventh_closed_day_is_enough_and_a_day_begun_late_is_not_whole():
    assert outlook(past(steady(days=7))).is_forecast
    costs = steady(days=7)
    assert not outlook(past(costs, since=min(costs) + HOUR)).is_forecast


def test_an_empty_ledger_knows_nothing():
    found = outlook(past({}))
    assert (found.closed_days, found.p50, found.run_rate) == (0, None, ZERO)


def test_the_rate_counts_from_the_first_session_and_not_from_a_beginning_that_nobody_saw():
    since = NOW - timedelta(hours=2)
    history = past({since.replace(minute=0): 1000}, since=since)
    assert outlook(history, spent=Money(1000)).run_rate == Money(1000 * 27 // 4), "2 hours of 13 and a half"
    assert outlook(history, "month", spent=Money(1000)).run_rate == Money(1000 * (27 + 48 * 12) // 4)
    just_now = past({NOW.replace(minute=0): 1000}, since=NOW - timedelta(seconds=3599))
    assert outlook(just_now, spent=Money(1000)).run_rate is None, (
        "minutes of a first try are no rate for a month"
    )


def test_the_first_minute_has_no_run_rate():
    midnight = NOW.replace(hour=0, minute=0)
    assert outlook(past(steady(now=midnight), now=midnight)).run_rate is None


def test_weekdays_are_told_apart():
    """Only Mondays cost anything; on a Sunday evening the week's Monday is expected, the rest is not."""
    sunday = datetime(2026, 11, 15, 18, tzinfo=UTC)
    costs = {hour: 7000 if hour.weekday() == 0 else 0 for hour in steady(now=sunday)}
    month = outlook(past(costs, now=sunday), "month")
    assert month.p50 == Money(7000 * 24 * 3), "the 16th, the 23rd and the 30th"
    assert outlook(past(costs, now=sunday)).p50 == ZERO


def test_one_wild_hour_moves_the_upper_edge_and_not_the_middle():
    costs = steady()
    wild = NOW.replace(hour=20, minute=0) - timedelta(weeks=1)
    costs[wild] = 1_000_000
    found = outlook(past(costs), spent=Money(12_500))
    assert found.p50 == Money(24_000)
    assert found.p90 > found.p50


def test_holds_count_in_the_upper_edge_only():
    found = outlook(past(steady()), spent=Money(12_500), held=Money(777))
    assert (found.p50, found.p90) == (Money(24_000), Money(24_777))


def test_a_window_that_is_over_is_known():
    history = past(steady())
    found = forecast(start=NOW - 2 * HOUR, end=NOW, spent=Money(5), past=history, held=Money(9))
    assert (found.p10, found.p50, found.p90) == (Money(5),) * 3


def test_what_comes_after_the_present_is_not_history():
    costs = steady()
    costs[NOW.replace(minute=0) + HOUR] = 10**12
    assert outlook(past(costs)).p90 < Money(10**11)


@given(
    st.lists(st.integers(0, 10**10), min_size=1, max_size=40),
    st.integers(0, 40 * 24 * 60),
    st.integers(0, 10**12),
    st.integers(0, 10**11),
    st.sampled_from(["day", "month"]),
    st.sampled_from([BERLIN, UTC_ZONE, ZoneInfo("Asia/Kolkata"), ZoneInfo("America/New_York")]),
)
def test_the_band_is_in_order_and_never_below_what_was_spent(pattern, minutes, spent, held, period, zone):
    now = datetime(2026, 10, 20, tzinfo=UTC) + timedelta(minutes=minutes)
    begin = datetime(2026, 9, 20, tzinfo=UTC)
    hours = int((now - begin) / HOUR)
    costs = {begin + HOUR * n: pattern[n % len(pattern)] for n in range(hours)}
    found = outlook(past(costs, now=now, zone=zone), period, Money(spent), Money(held))
    assert Money(spent) <= found.p10 <= found.p50 <= found.p90
    ceiling = spent + held + max(pattern) * 2 * 24 * 32
    assert found.p90.nanos <= ceiling
    assert found == outlook(past(costs, now=now, zone=zone), period, Money(spent), Money(held)), (
        "no chance in it"
    )


def test_the_back_test_of_steady_traffic_is_off_by_nothing_and_of_a_doubling_by_half():
    zone, since = BERLIN, datetime(2026, 8, 31, 22, tzinfo=UTC)
    now = since + timedelta(days=50, hours=15, minutes=20)
    hours = [since + timedelta(hours=n) for n in range(51 * 24)]
    steady = {hour: 1_000_000 + hour.hour for hour in hours}
    found = back_test(steady, since=since, now=now, zone=zone)
    assert found is not None
    assert (found.days, found.error, found.bias, found.covered) == (14, 0.0, 0.0, 14)
    last = now - timedelta(days=8)
    grown = {hour: cost * (2 if hour > last else 1) for hour, cost in steady.items()}
    missed = back_test(grown, since=since, now=now, zone=zone)
    assert missed is not None
    assert missed.error == -missed.bias > 0.05
    assert missed.covered < 14
    assert back_test(steady, since=now - timedelta(days=6), now=now, zone=zone) is None
    assert back_test({}, since=since, now=now, zone=zone) is None
