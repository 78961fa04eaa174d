"""`tabkeeper proxies`: which proxies there are, how they do; add, probe and retire them. No password is ever shown."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, TypeVar, get_args

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.records import working
from tabkeeper.clock import SystemClock
from tabkeeper.config import Name, PoolConfig, ProxyType
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.proxies.model import ProxyKind, proxy_from_url
from tabkeeper.proxies.pool import ProxyPool
from tabkeeper.proxies.probe import Probe, probe_all
from tabkeeper.proxies.sticky import StickyProxies
from tabkeeper.proxies.store import ProxyStore, configured, rules_from
from tabkeeper.vault import Vault

T = TypeVar("T")

proxies_app = typer.Typer(no_args_is_help=True, help="Proxies of your own: list, add, probe, retire.")

_RIGHT = {"weight", "$/GB", "ms", "keys", "ok", "failed"}


@proxies_app.command("list")
def list_(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List proxies with their health: where, of what kind, how fast, how often they failed, how many keys have them.

    For instance:

      tabkeeper proxies list

      tabkeeper proxies list --json
    """
    settings = read_config(config)

    async def work(store: ProxyStore, _: Ledger) -> list[dict[str, Any]]:
        return _facts(store, settings)

    found = _with_store(settings, work)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("no proxies; add [[proxies]] to the configuration, or run `tabkeeper proxies add`")
        return
    table = Table(box=None, pad_edge=False)
    for column in (
        "id",
        "server",
        "type",
        "geo",
        "weight",
        "$/GB",
        "health",
        "ms",
        "keys",
        "ok",
        "failed",
        "note",
    ):
        table.add_column(column, justify="right" if column in _RIGHT else "left")
    for row in found:
        table.add_row(
            row["id"],
            row["server"],
            row["type"],
            row["geo"],
            str(row["weight"]),
            row["price_per_gb"] or "",
            row["health"],
            "" if row["latency_ms"] is None else f"{row['latency_ms']:.0f}",
            str(row["keys"]),
            str(row["succeeded"]),
            str(row["failed"]),
            row["note"],
        )
    console().print(table)


@proxies_app.command()
def add(
    proxy_id: Annotated[str, typer.Argument(metavar="ID", help="A name of your choice.")],
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="http://, https:// or socks5://, host and port; user name and password in it are stored encrypted.",
        ),
    ],
    config: ConfigOption = None,
    *,
    kind: Annotated[str, typer.Option("--type", help=f"{', '.join(get_args(ProxyType))}.")] = "datacenter",
    geo: Annotated[str, typer.Option("--geo", help='Where it is, in words of your own, such as "us".')] = "",
    weight: Annotated[int, typer.Option("--weight", min=1, help="Share under the strategy weighted.")] = 1,
    price: Annotated[
        str | None, typer.Option("--price-per-gb", metavar="DOLLARS", help="For the strategy cheapest.")
    ] = None,
    credentials: Annotated[
        str | None,
        typer.Option(
            "--credentials",
            metavar="env:NAME",
            help="Environment variable that holds user:password, read whenever the proxy is used.",
        ),
    ] = None,
) -> None:
    """Store a proxy. Pools that run learn of it within seconds.

    For instance:

      tabkeeper proxies add us-1 http://proxy.example:8080 --credentials env:PROXY_LOGIN --type residential --geo us

      tabkeeper proxies add eu-1 socks5://127.0.0.1:1080 --price-per-gb 0.40
    """
    settings = read_config(config)
    variable = ""
    if credentials is not None:
        variable = credentials.removeprefix("env:")
        if variable == credentials or not variable:
            raise ConfigError("--credentials names an environment variable, such as env:PROXY_LOGIN")
        if not os.environ.get(variable):
            raise ConfigError(f"--credentials: the environment variable {variable} is not set, or empty")
    try:
        TypeAdapter(Name).validate_python(proxy_id)
        made = proxy_from_url(url, id=proxy_id)
        made = replace(
            made, kind=ProxyKind(kind), geo=geo, weight=weight, price_per_gb=_price(price) if price else None
        )
    except ValidationError:
        raise ConfigError(f"{proxy_id!r} is no id; use letters, digits, '_', '.' and '-'") from None
    except ValueError as error:
        raise ConfigError(f"proxy {proxy_id!r}: {error}") from None
    if made.has_credentials and variable:
        raise ConfigError("the URL has a user name or password already; leave them out with --credentials")

    async def work(store: ProxyStore, ledger: Ledger) -> None:
        await ledger.transact(lambda tx: store.add(tx, made, credentials_env=variable))

    _with_store(settings, work)
    typer.echo(f"proxy {made} is stored")


@proxies_app.command()
def retire(
    proxy_id: Annotated[str, typer.Argument(metavar="ID", help="Which one.")], config: ConfigOption = None
) -> None:
    """Retire a stored proxy: its credentials are forgotten, and keys that have it get another.

    For instance:

      tabkeeper proxies retire us-1
    """

    async def work(store: ProxyStore, ledger: Ledger) -> None:
        await ledger.transact(lambda tx: store.retire(tx, proxy_id))

    _with_store(read_config(config), work)
    typer.echo(f"proxy {proxy_id} is retired")


@proxies_app.command("probe")
def probe_(
    proxy_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Which ones; all if unset.")
    ] = None,
    config: ConfigOption = None,
    *,
    url: Annotated[
        str | None, typer.Option("--url", help="Address to ask for; proxy_pool.probe_url if unset.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for an address through each proxy, and note how it did. Exit code 1 if any failed.

    For instance:

      tabkeeper proxies probe --url https://example.com

      tabkeeper proxies probe us-1 eu-1 --json
    """
    settings = read_config(config)
    target = url or settings.proxy_pool.probe_url
    if target is None:
        raise ConfigError(
            "what to ask for is not known; give --url https://example.com, or set proxy_pool.probe_url"
        )
    if not target.startswith(("http://", "https://")):
        raise ConfigError("--url begins with http:// or https://")

    async def work(store: ProxyStore, ledger: Ledger) -> list[Probe]:
        seconds = settings.proxy_pool.probe_timeout.total_seconds()
        found = await probe_all(store.pool, target, timeout=seconds, only=proxy_ids or None)
        await store.save(ledger)
        return found

    found = _with_store(settings, work)
    if as_json:
        print_json([{"proxy": p.proxy, "ok": p.ok, "latency": p.latency, "error": p.error} for p in found])
    elif not found:
        typer.echo("no proxies")
    for one in [] if as_json else found:
        told = f"{one.latency * 1000:.0f} ms" if one.ok and one.latency is not None else one.error
        typer.echo(f"{one.proxy}: {'ok' if one.ok else 'failed'}, {told}")
    if not all(one.ok for one in found):
        raise typer.Exit(1)


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal(-1)
    if not price.is_finite() or price < 0:
        raise ValueError(f"{text!r} is not a price in dollars, such as '0.40'")
    return price


def _facts(store: ProxyStore, settings: PoolConfig) -> list[dict[str, Any]]:
    assert store.sticky is not None
    fixed = {one.id for one in settings.proxies}
    keys = [binding.proxy for binding in store.sticky.list()]
    out = []
    for proxy in store.pool.all():
        found = store.pool.standing(proxy.id)
        out.append(
            {
                "id": proxy.id,
                "server": proxy.server,
                "type": str(proxy.kind),
                "geo": proxy.geo,
                "weight": proxy.weight,
                "price_per_gb": None if proxy.price_per_gb is None else str(proxy.price_per_gb),
                "from": "configuration" if proxy.id in fixed else "database",
                "health": str(found.health),
                "latency_ms": None if found.latency is None else found.latency * 1000,
                "keys": keys.count(proxy.id),
                "succeeded": found.succeeded,
                "failed": found.failed,
                "note": found.last_error,
            }
        )
    return out + [
        {
            "id": proxy_id,
            "server": "",
            "type": "",
            "geo": "",
            "weight": 0,
            "price_per_gb": None,
            "from": "database",
            "health": "not usable",
            "latency_ms": None,
            "keys": 0,
            "succeeded": 0,
            "failed": 0,
            "note": why,
        }
        for proxy_id, why in sorted(store.unreadable.items())
    ]


def _with_store(settings: PoolConfig, work: Callable[[ProxyStore, Ledger], Awaitable[T]]) -> T:
    clock = SystemClock()
    pool = ProxyPool(configured(settings), rules=rules_from(settings.proxy_pool), clock=clock)
    keys = Vault([key.get_secret_value() for key in settings.security.keys])

    async def run() -> T:
        async with working(settings) as ledger:
            store = ProxyStore(
                pool,
                StickyProxies(pool, clock=clock),
                keys,
                clock,
                fixed=frozenset(one.id for one in settings.proxies),
            )
            await store.load(ledger)
            return await work(store, ledger)

    return asyncio.run(run())
