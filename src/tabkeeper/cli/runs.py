"""`tabkeeper runs`: which runs there were, how far each has come, what it cost, and what failed."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.picture import ago
from tabkeeper.cli.records import working
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import RunError
from tabkeeper.ledger.instants import micros
from tabkeeper.money import Money
from tabkeeper.sites.standing import Standing, Told, standing_of, told

runs_app = typer.Typer(no_args_is_help=True, help="Runs over sites: how far they came, and what they cost.")


@runs_app.command("list")
def list_(
    config: ConfigOption = None,
    *,
    last: Annotated[int, typer.Option("--last", min=1, help="Show this many, the newest first.")] = 20,
    name: Annotated[str, typer.Option("--name", help="Only runs of this name.", show_default=False)] = "",
    as_json: JsonOption = False,
) -> None:
    """List runs: whether somebody works on them, what is done, what it cost.

    For instance:

      tabkeeper runs list

      tabkeeper runs list --name my_scraper:parse --json
    """
    found = asyncio.run(_look(read_config(config), most=last, name=name))
    if as_json:
        print_json([_facts(one) for one in found])
        return
    if not found:
        typer.echo("no runs yet; tabkeeper run my_scraper:parse --sites=a.com begins one")
        return
    table = Table(box=None, pad_edge=False)
    numbers = {"pages", "left", "failed", "items", "cost", "a page"}
    for column in ("run", "name", "state", "pages", "left", "failed", "items", "cost", "a page", "began"):
        table.add_column(column, justify="right" if column in numbers else "left")
    now = SystemClock().now()
    for one in found:
        table.add_row(
            one.id,
            one.name,
            one.state,
            str(one.done),
            str(one.pending),
            str(one.failed),
            str(one.items),
            str(one.cost),
            _amount(one.cost_per_page),
            f"{ago(one.started_at, now)} ago",
        )
    console().print(table)


@runs_app.command("show")
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, or how that begins.")],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show one run: by site and by start page, what failed and why, and how to go on with it.

    For instance:

      tabkeeper runs show 5f0c2b1e
    """
    settings = read_config(config)
    found = asyncio.run(_look(settings, most=2, run_id=run))
    if not found:
        raise RunError(f"there is no run {run!r}; `tabkeeper runs list` shows what there is")
    if len(found) > 1:
        raise RunError(f"several runs begin with {run!r}; give more of the id")
    standing = asyncio.run(_standing(settings, found[0].id))
    if as_json:
        print_json(_facts(found[0]) | _details(standing))
        return
    _tell(found[0], standing)


async def _look(settings: PoolConfig, *, most: int, name: str = "", run_id: str = "") -> list[Told]:
    async with working(settings) as ledger:
        now = micros(SystemClock().now())
        return await ledger.transact(lambda tx: told(tx, now, most=most, name=name, run_id=run_id))


async def _standing(settings: PoolConfig, run_id: str) -> Standing:
    async with working(settings) as ledger:
        return await ledger.transact(lambda tx: standing_of(tx, run_id))


def _tell(one: Told, standing: Standing) -> None:
    screen = console()
    cap = "" if one.max_cost is None else f" of at most {one.max_cost}"
    each = "" if one.cost_per_page is None else f", {one.cost_per_page} a page"
    screen.print(f"run {one.id} of {one.name}: {one.state}", highlight=False, soft_wrap=True)
    screen.print(
        f"{one.cost}{cap}{each}; {one.items} items in {one.outlet or 'no file yet'}", highlight=False
    )
    table = Table(box=None, pad_edge=False)
    for column in ("site", "pages", "left", "failed", "items", "a page takes"):
        table.add_column(column, justify="left" if column == "site" else "right")
    for site in standing.sites:
        takes = f"{site.seconds / site.done:.1f} s" if site.done else ""
        table.add_row(site.site, str(site.done), str(site.pending), str(site.failed), str(site.items), takes)
    screen.print(table)
    for failure in standing.failures:
        screen.print(
            f"failed after {failure.attempts}: {failure.url}: {failure.error}",
            soft_wrap=True,
            highlight=False,
        )
    if one.state == "open":
        screen.print("not committed; go on with tabkeeper run ... --resume", highlight=False)


def _amount(money: Money | None) -> str:
    return "" if money is None else str(money)


def _facts(one: Told) -> dict[str, Any]:
    each = one.cost_per_page
    return {
        "run": one.id,
        "name": one.name,
        "sites": one.sites,
        "state": one.state,
        "started_at": one.started_at,
        "ended_at": one.ended_at,
        "pages": one.done,
        "pending": one.pending,
        "failed": one.failed,
        "items": one.items,
        "cost": str(one.cost.dollars),
        "cost_per_page": None if each is None else str(each.dollars),
        "max_cost": None if one.max_cost is None else str(one.max_cost.dollars),
        "out": one.outlet,
    }


def _details(standing: Standing) -> dict[str, Any]:
    return {
        "by_site": [
            {
                "site": one.site,
                "pages": one.done,
                "pending": one.pending,
                "failed": one.failed,
                "items": one.items,
                "seconds": round(one.seconds, 3),
                "bytes": one.received,
            }
            for one in standing.sites
        ],
        **what_else(standing),
    }


def what_else(standing: Standing) -> dict[str, Any]:
    """Tell of a run's start pages and failures as plain data."""
    return {
        "starts": [
            {"url": one.url, "pages": one.done, "pending": one.pending, "failed": one.failed}
            for one in standing.starts
        ],
        "failures": [
            {"url": one.url, "attempts": one.attempts, "error": one.error} for one in standing.failures
        ],
    }
