"""Memory of an idle session and of a waiting request, as the pool's Python objects take it."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import Any

from tabkeeper.clock import VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.testing import FakeProvider, run_virtual

SESSIONS = 1000
WAITERS = 5000


async def _measure(clock: VirtualClock) -> dict[str, Any]:
    config = parse_config(
        {
            "ledger": {"url": "sqlite://"},
            "platforms": {"web": {}, "full": {"max_sessions": 1}},
            "pool": {
                "max_sessions": SESSIONS + 1,
                "max_queued": 10 * WAITERS,
                "idle_timeout": "1h",
                "session_ttl": "2h",
            },
        }
    )
    provider = FakeProvider("local", clock)
    async with SessionPool(config, providers={"local": provider}, clock=clock, inline_ledger=True) as pool:

        async def take(platform: str, timeout: float = 3600) -> Any:
            return await pool.get_session(platform, timeout=timeout)

        holder = await take("full")
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        leases = await asyncio.gather(*(take("web") for _ in range(SESSIONS)))
        for lease in leases:
            await lease.release()
        del leases, lease
        gc.collect()
        sessions = tracemalloc.get_traced_memory()[0] - before
        before = tracemalloc.get_traced_memory()[0]
        waiting = [asyncio.ensure_future(take("full")) for _ in range(WAITERS)]
        await asyncio.sleep(1)
        gc.collect()
        waiters = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await holder.release()
        return {
            "bytes_per_idle_session": sessions // SESSIONS,
            "bytes_per_waiter": waiters // WAITERS,
            "sessions": SESSIONS,
            "waiters": WAITERS,
            "note": "a waiter's figure includes its asyncio task; an idle session's excludes its browser",
        }


def run() -> dict[str, Any]:
    """Measure in virtual time."""
    return run_virtual(_measure)
