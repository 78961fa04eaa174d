"""`tabkeeper sites`: the sites there are, what they bear, and which proxies each refuses for now."""

from __future__ import annotations

import asyncio
from typing import Any

import typer
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.records import working
from tabkeeper.config import show_duration
from tabkeeper.sites.registry import SiteRegistry

sites_app = typer.Typer(no_args_is_help=True, help="Sites: what they bear, and which proxies they refuse.")


@sites_app.command("list")
def list_(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List sites with their limits, and the proxies that are not used for them until their cool-down is over.

    For instance:

      tabkeeper sites list

      tabkeeper sites list --json
    """
    settings = read_config(config)
    registry = SiteRegistry.from_config(settings)

    async def look() -> None:
        async with working(settings) as ledger:
            await registry.sync(ledger)

    if registry.all():
        asyncio.run(look())
    found = _facts(registry)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo('no sites; add [sites."shop.example"] to the configuration')
        return
    table = Table(box=None, pad_edge=False)
    for column in ("site", "start pages", "sessions", "strategy", "types", "cool-down", "blocked proxies"):
        table.add_column(column, justify="right" if column in {"start pages", "sessions"} else "left")
    for row in found:
        blocked = "; ".join(
            f"{one['proxy']} until {one['until']:%Y-%m-%d %H:%M} UTC" for one in row["blocked"]
        )
        table.add_row(
            row["site"],
            str(len(row["start"])),
            str(row["max_sessions"]),
            row["proxy_strategy"] or "",
            ", ".join(row["proxy_types"]) or "all",
            row["cool_down"],
            blocked,
        )
    console().print(table)


def _facts(registry: SiteRegistry) -> list[dict[str, Any]]:
    return [
        {
            "site": site.domain,
            "start": site.start,
            "max_sessions": site.settings.max_sessions,
            "proxy_strategy": site.settings.proxy_strategy,
            "proxy_types": site.settings.proxy_types,
            "block_types": site.settings.block_types,
            "cool_down": show_duration(site.settings.cool_down),
            "blocked": [
                {
                    "proxy": block.proxy,
                    "blocked_at": block.blocked_at,
                    "until": block.until,
                    "message": block.message,
                }
                for block in registry.blocked(site.domain)
            ],
        }
        for site in registry.all()
    ]
