"""`tabkeeper run`: lets a function of yours loose on sites, shows how far it is, and tells what came of it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.runs import what_else
from tabkeeper.errors import ConfigError
from tabkeeper.money import Money
from tabkeeper.sites.command import Order, Summary, carry_out, load_function
from tabkeeper.sites.crawl import Crawl
from tabkeeper.sites.progress import Count, Progress

_LINE_EVERY = 5.0
"""Seconds between two lines of progress where there is no terminal."""
_DRAWN_EVERY = 0.5


def run(
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION", help="module:function, or file.py:function: async def parse(page, target)."
        ),
    ],
    config: ConfigOption = None,
    *,
    sites: Annotated[
        str,
        typer.Option(
            "--sites",
            metavar="A,B",
            help="Domains, or addresses to start from; all [sites] of the configuration if unset.",
            show_default=False,
        ),
    ] = "",
    instance_limit: Annotated[
        int, typer.Option("--instance-limit", min=1, help="Sessions at once, at most.")
    ] = 10,
    max_cost: Annotated[
        str | None, typer.Option("--max-cost", metavar="DOLLARS", help="The run never costs more than this.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run of this name that is not committed.")
    ] = False,
    name: Annotated[
        str, typer.Option("--name", help="The run's name; the function's if unset.", show_default=False)
    ] = "",
    platform: Annotated[
        str,
        typer.Option("--platform", help="Whose sessions to take, if there are several.", show_default=False),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where items go: JSON Lines, or SQLite if it ends with .db; items-RUN.jsonl if unset.",
        ),
    ] = None,
    attempts: Annotated[
        int, typer.Option("--attempts", min=1, help="Visits after which a page is given up.")
    ] = 3,
    as_json: JsonOption = False,
) -> None:
    """Visit sites with a function of yours: it gets a page and its target, yields items and addresses to visit next.

    Ctrl-C lets running visits end and stops; once more, and they are broken off. Either way, and after a crash,
    --resume goes on where it was. Exit code 0: committed, every page is done; 1: pages are left; 130: Ctrl-C.

    For instance:

      tabkeeper run my_scraper:parse --sites=a.com,b.com --instance-limit=10

      tabkeeper run my_scraper:parse --sites=a.com,b.com --max-cost 2.50 --out items.db

      tabkeeper run my_scraper:parse --sites=a.com,b.com --resume
    """
    order = Order(
        name=name or function,
        parse=load_function(function),
        sites=[one.strip() for one in sites.split(",") if one.strip()],
        platform=platform,
        instance_limit=instance_limit,
        max_cost=_dollars(max_cost),
        attempts=attempts,
        out=out,
        resume=resume,
    )
    settings = read_config(config)
    summary = asyncio.run(_run(settings, order))
    if as_json:
        print_json(as_data(summary))
    else:
        tell(summary, console())
    if summary.drained and not summary.committed:
        raise typer.Exit(130)
    if not summary.committed:
        raise typer.Exit(1)


def _dollars(text: str | None) -> Money | None:
    if text is None:
        return None
    try:
        found = Money.parse(text)
    except ValueError:
        raise ConfigError(f"--max-cost {text!r} is no amount of dollars; write it like 2.50") from None
    if found.nanos <= 0:
        raise ConfigError("--max-cost must be above zero")
    return found


async def _run(settings: Any, order: Order) -> Summary:
    # Standard output is the summary's alone.
    screen = Console(stderr=True)
    loop = asyncio.get_running_loop()
    me = asyncio.current_task()
    assert me is not None
    showing: list[asyncio.Task[None]] = []

    def watch(crawl: Crawl) -> None:
        def interrupted() -> None:
            if crawl.draining:
                me.cancel()
                return
            screen.print("stopping: visits that run may end; Ctrl-C again breaks them off")
            crawl.drain()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)
        showing.append(asyncio.create_task(_show(crawl, screen), name="show progress"))

    try:
        return await carry_out(settings, order, watch)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        for task in showing:
            task.cancel()
            await asyncio.wait([task])


async def _show(crawl: Crawl, screen: Console) -> None:
    if not screen.is_terminal:
        while True:
            await asyncio.sleep(_LINE_EVERY)
            screen.print(line(crawl.progress()), highlight=False, soft_wrap=True)
    with Live(console=screen, auto_refresh=False, transient=True) as live:
        while True:
            live.update(table(crawl.progress()), refresh=True)
            await asyncio.sleep(_DRAWN_EVERY)


def line(progress: Progress) -> str:
    """Say in one line how far it is."""
    total = progress.total
    said = (
        f"{total.done} of {total.pages} pages, {total.items} items, {total.failed} failed, "
        f"{total.sessions} sessions, {progress.cost}"
    )
    if progress.seconds_left is None or not total.pending:
        return said
    more = f"; about {_time(progress.seconds_left)}"
    return said + more + (f" and {progress.cost_left} to go" if progress.cost_left is not None else " to go")


def table(progress: Progress) -> Table:
    """Show how far it is, site by site."""
    made = Table(box=None, pad_edge=False, caption=line(progress), caption_justify="left")
    for column in ("site", "done", "pending", "failed", "items", "sessions", ""):
        made.add_column(column, justify="left" if column in {"site", ""} else "right")
    for name, one in progress.sites.items():
        made.add_row(name, *_counts(one), str(one.sessions), one.note)
    return made


def _counts(one: Count) -> list[str]:
    return [str(one.done), str(one.pending), str(one.failed), str(one.items)]


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole / 3600:.1f} h"


def tell(summary: Summary, screen: Console) -> None:
    """Print what came of a run."""
    made = Table(box=None, pad_edge=False)
    for column in ("site", "pages", "left", "failed", "items", "retries", ""):
        made.add_column(column, justify="left" if column in {"site", ""} else "right")
    for one in summary.standing.sites:
        seen = summary.progress.sites.get(one.site, Count())
        made.add_row(
            one.site,
            str(one.done),
            str(one.pending),
            str(one.failed),
            str(one.items),
            str(seen.retries),
            seen.note,
        )
    screen.print(made)
    for failure in summary.standing.failures:
        screen.print(f"failed: {failure.url}: {failure.error}", soft_wrap=True, highlight=False)
    each = summary.cost_per_page
    screen.print(
        f"run {summary.run.id}: {summary.standing.done} pages, {summary.standing.items} items in {summary.out}; "
        f"{summary.cost}" + ("" if each is None else f", {each} a page"),
        soft_wrap=True,
        highlight=False,
    )
    screen.print(_ending(summary), soft_wrap=True, highlight=False)


def _ending(summary: Summary) -> str:
    if summary.committed:
        return "committed: every page is done"
    if summary.stopped_by is not None:
        return f"stopped: {summary.stopped_by}\nnot committed; go on with --resume"
    if summary.drained:
        return "stopped by request; go on with --resume"
    return "not committed: pages are left; try them again with --resume"


def as_data(summary: Summary) -> dict[str, Any]:
    """Tell what came of a run as plain data."""
    standing = summary.standing
    each = summary.cost_per_page
    return {
        "run": summary.run.id,
        "name": summary.run.name,
        "committed": summary.committed,
        "pages": standing.done,
        "pending": standing.pending,
        "failed": standing.failed,
        "items": standing.items,
        "out": str(summary.out),
        "cost": str(summary.cost.dollars),
        "cost_per_page": None if each is None else str(each.dollars),
        "max_cost": None if summary.run.max_cost is None else str(summary.run.max_cost.dollars),
        "stopped_by": None if summary.stopped_by is None else str(summary.stopped_by),
        "drained": summary.drained,
        "elsewhere": summary.elsewhere,
        "sites": [
            {
                "site": one.site,
                "pages": one.done,
                "pending": one.pending,
                "failed": one.failed,
                "items": one.items,
                "retries": summary.progress.sites.get(one.site, Count()).retries,
                "note": summary.progress.sites.get(one.site, Count()).note,
            }
            for one in standing.sites
        ],
        **what_else(standing),
    }
