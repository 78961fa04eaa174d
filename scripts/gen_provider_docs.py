"""Write the table in `docs/hosted.md` from the adapters; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pydantic import SecretStr

from tabkeeper.config import ProviderSettings
from tabkeeper.config.provider import KEY_VARIABLES
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import Capabilities

DOCS = Path(__file__).parent.parent / "docs"
TARGET = DOCS / "hosted.md"
TABLE = re.compile(r"(?<=<!-- table: begin -->\n).*?(?=<!-- table: end -->)", re.DOTALL)

HEAD = """\
| | key in | ends itself after | found by label | tells usage | tells limit | extended | live view | regions | proxies |
|---|---|---|---|---|---|---|---|---|---|
"""


def table() -> str:
    """Return the table, a row for each kind."""
    return HEAD + "".join(sorted(map(_row, KEY_VARIABLES), key=str.lower))


def page(text: str) -> str:
    """Return the page with its table as it should be."""
    return TABLE.sub(lambda _: table(), text)


def _row(kind: str) -> str:
    settings = ProviderSettings(kind=kind, api_key=SecretStr("none"))  # type: ignore[arg-type]
    can = make_provider(kind, settings).capabilities
    marks = (
        can.list_by_label,
        can.usage,
        can.concurrency,
        can.extend,
        can.live_view,
        can.regions,
        can.proxies,
    )
    cells = [_name(kind), f"`{KEY_VARIABLES[kind]}`", _life(can), *("yes" if mark else "-" for mark in marks)]
    return f"| {' | '.join(cells)} |\n"


def _name(kind: str) -> str:
    file = DOCS / "providers" / f"{kind.replace('_', '-')}.md"
    if not file.exists():
        return f"`{kind}`"
    title = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return f"[{title}](providers/{file.name})"


def _life(can: Capabilities) -> str:
    if not can.own_timeout:
        return "-"
    longest = "any time" if can.max_seconds is None else _span(can.max_seconds)
    return f"{_span(can.min_seconds)} to {longest}" if can.min_seconds else f"up to {longest}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def main(arguments: list[str]) -> int:
    """Write the table, or with ``--check`` return 1 if it is stale."""
    found = TARGET.read_text(encoding="utf-8")
    wanted = page(found)
    if "--check" in arguments:
        if found != wanted:
            sys.stderr.write(f"{TARGET} is out of date; run `make docs`\n")
        return int(found != wanted)
    TARGET.write_text(wanted, encoding="utf-8")
    sys.stdout.write(f"wrote the table in {TARGET}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
