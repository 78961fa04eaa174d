"""`tabkeeper status`: what runs now, who waits, and how much money is left.

It reads the ledger only, so it works from any shell on any machine that reaches the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from zoneinfo import ZoneInfo

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tabkeeper.cli.options import ConfigOption, JsonOption, console, iso, print_json, read_config
from tabkeeper.cli.owed import owed, owed_table
from tabkeeper.cli.picture import ProcessLine, SessionLine, ago, budgets, processes, sessions
from tabkeeper.cli.records import reading, shown
from tabkeeper.cli.shared import pool_tables, pools
from tabkeeper.clock import SystemClock
from tabkeeper.reports.report import BudgetFigures

_HOW_EXACT = (
    "Exact: budgets, open sessions and what is held for them, and shared pools. As of each process's last heartbeat "
    '("heard"): the other queues, and which sessions are leased or idle.'
)


def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show processes, queues, sessions and budgets of every pool that uses this ledger.

    Budgets, and which sessions are open with what is held for them, are exact, and so are pools that processes
    share through PostgreSQL. The queues of others, and which of their sessions are leased, are as of the last
    heartbeat of their process, seconds ago (column "heard").

    For instance:

      tabkeeper status

      watch tabkeeper status

      tabkeeper status --json | jq '.budgets[] | {name, left}'
    """
    settings = read_config(config)
    now = SystemClock().now()
    with reading(settings) as engine:
        owners, running, money = processes(engine, now), sessions(engine), budgets(engine, now)
        unconfirmed = owed(engine, settings.providers.keys())
        boards = pools(engine)
    if as_json:
        print_json(
            {
                "at": iso(now),
                "ledger": shown(settings),
                "processes": [asdict(line) for line in owners],
                "pools": [pool.model_dump(mode="json") for pool in boards],
                "sessions": [line.as_json() for line in running],
                "owed": [line.as_json() for line in unconfirmed],
                "budgets": [line.model_dump(mode="json") for line in money],
            }
        )
        return
    typer.echo(f"{shown(settings)} at {now:%Y-%m-%d %H:%M:%S} UTC")
    console().print(
        Group(
            "",
            _processes(owners, now) if owners else "no pool is open",
            "",
            *(part for pool in boards for part in (*pool_tables(pool), "")),
            _sessions(running) if running else "no session is open",
            "",
            owed_table(unconfirmed, now) if unconfirmed else "no session is owed to a provider",
            "",
            _budgets(money) if money else "no budget is set",
            "",
            _jobs(owners, now) if any(line.snapshot.get("jobs") for line in owners) else "",
            *_providers([line for line in owners if line.alive]),
            Text(f"\n{_HOW_EXACT}" if owners or running else "", style="dim"),
        )
    )


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column == columns[0])
    return table


def _processes(lines: Sequence[ProcessLine], now: datetime) -> Table:
    right = ("up", "heard", "sessions", "leased", "waiting")
    table = _table(
        "Processes",
        "process",
        "alive",
        "up",
        "heard",
        "sessions",
        "leased",
        "waiting",
        "who waits",
        right=right,
    )
    for line in lines:
        seen = line.snapshot
        platforms = seen.get("platforms", {})
        waiting = ", ".join(f"{name} {row['queued']}" for name, row in platforms.items() if row.get("queued"))
        table.add_row(
            f"{line.pid}@{line.host}",
            "yes" if line.alive else "no",
            ago(line.started_at, now),
            f"{ago(line.heartbeat_at, now)} ago",
            f"{seen['sessions']}/{seen['max_sessions']}" if "sessions" in seen else "",
            str(seen.get("leased", "")),
            f"{seen['queued']}/{seen['max_queued']}" if "queued" in seen else "",
            waiting,
        )
    return table


def _jobs(lines: Sequence[ProcessLine], now: datetime) -> Table:
    right = ("runs", "failed", "last run", "took", "next")
    table = _table(
        "Jobs", "process", "job", "runs", "failed", "last run", "took", "next", "result", right=right
    )
    for line in lines:
        for name, job in line.snapshot.get("jobs", {}).items():
            last, following = job["last_run"], job["next_run"]
            ran = last is not None and job["last_seconds"] is not None
            table.add_row(
                f"{line.pid}@{line.host}",
                name,
                str(job["runs"]),
                str(job["failures"] or ""),
                f"{ago(datetime.fromisoformat(last), now)} ago" if last else "",
                f"{job['last_seconds']:.2g} s" if ran else "",
                f"in {ago(now, datetime.fromisoformat(following))}" if following else "",
                job["last_result"],
            )
    return table


def _sessions(lines: Sequence[SessionLine]) -> Table:
    table = _table(
        "Open sessions", "platform", "provider", "state", "sessions", "held", right=("sessions", "held")
    )
    counts = Counter((line.platform, line.provider, line.state) for line in lines)
    for (platform, provider, state), number in sorted(counts.items()):
        same = [
            line
            for line in lines
            if (line.platform, line.provider, line.state) == (platform, provider, state)
        ]
        held = sum((line.held for line in same[1:]), same[0].held)
        table.add_row(platform, provider, state, str(number), str(held))
    return table


def _providers(lines: Sequence[ProcessLine]) -> list[RenderableType]:
    """Tell of provider accounts that are not quite well, and of routes that are not simply in order."""
    accounts = _table(
        "Providers held back", "provider", "breaker", "sessions", "creates", "for", "because of"
    )
    routes = _table("Routes", "platform", "routing", "order", "expected cost of a lease")
    for line in lines:
        for name, account in line.snapshot.get("accounts", {}).items():
            learnt = account["learnt_max_sessions"] is not None
            if account["state"] == "closed" and not learnt and not account["retry_in"]:
                continue
            pace = account["creates_per_minute"]
            accounts.add_row(
                name,
                account["state"],
                f"{account['sessions']}/{account['max_sessions']}",
                f"{pace} a minute" if pace else "",
                f"{account['retry_in']:.0f}s" if account["retry_in"] else "",
                Text(account["last_error"]),
            )
        for name, route in line.snapshot.get("routes", {}).items():
            if route["routing"] != "ordered":
                costs = (f"{p} {'?' if c is None else '$' + c}" for p, c in route["costs"].items())
                routes.add_row(name, route["routing"], " > ".join(route["order"]), ", ".join(costs))
    return [part for table in (accounts, routes) if table.row_count for part in ("", table)]


def _budgets(lines: Sequence[BudgetFigures]) -> Table:
    right = ("limit", "spent", "held", "left", "refused")
    table = _table(
        "Budgets",
        "budget",
        "for",
        "period",
        "mode",
        "limit",
        "spent",
        "held",
        "left",
        "refused",
        "resets",
        right=right,
    )
    for line in lines:
        table.add_row(
            line.name,
            line.scope,
            line.period,
            line.mode,
            str(line.limit),
            str(line.spent),
            str(line.held),
            str(line.left),
            str(line.denied),
            f"{line.resets_at.astimezone(ZoneInfo(line.timezone)):%Y-%m-%d %H:%M %Z}"
            if line.resets_at
            else "",
        )
    return table
