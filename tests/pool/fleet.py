"""Several pools of one fleet in one process: real pools on a real database, with a hosted provider that counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.base import Capabilities, RemoteSession
from tabkeeper.testing import FakeProvider
from tabkeeper.vault import new_key

KEY = new_key()


class FarProvider(FakeProvider):
    """One process's client of a hosted provider; all clients of an account see the same sessions."""

    def __init__(self, account: FarProvider | None = None, **more: Any) -> None:
        self.account = account or self
        self.made = 0
        super().__init__("far", SystemClock(), **({"latency": (0.01, 0.03)} | more))
        self.capabilities = Capabilities(list_by_label=True, usage=True)
        self.known: set[str] = set()
        if account is not None:
            self.sessions = account.sessions

    async def create(self, spec: Any) -> RemoteSession:
        remote = await super().create(spec)
        self.account.peak = max(self.account.peak, len(self.open))
        self.known.add(remote.provider_session_id)
        return remote

    @property
    def _count(self) -> int:
        return self.account.made

    @_count.setter
    def _count(self, made: int) -> None:
        self.account.made = made

    def alive(self, provider_session_id: str) -> bool:
        return provider_session_id in self.known and super().alive(provider_session_id)

    def take_over(self, session: RemoteSession) -> None:
        self.known.add(session.provider_session_id)

    def let_go(self, provider_session_id: str) -> None:
        self.known.discard(provider_session_id)

    async def aclose(self) -> None:
        for session in self.open:
            if session.id in self.known:
                session.ended_at = self._clock.monotonic()


def a_config(url: str, *, budgets: Any = (), tenants: Any = None, platforms: Any = None, **pool: Any) -> Any:
    return parse_config(
        {
            "pool": {
                "max_sessions": 3,
                "keep": "fixed",
                "heartbeat": "2s",
                "queue_timeout": "30s",
                "close_timeout": "3s",
                **pool,
            },
            "ledger": {"url": url},
            "providers": {"far": {"kind": "local", "rates": {"per_hour": "0.36"}}},
            "platforms": platforms or {"web": {"providers": ["far"]}},
            "budgets": list(budgets),
            "tenants": tenants or {},
            "security": {"keys": [KEY]},
        }
    )


class Fleet:
    """Pools that share a database and an account."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.config = a_config(url, **settings)
        self.account = FarProvider()
        self.pools: list[SessionPool] = []
        self.clients: list[FarProvider] = []

    async def start(self, config: Any = None) -> SessionPool:
        client = FarProvider(self.account)
        pool = SessionPool(config or self.config, providers={"far": client}, rng=Random())
        await pool.open()
        self.pools.append(pool)
        self.clients.append(client)
        return pool


@asynccontextmanager
async def fleet(url: str, size: int, **settings: Any) -> AsyncIterator[Fleet]:
    """Start some pools; at the end nothing runs at the account, and the books are sound."""
    made = Fleet(url, **settings)
    try:
        for _ in range(size):
            await made.start()
        yield made
        found = await made.pools[-1].ledger.verify() if made.pools else []
    finally:
        await asyncio.gather(*(pool.close(grace=0) for pool in made.pools))
    assert not found, found
    assert made.account.open == []


async def die(pool: SessionPool) -> None:
    """End a pool's part in the board as a kill would: without a word."""
    board: Any = pool._board
    await board._loop.aclose()
    board._loop.tasks.clear()
    board.stop()


async def until(what: Any, seconds: float = 100.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.02)
