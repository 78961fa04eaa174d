"""The configuration models as plain descriptions: sections, keys, types, defaults, meanings.

`tabkeeper init` and the configuration reference are both written from these, so neither can disagree with the code.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

from annotated_types import Ge
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from tabkeeper.config import (
    AlertSettings,
    BudgetSettings,
    GatewaySettings,
    HealthSettings,
    LedgerSettings,
    PlatformSettings,
    PoolSettings,
    ProfileSettings,
    ProviderSettings,
    ProxyPoolSettings,
    ProxySettings,
    RateSettings,
    SecuritySettings,
    ServiceSettings,
    Settings,
    SiteSettings,
    TenantSettings,
    TokenSettings,
    TrustSettings,
    Zone,
)
from tabkeeper.money import Money

_PLAIN: Mapping[object, str] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    timedelta: "duration",
    Money: "dollars, as text",
    Decimal: "decimal number, as text",
    Path: "path",
    SecretStr: "text, secret",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One setting: its name, what may be written, what holds without it, and what it means."""

    name: str
    kind: str
    default: str | None
    """As TOML; None if the key is required or simply not set."""
    required: bool
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table of the configuration file."""

    header: str
    """As it stands in the file, such as ``[pool]`` or ``[[budgets]]``."""
    model: type[Settings]
    meaning: str
    keys: tuple[Key, ...]


def sections() -> tuple[Section, ...]:
    """Return every table of the configuration file, in the order in which people read it."""
    return (
        _section("[pool]", PoolSettings),
        _section("[ledger]", LedgerSettings),
        _section("[[budgets]]", BudgetSettings),
        _section("[providers.NAME]", ProviderSettings),
        _section("[providers.NAME.rates]", RateSettings),
        _section("[platforms.NAME]", PlatformSettings),
        _section("[tenants.NAME]", TenantSettings),
        _section("[profiles]", ProfileSettings),
        _section("[profiles.sites.DOMAIN]", TrustSettings),
        _section("[health]", HealthSettings),
        _section("[alerts]", AlertSettings),
        _section("[sites.DOMAIN]", SiteSettings),
        _section("[[proxies]]", ProxySettings),
        _section("[proxy_pool]", ProxyPoolSettings),
        _section("[security]", SecuritySettings),
        _section("[service]", ServiceSettings),
        _section("[[service.tokens]]", TokenSettings),
        _section("[gateway]", GatewaySettings),
    )


def toml_value(value: object) -> str:
    """Write a value that `model_dump(mode="json")` gave as TOML; JSON's texts, numbers and lists are TOML too."""
    return json.dumps(value, ensure_ascii=False)


def _section(header: str, model: type[Settings]) -> Section:
    # Without its required keys a model still dumps its defaults, in the form in which they are written.
    defaults = model.model_construct().model_dump(mode="json", warnings=False)
    keys = tuple(
        _key(name, field, defaults.get(name))
        for name, field in model.model_fields.items()
        if not _is_model(field)
    )
    return Section(header=header, model=model, meaning=" ".join((model.__doc__ or "").split()), keys=keys)


def _is_model(field: FieldInfo) -> bool:
    parts = (field.annotation, *get_args(field.annotation))
    return any(isinstance(part, type) and issubclass(part, BaseModel) for part in parts)


def _key(name: str, field: FieldInfo, default: object) -> Key:
    return Key(
        name=name,
        kind=_kind(field.annotation, tuple(field.metadata)),
        default=None if default is None else toml_value(default),
        required=field.is_required(),
        meaning=field.description or "",
    )


def _kind(annotation: object, metadata: tuple[object, ...] = ()) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(args[0], (*args[1:], *metadata))
    if origin in {Union, types.UnionType}:
        return " or ".join(_kind(arg, metadata) for arg in args if arg is not type(None))
    if origin is Literal:
        return " or ".join(f"`{json.dumps(arg)}`" for arg in args)
    if origin is dict:
        return "table"
    if origin is tuple and args[-1] is ...:
        return f"list of {_kind(args[0])}"
    if origin is tuple:
        return f"list of {len(args)}: " + ", ".join(_kind(arg) for arg in args)
    if any(part in metadata for part in get_args(Zone)[1:]):
        return "time zone"
    least = next((f" ≥ {part.ge}" for part in metadata if isinstance(part, Ge)), "")
    return f"{_PLAIN[annotation]}{least}"
