"""A decision does not cost more because there are many sessions or waiters: counted in calls, so no machine matters."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "bench_planner.py"
    spec = importlib.util.spec_from_file_location("bench_planner_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load()


@pytest.mark.parametrize("scenario", bench.STEADY)
def test_a_decision_among_thousands_costs_hardly_more_than_one_among_a_hundred(scenario: str):
    _, few = bench.measure(bench.STEADY[scenario], 100, rounds=60)
    _, many = bench.measure(bench.STEADY[scenario], 3000, rounds=60)
    assert many <= bench.MOST_GROWTH * few


def test_lanes_that_cannot_be_helped_cost_a_decision_no_more_than_once_each():
    _, few = bench.measure(bench.blocked_lanes, 300, rounds=10)
    _, many = bench.measure(bench.blocked_lanes, 3000, rounds=10)
    assert many <= 11 * few
