"""What a user can set of proxies: each ``[[proxies]]``, and ``[proxy_pool]`` for all of them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from tabkeeper.config.values import Duration, Name, Price, Settings

StrategyName = Literal["round_robin", "random", "weighted", "least_used", "fastest", "sticky", "cheapest"]
ProxyType = Literal["datacenter", "residential", "isp", "mobile"]


class ProxySettings(Settings):
    """One proxy of your own. Write what is secret by reference: `url = "env:PROXY_1"`."""

    id: Name = Field(description="A proxy is known by it in lists, reports and bindings.")
    url: SecretStr = Field(
        description="http://, https:// or socks5://, host and port, with user name and password if it asks for them."
    )
    username: SecretStr | None = Field(None, description="Instead of the one in url.")
    password: SecretStr | None = Field(None, description="Instead of the one in url.")
    type: ProxyType = Field("datacenter", description="Whose address a site sees.")
    geo: str = Field("", description='Where it is, in words of your own, such as "us".')
    weight: int = Field(1, ge=1, description='Share among others under the strategy "weighted".')
    price_per_gb: Price | None = Field(
        None,
        description="Dollars for 10⁹ bytes through it, in either direction: booked for every session that uses it.",
    )


class ProxyPoolSettings(Settings):
    """How proxies are chosen and judged, and how long a session key keeps its own."""

    strategy: StrategyName = Field(
        "round_robin",
        description="How the proxy of a new session is chosen, unless its platform says otherwise.",
    )
    sticky_ttl: Duration = Field(
        timedelta(hours=1),
        description="How long a session key keeps its proxy, from its first use or last touch on.",
    )
    sticky_fallback: StrategyName = Field(
        "least_used", description="How a session key's proxy is chosen, at first and when its own fails."
    )
    max_gb: Decimal = Field(
        Decimal("0.1"),
        gt=0,
        le=1000,
        description="The most that one session may move through a proxy with a price_per_gb, in 10⁹ bytes: what that "
        "costs is held for it, and it is ended when nine tenths are used.",
    )
    degraded_after: int = Field(2, ge=1, description="Failures in a row from which on a proxy is degraded.")
    unhealthy_after: int = Field(
        3, ge=1, description="Failures in a row from which on it is unhealthy: left alone, then tried once."
    )
    dead_after: int = Field(
        10, ge=1, description="Failures in a row from which on only a probe brings it back."
    )
    pause: Duration = Field(
        timedelta(seconds=30), description="How long an unhealthy proxy is left alone at first; doubles."
    )
    longest_pause: Duration = Field(timedelta(minutes=15), description="The longest such pause.")
    probe_url: str | None = Field(
        None,
        description="An address of yours that every proxy is tried on, again and again; no probes if unset.",
    )
    probe_every: Duration = Field(
        timedelta(minutes=5), description="Pause between two probes of all proxies."
    )
    probe_timeout: Duration = Field(
        timedelta(seconds=10), description="A probe that takes longer has failed."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.degraded_after <= self.unhealthy_after <= self.dead_after:
            raise ValueError(
                "degraded_after, unhealthy_after and dead_after must not fall, such as 2, 3 and 10"
            )
        if self.probe_url is not None and not self.probe_url.startswith(("http://", "https://")):
            raise ValueError("probe_url begins with http:// or https://")
        return self
