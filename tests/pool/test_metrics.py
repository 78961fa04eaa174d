"""Metrics: what `pool.metrics` says is what `pool.stats()` says, in Prometheus' text and as plain data."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tabkeeper.cli.app import run
from tabkeeper.clock import SystemClock, VirtualClock
from tabkeeper.config import load_config
from tabkeeper.pool.counts import WAITS, Histogram
from tabkeeper.pool.metrics import exposition
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.stats import PoolStats
from tabkeeper.testing import FakeProvider, run_virtual

from .world import World, world

BUDGET = {"name": "daily", "limit": "5.00"}


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, metric: str, **labels: str) -> float:
    return read(text)[f"tabkeeper_{metric}", frozenset(labels.items())]


async def some_work(w: World) -> None:
    """Six good leases, one that fails, one session that dies, one creation that fails."""
    w.provider.faults.script = ["ok", "fail"]
    for _ in range(3):
        await asyncio.gather(*(use(w) for _ in range(2)))
    with suppress(ZeroDivisionError):
        async with w.pool.get_session("web") as lease:
            await lease.use(broken)
    lease = await w.pool.get_session("web")
    w.provider.kill(lease.session_id)
    await asyncio.sleep(1)


async def use(w: World) -> None:
    async with w.pool.get_session("web"):
        await asyncio.sleep(1)


async def broken(_: object) -> None:
    raise ZeroDivisionError


def test_everything_that_happened_is_counted_once_under_few_labels():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, budgets=[BUDGET], rates={"per_hour": "1.00"}, jobs=True) as w:
            await some_work(w)
            await asyncio.sleep(125)
            w.provider.faults.script = []
            lease = await w.pool.get_session("web")
            text = w.pool.metrics.prometheus()
            assert value(text, "leases_total", platform="web", result="ok") == 6
            assert value(text, "leases_total", platform="web", result="failed") == 1
            assert value(text, "leases_total", platform="web", result="lost") == 1
            assert value(text, "creations_total", provider="local", result="failed") == 1
            created = value(text, "creations_total", provider="local", result="ok")
            assert value(text, "create_seconds_count", provider="local") == created
            assert value(text, "use_errors_total", kind="other") == 1
            assert value(text, "sessions", platform="web", provider="local", state="leased") == 1
            assert value(text, "queue_wait_seconds_count") == 9
            assert value(text, "queue_wait_seconds_bucket", le="+Inf") == 9
            assert value(text, "error_ratio") == 2 / 8
            assert value(text, "utilisation_ratio") == 0.5
            spent = await w.pool.ledger.daily_cost()
            assert value(text, "budget_spent_dollars", budget="daily") == float(spent.dollars) > 0
            assert value(text, "budget_limit_dollars", budget="daily") == 5
            assert value(text, "cost_dollars", platform="web", provider="local") == float(spent.dollars)
            assert w.pool.stats().total_cost == spent
            assert value(text, "job_runs_total", job="health") == 2
            assert value(text, "cleaning_ratio") == 1
            ids = {one.id for one in w.pool.stats().open_sessions}
            assert ids
            assert not any(one in text for one in ids), "an id is no label"
            await lease.release()

    run_virtual(story)


def test_python_json_and_prometheus_agree_and_stats_survive_the_way_through_json():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, budgets=[BUDGET], rates={"per_hour": "1.00"}) as w:
            await some_work(w)
            await w.pool.run_job("metrics")
            plain = {
                (name, frozenset(row["labels"].items())): row["value"]
                for name, rows in w.pool.metrics.as_dict().items()
                for row in rows
            }
            assert plain == read(w.pool.metrics.prometheus())
            stats = w.pool.stats()
            again = PoolStats.model_validate_json(stats.model_dump_json())
            assert again == stats
            assert exposition([({}, again)]) == exposition([({}, stats)])

    run_virtual(story)


def test_two_pools_are_told_apart_and_their_common_money_is_told_once():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, budgets=[BUDGET], rates={"per_hour": "1.00"}) as w:
            await some_work(w)
            await w.pool.run_job("metrics")
            stats = w.pool.stats()
            text = exposition([({"process": "1"}, stats), ({"process": "2"}, stats)])
            for process in "12":
                assert value(text, "leases_total", platform="web", result="ok", process=process) == 6
            assert value(text, "budget_limit_dollars", budget="daily") == 5

    run_virtual(story)


def test_a_value_on_a_bound_belongs_below_it():
    histogram = Histogram(WAITS)
    for seconds in (0.0, 0.001, 0.0011, 120.0, 121.0):
        histogram.add(seconds)
    stats = histogram.stats()
    assert (stats.counts[0], stats.counts[1], stats.counts[-2], stats.counts[-1]) == (2, 1, 1, 1)


async def test_the_command_prints_what_the_last_heartbeat_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    url = f"sqlite:///{tmp_path}/ledger.db"
    file = tmp_path / "tabkeeper.toml"
    file.write_text(f'[ledger]\nurl = "{url}"\n[platforms.web]\n')
    options = ["--config", str(file)]
    provider = FakeProvider("local", SystemClock(), latency=(0.0, 0.0))
    async with SessionPool(load_config(file), providers={"local": provider}) as pool:
        async with pool.get_session("web"):
            await pool.run_job("heartbeat")
            assert run(["metrics", *options]) == 0
            out = capsys.readouterr().out
            assert value(out, "sessions", platform="web", provider="local", state="leased") == 1
            assert run(["status", *options]) == 0
            assert "heartbeat" in capsys.readouterr().out
            assert run(["sessions", "list", "--json", *options]) == 0
            assert '"health": 1.0' in capsys.readouterr().out
    assert run(["metrics", *options]) == 1
    assert "no pool is open" in capsys.readouterr().err
