"""Plays the demo on a terminal, or as JSON, and shows its dashboard afterwards if that is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from pathlib import Path

from rich.console import Console

from tabkeeper.cli.options import console, print_json
from tabkeeper.demo.progress import Progress
from tabkeeper.demo.run import Options, Outcome, make_progress, run
from tabkeeper.demo.show import as_json as result_as_json
from tabkeeper.demo.show import conclude, introduce, watch
from tabkeeper.errors import ConfigError
from tabkeeper.reports.html.page import render_html


def play(
    urls: tuple[str, ...], *, tasks: int, seed: int, keep: Path | None, port: int | None, json: bool
) -> bool:
    """Run the demo and say whether everything held; with a `port`, serve its dashboard until interrupted."""
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tabkeeper-demo-")))
        options = Options(folder=folder, tasks=tasks, seed=seed, urls=urls)
        progress = make_progress(options)
        # Standard output is the JSON's alone.
        screen = Console(stderr=True) if json else console()
        introduce(progress, screen, url_count=len(options.urls))
        outcome = asyncio.run(_run_and_show(options, progress, screen))
        _tell(progress, outcome, screen, json=json, kept=keep)
        page = _leave_page(outcome, keep)
        screen.print(f"The report as a page: {page.as_uri()}", soft_wrap=True, highlight=False, markup=False)
        if port is not None:
            asyncio.run(_serve(folder.resolve(), port, screen))
    return outcome.ok


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
        screen.print(
            f"\nThe demo's dashboard: {url}\nCtrl-C ends it.", soft_wrap=True, highlight=False, markup=False
        )

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await serve(folder, port=port, tell=tell, stop=stop)
    except OSError as error:
        raise ConfigError(f"port {port} cannot be listened on: {error.strerror or error}") from None


def _leave_page(outcome: Outcome, kept: Path | None) -> Path:
    """Write the day's report as a page that outlives the demo: in the kept folder, else among temporary files."""
    if kept is not None:
        page = kept.resolve() / "report.html"
    else:
        number, name = tempfile.mkstemp(prefix="tabkeeper-demo-", suffix=".html")
        os.close(number)
        page = Path(name)
    page.write_text(render_html(outcome.report), encoding="utf-8")
    return page


def _tell(progress: Progress, outcome: Outcome, screen: Console, *, json: bool, kept: Path | None) -> None:
    if json:
        print_json(result_as_json(progress, outcome))
        return
    conclude(progress, outcome, screen)
    if kept is not None:
        screen.print(f"Kept in {kept}. Look again: tabkeeper report day --config {kept}/tabkeeper.toml")
