"""Tabkeeper: a cost-aware pool of browser sessions with a budget ledger that cannot be overspent.

>>> from tabkeeper import SessionPool
>>> async with SessionPool.from_file("tabkeeper.toml") as pool:                 # doctest: +SKIP
...     async with pool.get_session("web") as session:
...         page = await session.new_page()
"""

from tabkeeper.config import (
    BudgetSettings,
    LedgerSettings,
    PlatformSettings,
    PoolConfig,
    PoolSettings,
    ProfileSettings,
    ProviderSettings,
    ProxySettings,
    RateSettings,
    SecuritySettings,
    TenantSettings,
    load_config,
)
from tabkeeper.errors import (
    BlockedError,
    BudgetExceededError,
    ConfigError,
    LeaseLostError,
    LedgerError,
    LedgerUnavailableError,
    NoProxyError,
    PoolClosedError,
    PoolError,
    ProviderError,
    QueueFullError,
    QueueTimeoutError,
    SessionCreationError,
    SessionTimeoutError,
    TabkeeperError,
)
from tabkeeper.money import Money
from tabkeeper.pool.lease import Lease, LeaseRequest
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.stats import PoolStats
from tabkeeper.proxies.model import Proxy
from tabkeeper.proxies.sticky import StickyProxies
from tabkeeper.sites.target import Target

__version__ = "0.1.0"

__all__ = [
    "BlockedError",
    "BudgetExceededError",
    "BudgetSettings",
    "ConfigError",
    "Lease",
    "LeaseLostError",
    "LeaseRequest",
    "LedgerError",
    "LedgerSettings",
    "LedgerUnavailableError",
    "Money",
    "NoProxyError",
    "PlatformSettings",
    "PoolClosedError",
    "PoolConfig",
    "PoolError",
    "PoolSettings",
    "PoolStats",
    "ProfileSettings",
    "ProviderError",
    "ProviderSettings",
    "Proxy",
    "ProxySettings",
    "QueueFullError",
    "QueueTimeoutError",
    "RateSettings",
    "SecuritySettings",
    "SessionCreationError",
    "SessionPool",
    "SessionTimeoutError",
    "StickyProxies",
    "TabkeeperError",
    "Target",
    "TenantSettings",
    "load_config",
]
