"""`tabkeeper emulate`: a hosted provider's API on this machine, in front of real Chromium, without an account."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from tabkeeper.cli.options import JsonOption, need
from tabkeeper.errors import ConfigError


def emulate(
    provider: Annotated[str, typer.Argument(help="Whose API, such as browserbase.")],
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8700,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anybody who reaches it can start browsers here.")
    ] = "127.0.0.1",
    concurrent: Annotated[int, typer.Option(min=1, help="Sessions at once.")] = 25,
    creates_per_minute: Annotated[int, typer.Option(min=1, help="Sessions created per minute.")] = 25,
    key: Annotated[str | None, typer.Option(help="The one valid key; any is if unset.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a stand-in of a hosted provider until interrupted: same paths, fields, errors, timers and limits.

    Point any client at the address shown, with any key. POST /_emulator/faults makes it misbehave.

    For instance:

      tabkeeper emulate browserbase --port 8700

      curl -d '{"on": "release", "do": "status", "status": 500, "times": 3}' http://127.0.0.1:8700/_emulator/faults
    """
    need("emulate", "starlette", "uvicorn", "websockets")
    from tabkeeper.providers.emulator import KINDS, Emulator, Limits, serving

    if provider not in KINDS:
        raise ConfigError(f"there is no emulator of {provider!r}; known: {', '.join(KINDS)}")
    limits = Limits(concurrent=concurrent, creates_per_minute=creates_per_minute)
    emulator = KINDS[provider](limits, keys=[key] if key else [])

    async def run() -> None:
        try:
            async with serving(emulator, host=host, port=port):
                _tell(emulator, key or "any", as_json=as_json)
                await asyncio.Event().wait()
        except OSError as error:
            raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from None

    def _tell(running: Emulator, shown_key: str, *, as_json: bool) -> None:
        if as_json:
            typer.echo(json.dumps({"provider": provider, "url": running.url, "key": shown_key}))
            return
        typer.echo(f"{provider} is emulated at {running.url} (key: {shown_key}); Ctrl-C ends it\n")
        typer.echo(
            f'[providers.{provider}]\nkind = "{provider}"\napi_key = "{key or "emulated"}"\n'
            f'base_url = "{running.url}"'
        )

    asyncio.run(run())
