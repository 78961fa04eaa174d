"""Warm leases of a pool that several processes share through PostgreSQL: how long, how many, and what it hangs on.

Each process is a real one with a pool of its own. Their provider is a stub that answers at once, so what is measured
is the board: one caller per process for the time of a lease with its release, 16 callers in all for their rate.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from sqlalchemy import create_engine, make_url, text

from benchmarks.common import micros
from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.base import Capabilities, RemoteSession
from tabkeeper.testing import FakeProvider
from tabkeeper.vault import new_key

SECONDS = 4.0
"""How long each case is measured."""
PROCESSES = (1, 2, 4, 8)
SESSIONS = (10, 1000)
CALLERS = 16
_FILLED_AT_ONCE = 500


class _Far(FakeProvider):
    """A hosted provider: what one process made there, another can use."""

    def __init__(self) -> None:
        super().__init__("far", SystemClock(), latency=(0, 0))
        self.capabilities = Capabilities(list_by_label=True)

    def alive(self, provider_session_id: str) -> bool:
        return bool(provider_session_id)

    def take_over(self, session: RemoteSession) -> None:
        pass

    def let_go(self, provider_session_id: str) -> None:
        pass


# ── one process ────────────────────────────────────────────────────────────────────────────────────────────────────


def _config(order: dict[str, Any]) -> Any:
    return parse_config(
        {
            "pool": {
                "max_sessions": max(order["sessions"], CALLERS),
                "keep": "fixed",
                "session_ttl": "6h",
                "queue_timeout": "5m",
                "max_queued": 20_000,
            },
            "ledger": {"url": order["url"]},
            "providers": {"far": {"kind": "local", "rates": {"per_hour": "0.10"}}},
            "platforms": {"web": {"providers": ["far"], "idle_timeout": "6h", "max_uses": 1_000_000}},
            "security": {"keys": [order["key"]]},
        }
    )


async def _fill(pool: SessionPool, count: int) -> None:
    leases: list[Any] = []
    while len(leases) < count:
        some = min(_FILLED_AT_ONCE, count - len(leases))
        leases += await asyncio.gather(*(pool.get_session("web") for _ in range(some)))
    for start in range(0, count, _FILLED_AT_ONCE):
        await asyncio.gather(*(lease.release() for lease in leases[start : start + _FILLED_AT_ONCE]))


async def _word(said: str | None = None) -> str:
    if said is not None:
        print(said, flush=True)
    return await asyncio.to_thread(sys.stdin.readline)


async def worker(order: dict[str, Any]) -> None:
    """Fill the board if told so, then lease and release with each number of callers that is asked for."""
    async with SessionPool(_config(order), providers={"far": _Far()}) as pool:
        if order["fills"]:
            await _fill(pool, order["sessions"])
        told = await _word("ready")
        while told:
            callers, took = int(told), list[float]()
            end = time.perf_counter() + SECONDS

            async def call(end: float = end, took: list[float] = took) -> None:
                while (began := time.perf_counter()) < end:
                    lease = await pool.get_session("web")
                    await lease.release()
                    took.append(time.perf_counter() - began)

            await asyncio.gather(*(call() for _ in range(callers)))
            told = await _word(json.dumps(took))


# ── all of them ────────────────────────────────────────────────────────────────────────────────────────────────────


def _fresh_database(server: str) -> str:
    """Make a database, so that no case finds what another left."""
    address = make_url(server).set(drivername="postgresql+psycopg")
    name = f"bench_{time.time_ns()}"
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return address.set(database=name).render_as_string(hide_password=False)


async def _measure(url: str, processes: int, sessions: int) -> dict[str, Any]:
    order = {
        "url": _fresh_database(url),
        "sessions": sessions,
        "key": new_key(),
    }
    workers: list[asyncio.subprocess.Process] = []

    async def say(word: str) -> None:
        for one in workers:
            assert one.stdin is not None
            one.stdin.write(f"{word}\n".encode())

    async def heard(one: asyncio.subprocess.Process) -> str:
        assert one.stdout is not None
        line = await one.stdout.readline()
        assert line, "a process of the benchmark has ended"
        return line.decode()

    try:
        for number in range(processes):
            told = json.dumps({**order, "fills": number == 0})
            workers.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "benchmarks.bench_fleet", told),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    limit=2**26,
                )
            )
            await heard(workers[-1])
        found: dict[str, Any] = {}
        for callers, title in ((1, "one caller each"), (max(1, CALLERS // processes), "16 callers in all")):
            await say(str(callers))
            took = [second for one in workers for second in json.loads(await heard(one))]
            found[title] = {**micros(took), "leases_per_second": round(len(took) / SECONDS)}
        return found
    finally:
        # Nothing runs anywhere, so nobody has to end thousands of sessions one by one.
        for one in workers:
            if one.returncode is None:
                one.kill()
                await one.wait()


def run(postgres: str | None = None) -> dict[str, Any]:
    """Measure every number of processes with few sessions, and every number of sessions with four processes."""
    if postgres is None:
        return {"skipped": "there is no PostgreSQL"}
    cases = [(n, SESSIONS[0]) for n in PROCESSES] + [(4, n) for n in SESSIONS[1:]]
    return {
        f"{processes} processes, {sessions} sessions": asyncio.run(_measure(postgres, processes, sessions))
        for processes, sessions in cases
    }


if __name__ == "__main__":
    asyncio.run(worker(json.loads(sys.argv[1])))
