"""From the configuration to the numbers the planner obeys."""

from __future__ import annotations

from tabkeeper.config import PoolConfig
from tabkeeper.errors import NoPriceError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import PlatformRules, Rules

_MANY = 1_000_000_000


def rules_from(config: PoolConfig) -> Rules:
    """Resolve a platform's unset values from the pool's, and durations to seconds."""
    pool = config.pool
    platforms = {
        name: PlatformRules(
            providers=platform.providers,
            max_sessions=platform.max_sessions or pool.max_sessions,
            session_ttl=(platform.session_ttl or pool.session_ttl).total_seconds(),
            idle_timeout=(platform.idle_timeout or pool.idle_timeout).total_seconds(),
            lease_timeout=(platform.lease_timeout or pool.lease_timeout).total_seconds(),
            max_uses=platform.max_uses or _MANY,
            create_attempts=platform.create_attempts,
            retry_base=platform.retry_base.total_seconds(),
            retry_max=platform.retry_max.total_seconds(),
            stale_after=(platform.session_ttl or pool.session_ttl).total_seconds()
            * config.health.stale_after,
            keep=platform.keep or pool.keep,
            cold_start=float(
                (pool.cold_start_cost if platform.cold_start_cost is None else platform.cold_start_cost).nanos
            ),
            prewarm=pool.prewarm if platform.prewarm is None else platform.prewarm,
            evict_in_use=pool.evict_in_use if platform.evict_in_use is None else platform.evict_in_use,
            routing=platform.routing,
            escalate_after=platform.escalate_after,
            escalate_hold=platform.escalate_hold.total_seconds(),
            escalate_successes=platform.escalate_successes,
        )
        for name, platform in config.platforms.items()
    }
    return Rules(
        max_sessions=pool.max_sessions,
        max_queued=pool.max_queued,
        aging=pool.aging.total_seconds(),
        close_timeout=pool.close_timeout.total_seconds(),
        leak_after=pool.leak_after.total_seconds(),
        check_timeout=3 * config.health.timeout.total_seconds(),
        platforms=platforms,
        provider_limits={
            n: p.max_sessions for n, p in config.providers.items() if p.max_sessions is not None
        },
        eviction=pool.eviction,
        provider_paces={
            n: p.max_creates_per_minute
            for n, p in config.providers.items()
            if p.max_creates_per_minute is not None
        },
        breaker_failures={n: p.breaker_failures for n, p in config.providers.items()},
        tenant_limits={n: t.max_sessions for n, t in config.tenants.items() if t.max_sessions is not None},
        tenant_weights={n: t.weight for n, t in config.tenants.items()},
        owning_tenants=frozenset(b.tenant for b in config.budgets if b.tenant is not None),
    )


def meters_from(config: PoolConfig, ledger: Ledger) -> dict[str, Meter]:
    """Return what the sessions of each provider cost by their age, by today's price lists."""
    meters = {}
    for name in config.providers:
        try:
            meters[name] = Meter(ledger.price_card(name))
        except NoPriceError:
            continue
    return meters
