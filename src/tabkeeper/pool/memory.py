"""What a pool remembers when it opens: the usage log of the last days teaches it as if it had been there.

Without that, each restart would begin with guesses, and keep or close sessions by them until it has learnt anew.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tabkeeper.clock import Clock
from tabkeeper.config import PoolConfig
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.usage import UsedLease
from tabkeeper.pool.gaps import PastLease
from tabkeeper.pool.keep import Keeper
from tabkeeper.pool.model import Lane

REMEMBERED = timedelta(days=7)
"""Older leases teach nothing: traffic changes, and the newest fifty gaps weigh more than all others."""


async def remember(keeper: Keeper, ledger: Ledger, config: PoolConfig, clock: Clock) -> None:
    """Teach the keeper what the ledger knows of earlier runs, before the first lease of this one.

    Leases of platforms with proxies are left out: the log does not say which proxy they were held to.

    Raises:
        LedgerUnavailableError: the database is away.
    """
    now, wall = clock.monotonic(), clock.now()
    owning = {budget.tenant for budget in config.budgets if budget.tenant is not None}
    leases = await ledger.records.latest_leases(wall - REMEMBERED)
    keeper.gaps.replay(
        PastLease(
            lane=_lane(lease, owning),
            asked_at=now - _ago(wall, lease.requested_at),
            granted_at=now - _ago(wall, lease.granted_at),
            ended_at=now - _ago(wall, lease.released_at),
        )
        for lease in leases
        if lease.platform in config.platforms and not config.platforms[lease.platform].proxies
    )
    for provider, seconds in await ledger.records.latest_creations(wall - REMEMBERED):
        if provider in config.providers:
            keeper.creation_took(provider, seconds)


def _lane(lease: UsedLease, owning: set[str]) -> Lane:
    if lease.identity is not None:
        return Lane(lease.platform, lease.tenant, lease.identity)
    return Lane(lease.platform, lease.tenant if lease.tenant in owning else None)


def _ago(wall: datetime, at: int) -> float:
    """Seconds since an instant of the log; none if the clock was set back since."""
    return max(0.0, wall.timestamp() - at / 1_000_000)
