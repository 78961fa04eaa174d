"""`tabkeeper reconcile`: ask providers what they billed, show it beside what was booked, and book the difference."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.records import working
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig, parse_duration
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.comparing import Tolerance
from tabkeeper.ledger.reconcile import Capture
from tabkeeper.pool.reconciling import LOOK_BACK, ProviderReconciled, Reconciled, Reconciler, period_line
from tabkeeper.providers import make_provider


def reconcile(
    config: ConfigOption = None,
    *,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only this provider.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help='Sessions that ended since then: a date or a length of time such as "7d".'
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look; write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare what providers say they billed with the ledger, and book the difference where the session is booked.

    Exit code 1 if a difference passes `ledger.reconcile_tolerance`, if a provider's state and ours disagreed (drift),
    or if one did not answer. Pools do the same every `ledger.reconcile_every`.

    For instance:

      tabkeeper reconcile

      tabkeeper reconcile --provider browserbase --since 7d --dry-run

      tabkeeper reconcile --json | jq '.capture[] | {provider, day, rate}'
    """
    settings = read_config(config)
    if provider is not None and provider not in settings.providers:
        known = ", ".join(settings.providers)
        raise ConfigError(f"there is no provider {provider!r}; configured: {known}")
    start = _start(since, settings)
    found, captured = asyncio.run(_reconcile(settings, provider, start, dry_run=dry_run))
    if as_json:
        print_json(_as_json(found, captured))
    elif not found.providers:
        typer.echo("no provider tells what it bills: none of those configured is hosted")
    else:
        _show(found)
    if not found.ok:
        raise typer.Exit(1)


def _start(since: str | None, settings: PoolConfig) -> datetime:
    now = SystemClock().now()
    if since is None:
        return now - LOOK_BACK
    try:
        day = date.fromisoformat(since)
    except ValueError:
        try:
            return now - parse_duration(since)
        except ValueError:
            raise ConfigError(
                f"--since: {since!r} is neither a date, such as 2026-03-04, nor a length, such as 7d"
            ) from None
    return datetime.combine(day, time.min, ZoneInfo(settings.ledger.timezone))


async def _reconcile(
    settings: PoolConfig, provider: str | None, start: datetime, *, dry_run: bool
) -> tuple[Reconciled, list[Capture]]:
    names = [provider] if provider is not None else list(settings.providers)
    tolerance = settings.ledger.reconcile_tolerance
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(working(settings))
        providers = {name: make_provider(name, settings.providers[name]) for name in names}
        for one in providers.values():
            stack.push_async_callback(one.aclose)
        reconciler = Reconciler(
            providers=providers,
            ledger=ledger,
            clock=clock,
            tolerance=Tolerance(absolute=tolerance.absolute, relative=tolerance.relative),
            patience=settings.pool.close_timeout.total_seconds(),
            exclusive={name for name in names if settings.providers[name].exclusive},
        )
        found = await reconciler.reconcile(since=start, dry_run=dry_run)
        captured = await ledger.reconciliation.captured(
            start=start - timedelta(days=1), end=clock.now() + timedelta(days=1)
        )
        return found, [one for one in captured if one.provider in names]


def _show(found: Reconciled) -> None:
    title = f"Sessions that ended since {found.since:%Y-%m-%d %H:%M %Z}" + (
        "; nothing is written" if found.dry_run else ""
    )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    left = {"provider", "drift"}
    for column in ("provider", "sessions", "ours", "theirs", "difference", "adjusted", "capture", "drift"):
        table.add_column(column, justify="left" if column in left else "right", no_wrap=column not in left)
    for one in found.providers:
        table.add_row(*_cells(one))
    console().print(table)
    for one in found.providers:
        for line in _remarks(one):
            console().print(line, markup=False)


def _cells(one: ProviderReconciled) -> list[str]:
    difference = f"{'+' if one.difference.nanos > 0 else ''}{one.difference}" if one.difference else ""
    return [
        escape(one.provider),
        str(one.compared),
        str(one.ours),
        str(one.theirs),
        f"{difference} (!)" if one.past else difference,
        str(one.adjusted or ""),
        "" if one.capture_rate is None else f"{one.capture_rate:.1%}",
        str(len(one.drift) or ""),
    ]


def _remarks(one: ProviderReconciled) -> Sequence[str]:
    lines = [f"{one.provider}: drift ({drift.kind}): {drift.detail}" for drift in one.drift]
    lines += [f"{one.provider}: {period_line(period)}" for period in one.periods]
    if one.past:
        lines.append(f"{one.provider}: the difference (!) is past ledger.reconcile_tolerance")
    if one.waiting:
        lines.append(f"{one.provider}: {one.waiting} without final figures yet; they are asked for again")
    if one.error:
        lines.append(f"{one.provider}: cut short: {one.error}")
    return lines


def _as_json(found: Reconciled, captured: Sequence[Capture]) -> dict[str, object]:
    return {
        "at": found.at,
        "since": found.since,
        "dry_run": found.dry_run,
        "ok": found.ok,
        "providers": [
            {
                "provider": one.provider,
                "compared": one.compared,
                "waiting": one.waiting,
                "ours": one.ours.text(),
                "theirs": one.theirs.text(),
                "difference": one.difference.text(),
                "adjusted": one.adjusted,
                "past_tolerance": one.past,
                "capture_rate": one.capture_rate,
                "periods": [
                    {
                        "start": period.start,
                        "end": period.end,
                        "ours": period.ours.text(),
                        "theirs": period.theirs.text(),
                        "unattributed": period.booked.text(),
                    }
                    for period in one.periods
                ],
                "drift": [asdict(drift) for drift in one.drift],
                "error": one.error or None,
            }
            for one in found.providers
        ],
        "capture": [
            {
                "provider": one.provider,
                "day": one.day,
                "sessions": one.sessions,
                "compared": one.compared,
                "ours": one.ours.text(),
                "theirs": one.theirs.text(),
                "rate": one.rate,
            }
            for one in captured
        ],
    }
