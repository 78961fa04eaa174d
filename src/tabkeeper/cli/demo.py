"""`tabkeeper demo`: the whole of it in about a minute, with real browsers, and proof that every promise held."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from tabkeeper.cli.options import JsonOption, need
from tabkeeper.demo import FULL
from tabkeeper.errors import ConfigError


def demo(
    *,
    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url", metavar="URL", help="Visit this page instead of the demo's own site; repeat for more."
        ),
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, max=240, help="How many tasks.")] = FULL,
    seed: Annotated[
        int, typer.Option(help="Draws priorities and tenants; the same seed, the same tasks.")
    ] = 2019,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Leave ledger and configuration in this new folder."),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Afterwards show it all on a dashboard, until interrupted.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the dashboard; 0 takes a free one.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Run 60 tasks on real Chromium, local and at two emulated hosted providers, until a budget runs out.

    Takes about a minute. Exit code 0 only if everything held: every task counted, the budget never passed, the
    queue's order kept, the ledger without a flaw, no paid session forgotten, no browser left running.

    For instance:

      tabkeeper demo

      tabkeeper demo --keep demo-output

      tabkeeper demo --url https://example.com --tasks 12

      tabkeeper demo --serve
    """
    need("emulate", "starlette", "uvicorn", "websockets")
    if serve:
        need("service", "fastapi")
    for address in url or ():
        if urlsplit(address).scheme not in {"http", "https", "data"}:
            raise ConfigError(f"--url {address!r} is no address of a page; write it like https://example.com")
    from tabkeeper.cli.demo_show import play  # only here: the emulators need what the extra brings

    if not play(
        tuple(url or ()), tasks=tasks, seed=seed, keep=keep, port=port if serve else None, json=as_json
    ):
        raise typer.Exit(1)
