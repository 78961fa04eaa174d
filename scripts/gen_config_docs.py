"""Write `docs/configuration.md` from the configuration models; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from tabkeeper.cli.describe import Key, Section, sections

TARGET = Path(__file__).parent.parent / "docs" / "configuration.md"

INTRO = """\
# Configuration

<!-- Written by scripts/gen_config_docs.py from the models in src/tabkeeper/config/. Do not edit; run `make docs`. -->

Tabkeeper reads one TOML file. `tabkeeper init` writes one with every key and its default; an empty file, or none,
means the defaults below. Which file: `--config PATH`, else `$TABKEEPER_CONFIG`, else `./tabkeeper.toml` if it exists.
From Python: `SessionPool.from_file("tabkeeper.toml")`, or `SessionPool(PoolConfig(...))` with the same names.

```toml
[pool]
max_sessions = 10

[[budgets]]
name = "daily"
limit = "5.00"
timezone = "America/New_York"

[providers.local]
kind = "local"

[platforms.linkedin]
max_sessions = 3
block = ["image", "font", "media"]
```

How values are written:

| what | how |
|---|---|
| duration | `"250ms"`, `"30s"`, `"10m"`, `"1h30m"`, or a number of seconds |
| money, prices | text, so that they stay exact: `"5.00"`, `"0.12"`; a plain decimal number is refused |
| secret | `"env:NAME"` reads the environment variable NAME, and is an error if that is not set; works for every key |
| override | `TABKEEPER_POOL__MAX_SESSIONS=3` wins over `max_sessions` in `[pool]`; two underscores go one level down |

A key that does not exist is an error that names the nearest one that does. Every mistake is one sentence on standard
error and exit code 2, before anything is started.
"""


def text() -> str:
    """Return the whole page."""
    return "\n".join([INTRO, *(_section(section) for section in sections())]).rstrip() + "\n"


def _section(section: Section) -> str:
    rows = [
        f"## `{section.header}`",
        "",
        section.meaning,
        "",
        "| key | value | default | meaning |",
        "|---|---|---|---|",
        *(_row(key) for key in section.keys),
        "",
    ]
    return "\n".join(rows)


def _row(key: Key) -> str:
    default = "**required**" if key.required else f"`{key.default}`" if key.default is not None else "not set"
    cells = (f"`{key.name}`", key.kind, default, key.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(arguments: list[str]) -> int:
    """Write or check the page; 1 if it is out of date."""
    wanted = text()
    if arguments == ["--check"]:
        fresh = TARGET.exists() and TARGET.read_text(encoding="utf-8") == wanted
        print("docs/configuration.md is " + ("up to date" if fresh else "out of date; run `make docs`"))
        return 0 if fresh else 1
    TARGET.write_text(wanted, encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
