"""A warm lease and release, ledger on, beside the peers' nearest thing in the same run.

What is compared is overhead only: nobody starts a browser or runs a query. psycopg_pool lends a real connection,
crawlee's SessionPool hands out an HTTP identity, crawlee's BrowserPool opens a page on a stub browser.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.common import micros
from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.testing import FakeProvider

ROUNDS = 5
PER_ROUND = 2000

Step = Callable[[], Awaitable[None]]


async def tabkeeper(folder: Path, run: Callable[[str, Step], Awaitable[None]]) -> None:
    """Our pool with the ledger in a SQLite file, and a provider that answers at once."""
    config = parse_config(
        {
            "ledger": {"url": f"sqlite:///{folder}/ledger.db"},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "0.10"}}},
            "platforms": {"web": {}},
            "pool": {"session_ttl": "1h"},
            "budgets": [{"name": "daily", "limit": "100.00"}],
        }
    )
    provider = FakeProvider("local", SystemClock(), latency=(0, 0))
    async with SessionPool(config, providers={"local": provider}) as pool:

        async def step() -> None:
            lease = await pool.get_session("web")
            await lease.release()

        await step()
        await run("tabkeeper: lease + release, ledger on", step)


async def psycopg_pool(url: str, run: Callable[[str, Step], Awaitable[None]]) -> None:
    """psycopg's pool with one real connection."""
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(url, min_size=1, max_size=10, open=False) as pool:

        async def step() -> None:
            connection = await pool.getconn()
            await pool.putconn(connection)

        await step()
        await run("psycopg_pool: getconn + putconn", step)


async def crawlee_sessions(run: Callable[[str, Step], Awaitable[None]]) -> None:
    """crawlee's pool of HTTP identities."""
    from crawlee.sessions import SessionPool as CrawleeSessionPool

    async with CrawleeSessionPool(max_pool_size=10) as pool:

        async def step() -> None:
            session = await pool.get_session()
            session.mark_good()

        await step()
        await run("crawlee SessionPool: get_session + mark_good", step)


async def crawlee_browsers(run: Callable[[str, Step], Awaitable[None]]) -> None:
    """crawlee's browser pool over a plugin whose browser does nothing."""
    from crawlee.browsers import BrowserPool
    from crawlee.browsers._browser_controller import BrowserController
    from crawlee.browsers._browser_plugin import BrowserPlugin

    class Page:
        async def close(self) -> None: ...

    class Controller(BrowserController):
        AUTOMATION_LIBRARY = "stub"
        browser_type = "chromium"
        pages = ()
        total_opened_pages = 0
        pages_count = 0
        has_free_capacity = True
        is_browser_connected = True
        idle_time = timedelta(0)
        last_page_opened_at = datetime.now(UTC)

        async def new_page(self, *_: Any, **__: Any) -> Any:
            return Page()

        async def close(self, *, force: bool = False) -> None: ...

    class Plugin(BrowserPlugin):
        AUTOMATION_LIBRARY = "stub"
        active = True
        browser_type = "chromium"
        browser_launch_options: ClassVar[dict[str, Any]] = {}
        browser_new_context_options: ClassVar[dict[str, Any]] = {}
        max_open_pages_per_browser = 1000

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def new_browser(self) -> Any:
            return Controller()

    async with BrowserPool([Plugin()], retire_browser_after_page_count=10**9) as pool:

        async def step() -> None:
            opened = await pool.new_page()
            await opened.page.close()

        await step()
        await run("crawlee BrowserPool: new_page + close (stub browser)", step)


async def measure(postgres: str | None) -> dict[str, Any]:
    """Run all contestants side by side: in turns, so that a slow moment of the machine hits each of them."""
    taken: dict[str, list[float]] = {}
    steps: dict[str, Step] = {}
    with tempfile.TemporaryDirectory() as name:
        ready: asyncio.Queue[str] = asyncio.Queue()
        done = asyncio.Event()

        async def register(label: str, step: Step) -> None:
            steps[label] = step
            ready.put_nowait(label)
            await done.wait()

        contestants = [
            tabkeeper(Path(name), register),
            crawlee_sessions(register),
            crawlee_browsers(register),
        ]
        if postgres is not None:
            contestants.append(psycopg_pool(postgres, register))
        async with asyncio.TaskGroup() as group:
            for contestant in contestants:
                group.create_task(contestant)
            for _ in contestants:
                await ready.get()
            for _ in range(ROUNDS):
                for label, step in steps.items():
                    times = taken.setdefault(label, [])
                    for _ in range(PER_ROUND):
                        began = time.perf_counter()
                        await step()
                        times.append(time.perf_counter() - began)
                    await asyncio.sleep(0.2)  # let writers catch up before the next one's turn
            done.set()
    return {label: micros(times) for label, times in taken.items()}


def run(postgres: str | None = None) -> dict[str, Any]:
    """Measure; `postgres` is the URL of a server for psycopg_pool."""
    return asyncio.run(measure(postgres))
