"""`tabkeeper serve` runs the service until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Annotated

import typer

from tabkeeper.cli.options import ConfigOption, JsonOption, need, read_config
from tabkeeper.config import PoolConfig, ServiceSettings
from tabkeeper.errors import ConfigError


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

      tabkeeper tokens create --name me --scope read --scope lease

      tabkeeper serve --port 8020

      curl -H "Authorization: Bearer $TOKEN" --json '{"platform": "web"}' http://127.0.0.1:8020/leases
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
