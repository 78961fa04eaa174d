"""What is worth an alert, by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from tabkeeper.alerts.rules import Sample, judge
from tabkeeper.config import AlertSettings

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
RULES = AlertSettings()


def samples(*figures):
    return [Sample(at=NOON + timedelta(minutes=i), **one) for i, one in enumerate(figures)]


def kinds(*figures, rules=RULES):
    return [verdict.kind for verdict in judge(samples(*figures), rules)]


def test_a_quiet_pool_raises_nothing():
    assert judge([], RULES) == []
    assert kinds({}, {"creations": 100, "creations_failed": 5, "sessions": 10, "unhealthy": 2}) == []


@pytest.mark.parametrize(
    ("creations", "failed", "told"),
    [(100, 5, False), (100, 6, True), (9, 9, False), (10, 1, True), (20, 1, False)],
    ids=["five in a hundred", "six in a hundred", "too few to judge", "one in ten", "one in twenty"],
)
def test_more_than_five_in_a_hundred_creations_that_fail_are_an_alert(creations, failed, told):
    assert ("creation_failures" in kinds({}, {"creations": creations, "creations_failed": failed})) == told


def test_failures_of_an_earlier_window_are_not_told_again():
    old = Sample(at=NOON, creations=50, creations_failed=50)
    later = [
        Sample(at=NOON + timedelta(hours=2, minutes=i), creations=50 + 50 * i, creations_failed=50)
        for i in (0, 1)
    ]
    assert judge([old, *later], RULES) == []
    assert [v.kind for v in judge([old], RULES)] == ["creation_failures"]


def test_many_unhealthy_sessions_are_told_when_seen_twice():
    sick, well = {"sessions": 10, "unhealthy": 3}, {"sessions": 10, "unhealthy": 2}
    assert kinds(sick) == []
    assert kinds(well, sick) == []
    assert kinds(sick, sick) == ["unhealthy"]


def test_a_request_that_waits_longer_than_half_a_minute_is_told():
    assert kinds({"longest_wait": 30.0}) == []
    assert kinds({"longest_wait": 30.5}) == ["queue_wait"]


def test_all_processes_give_a_window_the_same_key_and_the_next_window_another():
    def key(minutes, zone=UTC):
        at = (NOON + timedelta(minutes=minutes)).astimezone(zone)
        return judge([Sample(at=at, longest_wait=99)], RULES)[0].key

    assert key(1) == key(59)
    assert key(59) != key(61)
