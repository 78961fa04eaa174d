"""Days, weeks and months of every zone follow each other without gap or overlap."""

import os
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.ledger.windows import (
    FIRST_INSTANT,
    LAST_INSTANT,
    window_bounds,
    window_of_date,
    windows_between,
)

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
ZONES = sorted(available_timezones() - {"localtime"})
ODD = [
    "Africa/Cairo", "America/Havana", "America/New_York", "America/Sao_Paulo", "America/St_Johns", "Antarctica/Troll",
    "Asia/Amman", "Asia/Gaza", "Asia/Kathmandu", "Asia/Tehran", "Atlantic/Azores", "Australia/Lord_Howe",
    "Europe/Berlin", "Pacific/Apia", "Pacific/Chatham", "Pacific/Fakaofo",
]  # fmt: skip
NEVER_HAPPENED = date(2011, 12, 30)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def hours(window):
    return (window.end - window.start) / timedelta(hours=1)


def check_days(zone, first_year, last_year):
    """Walk all days of a zone; return their lengths in hours and the dates that never happened."""
    place = ZoneInfo(zone)
    day, lengths, missing = date(first_year, 1, 1), set(), set()
    end = window_of_date("day", place, day).start
    walk = windows_between("day", place, end, window_of_date("day", place, date(last_year + 1, 1, 1)).start)
    for window in walk:
        assert window.start == end
        end = window.end
        while window.label != day.isoformat():
            missing.add(day)
            day += timedelta(days=1)
        lengths.add(hours(window))
        day += timedelta(days=1)
    assert day == date(last_year + 1, 1, 1)
    return lengths, missing


ALLOWED = {21, 22, 23, 23.5, 24, 24.5, 25, 26, 27}


def test_the_days_of_every_zone_partition_time():
    first, last = (2005, 2034) if PROOF else (2025, 2026)
    seen, count = set(), 0
    for zone in ZONES:
        lengths, missing = check_days(zone, first, last)
        seen |= lengths
        count += 1
        assert missing == (
            {NEVER_HAPPENED} if PROOF and zone in {"Pacific/Apia", "Pacific/Fakaofo"} else set()
        ), zone
    assert seen <= ALLOWED
    assert count >= 590


@pytest.mark.parametrize("zone", ODD)
def test_the_days_of_odd_zones_partition_thirty_years(zone):
    lengths, missing = check_days(zone, 2005, 2034)
    assert lengths <= ALLOWED
    assert missing == ({NEVER_HAPPENED} if zone in {"Pacific/Apia", "Pacific/Fakaofo"} else set())


@pytest.mark.parametrize("period", ["week", "month"])
@pytest.mark.parametrize("zone", ODD)
def test_weeks_and_months_partition_thirty_years_too(zone, period):
    end = utc(2005, 1, 1)
    for window in windows_between(period, zone, end, utc(2035, 1, 1)):
        assert window.start == end or window.start < utc(2005, 1, 1)
        end = window.end
        local = window.start.astimezone(ZoneInfo(zone))
        assert local.weekday() == 0 if period == "week" else local.day == 1
    assert end >= utc(2035, 1, 1)


def test_a_date_that_never_happened_is_empty_and_no_instant_falls_on_it():
    for zone in ("Pacific/Apia", "Pacific/Fakaofo"):
        skipped = window_of_date("day", zone, NEVER_HAPPENED)
        assert skipped.start == skipped.end
        assert window_bounds("day", zone, skipped.start).label == "2011-12-31"
        assert window_bounds("day", zone, skipped.start - timedelta(microseconds=1)).label == "2011-12-29"


@pytest.mark.parametrize(
    ("zone", "day", "length"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Australia/Lord_Howe", "2026-10-04", 23.5),
        ("Antarctica/Troll", "2026-03-29", 22),
        ("Africa/Cairo", "2026-04-24", 23),
        ("UTC", "2028-02-29", 24),
        ("Asia/Kathmandu", "2026-11-21", 24),
    ],
)
def test_days_have_the_length_of_their_clock_changes(zone, day, length):
    assert hours(window_of_date("day", zone, date.fromisoformat(day))) == length


def test_the_leap_day_is_a_day_and_lengthens_its_month():
    assert window_bounds("day", "UTC", utc(2028, 2, 29, 12)).label == "2028-02-29"
    assert hours(window_bounds("month", "UTC", utc(2028, 2, 29, 12))) == 29 * 24
    assert hours(window_bounds("month", "UTC", utc(2026, 2, 28, 12))) == 28 * 24


def test_an_hour_that_repeats_across_midnight_stays_in_the_day_it_began_in():
    """In Newfoundland the clocks of 2010-11-07 went back at 00:01, to 23:01 of the day before."""
    day = window_of_date("day", "America/St_Johns", date(2010, 11, 7))
    again_yesterday = day.start + timedelta(minutes=30)
    assert again_yesterday.astimezone(ZoneInfo("America/St_Johns")).day == 6
    assert window_bounds("day", "America/St_Johns", again_yesterday) == day


def test_weeks_begin_on_monday_and_carry_the_iso_year():
    week = window_bounds("week", "Europe/Berlin", utc(2027, 1, 1, 12))
    assert (week.label, week.start, week.end) == ("2026-W53", utc(2026, 12, 27, 23), utc(2027, 1, 3, 23))


def test_a_budget_in_total_has_one_window():
    assert window_bounds("total", "Asia/Tokyo", utc(2026, 11, 21)) == window_of_date(
        "total", "UTC", date(2030, 1, 1)
    )
    (only,) = windows_between("total", "UTC", utc(2026, 1, 1), utc(2027, 1, 1))
    assert (only.start, only.end, only.label) == (FIRST_INSTANT, LAST_INSTANT, "total")
    assert not list(windows_between("total", "UTC", utc(2026, 1, 1), utc(2026, 1, 1)))


@given(
    st.sampled_from(ZONES),
    st.sampled_from(["day", "week", "month", "total"]),
    st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
)
def test_every_instant_is_in_its_window_and_the_window_is_found_from_both_its_ends(zone, period, instant):
    window = window_bounds(period, zone, instant)
    assert instant in window
    assert window.end not in window
    assert window_bounds(period, zone, window.start) == window
    assert window_bounds(period, zone, window.end - timedelta(microseconds=1)) == window
    if period != "total":
        assert window_bounds(period, zone, window.end).start == window.end
        assert next(iter(windows_between(period, zone, instant, window.end))) == window
