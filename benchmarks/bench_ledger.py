"""Hold and settle per second, and a month's report over three million entries."""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from benchmarks.common import micros
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.reports.as_of import as_of_entry
from tabkeeper.reports.books import Books
from tabkeeper.reports.html.page import render_html

CALLERS = 50
"""Sessions being held or settled at once; the writer puts what has queued up into one transaction."""
SESSIONS = 2000
ENTRIES = 3_000_000


def config(url: str) -> PoolConfig:
    """One platform, two budgets that every session must fit into."""
    return parse_config(
        {
            "ledger": {"url": url},
            "providers": {"local": {"kind": "local", "rates": {"per_hour": "0.10", "increment": "60s"}}},
            "platforms": {"web": {}},
            "budgets": [
                {"name": "daily", "limit": "100000.00"},
                {"name": "web", "limit": "100000.00", "period": "month", "platform": "web"},
            ],
        }
    )


async def _hold_and_settle(url: str) -> dict[str, Any]:
    ledger = await Ledger.open(config(url))
    waits: list[float] = []

    async def caller(first: int) -> None:
        for n in range(first, SESSIONS, CALLERS):
            began = time.perf_counter()
            await ledger.hold(
                HoldRequest(
                    session_id=f"s{n}", platform="web", provider="local", tenant="default", max_seconds=600
                )
            )
            waits.append(time.perf_counter() - began)
            await ledger.settle(f"s{n}", SessionUsage(seconds=61.0), reason="idle")

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for first in range(CALLERS):
            group.create_task(caller(first))
    seconds = time.perf_counter() - began
    broken = await ledger.verify()
    await ledger.aclose()
    assert broken == [], broken
    return {"hold_settle_per_second": round(SESSIONS / seconds), "callers": CALLERS, "hold": micros(waits)}


def _fill(url: str, entries: int) -> None:
    """Copy the sums and entries of real sessions over a year, by SQL, until there are `entries` of them."""
    engine = create_engine(url)
    with engine.begin() as db:
        names = [r[1] for r in db.execute(text("PRAGMA table_info(entry)")) if r[1] not in {"id", "idem_key"}]
        columns = ", ".join(names)
        have = db.execute(text("SELECT count(*) FROM entry")).scalar_one()
        hour = 3_600_000_000
        rounds = 0
        shifted = ", ".join(f"{c} - :shift" if c == "effective_at" else c for c in names)
        while have < entries:
            rounds += 1
            take = min(have, entries - have)
            db.execute(
                text(
                    f"INSERT INTO entry ({columns}, idem_key) SELECT {shifted}, idem_key || :suffix FROM entry LIMIT :n"
                ),
                {"shift": hour * 2 ** (rounds - 1), "suffix": f":{rounds}", "n": take},
            )
            have += take
        for table in ("rollup_hour", "rollup_line"):
            names = [r[1] for r in db.execute(text(f"PRAGMA table_info({table})")) if r[1] != "id"]
            shifted = ", ".join("hour_at - n.h * :hour" if c == "hour_at" else f"{table}.{c}" for c in names)
            db.execute(
                text(
                    f"WITH RECURSIVE n(h) AS (SELECT 1 UNION ALL SELECT h + 1 FROM n WHERE h < 8760) "
                    f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) SELECT {shifted} FROM {table}, n"
                ),
                {"hour": hour},
            )
        for days, hours in (("rollup_day", "rollup_hour"), ("rollup_day_line", "rollup_line")):
            columns = [r[1] for r in db.execute(text(f"PRAGMA table_info({days})"))]
            keys = [c for c in columns if c in {"provider", "platform", "tenant", "kind"}]
            sums = [c for c in columns if c not in {"day_at", *keys}]
            db.execute(text(f"DELETE FROM {days}"))
            db.execute(
                text(
                    f"INSERT INTO {days} (day_at, {', '.join([*keys, *sums])}) "
                    f"SELECT hour_at - hour_at % :day, {', '.join([*keys, *(f'SUM({c})' for c in sums)])} "
                    f"FROM {hours} GROUP BY {', '.join(['1', *keys])}"
                ),
                {"day": 24 * hour},
            )
    engine.dispose()


async def _report(folder: Path) -> dict[str, Any]:
    url = f"sqlite:///{folder}/year.db"
    ledger = await Ledger.open(config(url))
    for n in range(2000):
        name = f"r{n}"
        await ledger.hold(
            HoldRequest(
                session_id=name, platform="web", provider="local", tenant=f"t{n % 20}", max_seconds=600
            )
        )
        await ledger.settle(name, SessionUsage(seconds=61.0), reason="idle")
    await ledger.aclose()
    _fill(url, ENTRIES)
    ledger = await Ledger.open(config(url))
    books = Books(ledger)
    today = datetime.now(UTC).date()
    month = date(today.year, today.month, 1) - timedelta(days=1)
    times: dict[str, list[float]] = {
        "day_report": [],
        "month_report": [],
        "month_page": [],
        "month_as_of": [],
    }
    with ledger.reader.connect() as db:
        last = db.execute(text("SELECT MAX(id) FROM entry")).scalar_one()
        then = as_of_entry(db, last - 5000)
    for _ in range(20):
        began = time.perf_counter()
        await books.report(month)
        times["day_report"].append(time.perf_counter() - began)
        began = time.perf_counter()
        found = await books.report(month, period="month")
        times["month_report"].append(time.perf_counter() - began)
        render_html(found)
        times["month_page"].append(time.perf_counter() - began)
        began = time.perf_counter()
        await books.report(month, period="month", as_of=then)
        times["month_as_of"].append(time.perf_counter() - began)
    with ledger.reader.connect() as db:
        entries = db.execute(text("SELECT count(*) FROM entry")).scalar_one()
        rollups = db.execute(text("SELECT count(*) FROM rollup_hour")).scalar_one()
    await ledger.aclose()
    return {"entries": entries, "rollup_hours": rollups, **{name: micros(one) for name, one in times.items()}}


async def _all(postgres: str | None, *, with_report: bool) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        figures["sqlite"] = await _hold_and_settle(f"sqlite:///{name}/ledger.db")
        if postgres is not None:
            figures["postgresql"] = await _hold_and_settle(postgres)
        if with_report:
            figures["report"] = await _report(Path(name))
    return figures


def run(postgres: str | None = None, *, with_report: bool = True) -> dict[str, Any]:
    """Measure; `postgres` is the URL of an empty database."""
    return asyncio.run(_all(postgres, with_report=with_report))
