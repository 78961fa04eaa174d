"""Hold and settle per second; what reports over many entries take is measured by `bench_reports`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from typing import Any

from benchmarks.common import micros
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage

CALLERS = 50
"""Sessions being held or settled at once; the writer puts what has queued up into one transaction."""
SESSIONS = 2000


def config(url: str) -> PoolConfig:
    """One platform, two budgets that every session must fit into."""
    return parse_config(
        {
            "ledger": {"url": url},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "0.10", "increment": "60s"}}},
            "platforms": {"web": {}},
            "budgets": [
                {"name": "daily", "limit": "100000.00"},
                {"name": "web", "limit": "100000.00", "period": "month", "platform": "web"},
            ],
        }
    )


async def _hold_and_settle(url: str) -> dict[str, Any]:
    ledger = await Ledger.open(config(url))
    waits: list[float] = []

    async def caller(first: int) -> None:
        for n in range(first, SESSIONS, CALLERS):
            began = time.perf_counter()
            await ledger.hold(
                HoldRequest(
                    session_id=f"s{n}", platform="web", provider="local", tenant="default", max_seconds=600
                )
            )
            waits.append(time.perf_counter() - began)
            await ledger.settle(f"s{n}", SessionUsage(seconds=61.0), reason="idle")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for first in range(CALLERS):
            group.create_task(caller(first))
    seconds = time.perf_counter() - began
    broken = await ledger.verify()
    await ledger.aclose()
    assert broken == [], broken
    return {"hold_settle_per_second": round(SESSIONS / seconds), "callers": CALLERS, "hold": micros(waits)}


async def _all(postgres: str | None) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        figures["sqlite"] = await _hold_and_settle(f"sqlite:///{name}/ledger.db")
        if postgres is not None:
            figures["postgresql"] = await _hold_and_settle(postgres)
    return figures


def run(postgres: str | None = None) -> dict[str, Any]:
    """Measure; `postgres` is the URL of an empty database."""
    return asyncio.run(_all(postgres))
