"""What others watch the pool with: the Grafana dashboard asks for what there is, and spans are told."""

import json
import re
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tabkeeper.errors import QueueTimeoutError
from tabkeeper.testing import run_virtual

from .world import house

DOCS = Path(__file__).parents[2] / "docs"


def test_the_grafana_dashboard_asks_only_for_metrics_that_there_are():
    board = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"tabkeeper_\w+", target["expr"])
    }

    async def story(clock):
        budgets = [{"name": "daily", "limit": "5.00"}]
        async with house(clock, rates={"per_hour": "1.00"}, budgets=budgets, jobs=True) as here:
            async with here.pool.get_session("web"):
                pass
            here.pool._ledger.alerts.tell("leak", "leak|1", "a lease")
            await here.pool.close_session(here.pool.stats().open_sessions[0].id)
            await here.pool.run_job("metrics")
            async with here.pool.get_session("web"):
                return set(re.findall(r"^(tabkeeper_\w+)", here.pool.metrics.prometheus(), re.MULTILINE))

    told = run_virtual(story)
    assert len(asked) > 15
    assert asked - told == set()


@pytest.fixture
def spans(monkeypatch):
    told = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(told))
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    yield told
    provider.shutdown()


def test_leases_creations_and_closes_are_told_as_spans_and_failures_without_their_words(spans):
    async def story(clock):
        async with house(clock, max_sessions=1) as here:
            async with here.pool.get_session("web", tenant="acme"):
                with pytest.raises(QueueTimeoutError):
                    await here.pool.get_session("web", timeout=1)

    run_virtual(story)
    found = {}
    for one in spans.get_finished_spans():
        found.setdefault(one.name, []).append(one)
    assert set(found) == {"tabkeeper.lease", "tabkeeper.create", "tabkeeper.close"}
    fine, late = found["tabkeeper.lease"]
    assert dict(fine.attributes) == {
        "tabkeeper.platform": "web",
        "tabkeeper.tenant": "acme",
        "tabkeeper.priority": 0,
    }
    assert late.status.status_code is StatusCode.ERROR
    assert late.status.description == late.attributes["error.type"] == "QueueTimeoutError"
    assert late.events == ()
    assert found["tabkeeper.create"][0].attributes["tabkeeper.provider"] == "local"
