"""`tabkeeper serve` runs the service; `tabkeeper tokens` makes and lists who may call it."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Annotated

import typer
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, need, print_json, read_config
from tabkeeper.config import PoolConfig, Scope, ServiceSettings, parse_config
from tabkeeper.errors import ConfigError

tokens_app = typer.Typer(no_args_is_help=True, help="Make tokens for the service, and list them.")


def serve(
    config: ConfigOption = None,
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on; else service.host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one; else service.port.")
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Let everybody in who reaches it, without a token.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the pool as a service until interrupted: HTTP API, CDP gateway, dashboard, metrics.

    It listens on this machine only, and lets nobody in without a token, unless told otherwise.

    For instance:

      tabkeeper tokens new --name me --scope read --scope lease

      tabkeeper serve --port 8020

      curl -H "Authorization: Bearer $TOKEN" -d '{"platform": "web"}' http://127.0.0.1:8020/leases
    """
    need("service", "fastapi", "uvicorn", "websockets")
    settings = read_config(config)
    given = {"host": host, "port": port}
    service = settings.service.model_copy(update={k: v for k, v in given.items() if v is not None})
    asyncio.run(_serve(settings, service, open_=open_, as_json=as_json))


async def _serve(settings: PoolConfig, service: ServiceSettings, *, open_: bool, as_json: bool) -> None:
    from tabkeeper.pool.pool import SessionPool
    from tabkeeper.service import create_app
    from tabkeeper.service.gateway.whole import whole_browsers
    from tabkeeper.service.server import serving

    app = create_app(SessionPool(whole_browsers(settings)), service, open_=open_)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with serving(app, service) as url:
            if as_json:
                typer.echo(json.dumps({"url": url, "dashboard": f"{url}/"}))
            else:
                typer.echo(f"tabkeeper serves at {url} (dashboard, API, metrics); Ctrl-C ends it")
                if not service.is_loopback:
                    typer.echo(
                        "It is reached from other machines, without encryption: put a TLS proxy before it."
                    )
            await stop.wait()
            typer.echo("stopping: leases are given back and sessions closed", err=True)
    except OSError as error:
        raise ConfigError(
            f"{service.host}:{service.port} cannot be listened on: {error.strerror or error}"
        ) from None


@tokens_app.command("new")
def new(
    name: Annotated[str, typer.Option(help="Whose it is.")],
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, lease, direct or manage; may be repeated; lease if left out."),
    ] = None,
    tenant: Annotated[
        list[str] | None, typer.Option(help="It acts for this tenant only; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token, and print it with the section of the configuration that lets it in. It is not stored anywhere.

    To revoke one, remove its section and restart the service.

    For instance:

      tabkeeper tokens new --name ci --scope lease --tenant acme
    """
    need("service", "fastapi")
    from tabkeeper.service.tokens import hash_token, new_token

    token = new_token()
    section = {"name": name, "hash": hash_token(token), "scopes": scope or ["lease"], "tenants": tenant or []}
    parse_config({"service": {"tokens": [section]}}, "tokens new")
    if as_json:
        print_json({"token": token, **section})
        return
    lines = [f"{key} = {json.dumps(value)}" for key, value in section.items() if value]
    typer.echo(f"# The token, shown this once:  {token}\n[[service.tokens]]")
    typer.echo("\n".join(lines))


@tokens_app.command("list")
def list_(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List who may call the service, by the configuration. Neither tokens nor their hashes are shown.

    For instance:

      tabkeeper tokens list
    """
    service = read_config(config).service
    rows: list[tuple[str, list[Scope], list[str]]] = [
        (one.name, list(one.scopes), list(one.tenants)) for one in service.tokens
    ]
    if service.token is not None:
        rows.insert(0, ("main", ["read", "lease", "direct", "manage"], []))
    if as_json:
        print_json([{"name": name, "scopes": scopes, "tenants": tenants} for name, scopes, tenants in rows])
        return
    if not rows:
        typer.echo("no tokens; `tabkeeper tokens new` makes one")
        return
    table = Table("name", "scopes", "tenants", box=None, pad_edge=False)
    for name, scopes, tenants in rows:
        table.add_row(name, ", ".join(scopes), ", ".join(tenants) or "all")
    console().print(table)
