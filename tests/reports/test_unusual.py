"""Hours that cost far from what they usually do are named; ordinary ones, and those nothing is known of, are not."""

import io
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tabkeeper.ledger.instants import micros
from tabkeeper.ledger.windows import window_of_date
from tabkeeper.reports.figures import HourSums
from tabkeeper.reports.html.page import render_html
from tabkeeper.reports.render_table import WIDTH, render_table
from tabkeeper.reports.unusual import WEEKS, unusual_days, unusual_hours

from .test_daily import report

DAY = date(2026, 11, 18)
OFF = [0, 30, -20, 10, -40, 25, 5, -15]


def told(costs, now=None, zone="UTC", since=None, day=DAY):
    """Tell of a day; `costs` gives an hour's nano-dollars by its local time and how many weeks ago it was."""
    place = ZoneInfo(zone)
    window = window_of_date("day", zone, day)
    hours = {}
    for week in range(WEEKS + 1):
        then = window_of_date("day", zone, day - timedelta(weeks=week))
        at = then.start
        while at < then.end:
            cost = costs(at.astimezone(place).hour, week)
            hours[micros(at)] = {"one": HourSums(cost_n=cost, sessions=1)}
            at += timedelta(hours=1)
    return unusual_hours(hours, window, now or window.end, place, since or datetime(2020, 1, 1, tzinfo=UTC))


def steady(_hour, week):
    return 1000 + (OFF[week - 1] if week else 0)


def test_a_wild_hour_is_named_with_what_is_usual_and_ordinary_ones_are_not():
    assert told(steady) == ()
    (one,) = told(lambda hour, week: 9000 if (hour, week) == (14, 0) else steady(hour, week))
    assert (one.label, one.cost.nanos, one.weeks) == ("14:00", 9000, 8)
    assert 960 <= one.usual.nanos <= 1030
    assert one.off > 50
    (less,) = told(lambda hour, week: 10 if (hour, week) == (3, 0) else steady(hour, week))
    assert less.off < -3.5


def test_one_session_more_in_a_quiet_hour_is_nothing_to_tell_of():
    def costs(hour, week):
        usual = 100 if hour == 3 else 1000
        return 3 * usual if (hour, week) == (3, 0) else usual

    assert told(costs) == ()
    (one,) = told(lambda hour, week: 1000 if (hour, week) == (3, 0) else costs(hour, week))
    assert one.label == "03:00"


def test_one_wild_week_in_the_past_neither_hides_a_wild_hour_nor_makes_others_look_wild():
    def costs(hour, week):
        return 50_000 if week == 3 else 9000 if (hour, week) == (14, 0) else steady(hour, week)

    assert [one.label for one in told(costs)] == ["14:00"]


def test_hours_that_are_not_over_and_pasts_that_are_too_short_are_not_judged():
    def wild(_hour, week):
        return 9000 if week == 0 else steady(0, week)

    noon = datetime(2026, 11, 18, 12, 30, tzinfo=UTC)
    assert {one.label for one in told(wild, now=noon)} == {f"{hour:02}:00" for hour in range(12)}
    four = datetime(2026, 11, 18, tzinfo=UTC) - timedelta(weeks=4)
    assert told(wild, since=four) == ()
    assert told(lambda hour, week: 0 if week else 5000) == ()  # nothing was ever spent then


@pytest.mark.parametrize("day", [date(2026, 11, 1), date(2026, 3, 8)])
def test_a_day_on_which_clocks_change_is_compared_by_the_clock(day):
    found = told(lambda hour, _week: 1000 * (hour + 1), zone="America/New_York", day=day)
    assert {one.label for one in found} <= {"01:00", "02:00", "03:00"}


@given(st.integers(1, 10**12), st.integers(1, 8))
@settings(max_examples=20)
def test_a_past_that_is_always_the_same_is_not_unusual_at_any_size(cost, weeks):
    since = datetime(2026, 11, 18, tzinfo=UTC) - timedelta(weeks=weeks)
    assert told(lambda _hour, _week: cost, since=since) == ()


def days_told(costs, now=None, zone="UTC", since=None):
    """Tell of November; `costs` gives a day's nano-dollars by its date."""
    hours, at = {}, datetime(2026, 8, 20, tzinfo=UTC)
    while at < datetime(2026, 12, 2, tzinfo=UTC):
        local = at.astimezone(ZoneInfo(zone))
        hours[micros(at)] = {
            "one": HourSums(cost_n=costs(local.date()) if local.hour == 12 else 0, sessions=1)
        }
        at += timedelta(hours=1)
    window = window_of_date("month", zone, DAY)
    past = since or datetime(2020, 1, 1, tzinfo=UTC)
    return unusual_days(hours, window, now or window.end, ZoneInfo(zone), past)


def weekly(day):
    """More on some weekdays than on others, and never quite the same."""
    return 1000 * (1 + day.weekday()) + day.day


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])  # clocks change there on 1 November
def test_a_wild_day_of_a_month_is_named_and_one_dearer_weekday_is_not(zone):
    assert days_told(weekly, zone=zone) == ()
    (one,) = days_told(lambda day: 9999 if day == DAY else weekly(day), zone=zone)
    assert (one.label, one.cost.nanos, one.weeks) == ("2026-11-18", 9999, 8)
    assert 3000 < one.usual.nanos < 3032
    (none,) = days_told(lambda day: 0 if day == DAY else weekly(day), zone=zone)
    assert none.off < -3.5


def test_of_a_month_only_days_are_judged_that_are_over_and_whose_past_is_known():
    def wild(day):
        return 9 * weekly(day) if day.month == 11 else weekly(day)

    noon = datetime(2026, 11, 3, 12, tzinfo=UTC)
    assert sorted(one.label for one in days_told(wild, now=noon)) == ["2026-11-01", "2026-11-02"]
    assert days_told(wild, now=datetime(2026, 10, 3, tzinfo=UTC)) == ()
    assert days_told(wild, since=datetime(2026, 10, 20, tzinfo=UTC)) == ()
    assert days_told(wild, zone="Asia/Kathmandu") == ()  # its days do not begin on a whole hour of UTC


async def test_page_and_terminal_tell_of_them(golden):
    (hour,) = told(lambda hour, week: 10**9 if (hour, week) == (14, 0) else steady(hour, week) * 1000)
    (day,) = days_told(lambda day: 10**9 if day == DAY else weekly(day))
    for period, title, name, one in (
        ("day", "Unusual hours", "14:00", hour),
        ("month", "Unusual days", "Wed 2026-11-18", day),
    ):
        plain = report(golden, period=period, day=date(2026, 11, 2))
        assert plain.unusual == ()  # five weeks are not known yet
        found = plain.model_copy(update={"unusual": (one,)})
        screen = io.StringIO()
        Console(file=screen, width=WIDTH).print(render_table(found))
        assert title not in render_html(plain)
        for shown in (render_html(found), screen.getvalue()):
            assert all(word in shown for word in (title, name, "$1.0", f"{one.off:+.1f}")), shown


async def test_a_month_is_compared_with_eight_weeks_before_its_beginning(story):
    wednesday = datetime(2026, 9, 2, 12, tzinfo=UTC)
    while wednesday < datetime(2026, 12, 1, tzinfo=UTC):
        for _ in range(9 if wednesday.day == 4 else 1):
            await story.session(wednesday)
            wednesday += timedelta(minutes=2)
        wednesday = wednesday.replace(minute=0) + timedelta(weeks=1)
    story.at(datetime(2026, 12, 3, tzinfo=UTC))
    await story.ledger.flush()
    (one,) = report(story, period="month", day=date(2026, 11, 30)).unusual
    assert (one.label, one.weeks, one.cost.nanos) == ("2026-11-04", 8, 9 * one.usual.nanos)
