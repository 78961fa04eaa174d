"""Real processes of one shared pool on a real PostgreSQL, at an emulated hosted provider that keeps its own history.

The judge reads what the provider and the database remember, not what the processes say.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import text

from tabkeeper.config import parse_config
from tabkeeper.ledger.engines import read_engine
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.providers.emulator import KINDS, Limits
from tabkeeper.providers.emulator.server import serving

from .far import PRICE
from .fleet import KEY
from .history import Findings, Loss, judge, keep_history
from .nursery import Nursery

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"


class Worker:
    """One process, and what it has said."""

    def __init__(self, nursery: Nursery, order: dict[str, Any]) -> None:
        (order_in, self._tell), (said, say), (wrong, complain) = os.pipe(), os.pipe(), os.pipe()
        there = [order_in, say, complain]
        try:
            self.pid = nursery.start(json.dumps(order), there)
        finally:
            for file in there:
                os.close(file)
        self.lines: list[list[str]] = []
        self.errors: list[str] = []
        self._said: Counter[str] = Counter()
        self.silent = False
        """It says nothing more: it has ended."""
        self._news = asyncio.Event()
        self._reading = [
            asyncio.create_task(self._read(said, self._hear)),
            asyncio.create_task(self._read(wrong, self.errors.append)),
        ]

    async def _read(self, pipe: int, take: Callable[[str], None]) -> None:
        reader = asyncio.StreamReader(limit=1 << 20)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", 0)
        )
        try:
            async for line in reader:
                take(line.decode().rstrip())
        finally:
            transport.close()
            if take == self._hear:
                self.silent = True
                self._news.set()

    def _hear(self, line: str) -> None:
        self.lines.append(line.split())
        self._said.update(self.lines[-1][:1])
        self._news.set()

    def said(self, word: str) -> int:
        return self._said[word]

    async def until(self, word: str, times: int = 1, seconds: float = 600.0) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self.said(word) < times:
                    if self.silent:
                        await self._reading[1]
                        raise AssertionError(f"it ended: {self.lines[-30:]} {self.errors[-30:]}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{word!r} was not said {times} times: {self.lines[-30:]} {self.errors[-30:]}"
            ) from None

    def signal(self, number: int) -> None:
        """Send a signal, if it has not ended yet."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def tell(self) -> None:
        """Let a process that waits go on."""
        os.write(self._tell, b"\n")

    async def ended(self) -> None:
        """Wait until it has."""
        await asyncio.gather(*self._reading)

    async def end(self) -> None:
        if not self.silent:
            self.signal(signal.SIGKILL)
        await self.ended()
        if self._tell:
            os.close(self._tell)
            self._tell = 0


class Crew:
    """Workers, their provider, and the database."""

    def __init__(self, nursery: Nursery, url: str, emulator: Any, config: dict[str, Any], locks: str) -> None:
        self.url = url
        self.emulator = emulator
        self.config = config
        self.workers: list[Worker] = []
        self.losses: list[Loss] = []
        self._nursery = nursery
        self._locks = locks

    async def start(self, count: int = 1, *, url: str = "", **order: Any) -> list[Worker]:
        """Start workers; with `url` they reach the database there; those whose `tasks` are None go on until told."""
        started = []
        for _ in range(count):
            told = {
                "config": self.config | ({"ledger": self.config["ledger"] | {"url": url}} if url else {}),
                "seed": len(self.workers),
                "locks": self._locks,
                "at_once": 5,
                "tenants": ["default"],
                "hold": 0.1,
                "tasks": 10,
                "waits": False,
                "stay": False,
                "jobs": False,
                "without": "",
                "code": "",
                **order,
            }
            started.append(Worker(self._nursery, told))
            self.workers.append(started[-1])
        return started

    async def finished(self, seconds: float = 150.0) -> None:
        """Wait until all that still live have closed."""
        async with asyncio.timeout(seconds):
            for worker in self.workers:
                await worker.ended()

    def lost(self, worker: Worker) -> Loss:
        """Note that a worker is about to be killed, frozen or cut off."""
        (row,) = self.rows(
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + shift AS at FROM board_head"
        )
        self.losses.append(Loss(pid=worker.pid, at=row.at))
        return self.losses[-1]

    async def kill(self, worker: Worker) -> None:
        self.lost(worker)
        await worker.end()

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
                edges.append((one.ended_at - timedelta(seconds=one.surplus), -1))
        return _highest(edges)

    def running(self) -> list[str]:
        self.emulator._advance()
        return [one.id for one in self.emulator.running]

    def judged(self) -> Findings:
        """What the database's own log shows: the only place where all instants are of one clock."""
        return judge(self.rows, self.losses)

    def double_leases(self) -> list[str]:
        """Leases of one session at the same time: by the workers' locks in the kernel, and by the usage log.

        A millisecond is the width of the log's instants' making.
        """
        found = [
            f"{line[1]} by its lock" for one in self.workers for line in one.lines if line[0] == "doubled"
        ]
        rows = self.rows(
            "SELECT id, session_id, granted_at, released_at FROM lease ORDER BY session_id, granted_at"
        )
        return found + [
            f"{after.id} by the log, {before.released_at - after.granted_at} us too early"
            for before, after in pairwise(rows)
            if before.session_id == after.session_id and after.granted_at < before.released_at - 1000
        ]

    async def no_strays(self) -> None:
        """Wait until nothing runs that ran when this began and that the books do not know."""
        strays = set(self.running())
        while strays:
            known = self.rows("SELECT provider_session_id AS id FROM session WHERE ended_at IS NULL")
            strays = (strays & set(self.running())) - {row.id for row in known}
            await asyncio.sleep(0.05)

    async def sound(self, places: int) -> Findings:
        """Judge a story that is over: nobody did anything twice, nothing runs on, no limit was ever passed."""
        found = self.judged()
        assert max(self.most_sessions(), found.sessions, found.leases[""]) <= places
        doubled = self.double_leases()
        assert not doubled, doubled
        assert self.running() == [], [w.errors[-15:] for w in self.workers]
        assert await self.violations() == []
        return found

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
async def crew(nursery: Nursery, url: str, **settings: Any) -> AsyncIterator[Crew]:
    """Serve a provider and have the database keep its history; at the end no process runs."""
    limits = settings.pop("limits", Limits(connect_seconds=1e9, creates_per_minute=10**6, concurrent=100))
    web = {"providers": ["far"], **settings.pop("web", {})}
    rates = settings.pop("rates", PRICE)
    ledger = {"url": url, **settings.pop("ledger", {})}
    sections = {one: settings.pop(one) for one in ("budgets", "tenants", "alerts") if one in settings}
    emulator = KINDS["browserbase"](limits)
    keep_history(url)
    with TemporaryDirectory(prefix="tk-locks-") as locks:
        async with serving(emulator):
            config = {
                "pool": {
                    "max_sessions": 4,
                    "keep": "fixed",
                    "heartbeat": "3s",
                    "close_timeout": "5s"
                    if PROOF
                    else "30s",  # a busy machine may take longer to close than is allowed
                    "queue_timeout": "2m",
                    **settings,
                },
                "ledger": ledger,
                "providers": {
                    "far": {"kind": "browserbase", "api_key": "k", "base_url": emulator.url, "rates": rates}
                },
                "platforms": {"web": web},
                "security": {"keys": [KEY]},
                **sections,
            }
            made = Crew(nursery, url, emulator, config, locks)
            try:
                yield made
            finally:
                for worker in made.workers:
                    await worker.end()
