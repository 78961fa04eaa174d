"""How the demo looks: a live picture on a terminal, a line every few seconds elsewhere, and the result at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tabkeeper.demo.progress import Progress
from tabkeeper.demo.run import Outcome
from tabkeeper.demo.trace import PLATFORMS
from tabkeeper.money import Money
from tabkeeper.reports.render_table import bar, print_report, str_money

_FRAMES_PER_SECOND = 4
_LINE_SECONDS = 3.0
_BAR = 40


def introduce(progress: Progress, console: Console, *, url_count: int) -> None:
    """Say what is about to happen, and which prices are made up."""
    pages = (
        f"{url_count} page{'s' if url_count != 1 else ''} of yours"
        if url_count
        else "a small website on 127.0.0.1"
    )
    console.print(
        f"[bold]Tabkeeper demo[/]: {len(progress.tasks)} tasks on {pages}.\n"
        "A pool of 3 sessions, 3 platforms with limits of their own, 2 tenants, 4 priorities.\n"
        "News runs on Chromium of this machine, for nothing. Shop takes Kernel (billed by the second) or Steel (by\n"
        "the started minute), whichever is cheaper; portal takes Steel. Both are stand-ins on this machine, in front\n"
        "of real Chromium, with their real prices. Kernel will be full for a while, Steel will\n"
        "drop an answer and bill too much.\n"
        "Arrivals and lengths: Azure Functions Invocation Trace 2019 (Microsoft, CC BY 4.0), compressed.\n"
        "A hard daily budget does not suffice for all tasks.\n"
        f"Seed {progress.seed}; --seed repeats it.\n",
        highlight=False,
        soft_wrap=True,
    )


async def watch(progress: Progress, console: Console) -> None:
    """Show `progress` until cancelled."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(picture(progress), refresh=True)
                await asyncio.sleep(1 / _FRAMES_PER_SECOND)
    while True:
        console.print(line(progress), highlight=False, soft_wrap=True)
        await asyncio.sleep(_LINE_SECONDS)


def line(progress: Progress) -> str:
    """Write the demo's state in one line."""
    stats, budget = progress.stats, progress.budget
    sessions = f"sessions {stats.sessions}/{stats.max_sessions}" if stats else progress.phase
    return (
        f"{progress.seconds:5.1f} s  done {progress.done.total():2}  refused {progress.refused.total():2}  "
        f"working {len(progress.running)}  waiting {len(progress.waiting):2}  {sessions}  "
        f"spent {str_money(budget.spent)} + held {str_money(budget.held)} of {budget.limit}"
    )


def picture(progress: Progress) -> RenderableType:
    """Draw the demo's state."""
    return Group(_head(progress), "", _platforms(progress), "", _money(progress), "", *_running(progress))


def _head(progress: Progress) -> RenderableType:
    total = len(progress.tasks)
    text = Text(f"{progress.seconds:5.1f} s  {progress.phase:<17}", style="bold")
    share = progress.ended / total
    text.append(f"{bar(share, width=_BAR)} ", style="green")
    text.append(f"{progress.ended} of {total} tasks over", style="")
    return text


def _platforms(progress: Progress) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("platform", "sessions", "working", "idle", "starting", "waiting", "done", "refused"):
        table.add_column(name, justify="left" if name in {"platform", "waiting"} else "right")
    for name in PLATFORMS:
        stats = progress.stats.platforms.get(name) if progress.stats else None
        waiting = sorted(
            (t for t in progress.waiting.values() if t.platform == name), key=lambda t: -t.priority
        )
        table.add_row(
            name,
            f"{stats.sessions}/{stats.max_sessions}" if stats else "-",
            str(stats.leased) if stats else "-",
            str(stats.idle) if stats else "-",
            str(stats.creating) if stats else "-",
            _queue([task.priority for task in waiting]),
            str(progress.done[name]),
            str(progress.refused[name]),
        )
    return table


def _queue(priorities: list[int]) -> Text:
    """Draw who waits: each by a digit, its priority."""
    text = Text(f"{len(priorities):2} ")
    for priority in priorities[:24]:
        text.append(str(priority), style="bold yellow" if priority else "dim")
    text.pad_right(27 - len(text))
    return text


def _money(progress: Progress) -> RenderableType:
    budget = progress.budget
    limit = budget.limit.nanos or 1
    spent, held = budget.spent.nanos / limit, budget.held.nanos / limit
    text = Text("budget   ")
    text.append(bar(spent, held, _BAR), style="red" if spent + held > 0.9 else "yellow")
    text.append(
        f" {str_money(budget.spent)} spent + {str_money(budget.held)} held of {budget.limit}; "
        f"refused {budget.denied}"
    )
    return text


def _running(progress: Progress) -> Iterable[RenderableType]:
    for task, session in list(progress.running.values()):
        yield Text(
            f"  task {task.number:3} {task.platform:<7} priority {task.priority} {task.tenant:<7} on {session}",
            style="dim",
        )


def conclude(progress: Progress, outcome: Outcome, console: Console) -> None:
    """Print the day's report and what was checked."""
    print_report(outcome.report, console)
    console.print()
    if progress.refusal:
        console.print("What a refused task was told:", style="bold")
        console.print(f"  {progress.refusal}\n", highlight=False, markup=False)
    for failure in progress.failures[:5]:
        console.print(f"  failed: {failure}", highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for check in outcome.checks:
        mark = Text("ok", style="green") if check.ok else Text("FAILED", style="bold red")
        table.add_row(mark, check.name, Text(check.detail))
    console.print(table)
    verdict = "All of it held" if outcome.ok else "Something did not hold"
    console.print(f"\n{verdict}, in {outcome.seconds:.0f} s.", style="bold", highlight=False)


def as_json(progress: Progress, outcome: Outcome) -> dict[str, object]:
    """Return all of it as plain data; money as decimal text."""

    def by_platform(counts: dict[str, int]) -> dict[str, int]:
        return {name: counts.get(name, 0) for name in PLATFORMS}

    def text(amount: Money) -> str:
        return amount.text()

    return {
        "ok": outcome.ok,
        "seed": progress.seed,
        "seconds": round(outcome.seconds, 3),
        "tasks": len(progress.tasks),
        "done": by_platform(progress.done),
        "refused": by_platform(progress.refused),
        "failed": by_platform(progress.failed),
        "pages": progress.pages,
        "refusal": progress.refusal or None,
        "failures": progress.failures,
        "budget": {"limit": text(outcome.peak.limit), "peak": text(outcome.peak.committed)},
        "order": {
            "compared": outcome.order.compared,
            "by_priority": outcome.order.by_priority,
            "too_close": outcome.order.too_close,
            "violations": [list(pair) for pair in outcome.order.violations],
        },
        "hosted": {
            "bills": [
                {
                    "provider": bill.provider,
                    "created": bill.created,
                    "known": bill.known,
                    "cost": text(bill.cost),
                }
                for bill in outcome.bills
            ],
            "refused": outcome.hosted.refused,
            "lost_answers": outcome.hosted.lost,
        },
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in outcome.checks],
        "report": outcome.report.model_dump(mode="json"),
    }
