"""The demo's work list: the extract is what it says it is, and the tasks made of it can be made again."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest

from tabkeeper.demo.trace import KNOTS, LONGEST, PLATFORMS, SHORTEST, TENANTS, make_tasks, rows

SHA256 = "91401a3578b1cd5ce1b450ef88e029e778011299b49c45e39e114162c6c4230c"


def test_the_extract_is_unchanged_and_says_where_it_is_from():
    data = files("tabkeeper.demo").joinpath("trace.csv").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    head = data.decode().split("arrival_s")[0]
    for fact in (
        "Azure Functions Invocation Trace 2019",
        "Shahrad",
        "Microsoft",
        "CC BY 4.0",
        "Derived",
        "invitro",
    ):
        assert fact in head


def test_the_extract_is_240_tasks_in_order_of_arrival():
    found = rows()
    assert len(found) == 240
    assert found[0] == (0.0, 0, 11.0)
    assert [row[0] for row in found] == sorted(row[0] for row in found)
    assert all(1 <= duration <= 1800 for _, _, duration in found)


def test_the_same_seed_makes_the_same_tasks_and_another_draws_anew():
    assert make_tasks(60, 1) == make_tasks(60, 1)
    assert make_tasks(60, 1) != make_tasks(60, 2)
    assert [t.arrives for t in make_tasks(60, 1)] == [t.arrives for t in make_tasks(60, 2)]


def test_sixty_tasks_have_every_platform_tenant_and_mixed_priorities():
    tasks = make_tasks(60, 2019)
    assert {t.platform for t in tasks} == set(PLATFORMS)
    assert {t.tenant for t in tasks} == set(TENANTS)
    assert len({t.priority for t in tasks}) >= 3
    assert max(t.arrives for t in tasks) == pytest.approx(KNOTS[-1][1])
    assert all(SHORTEST <= t.seconds <= LONGEST for t in tasks)


@pytest.mark.parametrize("count", [1, 2, 3, 12, 59, 60, 61, 240])
def test_tasks_arrive_one_after_the_other_from_the_start(count: int):
    arrivals = [t.arrives for t in make_tasks(count, 1)]
    assert len(arrivals) == count
    assert arrivals[0] == 0.0
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] <= KNOTS[-1][1] * count / 60 + 1e-9


def test_the_middle_of_the_tasks_comes_as_a_burst():
    arrivals = [t.arrives for t in make_tasks(60, 1)]
    assert sum(10 <= at <= 16 for at in arrivals) > 25


@pytest.mark.parametrize("count", [0, -1, 241])
def test_a_number_of_tasks_that_the_extract_does_not_have_is_refused(count: int):
    with pytest.raises(ValueError, match="1 to 240"):
        make_tasks(count, 1)
