"""A warm lease and release over HTTP, beside the same in the pool's own process, in turns.

The service is a process of its own (this file, run with a folder); it and the pool here have the same configuration, a
ledger in a file each, and a provider that answers at once. Times are of whole pairs: a lease and its release.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from benchmarks.common import micros
from tabkeeper.client import RemotePool
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.service import create_app
from tabkeeper.service.server import serving
from tabkeeper.testing import FakeProvider

ROUNDS, PER_ROUND = 10, 200


def configuration(folder: str) -> PoolConfig:
    """What both pools have."""
    return parse_config(
        {
            "ledger": {"url": f"sqlite:///{folder}/ledger.db"},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "0.10"}}},
            "platforms": {"web": {}},
            "pool": {"session_ttl": "1h"},
            "budgets": [{"name": "daily", "limit": "100.00"}],
            "service": {"port": 0},
        }
    )


def pool_in(folder: str) -> SessionPool:
    """Return a pool that is not open yet."""
    provider = FakeProvider("local", SystemClock(), latency=(0, 0))
    return SessionPool(configuration(folder), providers={"local": provider})


async def serve(folder: str) -> None:
    """Serve until the standard input ends."""
    pool = pool_in(folder)
    async with serving(create_app(pool, open_=True), pool.config.service) as address:
        print(address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def served(folder: str) -> Any:
    """Run the service in a process of its own; gives its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bench_http", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def bare(url: str) -> Callable[[], Awaitable[None]]:
    """Lease and release over one connection that is kept, with the least of clients."""
    address = urlsplit(url)
    line = http.client.HTTPConnection(address.hostname or "", address.port)

    def call(method: str, path: str, body: str | None = None) -> Any:
        line.request(method, path, body, {"Content-Type": "application/json"})
        return json.loads(line.getresponse().read())

    async def step() -> None:
        lease = call("POST", "/leases", '{"platform": "web"}')
        assert call("DELETE", f"/leases/{lease['id']}")["outcome"] == "ok"

    return step


async def measure() -> dict[str, Any]:
    """Measure embedded, bare HTTP and the Python client, in turns."""

    def through(pool: SessionPool | RemotePool) -> Callable[[], Awaitable[None]]:
        async def step() -> None:
            lease = await pool.get_session("web")
            await lease.release()

        return step

    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there, served(there) as url:
        async with pool_in(here) as pool, RemotePool(url) as remote:
            steps = {
                "embedded: get_session + release": through(pool),
                "HTTP: POST /leases + DELETE, one connection kept": bare(url),
                "RemotePool: get_session + release": through(remote),
            }
            taken: dict[str, list[float]] = {name: [] for name in steps}
            for step in steps.values():
                await step()
            for _ in range(ROUNDS):
                for name, step in steps.items():
                    for _ in range(PER_ROUND):
                        began = time.perf_counter()
                        await step()
                        taken[name].append(time.perf_counter() - began)
                    await asyncio.sleep(0.2)  # let writers catch up before the next one's turn
    return {"load at the end": os.getloadavg()[0], **{name: micros(times) for name, times in taken.items()}}


def run() -> dict[str, Any]:
    """Measure."""
    return asyncio.run(measure())


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
