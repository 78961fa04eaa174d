"""What all commands share: the options every one of them takes, where the configuration is found, and how output looks.

It holds no command of its own and opens neither a database nor a browser.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tabkeeper.config import PoolConfig, load_config
from tabkeeper.errors import ConfigError

DEFAULT_FILE = Path("tabkeeper.toml")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="PATH",
        help="Configuration file. Without it: $TABKEEPER_CONFIG, then ./tabkeeper.toml, then the defaults.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def config_path(given: Path | None, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the configuration file to read, or None for the defaults: option, environment, working directory."""
    env = os.environ if environ is None else environ
    if given is not None:
        return given
    if env.get("TABKEEPER_CONFIG"):
        return Path(env["TABKEEPER_CONFIG"])
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def read_config(given: Path | None) -> PoolConfig:
    """Read the configuration a command should use.

    Raises:
        ConfigError: it cannot be read or holds a mistake.
    """
    return load_config(config_path(given))


def need(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra.

    Raises:
        ConfigError: one is missing.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"this needs {package}: pip install 'tabkeeper[{extra}]'")


def console() -> Console:
    """Return where tables go. Without a terminal the width is fixed, so that piped output does not wrap oddly."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def print_json(value: object) -> None:
    """Print `value` as indented JSON; instants in UTC with a Z, sets in order, unknown types as their text."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain, ensure_ascii=False) + "\n")


def iso(instant: datetime) -> str:
    """Write an instant for programs: ISO-8601 in UTC, with a Z, as the reports do."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _plain(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return iso(value) if isinstance(value, datetime) else str(value)
