"""From a file and the environment to a checked configuration; every mistake is one sentence that names the key."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from tabkeeper.config.root import PoolConfig
from tabkeeper.config.values import nearest
from tabkeeper.errors import ConfigError


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
        return f"unknown key {'.'.join(path)!r}{nearest(path[-1], known)}; known here: {', '.join(known)}"
    message = mistake["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path)}: {message}" if path else message


def _known_keys(path: list[str]) -> list[str]:
    """Return the keys that are valid at `path` of the configuration."""
    model: type[BaseModel] = PoolConfig
    for part in path:
        field = model.model_fields.get(part)
        if (
            field is not None
        ):  # else a name that the user chose, or a place in a list: the same section goes on
            model = _section_in(field.annotation) or model
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model inside an annotation such as ``dict[Name, ProviderSettings]``."""
    for inner in get_args(annotation):
        if (found := _section_in(inner)) is not None:
            return found
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
