"""What a user can set: the models of `tabkeeper.toml` and of `TABKEEPER_*` variables, with every default.

Defaults live here and nowhere else. `values` are the kinds of values, `sections` and `provider` the models, `root` the
whole, `reading` the way from a file to it; a mistake becomes one `ConfigError` that says what to write instead.
"""

from __future__ import annotations

from tabkeeper.config.alerts import AlertSettings, WebhookSettings
from tabkeeper.config.gateway import GatewaySettings
from tabkeeper.config.health import HealthSettings
from tabkeeper.config.profile import ProfileSettings, TrustSettings
from tabkeeper.config.provider import ProviderSettings, RateSettings
from tabkeeper.config.proxy import ProxyPoolSettings, ProxySettings, ProxyType, StrategyName
from tabkeeper.config.reading import load_config, parse_config
from tabkeeper.config.root import PoolConfig
from tabkeeper.config.sections import (
    BudgetSettings,
    LedgerSettings,
    PlatformSettings,
    PoolSettings,
    ResourceKind,
    SecuritySettings,
    TenantSettings,
)
from tabkeeper.config.service import Scope, ServiceSettings, TokenSettings
from tabkeeper.config.site import SiteSettings
from tabkeeper.config.values import (
    AnyDuration,
    Dollars,
    Domain,
    Duration,
    Name,
    Price,
    Settings,
    Zone,
    check_domain,
    check_zone,
    nearest,
    parse_duration,
    show_duration,
)

__all__ = [
    "AlertSettings",
    "AnyDuration",
    "BudgetSettings",
    "Dollars",
    "Domain",
    "Duration",
    "GatewaySettings",
    "HealthSettings",
    "LedgerSettings",
    "Name",
    "PlatformSettings",
    "PoolConfig",
    "PoolSettings",
    "Price",
    "ProfileSettings",
    "ProviderSettings",
    "ProxyPoolSettings",
    "ProxySettings",
    "ProxyType",
    "RateSettings",
    "ResourceKind",
    "Scope",
    "SecuritySettings",
    "ServiceSettings",
    "Settings",
    "SiteSettings",
    "StrategyName",
    "TenantSettings",
    "TokenSettings",
    "TrustSettings",
    "WebhookSettings",
    "Zone",
    "check_domain",
    "check_zone",
    "load_config",
    "nearest",
    "parse_config",
    "parse_duration",
    "show_duration",
]
