"""Schemathesis over the OpenAPI document: whatever is sent, no fault inside, and no answer that is not documented."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.conftest import PROOF
from tests.pool.world import world

from tabkeeper.clock import SystemClock
from tabkeeper.config import ServiceSettings
from tabkeeper.service import create_app
from tabkeeper.service.server import serving

from .world import MAIN, TOKENS

EXAMPLES = 200 if PROOF else 3
"""For each operation, and as many again of what its description forbids."""
PATIENCE = 150
"""Seconds for an answer: by itself the tool waits 10, too short for the first on a machine with much else to do."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@contextmanager
def served():
    """Run the real service on a port, on a thread of its own; its provider is a fake one."""
    settings = ServiceSettings.model_validate(
        {"tokens": TOKENS, "port": 0, "max_wait": "20ms", "lease_ttl": "50ms"}
    )
    address, stop = [], []
    ready = threading.Event()

    async def run() -> None:
        stopped = asyncio.Event()
        stop.append((asyncio.get_running_loop(), stopped))
        async with world(SystemClock(), latency=(0.0, 0.0), jobs=False, queue_timeout="100ms") as here:
            async with serving(create_app(here.pool, settings), settings) as url:
                address.append(url)
                ready.set()
                await stopped.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(60)
        yield address[0]
    finally:
        loop, stopped = stop[0]
        loop.call_soon_threadsafe(stopped.set)
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.proof
@pytest.mark.timeout(1800 if PROOF else 180)
def test_whatever_is_sent_there_is_no_fault_and_no_undocumented_answer(record_property):
    with served() as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json", timeout=PATIENCE)
        tried, requests = [], 0
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.path == "/events":  # does not end
                continue

            @given(
                case=operation.as_strategy(GenerationMode.POSITIVE)
                | operation.as_strategy(GenerationMode.NEGATIVE)
            )
            @settings(
                max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
            )
            def holds(case):
                nonlocal requests
                requests += 1
                case.headers["Authorization"] = f"Bearer {MAIN}"
                if isinstance(case.body, dict) and isinstance(case.body.get("platform"), str):
                    case.body["platform"] = "web"  # else nearly all of them fail at the first look
                case.call_and_validate(checks=CHECKS, timeout=PATIENCE)

            holds()
            tried.append(operation.label)
        record_property("operations", len(tried))
        record_property("requests", requests)
        assert len(tried) > 15, tried
