"""What a user can set: the models of `tabkeeper.toml` and of `TABKEEPER_*` variables, with every default.

Defaults live here and nowhere else. Reading files and the environment is in the functions at the end; every
mistake becomes one `ConfigError` that names the key and says what to write instead.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    model_validator,
)

from tabkeeper.errors import ConfigError
from tabkeeper.money import Money

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> timedelta:
    """Read ``"90s"``, ``"10m"``, ``"1h30m"``, ``"250ms"`` or a number of seconds.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    text = str(value).strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write it like '30s', '10m' or '1h30m'")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


def show_duration(value: timedelta) -> str:
    """Write a duration the way `parse_duration` reads it: ``10m``, ``1h30m``, ``1.5s``."""
    seconds = value.total_seconds()
    if seconds != int(seconds):
        return f"{seconds:g}s"
    out, rest = "", int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        out += f"{count}{unit}" if count else ""
    return out or "0s"


def _parse_money(value: object) -> Money:
    if isinstance(value, Money):
        return value
    if isinstance(value, float):
        raise ValueError(f'write money as text, "{value}", so that it stays exact')  # noqa: TRY004
    money = Money.parse(str(value))
    if money.nanos < 0:
        raise ValueError("must not be negative")
    return money


def _parse_price(value: object) -> Decimal:
    if isinstance(value, float):
        raise ValueError(f'write prices as text, "{value}", so that they stay exact')  # noqa: TRY004
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a price in dollars, such as '0.12'") from None
    if not price.is_finite() or price < 0:
        raise ValueError(f"{value!r} is not a price in dollars, such as '0.12'")
    return price


def check_zone(name: str) -> str:
    """Return `name` if it is an IANA time zone, else raise ValueError naming the nearest ones."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        from zoneinfo import available_timezones

        near = difflib.get_close_matches(name, available_timezones(), 2)
        hint = (
            f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ", such as 'Europe/Berlin'"
        )
        raise ValueError(f"{name!r} is not an IANA time zone{hint}") from None
    return name


AnyDuration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(show_duration)]
Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), AfterValidator(_positive), PlainSerializer(show_duration)
]
Dollars = Annotated[Money, BeforeValidator(_parse_money), PlainSerializer(lambda m: m.text())]
Price = Annotated[Decimal, BeforeValidator(_parse_price), PlainSerializer(str)]
Zone = Annotated[str, AfterValidator(check_zone)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
ResourceKind = Literal["image", "font", "media", "stylesheet", "trackers"]


class Settings(BaseModel):
    """Base of all sections: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class PoolSettings(Settings):
    """Limits and habits of the whole pool."""

    max_sessions: int = Field(
        10, ge=1, description="Sessions alive at once, those being created or closed included."
    )
    max_queued: int = Field(
        1000, ge=1, description="Requests that may wait; the next one is refused at once."
    )
    queue_timeout: Duration = Field(
        timedelta(seconds=30), description="How long a request waits if it does not say."
    )
    session_ttl: Duration = Field(
        timedelta(minutes=10), description="A session older than this takes no new lease."
    )
    idle_timeout: Duration = Field(
        timedelta(minutes=1), description="An idle session is closed after this time."
    )
    lease_timeout: Duration = Field(
        timedelta(minutes=5), description="A lease not released by then is reclaimed and its session closed."
    )
    leak_after: Duration = Field(
        timedelta(minutes=2),
        description="A lease held this long is logged once, with the place that took it.",
    )
    aging: Duration = Field(
        timedelta(seconds=10), description="A waiting request gains one step of priority in this time."
    )
    priorities: tuple[int, int] = Field(
        (-100, 100), description="Lowest and highest priority a request may ask for."
    )
    eviction: Literal["lru"] = Field(
        "lru", description="Which idle session makes room at a limit: the least recently used."
    )
    create_timeout: Duration = Field(
        timedelta(seconds=60), description="A provider must have a session ready by then."
    )
    close_timeout: Duration = Field(
        timedelta(seconds=10), description="A closing session keeps its slot for at most this time."
    )
    clean_timeout: Duration = Field(
        timedelta(seconds=5),
        description="Closing a lease's pages may take this long; then the session is closed.",
    )
    shutdown_grace: AnyDuration = Field(
        timedelta(seconds=10), description="How long running leases may finish when the pool closes."
    )
    heartbeat: Duration = Field(
        timedelta(seconds=10), description="How often this process says that it is alive."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.priorities
        if low > high:
            raise ValueError(f"priorities: the lowest comes first, so write [{high}, {low}]")
        if self.heartbeat > timedelta(seconds=30):
            raise ValueError("heartbeat: at most 30s; a process not heard of for 90s is taken for dead")
        return self


class LedgerSettings(Settings):
    """Where costs are kept."""

    url: str = Field(
        "sqlite:///tabkeeper.db", description="SQLAlchemy URL: sqlite:///file or postgresql://user@host/db."
    )
    timezone: Zone = Field("UTC", description="Zone of the days and months in reports.")
    auto_upgrade: bool = Field(
        default=True,
        description="Create or upgrade the schema at start; off: `tabkeeper db upgrade` does it.",
    )


class BudgetSettings(Settings):
    """One budget. A session must fit into every budget that applies to it."""

    name: Name = Field(description="Shown in reports and errors; a budget is known by it.")
    limit: Dollars = Field(description='Dollars per period, as text: "5.00".')
    period: Literal["day", "week", "month", "total"] = Field(
        "day", description="Length of a window; weeks start on Monday."
    )
    timezone: Zone = Field("UTC", description="Zone whose midnight starts a window.")
    mode: Literal["hard", "soft"] = Field(
        "hard", description="hard refuses what would pass the limit; soft only counts."
    )
    thresholds: tuple[float, ...] = Field(
        (0.5, 0.8, 1.0), description="Shares of the limit at which an alert is written, once per window."
    )
    on_exceed: Literal["deny", "wait", "fallback"] = Field(
        "deny",
        description="deny: clear error; wait: until money is free or the next window; fallback: free providers.",
    )
    platform: str | None = Field(None, description="Count only this platform.")
    provider: str | None = Field(None, description="Count only this provider.")
    tenant: str | None = Field(None, description="Count only this tenant; it then gets sessions of its own.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.limit.nanos == 0 and self.mode == "hard":
            raise ValueError(
                "limit: a hard budget of zero refuses everything; set a limit or remove the budget"
            )
        scopes = [s for s in (self.platform, self.provider, self.tenant) if s is not None]
        if len(scopes) > 1:
            raise ValueError("set at most one of platform, provider, tenant")
        if any(not 0 < t <= 10 for t in self.thresholds):
            raise ValueError("thresholds are shares of the limit, such as 0.8")
        return self


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


_KEY_VARIABLES = {"browserbase": "BROWSERBASE_API_KEY", "steel": "STEEL_API_KEY"}
"""Hosted kinds, and the variable in which their users keep the key."""
_FOR_HOSTED = frozenset({"api_key", "project_id", "base_url", "region", "proxies", "keep_alive", "options"})
_FOR_MACHINES = frozenset({"url", "isolation", "executable_path", "headless", "sandbox", "args"})


class ProviderSettings(Settings):
    """Who runs browsers: local Chromium, a CDP endpoint, or a hosted service."""

    kind: Literal["local", "cdp", "browserbase", "steel"] = Field(description="Which adapter to use.")
    max_sessions: int | None = Field(None, ge=1, description="Sessions at once at this provider.")
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
        None, description="browserbase, steel: the project; the key's own project if unset."
    )
    base_url: str | None = Field(
        None, description="hosted: address of the API, such as an emulator's; the service's own if unset."
    )
    region: str | None = Field(
        None, description="hosted: where browsers run, in the service's words; its default if unset."
    )
    proxies: bool = Field(default=False, description="hosted: send traffic through the service's proxies.")
    keep_alive: bool = Field(
        default=False,
        description="hosted: sessions outlive a broken connection; off, they end with it, so none is paid for in vain.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="hosted: anything else of the service's create call, under its own names, such as a viewport.",
    )

    @property
    def hosted(self) -> bool:
        """Whether somebody else runs the browsers and bills for them by API."""
        return self.kind in _KEY_VARIABLES

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hosted and not (self.api_key and self.api_key.get_secret_value().strip()):
            variable = _KEY_VARIABLES[self.kind]
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


class PlatformSettings(Settings):
    """A named kind of work with limits of its own. Unset values are taken from the pool."""

    providers: tuple[str, ...] = Field(
        ("local",), min_length=1, description="Providers, in order of preference."
    )
    routing: Literal["ordered"] = Field("ordered", description="How a provider is chosen.")
    max_sessions: int | None = Field(None, ge=1, description="Sessions at once for this platform.")
    session_ttl: Duration | None = Field(None, description="As pool.session_ttl.")
    idle_timeout: Duration | None = Field(None, description="As pool.idle_timeout.")
    lease_timeout: Duration | None = Field(None, description="As pool.lease_timeout.")
    queue_timeout: Duration | None = Field(None, description="As pool.queue_timeout.")
    use_timeout: Duration = Field(timedelta(seconds=60), description="Longest time of one `use()` operation.")
    max_uses: int | None = Field(None, ge=1, description="Leases a session serves before it is closed.")
    block: tuple[ResourceKind, ...] = Field((), description="What pages must not load.")
    create_attempts: int = Field(
        3, ge=1, description="Failed creations a request survives before it gets the error."
    )
    retry_base: Duration = Field(
        timedelta(milliseconds=500), description="First pause after a failed creation; doubles."
    )
    retry_max: Duration = Field(timedelta(seconds=30), description="Longest pause after failed creations.")
    max_session_cost: Dollars | None = Field(None, description="A session is closed before it costs more.")


class TenantSettings(Settings):
    """Who is charged."""

    max_sessions: int | None = Field(None, ge=1, description="Leases of this tenant at once.")
    weight: int = Field(1, ge=1, description="Share among tenants of one priority.")


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

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for name, platform in self.platforms.items():
            for provider in platform.providers:
                if provider not in self.providers:
                    raise ValueError(
                        f"platforms.{name}.providers: there is no provider {provider!r}"
                        f"{_nearest(provider, self.providers)}; known: {', '.join(self.providers)}"
                    )
        names = [budget.name for budget in self.budgets]
        for i, budget in enumerate(self.budgets):
            if names.count(budget.name) > 1:
                raise ValueError(f"budgets.{i}.name: {budget.name!r} is used twice")
            for scope, known in (("platform", self.platforms), ("provider", self.providers)):
                value = getattr(budget, scope)
                if value is not None and value not in known:
                    raise ValueError(
                        f"budgets.{i}.{scope}: there is no {scope} {value!r}{_nearest(value, known)}"
                    )
        return self


def _nearest(word: str, known: Mapping[str, object] | list[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def load_config(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> PoolConfig:
    """Read a TOML file, lay `TABKEEPER_*` variables over it, resolve ``env:NAME`` values, and check it all.

    `TABKEEPER_POOL__MAX_SESSIONS=3` sets ``pool.max_sessions``: two underscores go one level down.

    Args:
        path: the file; None reads only the environment.
        environ: instead of the process environment.

    Raises:
        ConfigError: the first mistake found, in one sentence.
    """
    env = os.environ if environ is None else environ
    data: dict[str, Any] = {}
    where = "the environment"
    if path is not None:
        file = Path(path)
        where = str(file)
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"there is no file {where}; `tabkeeper init` writes one") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where} cannot be read: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where} is not valid TOML: {error}") from None
    _overlay(data, env)
    data = _resolve_env(data, env, ())
    return parse_config(data, where)


def parse_config(data: Mapping[str, Any], where: str = "configuration") -> PoolConfig:
    """Check plain data; see `load_config`.

    Raises:
        ConfigError: the first mistake found, in one sentence.
    """
    try:
        return PoolConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_mistake(error)}") from None


def _overlay(data: dict[str, Any], env: Mapping[str, str]) -> None:
    for variable, value in sorted(env.items()):
        if not variable.startswith("TABKEEPER_") or "__" not in variable:
            continue
        *parents, last = variable.removeprefix("TABKEEPER_").lower().split("__")
        node: Any = data
        for key in parents:
            node = node.setdefault(key, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise ConfigError(f"{variable} does not lead to a setting; the file has a plain value on the way")
        node[last] = value


def _resolve_env(value: Any, env: Mapping[str, str], path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _resolve_env(item, env, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve_env(item, env, (*path, str(i))) for i, item in enumerate(value)]
    if isinstance(value, str) and value.startswith("env:"):
        name = value.removeprefix("env:")
        if name not in env:
            raise ConfigError(f"{'.'.join(path)}: the environment variable {name} is not set")
        return env[name]
    return value


def _first_mistake(error: ValidationError) -> str:
    mistake = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in mistake["loc"]]
    if mistake["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        return f"unknown key {'.'.join(path)!r}{_nearest(path[-1], known)}; known here: {', '.join(known)}"
    message = mistake["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path)}: {message}" if path else message


def _known_keys(path: list[str]) -> list[str]:
    """Return the keys that are valid at `path` of the configuration."""
    model: Any = PoolConfig
    sections: dict[str, Any] = {
        "pool": PoolSettings,
        "ledger": LedgerSettings,
        "budgets": BudgetSettings,
        "providers": ProviderSettings,
        "platforms": PlatformSettings,
        "tenants": TenantSettings,
    }
    for part in path:
        model = RateSettings if part == "rates" else sections.get(part, model)
    return list(model.model_fields)
