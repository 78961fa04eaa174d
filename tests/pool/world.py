"""A small world for pool stories: the real pool and the real ledger in virtual time, and a provider that counts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from tabkeeper.clock import VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.testing import FakeProvider, Faults


@dataclass
class World:
    pool: SessionPool
    provider: FakeProvider
    clock: VirtualClock

    async def violations(self) -> list[str]:
        await self.pool._ledger.flush()
        return [f"{v.name}: {v.meaning} ({v.sample})" for v in await self.pool._ledger.verify()]


@asynccontextmanager
async def world(
    clock: VirtualClock,
    *,
    seed: int = 1,
    latency: tuple[float, float] = (1.0, 1.0),
    close_latency: tuple[float, float] = (0.0, 0.0),
    faults: Faults | None = None,
    platforms: dict[str, Any] | None = None,
    rates: dict[str, Any] | None = None,
    budgets: list[dict[str, Any]] | None = None,
    tenants: dict[str, Any] | None = None,
    providers: dict[str, Any] | None = None,
    jobs: bool | None = None,
    **pool_settings: Any,
) -> AsyncIterator[World]:
    """Open a pool of the one provider "local"; at the end nothing may be left at it and no invariant broken."""
    config = parse_config(
        {
            "pool": {"max_sessions": 2, "keep": "fixed", **pool_settings},
            "ledger": {"url": "sqlite://"},
            "platforms": platforms or {"web": {}},
            "providers": providers or {"local": {"kind": "local", **({"rates": rates} if rates else {})}},
            "budgets": budgets or [],
            "tenants": tenants or {},
        }
    )
    provider = FakeProvider(
        "local", clock, rng=Random(seed), latency=latency, close_latency=close_latency, faults=faults
    )
    pool = SessionPool(
        config, providers={"local": provider}, clock=clock, rng=Random(seed), inline_ledger=True, jobs=jobs
    )
    async with pool:
        here = World(pool, provider, clock)
        yield here
        await pool.close()
    assert provider.open == []
