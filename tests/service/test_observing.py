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

from tabkeeper.config import ProviderSettings, parse_config
from tabkeeper.errors import QueueTimeoutError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.local import LocalProvider
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
            with trace.get_tracer("ours").start_as_current_span("job"):
                async with here.pool.get_session("web", tenant="acme") as lease:
                    with pytest.raises(QueueTimeoutError):
                        await here.pool.get_session("web", timeout=1)
            return lease

    lease = run_virtual(story)
    found = {}
    for one in spans.get_finished_spans():
        found.setdefault(one.name, []).append(one)
    assert set(found) == {"job", "tabkeeper.lease", "tabkeeper.create", "tabkeeper.close"}
    (job,), (fine, late) = found["job"], found["tabkeeper.lease"]
    assert dict(fine.attributes) == {
        "tabkeeper.platform": "web",
        "tabkeeper.tenant": "acme",
        "tabkeeper.priority": 0,
        "tabkeeper.provider": "local",
        "tabkeeper.session": lease.session_id,
        "tabkeeper.lease": lease.id,
        "tabkeeper.is_new": True,
    }
    assert late.status.status_code is StatusCode.ERROR
    assert late.status.description == late.attributes["error.type"] == "QueueTimeoutError"
    assert late.events == ()
    assert fine.parent.span_id == late.parent.span_id == job.context.span_id
    (create,), (close,) = found["tabkeeper.create"], found["tabkeeper.close"]
    for one in (create, close):
        assert one.parent is None
        assert dict(one.attributes) == {
            "tabkeeper.session": lease.session_id,
            "tabkeeper.platform": "web",
            "tabkeeper.provider": "local",
            "tabkeeper.tenant": "acme",
        }
    assert [link.context.span_id for link in create.links] == [fine.context.span_id]


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
async def test_the_first_page_of_a_session_shows_what_connecting_took(spans, tmp_path):
    config = parse_config({"ledger": {"url": "sqlite://"}, "platforms": {"web": {}}})
    provider = LocalProvider("local", ProviderSettings(kind="local"), state_dir=tmp_path)
    async with SessionPool(config, providers={"local": provider}, jobs=False) as pool:
        async with pool.get_session("web", timeout=60) as lease:
            with trace.get_tracer("ours").start_as_current_span("job"):
                await lease.new_page()
                await lease.new_page()
    (job,) = (one for one in spans.get_finished_spans() if one.name == "job")
    (connect,) = (one for one in spans.get_finished_spans() if one.name == "tabkeeper.connect")
    assert connect.parent.span_id == job.context.span_id
    assert connect.attributes["tabkeeper.session"] == lease.session_id
    assert connect.attributes["tabkeeper.provider"] == "local"
