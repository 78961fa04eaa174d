"""`tabkeeper sessions` and `tabkeeper cleanup`: what is recorded as running, and ending what lost its owner.

A session belongs to the process whose pool made it. That process alone can close it while it lives; afterwards any
command may, and what the session cost is settled by estimate, never forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.picture import SessionLine, ago, sessions
from tabkeeper.cli.records import reading, working
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import ConfigError, TabkeeperError
from tabkeeper.pool import recovery
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import Leftover, Provider
from tabkeeper.providers.live_view import live_view
from tabkeeper.reports.render_parts import counted

sessions_app = typer.Typer(no_args_is_help=True, help="List sessions, and close one that lost its owner.")


@sessions_app.command("list")
def list_(
    config: ConfigOption = None,
    *,
    closed: Annotated[int, typer.Option("--closed", min=0, help="Show also this many that ended last.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List the sessions that are open according to the ledger.

    For instance:

      tabkeeper sessions list

      tabkeeper sessions list --closed 20 --json
    """
    now = SystemClock().now()
    with reading(read_config(config)) as engine:
        found = sessions(engine, closed=closed)
    if as_json:
        print_json([line.as_json() for line in found])
        return
    if not found:
        typer.echo("no sessions")
        return
    console().print(session_table(found, now))


def session_table(lines: Sequence[SessionLine], now: datetime) -> Table:
    """Return a table of sessions for people."""
    table = Table(box=None, pad_edge=False)
    numbers = {"age", "uses", "health", "used", "refreshed", "held", "cost"}
    columns = (
        "session",
        "platform",
        "provider",
        "tenant",
        "state",
        "age",
        "uses",
        "health",
        "used",
        "refreshed",
    )
    for column in (*columns, "held", "cost", "why closed"):
        table.add_column(column, justify="right" if column in numbers else "left")
    for line in lines:
        end = line.ended_at or now
        table.add_row(
            line.id,
            line.platform,
            line.provider,
            line.tenant,
            line.state,
            ago(line.created_at, end),
            str(line.uses),
            "" if line.health is None else f"{line.health:.1f}",
            _since(line.last_used, end),
            _since(line.last_refresh, end),
            str(line.held) if line.ended_at is None else "",
            str(line.cost) if line.ended_at is not None else "",
            line.close_reason or "",
        )
    return table


def _since(at: str | None, now: datetime) -> str:
    return f"{ago(datetime.fromisoformat(at), now)} ago" if at else ""


@sessions_app.command()
def close(
    session_id: Annotated[
        str, typer.Argument(metavar="SESSION", help="Id as `tabkeeper sessions list` shows it.")
    ],
    config: ConfigOption = None,
) -> None:
    """End and settle one session whose owner is gone. A living owner closes its sessions itself.

    For instance:

      tabkeeper sessions close s0b6f3c55d1e2a90b7c44
    """
    settings = read_config(config)
    line = _known(settings, session_id)
    if line.ended_at is not None:
        typer.echo(
            f"session {session_id} ended already ({line.close_reason or line.state}) and cost {line.cost}"
        )
        return
    if not asyncio.run(_take_over(settings, session_id)):
        raise TabkeeperError(
            f"session {session_id} belongs to process {line.pid} on {line.host}, which is alive; close it there "
            f"with pool.close_session({session_id!r}), or end that process"
        )
    typer.echo(f"session {session_id} is ended and settled")


@sessions_app.command()
def view(
    session_id: Annotated[
        str, typer.Argument(metavar="SESSION", help="Id as `tabkeeper sessions list` shows it.")
    ],
    config: ConfigOption = None,
) -> None:
    """Print the address at which a person can watch a running session. Whoever has it needs no key: keep it secret.

    For instance:

      tabkeeper sessions view s0b6f3c55d1e2a90b7c44
    """
    settings = read_config(config)
    line = _known(settings, session_id)
    if line.ended_at is not None or line.provider_session_id is None:
        state = "ended already" if line.ended_at is not None else "is not running yet"
        raise TabkeeperError(f"session {session_id} {state}, so it cannot be watched")
    section = settings.providers.get(line.provider)
    if section is None:
        raise ConfigError(
            f"session {session_id} is at provider {line.provider!r}, which is not configured here"
        )
    typer.echo(asyncio.run(_view(make_provider(line.provider, section), line.provider_session_id)))


async def _view(provider: Provider, provider_session_id: str) -> str:
    try:
        return await live_view(provider, provider_session_id)
    finally:
        await provider.aclose()


def _known(settings: PoolConfig, session_id: str) -> SessionLine:
    with reading(settings) as engine:
        found = sessions(engine, ids=[session_id])
    if not found:
        raise ConfigError(f"the ledger knows no session {session_id!r}; `tabkeeper sessions list` shows them")
    return found[0]


async def _take_over(settings: PoolConfig, session_id: str) -> bool:
    async with working(settings) as ledger:
        for orphan in await ledger.owners.orphans():
            if orphan.session_id == session_id:
                break
        else:
            return False
        provider = _providers(settings).get(orphan.provider)
        if provider is None:
            raise ConfigError(
                f"session {session_id} is at provider {orphan.provider!r}, which is not configured here"
            )
        leftover = Leftover(
            session_id=session_id,
            provider_session_id=orphan.provider_session_id,
            pid=orphan.pid,
            pid_started=orphan.pid_started,
        )
        await provider.reap([leftover])
        await ledger.settle_orphan(session_id, reason="closed by hand")
        return True


def cleanup(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """End what dead processes left running, and settle what it cost. Living owners are not touched.

    Every pool does the same at its start and once a minute; this is for when no pool runs.

    For instance:

      tabkeeper cleanup

      tabkeeper cleanup --json
    """
    done = asyncio.run(_cleanup(read_config(config)))
    if as_json:
        print_json(
            [
                {"session": s.id, "platform": s.platform, "provider": s.provider, "cost": s.cost.text()}
                for s in done
            ]
        )
        return
    for line in done:
        typer.echo(f"ended {line.id} ({line.platform} at {line.provider}); it cost {line.cost} by estimate")
    typer.echo(f"{counted(len(done), 'session')} cleaned up")


async def _cleanup(settings: PoolConfig) -> list[SessionLine]:
    async with working(settings) as ledger:
        # What is ended is told on standard output; the log has the rest: what could not be.
        recovery.log.addFilter(_is_trouble)
        try:
            done = await recovery.recover(ledger, _providers(settings))
        finally:
            recovery.log.removeFilter(_is_trouble)
        return sessions(ledger.reader, ids=[orphan.session_id for orphan in done])


def _is_trouble(record: logging.LogRecord) -> bool:
    return "it is ended and counted" not in record.getMessage()


def _providers(settings: PoolConfig) -> dict[str, Provider]:
    return {name: make_provider(name, section) for name, section in settings.providers.items()}
