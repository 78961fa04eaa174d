"""`tabkeeper tokens`: make, list and revoke the tokens by which the service lets anybody in."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, iso, need, print_json, read_config
from tabkeeper.cli.records import reading, sqlite_file, working
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig, ServiceSettings, parse_config, parse_duration
from tabkeeper.errors import ConfigError
from tabkeeper.ledger import schema
from tabkeeper.ledger.engines import is_memory, parse_url, write_engine
from tabkeeper.ledger.tokens import StoredToken, add, revoke, stored

tokens_app = typer.Typer(no_args_is_help=True, help="Make tokens for the service, list them, revoke them.")

_FROM_CONFIG = "configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A token as it is listed."""

    name: str
    scopes: list[str]
    tenants: list[str]
    id: str | None = None
    kept_in: str = _FROM_CONFIG
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    is_good: bool = True


@tokens_app.command("create")
def create(
    config: ConfigOption = None,
    *,
    name: Annotated[str, typer.Option(help="Whose it is.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, lease, direct or manage; may be repeated; lease if left out."),
    ] = None,
    tenant: Annotated[
        list[str] | None, typer.Option(help="It acts for this tenant only; may be repeated.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="It lets nobody in after so long, such as 90d.")
    ] = None,
    for_config: Annotated[
        bool,
        typer.Option("--for-config", help="Keep nothing; print a section for the configuration instead."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a token, keep its hash in the ledger, and print it: this once, on standard output.

    It is good at once in every process that has this ledger, until `tabkeeper tokens revoke`.

    For instance:

      TOKEN=$(tabkeeper tokens create --name ci --scope lease --tenant acme)

      tabkeeper tokens create --name grafana --scope read --expires 365d
    """
    need("service", "fastapi")
    from tabkeeper.service.tokens import hash_token, new_token

    token = new_token()
    section = {"name": name, "hash": hash_token(token), "scopes": scope or ["lease"], "tenants": tenant or []}
    parse_config({"service": {"tokens": [section]}}, "tokens create")
    if for_config:
        if expires is not None:
            raise ConfigError("a token of the configuration does not expire; leave out --expires")
        _print_section(token, section, as_json=as_json)
        return
    now = SystemClock().now()
    try:
        until = None if expires is None else now + parse_duration(expires)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"--expires {expires!r}: {error}; write it like 90d") from None
    made = StoredToken(
        id=f"t{secrets.token_hex(4)}",
        name=name,
        hash=hash_token(token),
        scopes=tuple(section["scopes"]),
        tenants=tuple(section["tenants"]),
        created_at=now,
        expires_at=until,
    )
    _keep(read_config(config), made)
    if as_json:
        print_json({"token": token, "id": made.id, **section, "expires_at": until})
        return
    ends = "" if until is None else f" until {iso(until)}"
    typer.echo(f"token {made.id} of {name!r} is good{ends}; it is shown this once:", err=True)
    typer.echo(token)


def _keep(settings: PoolConfig, token: StoredToken) -> None:
    if any(token.name == one.name for one in _configured(settings.service)):
        raise ConfigError(f"the configuration has a token of the name {token.name!r}; take another --name")
    url = parse_url(settings.ledger.url)
    if is_memory(url):
        raise ConfigError(
            "a ledger in memory keeps no token for anybody else; set ledger.url, or --for-config"
        )
    if settings.ledger.auto_upgrade:
        engine = write_engine(settings.ledger.url)
        try:
            schema.ensure(engine, auto_upgrade=True)
        finally:
            engine.dispose()

    async def work() -> bool:
        async with working(settings) as ledger:
            return await ledger.transact(lambda tx: add(tx, token))

    if not asyncio.run(work()):
        raise ConfigError(
            f"there is a token of the name {token.name!r}; take another --name, or revoke that one first"
        )


def _print_section(token: str, section: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json({"token": token, **section})
        return
    lines = [f"{key} = {json.dumps(value)}" for key, value in section.items() if value]
    typer.echo(f"# The token, shown this once:  {token}\n[[service.tokens]]")
    typer.echo("\n".join(lines))


@tokens_app.command("list")
def list_(
    config: ConfigOption = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Show revoked ones, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List who may call the service. Neither tokens nor their hashes are shown.

    For instance:

      tabkeeper tokens list
    """
    settings = read_config(config)
    rows = [*_configured(settings.service), *_kept(settings, revoked=every)]
    if as_json:
        print_json([{name: getattr(row, name) for name in _Shown.__slots__} for row in rows])
        return
    if not rows:
        typer.echo("no tokens; `tabkeeper tokens create` makes one")
        return
    table = Table("name", "id", "scopes", "tenants", "kept in", "created", "state", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row.name,
            row.id or "",
            ", ".join(row.scopes),
            ", ".join(row.tenants) or "all",
            row.kept_in,
            "" if row.created_at is None else iso(row.created_at)[:10],
            _state(row),
        )
    console().print(table)


@tokens_app.command("revoke")
def revoke_(
    token: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its id.")],
    config: ConfigOption = None,
) -> None:
    """Revoke a token: within a second no process lets it in, and within two its leases are taken back.

    For instance:

      tabkeeper tokens revoke ci
    """
    settings = read_config(config)
    if any(token == one.name for one in _configured(settings.service)):
        raise ConfigError(
            f"{token!r} is a token of the configuration: remove its section, and restart the service"
        )
    now = SystemClock().now()

    async def work() -> str | None:
        async with working(settings) as ledger:
            return await ledger.transact(lambda tx: revoke(tx, token, now))

    if asyncio.run(work()) is None:
        raise ConfigError(f"there is no token {token!r} to revoke; see `tabkeeper tokens list`")
    typer.echo(f"{token} is revoked")


def _configured(service: ServiceSettings) -> list[_Shown]:
    rows = [
        _Shown(name=one.name, scopes=list(one.scopes), tenants=list(one.tenants)) for one in service.tokens
    ]
    if service.token is not None:
        rows.insert(0, _Shown(name="main", scopes=["read", "lease", "direct", "manage"], tenants=[]))
    return rows


def _kept(settings: PoolConfig, *, revoked: bool) -> list[_Shown]:
    url = parse_url(settings.ledger.url)
    file = sqlite_file(url)
    if is_memory(url) or (file is not None and not file.exists()):
        return []
    now = SystemClock().now()
    with reading(settings) as engine:
        return [
            _Shown(
                name=one.name,
                scopes=list(one.scopes),
                tenants=list(one.tenants),
                id=one.id,
                kept_in="ledger",
                created_at=one.created_at,
                expires_at=one.expires_at,
                revoked_at=one.revoked_at,
                is_good=one.is_good(now),
            )
            for one in stored(engine, revoked=revoked)
        ]


def _state(row: _Shown) -> str:
    if row.revoked_at is not None:
        return f"revoked {iso(row.revoked_at)[:10]}"
    if row.expires_at is not None:
        return f"{'good until' if row.is_good else 'expired'} {iso(row.expires_at)[:10]}"
    return "good"
