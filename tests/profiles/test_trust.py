"""Trust: the whole table against the formula written once more, in integers, and what holds for any rules."""

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.config import ProfileSettings, TrustSettings, parse_config
from tabkeeper.errors import ConfigError
from tabkeeper.profiles.trust import Grade, Record, judge, score

DEFAULT = TrustSettings()


def by_hand(age: int, failures: int, uses: int, recent: bool) -> Fraction:
    """The requirement's words: minutes of age, whole counts."""
    twice = 200
    twice -= max(age - 60, 0)
    twice -= 2 * 15 * failures
    twice += 2 * 20 if recent else 0
    twice -= 2 * max(uses - 50, 0)
    return Fraction(max(0, min(200, twice)), 2)


def a_record(age: float = 0, failures: int = 0, uses: int = 0, success: float | None = None) -> Record:
    return Record(
        age=timedelta(minutes=age),
        failures=failures,
        uses=uses,
        since_success=None if success is None else timedelta(minutes=success),
    )


def test_the_whole_table_is_the_formula_s():
    for age in range(181):
        for failures in range(5):
            for uses in range(151):
                for recent in (True, False):
                    record = a_record(age, failures, uses, 5 if recent else 5.01)
                    expected = by_hand(age, failures, uses, recent)
                    assert score(record, DEFAULT) == expected
                    if uses % 10 == 0:
                        grade = judge(record, DEFAULT).grade
                        over = age >= 120 or failures >= 3 or (uses >= 100 and failures > 0)
                        if over or expected < 40:
                            assert grade is Grade.RETIRED
                        else:
                            assert grade is (Grade.HEALTHY if expected >= 70 else Grade.DEGRADED)


@pytest.mark.parametrize(
    ("record", "points", "grade"),
    [
        (a_record(), 100, "healthy"),
        (a_record(age=60), 100, "healthy"),
        (a_record(age=119.98), 70.01, "healthy"),
        (a_record(age=120), 70, "retired"),
        (a_record(failures=2), 70, "healthy"),
        (a_record(age=62, failures=2), 69, "degraded"),
        (a_record(failures=3, success=1), 75, "retired"),
        (a_record(uses=110), 40, "degraded"),
        (a_record(uses=111), 39, "retired"),
        (a_record(uses=100, success=0), 70, "healthy"),
        (a_record(uses=100, failures=1, success=0), 55, "retired"),
        (a_record(age=100, uses=90, failures=2), 10, "retired"),
    ],
)
def test_worked_examples(record, points, grade):
    assert score(record, DEFAULT) == pytest.approx(points)
    assert judge(record, DEFAULT).grade == grade


records = st.builds(
    a_record,
    age=st.floats(0, 10_000),
    failures=st.integers(0, 50),
    uses=st.integers(0, 500),
    success=st.none() | st.floats(0, 100),
)
points = st.floats(0, 100, width=16)
rules = st.builds(
    lambda low, high, **rest: TrustSettings(degraded=min(low, high), healthy=max(low, high), **rest),
    low=points,
    high=points,
    start=points,
    age_penalty=points,
    failure_penalty=points,
    recent_bonus=points,
    use_penalty=points,
    free_uses=st.integers(0, 300),
    max_failures=st.integers(1, 9),
)


@given(records, rules)
def test_trust_stays_within_its_bounds_and_a_hard_limit_always_ends_it(record, rules):
    assert 0 <= score(record, rules) <= 100
    if record.age >= rules.max_age or record.failures >= rules.max_failures:
        assert judge(record, rules).grade is Grade.RETIRED
    assert bool(judge(record, rules).why) == (judge(record, rules).grade is Grade.RETIRED)


@given(records, rules, st.floats(0, 100), st.integers(0, 10), st.integers(0, 10))
def test_nothing_that_speaks_against_a_profile_ever_helps_it(record, rules, older, failures, uses):
    worse = Record(
        age=record.age + timedelta(minutes=older),
        failures=record.failures + failures,
        uses=record.uses + uses,
        since_success=None,
    )
    assert score(worse, rules) <= score(record, rules)
    order = list(Grade)
    assert order.index(judge(worse, rules).grade) >= order.index(judge(record, rules).grade)


def test_a_site_s_own_values_win_and_the_rest_is_taken_from_all():
    settings = parse_config(
        {"profiles": {"max_failures": 5, "sites": {"Shop.example.com": {"max_age": "10m"}}}}
    ).profiles
    shop, other = settings.trust_for("shop.example.com"), settings.trust_for("other.com")
    assert (shop.max_age, shop.max_failures) == (timedelta(minutes=10), 5)
    assert (other.max_age, other.max_failures) == (timedelta(hours=2), 5)
    assert ProfileSettings().trust_for("other.com") == DEFAULT


@pytest.mark.parametrize(
    ("profiles", "says"),
    [
        ({"healthy": 30}, "degraded"),
        ({"sites": {"https://a.com/x": {}}}, "without https://"),
        ({"sites": {"a.com": {"healthy": 10}}}, "degraded"),
        ({"sites": {"a.com": {"max_agee": "1h"}}}, "max_agee"),
    ],
)
def test_mistakes_are_told(profiles, says):
    with pytest.raises(ConfigError, match=says):
        parse_config({"profiles": profiles})
