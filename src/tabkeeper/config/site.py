"""What a user can set of a site: ``[sites."shop.example"]``."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, field_validator

from tabkeeper.config.profile import TrustSettings
from tabkeeper.config.proxy import ProxyType, StrategyName
from tabkeeper.config.values import Duration, Settings


class SiteSettings(Settings):
    """One site: where work begins on it, how many sessions it bears, which proxies it likes."""

    start: tuple[str, ...] = Field((), description="Start pages, as whole addresses.")
    max_sessions: int = Field(1, ge=1, description="Sessions that work on it at once.")
    proxy_strategy: StrategyName | None = Field(
        None, description="How a proxy is chosen for it; as its platform says if unset."
    )
    proxy_types: tuple[ProxyType, ...] = Field(
        (), description="Types of proxies that may visit it; all if empty."
    )
    block_types: tuple[ProxyType, ...] = Field(
        ("datacenter",),
        description="Types of proxies that are blocked when it refuses them; others may have had bad luck.",
    )
    cool_down: Duration = Field(
        timedelta(minutes=30), description="How long a proxy that it refused is not used for it."
    )
    trust: TrustSettings | None = Field(
        None, description="Trust in profiles saved there; as [profiles] if unset."
    )

    @field_validator("start")
    @classmethod
    def _check_start(cls, pages: tuple[str, ...]) -> tuple[str, ...]:
        for page in pages:
            if not page.startswith(("http://", "https://")):
                raise ValueError(f"{page!r} is no address; write it like https://shop.example/list")
        return pages
