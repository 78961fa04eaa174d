"""A hosted provider without a network, in virtual time, and pools that die: every part is real but wire and browser.

The provider is an emulator's own application, asked in this process; adapter, pool and ledger are the real ones. A
`Life` is a pool as a process of its own, which can be killed: from then on nothing that it does has any effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import httpx
from sqlalchemy import text

from tabkeeper.clock import VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.ledger import processes, schema
from tabkeeper.ledger.engines import read_engine, write_engine
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers import make_provider
from tabkeeper.providers.emulator import KINDS, Limits

LIFE: contextvars.ContextVar[Any] = contextvars.ContextVar("life", default=None)
_DROPPED: contextvars.ContextVar[list[Any]] = contextvars.ContextVar("dropped")
HEARTBEAT, ROUND = 20, 60
FAST = next((folder for folder in (Path("/dev/shm"),) if folder.is_dir()), None)
"""Where commits cost nothing, if there is such a place: no machine loses power in virtual time."""
PRICE = {"per_hour": "0.36", "per_session": "0.001", "increment": "1m", "minimum": "1m"}


@functools.cache
def _template() -> bytes:
    """A ledger with a schema and nothing else: a third of a second each time it need not be made."""
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        engine = write_engine(f"sqlite:///{folder}/ledger.db")
        schema.upgrade(engine)
        engine.dispose()
        return Path(folder, "ledger.db").read_bytes()


class Wire(httpx.AsyncBaseTransport):
    """Carries requests to an application in this process. The far side goes on when its client has left."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app=app)
        self.cut = False
        self.sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        if self.cut:
            await asyncio.Future()
        working = asyncio.create_task(self._work(request), context=contextvars.Context())
        working.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                return await asyncio.shield(working)
        except TimeoutError:
            raise httpx.ReadTimeout("no answer", request=request) from None

    async def _work(self, request: httpx.Request) -> httpx.Response:
        dropped: list[Any] = []
        _DROPPED.set(dropped)
        answer = await self._inner.handle_async_request(request)
        if dropped:
            raise httpx.ReadError("the connection was dropped", request=request)
        return answer


class DeadWriter:
    """What a killed process writes."""

    async def do(self, *_: Any, **__: Any) -> Any:
        return await asyncio.Future()

    call = do

    def post(self, *_: Any) -> None: ...

    def start_later(self, *_: Any) -> None: ...


class Life:
    """One process with a pool."""

    def __init__(self, far: Far, number: int) -> None:
        self.far = far
        self.number = number
        self.tasks: set[asyncio.Task[Any]] = set()
        self.dead = False
        self.context = contextvars.Context()
        self.context.run(LIFE.set, self)
        self.wire = Wire(far.emulator.app())
        settings = far.config.providers["far"]
        kind = type(make_provider("far", settings))
        rng = Random(far.seed * 100 + number)
        self.adapter = kind("far", settings, transport=self.wire, clock=far.clock, rng=rng)
        self.pool = SessionPool(
            far.config, providers={"far": self.adapter}, clock=far.clock, rng=rng, inline_ledger=True
        )

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something in this process."""
        return asyncio.get_running_loop().create_task(work, context=self.context)

    async def _keep_time(self) -> None:
        """What the timetable does in real time."""
        for second in range(0, 10**9, HEARTBEAT):
            await asyncio.sleep(HEARTBEAT)
            await self.pool._jobs.heartbeat()
            if second % ROUND == 0:
                await self.pool._jobs.recover()

    async def open(self) -> None:
        await self.start(self.pool.open())
        self.start(self._keep_time())

    async def kill(self) -> None:
        """End it as kill -9 does: nothing that it would do to tidy up reaches anybody."""
        self.dead = True
        self.wire.cut = True
        self.pool._board.stop()
        writer, self.pool._ledger._writer = self.pool._ledger._writer, DeadWriter()
        writer._disconnect()
        await self.bury()
        self.pool._ledger.reader.dispose()
        self.pool._ledger._engine.dispose()

    async def bury(self) -> None:
        """End its tasks, and those that tidy up after them."""
        for _ in range(100):
            # What a message from outside made the pool begin carries nobody's mark.
            living = [task for task in self.tasks | self.pool._sessions.tasks if not task.done()]
            if not living:
                break
            for task in living:
                task.cancel()
            await asyncio.sleep(0)

    async def close(self) -> None:
        await self.start(self.pool.close())
        await self.kill()


class Far:
    """An account at an emulated provider, one ledger, and the processes that use both."""

    def __init__(
        self,
        clock: VirtualClock,
        folder: Path,
        *,
        kind: str = "browserbase",
        seed: int = 1,
        limits: Limits | None = None,
        name: str = "ledger",
        emulator: Any = None,
        providers: dict[str, Any] | None = None,
        **pool: Any,
    ) -> None:
        self.clock = clock
        self.seed = seed
        self.folder = folder
        self.lives: list[Life] = []
        self.emulator = emulator or KINDS[kind](
            limits or Limits(connect_seconds=1e9, creates_per_minute=10**6, concurrent=100), clock=clock
        )
        self.emulator.url = "http://far.invalid"
        self.emulator._drop = lambda request: _DROPPED.get().append(request)
        self.url = f"sqlite:///{folder}/{name}.db"
        Path(folder, f"{name}.db").write_bytes(_template())
        self.config = parse_config(
            {
                "pool": {"max_sessions": 3, "session_ttl": "20m", "keep": "fixed", **pool},
                "ledger": {"url": self.url},
                "providers": providers
                or {
                    "far": {
                        "kind": self.emulator.kind,
                        "api_key": "k",
                        "base_url": "http://far.invalid",
                        "rates": PRICE,
                    }
                },
                "platforms": {"web": {"providers": ["far"], "retry_max": "5s"}},
            }
        )

    async def live(self) -> Life:
        """Start a process."""
        life = Life(self, len(self.lives) + 1)
        self.lives.append(life)
        await life.open()
        return life

    def rows(self, sql: str) -> list[Any]:
        """Ask the books."""
        engine = read_engine(self.url)
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(sql)))
        finally:
            engine.dispose()

    def running(self) -> list[str]:
        """Ids of sessions that run at the provider now."""
        self.emulator._advance()
        return [one.id for one in self.emulator.running]


@contextlib.contextmanager
def separate_processes() -> Iterator[None]:
    """Let each `Life` be a process on a machine of its own, so that its heartbeat tells whether it lives."""

    def this_process(process_id: str) -> processes.Identity:
        life = LIFE.get()
        return processes.Identity(process_id, f"machine-{life.number if life else 0}", 1, 0)

    def factory(loop: Any, work: Any, *, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
        life = (context or contextvars.copy_context()).get(LIFE)
        if life is not None:
            life.tasks.add(task)
            task.add_done_callback(life.tasks.discard)
        return task

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    with mock.patch.object(processes, "this_process", this_process):
        yield
    loop.set_task_factory(None)
