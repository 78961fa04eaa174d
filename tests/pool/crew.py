"""Real processes of one shared pool on a real PostgreSQL, at an emulated hosted provider that keeps its own history.

The judge reads what the provider and the database remember, not what the processes say.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tabkeeper.config import parse_config
from tabkeeper.ledger.engines import read_engine
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.model import State
from tabkeeper.pool.shared.entries import entry_from
from tabkeeper.pool.shared.replica import Replica
from tabkeeper.pool.shared.snapshot import load
from tabkeeper.providers.emulator import KINDS, Limits
from tabkeeper.providers.emulator.server import serving

from .builders import a_view
from .far import PRICE
from .fleet import KEY

WORKER = Path(__file__).with_name("fleet_worker.py")


class Worker:
    """One process, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[list[str]] = []
        self.errors: list[str] = []
        self.silent = False
        """It says nothing more: it has ended."""
        self._news = asyncio.Event()
        self._reading = [asyncio.create_task(self._read()), asyncio.create_task(self._read_errors())]

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().split())
            self._news.set()
        self.silent = True
        self._news.set()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.errors.append(line.decode().rstrip())

    def said(self, word: str) -> int:
        return sum(line[0] == word for line in self.lines if line)

    async def until(self, word: str, times: int = 1, seconds: float = 600.0) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self.said(word) < times:
                    if self.silent:
                        await self._reading[1]
                        raise AssertionError(f"it ended: {self.lines} {self.errors[-30:]}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{word!r} was not said {times} times: {self.lines} {self.errors[-30:]}"
            ) from None

    def signal(self, number: int) -> None:
        # By its id: asyncio's way would take the end of a process from whoever waits for it, and lose how it ended.
        os.kill(self.process.pid, number)

    def tell(self) -> None:
        """Let a process that waits go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def end(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(*self._reading)


class Crew:
    """Workers, their provider, and the database."""

    def __init__(self, url: str, emulator: Any, config: dict[str, Any]) -> None:
        self.url = url
        self.emulator = emulator
        self.config = config
        self.workers: list[Worker] = []

    async def start(self, count: int = 1, **order: Any) -> list[Worker]:
        started = []
        for _ in range(count):
            told = {
                "config": self.config,
                "seed": len(self.workers),
                "at_once": 5,
                "tenants": ["default"],
                "hold": 0.1,
                "tasks": 10,
                "waits": False,
                "stay": False,
                "until_told": False,
                "code": "",
                **order,
            }
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(WORKER),
                json.dumps(told),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "TABKEEPER_LOG": "warning"},
            )
            worker = Worker(process)
            self.workers.append(worker)
            started.append(worker)
        return started

    async def finished(self, seconds: float = 150.0) -> None:
        """Wait until all that still live have closed."""
        async with asyncio.timeout(seconds):
            for worker in self.workers:
                await worker.process.wait()
                await asyncio.gather(*worker._reading)

    # ── the judge ──────────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, sql: str) -> list[Any]:
        engine = read_engine(self.url)
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(sql)))
        finally:
            engine.dispose()

    def most_sessions(self) -> int:
        """Most sessions at once, by the provider's own history."""
        self.emulator._advance()
        edges = []
        for one in self.emulator.sessions.values():
            edges.append((one.created_at, 1))
            if one.ended_at is not None:
                edges.append((one.ended_at, -1))
        return _highest(edges)

    def running(self) -> list[str]:
        self.emulator._advance()
        return [one.id for one in self.emulator.running]

    def most_leases(self, tenant: str | None = None) -> int:
        """Most leases at once, by the database's own log: the only place where all instants are of one clock."""
        (first,) = self.rows("SELECT document FROM board_snapshot ORDER BY seq LIMIT 1")
        (one,) = self.rows("SELECT id FROM session LIMIT 1")
        replica = Replica(a_view(), one.id[:-16])
        load(replica, first.document)
        highest = 0
        for row in self.rows(f"SELECT * FROM board_entry WHERE seq > {replica.seq} ORDER BY seq"):
            entry = entry_from(row._mapping)
            assert replica.agrees(entry), f"entry {entry.seq} was told by a copy that had decided otherwise"
            replica.apply(entry)
            leased = [one for one in replica.view.sessions.values() if one.state is State.LEASED]
            highest = max(highest, sum(tenant in {None, one.tenant} for one in leased))
        return highest

    def double_leases(self) -> int:
        """Leases of one session that overlap, by the usage log; a millisecond is the width of its instants' making."""
        rows = self.rows(
            "SELECT session_id, granted_at, released_at FROM lease ORDER BY session_id, granted_at"
        )
        return sum(
            before.session_id == after.session_id and after.granted_at < before.released_at - 1000
            for before, after in pairwise(rows)
        )

    async def violations(self) -> list[str]:
        ledger = await Ledger.open(parse_config(self.config), observe=True)
        try:
            return [f"{v.name}: {v.meaning} ({v.sample})" for v in await ledger.verify()]
        finally:
            await ledger.aclose()

    def counts(self) -> Counter[str]:
        return Counter(line[0] for worker in self.workers for line in worker.lines if line)


def _highest(edges: list[tuple[Any, int]]) -> int:
    level = highest = 0
    for _, step in sorted(edges, key=lambda edge: (edge[0], edge[1])):
        level += step
        highest = max(highest, level)
    return highest


@asynccontextmanager
async def crew(url: str, **settings: Any) -> AsyncIterator[Crew]:
    """Serve a provider; at the end no process and, unless told otherwise, no session runs."""
    limits = settings.pop("limits", Limits(connect_seconds=1e9, creates_per_minute=10**6, concurrent=100))
    budgets, tenants = settings.pop("budgets", []), settings.pop("tenants", {})
    ledger = {"url": url, **settings.pop("ledger", {})}
    emulator = KINDS["browserbase"](limits)
    async with serving(emulator):
        config = {
            "pool": {
                "max_sessions": 4,
                "keep": "fixed",
                "heartbeat": "3s",
                "close_timeout": "5s",
                "queue_timeout": "2m",
                **settings,
            },
            "ledger": ledger,
            "providers": {
                "far": {"kind": "browserbase", "api_key": "k", "base_url": emulator.url, "rates": PRICE}
            },
            "platforms": {"web": {"providers": ["far"]}},
            "budgets": budgets,
            "tenants": tenants,
            "security": {"keys": [KEY]},
        }
        made = Crew(url, emulator, config)
        try:
            yield made
        finally:
            for worker in made.workers:
                await worker.end()
