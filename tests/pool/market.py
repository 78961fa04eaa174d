"""A market for pool stories: the real pool and ledger in virtual time, and several fake providers with prices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from tabkeeper.clock import VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.errors import ProviderCapacityError, ProviderRateLimitError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.base import RemoteSession, SessionSpec
from tabkeeper.testing import FakeProvider


class Stall(FakeProvider):
    """A fake provider with a limit of sessions and one of calls a minute, which it enforces as hosted ones do."""

    most: int | None = None
    per_minute: int | None = None
    retry_after: float | None = None
    under_way: int = 0

    async def create(self, spec: SessionSpec) -> RemoteSession:
        now = self._clock.monotonic()
        recent = sum(verb == "create" and at > now - 60 for at, verb, _ in self.calls)
        if self.per_minute is not None and recent >= self.per_minute:
            self.calls.append((now, "too many calls", spec.session_id))
            raise ProviderRateLimitError(self.name, "too many calls", retry_after=self.retry_after)
        if self.most is not None and len(self.open) + self.under_way >= self.most:
            self.calls.append((now, "too many sessions", spec.session_id))
            raise ProviderCapacityError(self.name, f"the limit is {self.most}", retry_after=self.retry_after)
        self.under_way += 1
        try:
            return await super().create(spec)
        finally:
            self.under_way -= 1

    def count(self, verb: str) -> int:
        return sum(said == verb for _, said, _ in self.calls)


@dataclass
class Market:
    pool: SessionPool
    stalls: dict[str, Stall]
    clock: VirtualClock

    async def work(self, platform: str = "web", seconds: float = 10.0, **release: Any) -> str:
        """Lease, work, release; say at which provider."""
        lease = await self.pool.get_session(platform)
        await asyncio.sleep(seconds)
        await lease.release(**release)
        return lease.provider


@asynccontextmanager
async def market(
    clock: VirtualClock,
    prices: dict[str, dict[str, Any]],
    *,
    web: dict[str, Any] | None = None,
    platforms: dict[str, Any] | None = None,
    accounts: dict[str, dict[str, Any]] | None = None,
    latency: dict[str, float] | None = None,
    url: str = "sqlite://",
    budgets: list[dict[str, Any]] | None = None,
    **pool_settings: Any,
) -> AsyncIterator[Market]:
    """Open a pool with a provider for each of `prices`; at the end no invariant is broken and nothing runs."""
    config = parse_config(
        {
            "pool": {"max_sessions": 50, **pool_settings},
            "ledger": {"url": url},
            "platforms": platforms or {"web": {"providers": list(prices), **(web or {})}},
            "providers": {
                name: {"kind": "local", "rates": rates, **(accounts or {}).get(name, {})}
                for name, rates in prices.items()
            },
            "budgets": budgets or [],
        }
    )
    stalls = {
        name: Stall(name, clock, rng=Random(name), latency=((latency or {}).get(name, 1.0),) * 2)
        for name in prices
    }
    pool = SessionPool(config, providers=stalls, clock=clock, rng=Random(7), inline_ledger=True)
    async with pool:
        yield Market(pool, stalls, clock)
        await pool.close(grace=0)
        found = [] if pool._ledger._closed else await pool._ledger.verify()
        assert not found
    assert not [session for stall in stalls.values() for session in stall.open]
