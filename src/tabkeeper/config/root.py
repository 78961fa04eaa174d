"""The whole configuration, and the names in it that refer to one another."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from tabkeeper.config.alerts import AlertSettings
from tabkeeper.config.gateway import GatewaySettings
from tabkeeper.config.health import HealthSettings
from tabkeeper.config.profile import ProfileSettings
from tabkeeper.config.provider import ProviderSettings
from tabkeeper.config.proxy import ProxyPoolSettings, ProxySettings
from tabkeeper.config.sections import (
    BudgetSettings,
    LedgerSettings,
    PlatformSettings,
    PoolSettings,
    SecuritySettings,
    TenantSettings,
)
from tabkeeper.config.service import ServiceSettings
from tabkeeper.config.site import SiteSettings
from tabkeeper.config.values import Domain, Name, Settings, nearest


class PoolConfig(Settings):
    """Everything. Build it in Python, or read it with `load_config`.

    >>> PoolConfig(platforms={"web": {}}).platforms["web"].providers
    ('local',)
    """

    pool: PoolSettings = Field(default_factory=PoolSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    budgets: tuple[BudgetSettings, ...] = ()
    providers: dict[Name, ProviderSettings] = Field(
        default_factory=lambda: {"local": ProviderSettings(kind="local")}, min_length=1
    )
    platforms: dict[Name, PlatformSettings] = Field(default_factory=dict)
    tenants: dict[Name, TenantSettings] = Field(default_factory=dict)
    health: HealthSettings = Field(default_factory=HealthSettings)
    profiles: ProfileSettings = Field(default_factory=ProfileSettings)
    proxies: tuple[ProxySettings, ...] = ()
    proxy_pool: ProxyPoolSettings = Field(default_factory=ProxyPoolSettings)
    sites: dict[Domain, SiteSettings] = Field(default_factory=dict)
    security: SecuritySettings = Field(default_factory=SecuritySettings)
    alerts: AlertSettings = Field(default_factory=AlertSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    service: ServiceSettings = Field(default_factory=ServiceSettings)

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for name, platform in self.platforms.items():
            for provider in platform.providers:
                if provider not in self.providers:
                    raise ValueError(
                        f"platforms.{name}.providers: there is no provider {provider!r}"
                        f"{nearest(provider, self.providers)}; known: {', '.join(self.providers)}"
                    )
        default = self.gateway.platform
        if default is not None and default not in self.platforms:
            raise ValueError(
                f"gateway.platform: there is no platform {default!r}{nearest(default, self.platforms)}"
            )
        for site, own in self.sites.items():
            if own.trust is not None and site in self.profiles.sites:
                raise ValueError(f"sites.{site}.trust: profiles.sites.{site} says it, too; keep one of them")
            self.all_profiles.trust_for(site)
        ids = [proxy.id for proxy in self.proxies]
        for i, proxy in enumerate(ids):
            if ids.index(proxy) != i:
                raise ValueError(f"proxies.{i}.id: {proxy!r} is used twice")
        names = [budget.name for budget in self.budgets]
        for i, budget in enumerate(self.budgets):
            if names.count(budget.name) > 1:
                raise ValueError(f"budgets.{i}.name: {budget.name!r} is used twice")
            for scope, known in (("platform", self.platforms), ("provider", self.providers)):
                value = getattr(budget, scope)
                if value is not None and value not in known:
                    raise ValueError(
                        f"budgets.{i}.{scope}: there is no {scope} {value!r}{nearest(value, known)}"
                    )
        return self

    @property
    def all_profiles(self) -> ProfileSettings:
        """``[profiles]`` with what ``[sites]`` say of trust."""
        own = {site: one.trust for site, one in self.sites.items() if one.trust is not None}
        return self.profiles.model_copy(update={"sites": {**self.profiles.sites, **own}})
