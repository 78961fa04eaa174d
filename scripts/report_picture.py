"""Draws docs/img/report.svg: the report of a demo's day, as a terminal shows it.

.venv/bin/tabkeeper demo --keep demo-output
.venv/bin/python scripts/report_picture.py demo-output/tabkeeper.toml
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from tabkeeper.config import load_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.reports.books import Books
from tabkeeper.reports.render_table import WIDTH, print_report
from tabkeeper.reports.report import CostReport

PICTURE = Path(__file__).parents[1] / "docs" / "img" / "report.svg"


async def _report(config_file: str) -> CostReport:
    config = load_config(config_file, {})
    ledger = await Ledger.open(config, observe=True)
    try:
        return await Books(ledger, timezone=config.ledger.timezone).report()
    finally:
        await ledger.aclose()


def main() -> None:
    """Read the ledger of the configuration file named on the command line, and write the picture."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    print_report(asyncio.run(_report(sys.argv[1])), console)
    svg = console.export_svg(title="tabkeeper report day", theme=MONOKAI, unique_id="report")
    # rich refers to a font on a public server; a picture in a README must load nothing from elsewhere.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
