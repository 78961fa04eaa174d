"""`tabkeeper init`: write a configuration file that says everything and changes nothing.

Every key stands in it with its meaning and its default, commented out; the file is generated from the models.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tabkeeper.cli.describe import Section, sections, toml_value
from tabkeeper.cli.options import DEFAULT_FILE
from tabkeeper.errors import ConfigError

_INTRO = """\
# Configuration of Tabkeeper. As it stands, this file changes nothing: each line of the form `#key = value`
# shows a default, or an example where there is none. Remove the "#" to set it, and that of the #[table] above it.
#
# Durations: "30s", "10m", "1h30m".  Money: text, "5.00".  Secrets: "env:NAME" reads an environment variable.
# A variable such as TABKEEPER_POOL__MAX_SESSIONS=3 wins over this file. `tabkeeper doctor` checks the result.
"""

# Tables whose name the user chooses are shown with an example; the keys named here have no default to show.
_EXAMPLES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "[[budgets]]": ("[[budgets]]", {"name": "daily", "limit": "5.00"}),
    "[providers.NAME]": ("[providers.local]", {"kind": "local", "max_sessions": 5}),
    "[providers.NAME.rates]": ("[providers.local.rates]", {}),
    "[platforms.NAME]": ("[platforms.web]", {"max_sessions": 3, "max_session_cost": "0.50", "max_uses": 50}),
    "[profiles.sites.DOMAIN]": ('[profiles.sites."example.com"]', {}),
    "[sites.DOMAIN]": ('[sites."example.com"]', {}),
    "[[proxies]]": ("[[proxies]]", {"id": "p1", "url": "env:PROXY_1"}),
    "[[service.tokens]]": ("[[service.tokens]]", {"name": "ci", "hash": f"sha256:{0:064x}"}),
    "[tenants.NAME]": ("[tenants.acme]", {"max_sessions": 2}),
}


def template() -> str:
    """Return the text of the file that `tabkeeper init` writes; it parses to the defaults."""
    return "\n".join([_INTRO, *(_table(section) for section in sections())]).rstrip() + "\n"


def _table(section: Section) -> str:
    header, example = _EXAMPLES.get(section.header, (section.header, {}))
    # The tables that exist anyway stand open, so that removing one "#" is enough to change a key.
    always: dict[str, Any] = {"[pool]": {}, "[ledger]": {}, "[providers.local]": {"kind": "local"}}
    open_table = header in always
    lines = [*_comment(section.meaning), header if open_table else f"#{header}"]
    for key in section.keys:
        default = toml_value(example[key.name]) if key.name in example else key.default
        if default is None:
            lines += _comment(f"{key.name} (not set): {key.meaning}")
            continue
        lines += _comment(key.meaning)
        active = open_table and key.name in always[header]
        lines.append(f"{'' if active else '#'}{key.name} = {default}")
    return "\n".join(lines) + "\n"


def _comment(text: str) -> Iterable[str]:
    return textwrap.wrap(text, 108, initial_indent="# ", subsequent_indent="# ")


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write.")] = DEFAULT_FILE,
    *,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write a commented configuration file with every key, its meaning and its default.

    For instance:

      tabkeeper init

      tabkeeper init deploy/pool.toml --force
    """
    try:
        # "x" refuses an existing file in the same step as creating it.
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise ConfigError(f"{path} exists already; use --force to overwrite it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from None
    typer.echo(f"Wrote {path}. Next: tabkeeper doctor")
