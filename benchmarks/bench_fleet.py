"""Warm leases of a pool that several processes share through PostgreSQL: how long, how many, and what it hangs on.

Each process is a real one with a pool of its own. Their provider is a stub that answers at once, so what is measured
is the board: one caller per process for the time of a lease with its release, 16 callers in all for their rate. Just
before each case as many processes do nothing but insert a row and commit, on the same server: what it takes at least.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

import psycopg
from sqlalchemy import create_engine, make_url, text

from benchmarks.common import micros
from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.base import Capabilities, RemoteSession
from tabkeeper.testing import FakeProvider
from tabkeeper.vault import new_key

SECONDS = 2.0
"""How long each case is measured."""
PROCESSES = (1, 2, 4, 8)
SESSIONS = (10, 1_000, 10_000)
CALLERS = 16
_FILLED_AT_ONCE = 500


class _Far(FakeProvider):
    """A hosted provider: what one process made there, another can use. Each process's stub knows its own sessions only,
    so of any other it says that it is well.
    """

    def __init__(self) -> None:
        super().__init__("far", SystemClock(), latency=(0, 0))
        self.capabilities = Capabilities(list_by_label=True)

    def alive(self, provider_session_id: str) -> bool:
        return bool(provider_session_id)

    async def get(self, provider_session_id: str) -> RemoteSession:
        return RemoteSession(provider_session_id=provider_session_id, connect_url="fake://far", label="")

    async def list(self, label_prefix: str = "") -> Sequence[RemoteSession]:
        return []

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
                "heartbeat": "30s",  # more processes than cores: one that waits for a core is not dead
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


def control(order: dict[str, Any]) -> None:
    """Insert and commit one row after the other when told to, with nothing of a pool around it."""
    address = make_url(order["url"]).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, events text)")
        print("ready", flush=True)
        sys.stdin.readline()
        took: list[float] = []
        end = time.perf_counter() + SECONDS
        while (began := time.perf_counter()) < end:
            connection.execute("INSERT INTO bare (events) VALUES (%s)", ("x" * 200,))
            took.append(time.perf_counter() - began)
    print(json.dumps(took), flush=True)


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


class _Crew:
    """Processes of this module that are told what to do line by line, and answer so."""

    def __init__(self) -> None:
        self._workers: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Nothing runs anywhere, so nobody has to end thousands of sessions one by one.
        for one in self._workers:
            if one.returncode is None:
                one.kill()
            await one.wait()

    async def grow(self, count: int, order: dict[str, Any]) -> None:
        """Start more, one after the other, until there are so many; only the first fills the board."""
        while len(self._workers) < count:
            told = json.dumps({**order, "fills": not self._workers})
            self._workers.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "benchmarks.bench_fleet", told),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=2**26,
                )
            )
            await self._heard(self._workers[-1])

    async def measure(self, word: str) -> dict[str, Any]:
        """Let all of them begin; return what they took together."""
        for one in self._workers:
            assert one.stdin is not None
            one.stdin.write(f"{word}\n".encode())
        took = [second for one in self._workers for second in json.loads(await self._heard(one))]
        return {**micros(took), "per_second": round(len(took) / SECONDS)}

    @staticmethod
    async def _heard(one: asyncio.subprocess.Process) -> str:
        assert one.stdout is not None
        line = await one.stdout.readline()
        assert line, "a process of the benchmark has ended"
        return line.decode()


async def _measure(server: str, sessions: int, counts: Sequence[int]) -> dict[str, Any]:
    """Fill one board, and let more and more processes join it."""
    found: dict[str, Any] = {}
    order = {"url": _fresh_database(server), "sessions": sessions, "key": new_key()}
    async with _Crew() as crew:
        for count in counts:
            await crew.grow(count, order)
            async with _Crew() as bare:
                await bare.grow(count, {"url": order["url"], "control": True})
                inserts = await bare.measure("go")
            found[f"{count} processes, {sessions} sessions"] = {
                "a bare INSERT each": inserts,
                "one caller each": await crew.measure("1"),
                "16 callers in all": await crew.measure(str(CALLERS // count)),
            }
    return found


def run(postgres: str | None = None) -> dict[str, Any]:
    """Measure every number of processes with every number of sessions."""
    if postgres is None:
        return {"skipped": "there is no PostgreSQL"}
    found: dict[str, Any] = {}
    for sessions in SESSIONS:
        found |= asyncio.run(_measure(postgres, sessions, PROCESSES))
    return found


def main(order: dict[str, Any]) -> None:
    """Be one of the processes."""
    if "control" in order:
        control(order)
    else:
        asyncio.run(worker(order))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
