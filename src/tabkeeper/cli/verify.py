"""`tabkeeper verify`: are the books right? Asks the ledger for every invariant and shows what does not hold."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import typer
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.records import shown, working
from tabkeeper.config import PoolConfig
from tabkeeper.ledger.types import Violation


def verify(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Check every invariant of the ledger: balances, holds, shares, limits. Exit code 1 on any violation.

    Safe while pools run: it only reads.

    For instance:

      tabkeeper verify

      tabkeeper verify --json | jq '.violations[].name'
    """
    settings = read_config(config)
    found = asyncio.run(_violations(settings))
    if as_json:
        print_json({"url": shown(settings), "violations": [asdict(violation) for violation in found]})
    elif found:
        table = Table(title="The ledger's books do not add up", title_justify="left")
        for column in ("invariant", "says", "rows", "for instance"):
            table.add_column(column, justify="right" if column == "rows" else "left", overflow="fold")
        for violation in found:
            table.add_row(violation.name, violation.meaning, str(violation.rows), violation.sample)
        console().print(table)
    else:
        typer.echo(f"{shown(settings)}: every invariant holds")
    if found:
        raise typer.Exit(1)


async def _violations(settings: PoolConfig) -> list[Violation]:
    async with working(settings) as ledger:
        return await ledger.verify()
