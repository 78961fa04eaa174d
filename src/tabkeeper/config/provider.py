"""What a user can set of one provider: ``[providers.<name>]`` and its prices."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, model_validator

from tabkeeper.config.values import AnyDuration, Duration, Price, Settings


class RateSettings(Settings):
    """A price list of your own, for a provider without a built-in one or with prices you negotiated."""

    per_session: Price = Field(Decimal(0), description="Dollars for each session created.")
    per_hour: Price = Field(Decimal(0), description="Dollars per hour of session time.")
    increment: Duration = Field(
        timedelta(seconds=1), description="Time is billed in whole steps of this, rounded up."
    )
    minimum: AnyDuration = Field(timedelta(0), description="Least time billed per session.")
    per_gb: Price = Field(Decimal(0), description="Dollars per 10⁹ bytes of (proxy) traffic.")
    max_gb: Price | None = Field(
        None,
        description="Most traffic per session, in 10⁹ bytes; needed when per_gb is set, so that a worst case exists.",
    )
    included_hours: Price = Field(Decimal(0), description="Hours per calendar month (UTC) that cost nothing.")


KEY_VARIABLES = {
    "anchor": "ANCHORBROWSER_API_KEY",
    "browser_use": "BROWSER_USE_API_KEY",
    "browserbase": "BROWSERBASE_API_KEY",
    "browserless": "BROWSERLESS_TOKEN",
    "hyperbrowser": "HYPERBROWSER_API_KEY",
    "kernel": "KERNEL_API_KEY",
    "steel": "STEEL_API_KEY",
}
"""Hosted kinds, and the variable in which their users keep the key."""
_FOR_HOSTED = frozenset(
    {"api_key", "project_id", "base_url", "region", "proxies", "exclusive", "keep_alive", "options"}
)
_FOR_MACHINES = frozenset({"url", "isolation", "executable_path", "headless", "sandbox", "args"})


class ProviderSettings(Settings):
    """Who runs browsers: local Chromium, a CDP endpoint, or a hosted service."""

    kind: Literal[
        "local",
        "cdp",
        "anchor",
        "browser_use",
        "browserbase",
        "browserless",
        "hyperbrowser",
        "kernel",
        "steel",
    ] = Field(description="Which adapter to use.")
    max_sessions: int | None = Field(None, ge=1, description="Sessions at once at this provider.")
    max_creates_per_minute: int | None = Field(
        None, ge=1, description="Sessions created in any minute; refusals for too many calls teach it, too."
    )
    breaker_failures: int = Field(
        3, ge=1, description="Failed creations in a row after which one session at a time is tried."
    )
    rates: RateSettings | None = Field(None, description="Own prices; local Chromium is free without them.")
    plan: str | None = Field(
        None, description="A built-in price list, such as browserbase/developer; see `rates list`."
    )
    max_gb: Price | None = Field(
        None,
        description='With a plan that charges for traffic: most of it per session, in 10⁹ bytes; "0" if there is none.',
    )
    url: SecretStr | None = Field(None, description="cdp: ws://, wss:// or http:// address of the endpoint.")
    isolation: Literal["context", "process"] = Field(
        "context", description="local: one shared browser with a context per lease, or a process per session."
    )
    executable_path: Path | None = Field(
        None, description="local: browser to start; found by itself if unset."
    )
    headless: bool = Field(default=True, description="local: without a window.")
    sandbox: bool = Field(
        default=True, description="local: Chromium's sandbox; as root it is off, with a warning."
    )
    args: tuple[str, ...] = Field((), description="local: more command line flags for the browser.")
    api_key: SecretStr | None = Field(None, description="hosted: the account's key.")
    project_id: str | None = Field(
        None, description="browserbase, kernel, steel: the project; the key's own project if unset."
    )
    base_url: str | None = Field(
        None, description="hosted: address of the API, such as an emulator's; the service's own if unset."
    )
    region: str | None = Field(
        None, description="hosted: where browsers run, in the service's words; its default if unset."
    )
    proxies: bool = Field(default=False, description="hosted: send traffic through the service's proxies.")
    exclusive: bool = Field(
        default=False,
        description="hosted: nobody but this ledger uses the account, so what runs there unknown to it is ended, and "
        "what was billed in all, where the service tells, is compared with all that was booked.",
    )
    keep_alive: bool = Field(
        default=False,
        description="browserbase, browserless: sessions outlive their connection; off, they end and cost no more.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="hosted: anything else of the service's create call, under its own names, such as a viewport.",
    )

    @property
    def hosted(self) -> bool:
        """Whether somebody else runs the browsers and bills for them by API."""
        return self.kind in KEY_VARIABLES

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hosted and not (self.api_key and self.api_key.get_secret_value().strip()):
            variable = KEY_VARIABLES[self.kind]
            raise ValueError(
                f'api_key: a {self.kind} provider needs one; write "env:{variable}" and set {variable}'
            )
        for key in sorted(_FOR_MACHINES if self.hosted else _FOR_HOSTED):
            if getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True):
                raise ValueError(f"{key}: a {self.kind} provider does not know it")
        if self.kind == "cdp" and self.url is None:
            raise ValueError('url: a cdp provider needs one, such as "ws://127.0.0.1:9222" or "env:CDP_URL"')
        if self.rates is not None and self.plan is not None:
            raise ValueError("set rates or plan, not both")
        if self.max_gb is not None and self.plan is None:
            raise ValueError("max_gb: it belongs to a plan; with rates of your own, set rates.max_gb")
        return self
