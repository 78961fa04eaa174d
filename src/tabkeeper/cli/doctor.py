"""`tabkeeper doctor`: can this machine run what the configuration asks for, and if not, what to do about it.

It changes nothing: no database is created, no paid session is started. A local browser is started once and ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Engine, func, select, text

from tabkeeper import __version__
from tabkeeper.cli.findings import Finding
from tabkeeper.cli.fleet import shared_findings
from tabkeeper.cli.options import ConfigOption, JsonOption, config_path, console, print_json
from tabkeeper.cli.owed import owed, owed_finding
from tabkeeper.cli.providers import ask
from tabkeeper.cli.records import revision, shown, sqlite_file
from tabkeeper.cli.serving import serving
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig, load_config
from tabkeeper.errors import ConfigError, LedgerError, ProviderError
from tabkeeper.ledger import schema
from tabkeeper.ledger.engines import is_away, is_memory, parse_url, write_engine
from tabkeeper.ledger.instants import moment
from tabkeeper.ledger.models import metadata
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import SessionSpec
from tabkeeper.reports.render_parts import counted

_LITTLE_DISK_BYTES = 200 * 2**20
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)
_SKEW = timedelta(seconds=5)
_PATIENCE = 15.0
"""Seconds that a provider has to answer."""


def doctor(
    config: ConfigOption = None,
    *,
    start: Annotated[
        bool, typer.Option("--start/--no-start", help="Start a local browser to see that it works.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check prices and budgets, database, clock, keys and browser, and say what to do. Exit code 1 if any fails.

    For instance:

      tabkeeper doctor

      tabkeeper doctor --no-start --json

      tabkeeper doctor -c /etc/tabkeeper.toml
    """
    path = config_path(config)
    settings = load_config(path)
    findings = [
        *_configuration(path, settings),
        *serving(settings, SystemClock().now()),
        *_database(settings),
        *_clock(),
    ]
    findings += asyncio.run(_providers(settings, start=start))
    failed = [finding for finding in findings if finding.level == "fail"]
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    else:
        console().print(_table(findings))
        typer.echo(_verdict(findings))
    if failed:
        raise typer.Exit(1)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for finding in findings:
        advice = f"\n[dim]→ {escape(finding.advice)}[/dim]" if finding.advice else ""
        mark = f"[{colours[finding.level]}]{finding.level}[/]"
        table.add_row(mark, escape(finding.name), escape(finding.detail) + advice)
    return table


def _verdict(findings: list[Finding]) -> str:
    failed = sum(finding.level == "fail" for finding in findings)
    warned = sum(finding.level == "warn" for finding in findings)
    if failed:
        return f"{failed} of {counted(len(findings), 'check')} failed; the arrows say what to do."
    return f"Ready{f', with {warned} warnings' if warned > 1 else ', with a warning' if warned else ''}."


# ── configuration ──────────────────────────────────────────────────────────────────────────────────────────────────


def _configuration(path: Path | None, settings: PoolConfig) -> Iterator[Finding]:
    detail = f"{__version__} on Python {platform.python_version()}, {sys.platform}"
    yield Finding(name="tabkeeper", level="ok", detail=detail)
    counts = (
        f"{counted(len(settings.platforms), 'platform')}, {counted(len(settings.providers), 'provider')}, "
        f"{counted(len(settings.budgets), 'budget')}"
    )
    yield Finding(
        name="configuration",
        level="ok",
        detail=f"{path or 'no file, so the defaults hold'} ({counts})",
        advice="" if path else "`tabkeeper init` writes a file to start from",
    )
    # An unset variable was already an error when the file was read; here it is only told which ones are used.
    names = sorted(set(_variables(tomllib.loads(path.read_text(encoding="utf-8"))))) if path else []
    if names:
        yield Finding(name="keys", level="ok", detail=f"from the environment, all set: {', '.join(names)}")
        empty = [name for name in names if not os.environ.get(name)]
        if empty:
            advice = "an empty key is refused by every provider"
            yield Finding(
                name="keys", level="warn", detail=f"set but empty: {', '.join(empty)}", advice=advice
            )


def _variables(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _variables(item)
    elif isinstance(value, str) and value.startswith("env:"):
        yield value.removeprefix("env:")


# ── database ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _database(settings: PoolConfig) -> Iterator[Finding]:
    address = shown(settings)
    url = parse_url(settings.ledger.url)
    if is_memory(url):
        advice = "costs and budgets are forgotten when the process ends; give ledger.url a file"
        yield Finding(name="database", level="warn", detail="in memory", advice=advice)
        return
    file = sqlite_file(url)
    if file is not None and (problem := _place(file)):
        yield Finding(
            name="database", level="fail", detail=problem, advice="set ledger.url to a place you can write"
        )
        return
    if file is not None:
        free = shutil.disk_usage(file.absolute().parent).free
        if free < _LITTLE_DISK_BYTES:
            detail = f"{free // 2**20} MB free beside {file}"
            yield Finding(
                name="disk", level="warn", detail=detail, advice="a full disk stops all paid sessions"
            )
    if file is not None and not file.exists():
        how = "the first pool creates it" if settings.ledger.auto_upgrade else "run `tabkeeper db upgrade`"
        yield Finding(name="database", level="ok", detail=f"{address} does not exist yet; {how}")
        return
    engine = write_engine(settings.ledger.url)
    try:
        yield _writable(engine, address)
        yield _migrations(engine, auto_upgrade=settings.ledger.auto_upgrade)
        yield from _database_clock(engine)
        if revision(engine) == schema.HEAD and (
            finding := owed_finding(owed(engine, settings.providers.keys()))
        ):
            yield finding
        yield from shared_findings(engine, settings)
    except LedgerError as error:
        advice = "start the database, or correct ledger.url; paid sessions do not start without it"
        yield Finding(name="database", level="fail", detail=str(error), advice=advice)
    finally:
        engine.dispose()


def _place(file: Path) -> str | None:
    folder = file.absolute().parent
    if not folder.is_dir():
        return f"{folder} is not a directory"
    if file.is_dir():
        return f"{file} is a directory"
    if not os.access(folder, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        return f"{file} cannot be written by this user"
    return None


def _writable(engine: Engine, address: str) -> Finding:
    try:
        # On SQLite this takes the writers' lock, on PostgreSQL it asks; nothing is written.
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                only_read = connection.execute(text("SHOW transaction_read_only")).scalar()
                if only_read == "on":
                    advice = "connect to the primary server with a user that may write"
                    return Finding(
                        name="database", level="fail", detail=f"{address} is read-only", advice=advice
                    )
    except Exception as error:
        if is_away(error):
            raise LedgerError(f"{address} cannot be written: {schema.reason(error)}") from error
        raise
    return Finding(name="database", level="ok", detail=f"{address} can be read and written")


def _migrations(engine: Engine, *, auto_upgrade: bool) -> Finding:
    found = revision(engine)
    if found == schema.HEAD:
        return Finding(name="migrations", level="ok", detail=f"current ({found})")
    if found is not None and found not in schema.KNOWN:
        with engine.connect() as connection:
            if schema.good_from(connection) <= schema.HEAD:
                detail = f"revision {found} was made by a newer Tabkeeper, which this one can work beside"
                return Finding(name="migrations", level="ok", detail=detail)
        detail = f"revision {found} was made by a newer Tabkeeper"
        return Finding(name="migrations", level="fail", detail=detail, advice="pip install -U tabkeeper")
    detail = f"{found or 'no schema yet'}, this version expects {schema.HEAD}"
    if auto_upgrade:
        return Finding(name="migrations", level="ok", detail=f"{detail}; the next pool upgrades it")
    return Finding(name="migrations", level="fail", detail=detail, advice="tabkeeper db upgrade")


# ── clock ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _clock() -> Iterator[Finding]:
    now = SystemClock().now()
    if now < _BUILT:
        detail = f"{now:%Y-%m-%d %H:%M} UTC is before this version existed"
        yield Finding(
            name="clock", level="fail", detail=detail, advice="set the clock, for instance with NTP"
        )
    else:
        yield Finding(name="clock", level="ok", detail=f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _database_clock(engine: Engine) -> Iterator[Finding]:
    """Compare with the database's clock, and with the last time any process wrote: time must not have gone back."""
    now = SystemClock().now()
    advice = "windows of budgets go by the clock; let all machines keep it with NTP"
    process = metadata.tables["process"]
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            theirs = connection.execute(select(func.clock_timestamp())).scalar_one()
            if abs(theirs - now) > _SKEW:
                ahead = (now - theirs).total_seconds()
                detail = f"this machine is {ahead:+.0f} s from the database's clock"
                yield Finding(name="database clock", level="warn", detail=detail, advice=advice)
        if schema.revision(connection) is None:
            return
        latest = connection.execute(select(func.max(process.c.heartbeat_at))).scalar()
    if latest is not None and moment(latest) > now + _SKEW:
        detail = f"the ledger was last used at {moment(latest):%Y-%m-%d %H:%M:%S} UTC, which is in the future"
        yield Finding(name="ledger clock", level="fail", detail=detail, advice=advice)


# ── providers ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def _providers(settings: PoolConfig, *, start: bool) -> list[Finding]:
    found: list[Finding] = []
    asked = await asyncio.gather(
        *(ask(name, section, _PATIENCE) for name, section in settings.providers.items())
    )
    for (name, section), (findings, _) in zip(settings.providers.items(), asked, strict=True):
        found += [replace(one, name=f"{name}: {one.name}") for one in findings]
        if start and section.kind == "local" and not any(one.level == "fail" for one in findings):
            found.append(await _start(name, settings))
    return found


async def _start(name: str, settings: PoolConfig) -> Finding:
    """Start one local browser, which costs nothing, and end it."""
    clock = SystemClock()
    provider = make_provider(name, settings.providers[name])
    began = clock.monotonic()
    # What the provider would warn of stands in the table already.
    logging.disable(logging.WARNING)
    try:
        await provider.start(lambda _session, _reason: None)
        await provider.create(SessionSpec(session_id="doctor", platform="doctor", max_seconds=60))
    except (ConfigError, ProviderError) as error:
        advice = "libraries missing: playwright install-deps chromium; sandbox forbidden: sandbox = false"
        return Finding(name=f"{name}: start", level="fail", detail=str(error), advice=advice)
    finally:
        await provider.aclose()
        logging.disable(logging.NOTSET)
    return Finding(
        name=f"{name}: start", level="ok", detail=f"a browser starts in {clock.monotonic() - began:.1f} s"
    )
