"""`tabkeeper demo`: the whole of it in about a minute, with real browsers, and proof that every promise held."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console

from tabkeeper.cli.options import JsonOption, console, need, print_json
from tabkeeper.demo.progress import Progress
from tabkeeper.demo.run import FULL, Options, Outcome, make_progress, run
from tabkeeper.demo.show import as_json as result_as_json
from tabkeeper.demo.show import conclude, introduce, watch
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
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tabkeeper-demo-")))
        options = Options(folder=folder, tasks=tasks, seed=seed, urls=tuple(url or ()))
        progress = make_progress(options)
        # Standard output is the JSON's alone.
        screen = Console(stderr=True) if as_json else console()
        introduce(progress, screen, url_count=len(options.urls))
        outcome = asyncio.run(_run_and_show(options, progress, screen))
        _tell(progress, outcome, screen, json=as_json, kept=keep)
        if serve:
            asyncio.run(_serve(folder.resolve(), port, screen))
    if not outcome.ok:
        raise typer.Exit(1)


async def _run_and_show(options: Options, progress: Progress, screen: Console) -> Outcome:
    showing = asyncio.create_task(watch(progress, screen))
    try:
        return await run(options, progress)
    finally:
        showing.cancel()
        await asyncio.wait([showing])


async def _serve(folder: Path, port: int, screen: Console) -> None:
    from tabkeeper.demo.serve import serve

    def tell(url: str) -> None:
        screen.print(f"\nThe demo's dashboard: {url}\nCtrl-C ends it.", soft_wrap=True, highlight=False)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await serve(folder, port=port, tell=tell, stop=stop)
    except OSError as error:
        raise ConfigError(f"port {port} cannot be listened on: {error.strerror or error}") from None


def _tell(progress: Progress, outcome: Outcome, screen: Console, *, json: bool, kept: Path | None) -> None:
    if json:
        print_json(result_as_json(progress, outcome))
        return
    conclude(progress, outcome, screen)
    if kept is not None:
        screen.print(f"Kept in {kept}. Look again: tabkeeper report day --config {kept}/tabkeeper.toml")
