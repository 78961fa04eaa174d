"""Reports and their pages over three million entries with all that belongs to them, on SQLite and PostgreSQL.

A year of 1.5 million sessions is written by SQL as the ledger would have: holds, settlements, lines, leases with tags,
postings to three budgets, sums by hour and day; `tabkeeper verify` holds it to every invariant. One month has just so
few sessions, and one day so many, that single sessions are still looked at: there a report costs most.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from benchmarks.common import micros
from tabkeeper.clock import VirtualClock
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.ledger.engines import parse_url
from tabkeeper.ledger.instants import DAY_US, HOUR_US
from tabkeeper.ledger.instants import micros as instant_us
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.settling import LINE_SUMS, SUMS
from tabkeeper.ledger.types import HoldRequest, LeaseUsage, SessionUsage
from tabkeeper.reports.as_of import as_of_entry
from tabkeeper.reports.books import Books
from tabkeeper.reports.details import MOST_SESSIONS
from tabkeeper.reports.html.page import render_html
from tabkeeper.reports.report import ReportPeriod

ENTRIES = 3_000_000
MONTHS = 12
ROUNDS = 10
PROVIDERS = ("one", "two", "three")
PLATFORMS = 4
TENANTS = 20
TAGS = 50


def config(url: str) -> PoolConfig:
    """Three providers billed by the started minute, and budgets for a day, a month and for ever."""
    rates = {"per_hour": "0.36", "increment": "60s"}
    return parse_config(
        {
            "ledger": {"url": url},
            "providers": {name: {"kind": "local", "rates": rates} for name in PROVIDERS},
            "platforms": {f"p{n}": {"providers": list(PROVIDERS)} for n in range(PLATFORMS)},
            "budgets": [
                {"name": "daily", "limit": "100000.00"},
                {"name": "p0", "limit": "1000000.00", "period": "month", "platform": "p0"},
                {"name": "project", "limit": "10000000.00", "period": "total"},
            ],
        }
    )


def _months(today: date) -> list[date]:
    """The first days of the months that are told of, the present one last, and the one after it."""
    last = today.year * 12 + today.month - 1
    return [date(n // 12, n % 12 + 1, 1) for n in range(last - MONTHS + 1, last + 2)]


def _plan(today: date) -> tuple[list[tuple[date, int]], date, date]:
    """Sessions by day; with the quiet month and the busy day, which have just as many as are looked at one by one."""
    months = _months(today)
    quiet, busy = months[-3], months[-2] + timedelta(days=11)
    days = [months[0] + timedelta(days=n) for n in range((today - months[0]).days + 1)]
    short = MOST_SESSIONS - 100
    inside = [day for day in days if quiet <= day < months[-2]]
    plan = {day: short // len(inside) for day in inside} | {busy: short}
    others = [day for day in days if day not in plan]
    left = ENTRIES // 2 - sum(plan.values())
    plan |= {day: left // len(others) for day in others}
    plan[others[-1]] += left - left // len(others) * len(others)
    return sorted(plan.items()), quiet, busy


async def _first_session(url: str, start: datetime) -> None:
    """Have the ledger itself write one session of each provider, which all others are like."""
    clock = VirtualClock(start)
    ledger = await Ledger.open(config(url), clock=clock)
    for number, provider in enumerate(PROVIDERS):
        name, now = f"first-{number}", clock.now()
        await ledger.hold(
            HoldRequest(session_id=name, platform="p0", provider=provider, tenant="t0", max_seconds=600)
        )
        ledger.record_lease(
            LeaseUsage(
                lease_id=f"{name}-1", session_id=name, use_number=1, platform="p0", provider=provider, tenant="t0",
                priority=0, requested_at=now, granted_at=now, released_at=now, waited=0.0, start_age=0.0, end_age=30.0,
                is_new=True, outcome="ok", bytes_received=1000, tags={},
            )
        )  # fmt: skip
        await ledger.settle(name, SessionUsage(seconds=30.0), reason="idle")
    await ledger.aclose()


_LOAD = """
    CREATE TABLE load AS
    WITH RECURSIVE
      n(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k < :most),
      placed AS (SELECT d.first_i + n.k AS i, d.start_at + n.k * (86000000000 / d.sessions) AS at
                   FROM day_plan d JOIN n ON n.k < d.sessions)
    SELECT i, 'load-' || (10000000 + i) AS id, at, i * 2 + 1000 AS hold_id, i * 2 + 1001 AS settle_id,
           CASE (i * 7) % 3 WHEN 0 THEN 'one' WHEN 1 THEN 'two' ELSE 'three' END AS provider,
           'p' || ((i * 13 / 5) % 4) AS platform, 't' || ((i * 31 / 7) % 20) AS tenant,
           (20 + (i * 37) % 280) * 1000000 AS us, (i * 37 % 280 + 20 + 59) / 60 * 60000 AS billed,
           (i * 37 % 280 + 20 + 59) / 60 * 6000000 AS cost,
           CASE WHEN i % 40 = 0 THEN 'failed' ELSE 'ok' END AS outcome
      FROM placed"""
"""Lives of 20 to 299 s, billed by the started minute of $0.006; every fortieth lease fails."""


def _copy(db: Connection, table: str, like: str, values: dict[str, str], source: str) -> None:
    """Insert rows that are like an existing one but for some columns."""
    row = dict(db.execute(text(f"SELECT * FROM {table} WHERE {like} LIMIT 1")).mappings().one())
    columns = {name: f":{name}" for name in row} | values
    db.execute(
        text(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {source}"
        ),
        {name: value for name, value in row.items() if name not in values},
    )


def _fill(db: Connection, plan: Sequence[tuple[date, int]]) -> None:
    starts = [instant_us(datetime(day.year, day.month, day.day, tzinfo=UTC)) for day, _ in plan]
    db.execute(text("CREATE TABLE day_plan (start_at BIGINT, sessions BIGINT, first_i BIGINT)"))
    firsts = [sum(count for _, count in plan[:n]) for n in range(len(plan))]
    db.execute(
        text("INSERT INTO day_plan VALUES (:at, :n, :first)"),
        [{"at": at, "n": n, "first": first} for at, (_, n), first in zip(starts, plan, firsts, strict=True)],
    )
    db.execute(text(_LOAD.replace(":most", str(max(count for _, count in plan)))))
    db.execute(text("CREATE INDEX load_at ON load (at)"))
    db.execute(text("ANALYZE load"))
    known = db.execute(text("SELECT provider, rate_card_id FROM session"))
    cards = " ".join(f"WHEN '{provider}' THEN {card}" for provider, card in known)
    life = {
        "id": "load.id", "platform": "platform", "provider": "provider", "tenant": "tenant", "created_at": "at",
        "active_at": "at", "ended_at": "at + us", "expires_at": "at + 660000000", "cost_n": "cost",
        "seconds_us": "us", "rounding_n": "cost - us / 10", "idle_n": "0", "bytes": "1000",
        "failures": "CASE outcome WHEN 'ok' THEN 0 ELSE 1 END",
        "rate_card_id": f"CASE provider {cards} END",
    }  # fmt: skip
    _copy(db, "session", "id = 'first-0'", life, "load")
    _copy(
        db,
        "lease",
        "session_id = 'first-0'",
        {
            "id": "load.id || '-1'", "session_id": "load.id", "platform": "platform", "provider": "provider",
            "tenant": "tenant", "requested_at": "at", "granted_at": "at", "released_at": "at + us",
            "end_age_us": "us", "outcome": "outcome", "cost_n": "cost",
            "tags": f"""'{{"job": "' || (i % {TAGS}) || '"}}'""",
        },
        "load",
    )  # fmt: skip
    _copy(
        db,
        "hold",
        "session_id = 'first-0'",
        {
            "session_id": "load.id", "rate_card_id": life["rate_card_id"], "held_at": "at",
            "expires_at": "at + 660000000", "resolved_at": "at + us",
        },
        "load",
    )  # fmt: skip
    for kind, amount, recorded in (("hold", "0", "at"), ("settle", "cost", "at + us")):
        _copy(
            db,
            "entry",
            f"session_id = 'first-0' AND kind = '{kind}'",
            {
                "id": f"{kind}_id", "idem_key": f"'{kind}:' || load.id", "session_id": "load.id",
                "amount_n": amount, "effective_at": "at", "recorded_at": recorded,
            },
            "load ORDER BY i",
        )  # fmt: skip
    of_first = "entry_id = (SELECT id FROM entry WHERE session_id = 'first-0' AND kind = 'settle')"
    line = {"entry_id": "settle_id", "raw_qty": "us / 1000", "billed_qty": "billed", "amount_n": "cost"}
    _copy(db, "entry_line", of_first, line, "load")
    _windows(db, starts)
    _sums(db)
    db.execute(text("DROP TABLE load"))
    db.execute(text("DROP TABLE day_plan"))


def _windows(db: Connection, starts: list[int]) -> None:
    """Make the windows that the sessions' days and months have, and post every entry to its three."""
    budgets = {row.name: row.id for row in db.execute(text("SELECT id, name FROM budget"))}
    known = {(row.budget_id, row.start_at) for row in db.execute(text("SELECT * FROM budget_window"))}
    next_id = int(db.execute(text("SELECT MAX(id) FROM budget_window")).scalar_one())
    first = datetime.fromtimestamp(starts[0] / 1e6, UTC).date()
    months = [
        instant_us(datetime(day.year, day.month, 1, tzinfo=UTC))
        for day in _months(datetime.fromtimestamp(starts[-1] / 1e6, UTC).date())
    ]
    spans = [("daily", at, at + DAY_US, 10) for at in starts]
    spans += [("p0", a, b, 7) for a, b in itertools.pairwise(months)]
    assert instant_us(datetime(first.year, first.month, 1, tzinfo=UTC)) == months[0]
    for name, start, end, letters in spans:
        if (budgets[name], start) in known:
            continue
        next_id += 1
        like = dict(
            db.execute(
                text("SELECT * FROM budget_window WHERE budget_id = :id LIMIT 1"), {"id": budgets[name]}
            )
            .mappings()
            .one()
        )
        label = datetime.fromtimestamp(start / 1e6, UTC).date().isoformat()[:letters]
        new = like | {"id": next_id, "start_at": start, "end_at": end, "label": label}
        db.execute(
            text(f"INSERT INTO budget_window ({', '.join(new)}) VALUES ({', '.join(f':{c}' for c in new)})"),
            new,
        )
    held = int(db.execute(text("SELECT amount_n FROM hold WHERE session_id = 'first-0'")).scalar_one())
    at_once = "load.at >= w.start_at AND load.at < w.end_at"
    for name, of_it in (("daily", ""), ("p0", "AND load.platform = 'p0'"), ("project", "")):
        for entry, d_held, d_spent in (("hold_id", str(held), "0"), ("settle_id", str(-held), "cost")):
            db.execute(
                text(
                    f"INSERT INTO posting (entry_id, window_id, d_held_n, d_spent_n, d_forced_n) "
                    f"SELECT load.{entry}, w.id, {d_held}, {d_spent}, 0 "
                    f"FROM budget_window w JOIN load ON {at_once} {of_it} WHERE w.budget_id = :budget ORDER BY 1"
                ),
                {"budget": budgets[name]},
            )
    db.execute(
        text(
            "UPDATE budget_window SET spent_n = "
            "(SELECT SUM(d_spent_n) FROM posting p WHERE p.window_id = budget_window.id)"
        )
    )


def _sums(db: Connection) -> None:
    """Add up the sums by hour and by day, with those of the first sessions."""
    keys = "provider, platform, tenant"
    usage = {
        "cost_n": "SUM(cost)", "idle_n": "0", "rounding_n": "SUM(cost - us / 10)",
        "failed_n": "SUM(CASE outcome WHEN 'ok' THEN 0 ELSE cost END)", "sessions": "COUNT(*)",
        "failed_sessions": "0", "leases": "COUNT(*)", "reused": "0",
        "failures": "SUM(CASE outcome WHEN 'ok' THEN 0 ELSE 1 END)", "session_us": "SUM(us)",
        "leased_us": "SUM(us)", "waited_us": "0", "bytes": "COUNT(*) * 1000",
    }  # fmt: skip
    line = {
        "amount_n": "SUM(cost)",
        "raw_qty": "SUM(us / 1000)",
        "billed_qty": "SUM(billed)",
        "included_qty": "0",
    }
    kind = str(db.execute(text("SELECT kind FROM entry_line LIMIT 1")).scalar_one())
    for table, names, sums, more, unit in (
        ("rollup_hour", SUMS, usage, "", HOUR_US),
        ("rollup_line", LINE_SUMS, line, kind, HOUR_US),
        ("rollup_day", SUMS, usage, "", DAY_US),
        ("rollup_day_line", LINE_SUMS, line, kind, DAY_US),
    ):
        at = "hour_at" if unit == HOUR_US else "day_at"
        by = f"{keys}, kind" if more else keys
        chosen = f"{keys}, '{more}'" if more else keys
        adding = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in names)
        db.execute(
            text(
                f"INSERT INTO {table} ({at}, {by}, {', '.join(names)}) "
                f"SELECT at / {unit} * {unit}, {chosen}, {', '.join(sums[name] for name in names)} FROM load "
                f"WHERE true GROUP BY 1, {keys} ON CONFLICT ({at}, {by}) DO UPDATE SET {adding}"
            )
        )


async def _measure(url: str) -> dict[str, Any]:
    today = datetime.now(UTC).date()
    plan, quiet, busy = _plan(today)
    months = _months(today)
    await _first_session(url, datetime(months[0].year, months[0].month, 1, tzinfo=UTC))
    engine = create_engine(parse_url(url))
    began = time.perf_counter()
    with engine.begin() as db:
        if engine.dialect.name == "sqlite":
            db.execute(text("PRAGMA cache_size = -1000000"))  # of this connection only, to write sooner
        else:  # no look at every reference, which `verify` makes up for
            db.execute(text("SET LOCAL session_replication_role = replica"))
            db.execute(text("SET LOCAL work_mem = '256MB'"))
        _fill(db, plan)
    filled = time.perf_counter() - began
    if engine.dialect.name == "postgresql":  # as the server does by itself, some minutes later
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.execute(
                text("SELECT setval(pg_get_serial_sequence('entry', 'id'), (SELECT MAX(id) FROM entry))")
            )
            db.execute(text("VACUUM ANALYZE"))
    engine.dispose()
    ledger = await Ledger.open(config(url))
    began = time.perf_counter()
    broken = await ledger.verify()
    verified = time.perf_counter() - began
    assert broken == [], broken
    books = Books(ledger)
    with ledger.reader.connect() as db:
        counts = {
            table: db.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one()
            for table in ("entry", "session", "lease", "posting", "rollup_hour", "rollup_day")
        }
        then = as_of_entry(db, int(db.execute(text("SELECT MAX(id) FROM entry")).scalar_one()) - 5001)
    cases: dict[str, tuple[date, ReportPeriod, Any]] = {
        "today": (today, "day", None),
        "a day of 19,900 sessions": (busy, "day", None),
        "this month": (today, "month", None),
        "last month": (months[-2], "month", None),
        "a month of 19,900 sessions": (quiet, "month", None),
        "last month as of 2,500 sessions ago": (months[-2], "month", then),
    }
    found: dict[str, Any] = {}
    for name, (day, period, seen) in cases.items():
        reports, pages, busy_for = [], [], []
        for _ in range(ROUNDS):
            began, busy_since = time.perf_counter(), time.process_time()
            report = await books.report(day, period, as_of=seen)
            reports.append(time.perf_counter() - began)
            size = len(render_html(report))
            pages.append(time.perf_counter() - began)
            busy_for.append(time.process_time() - busy_since)
        found[name] = {
            "sessions": report.totals.sessions,
            "report": micros(reports),
            "report_and_page": micros(pages),
            "of_it_cpu_of_this_process": micros(busy_for),
            "page_bytes": size,
        }
    await ledger.aclose()
    return {"rows": counts, "filled_s": round(filled, 1), "verify_s": round(verified, 1), **found}


async def _all(postgres: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        figures = {"sqlite": await _measure(f"sqlite:///{Path(name) / 'year.db'}")}
    if postgres is not None:
        admin = create_engine(parse_url(postgres), isolation_level="AUTOCOMMIT")
        with admin.connect() as db:
            db.execute(text("CREATE DATABASE year_of_reports"))
        admin.dispose()
        own = make_url(postgres).set(database="year_of_reports").render_as_string(hide_password=False)
        figures["postgresql"] = await _measure(own)
    return figures


def run(postgres: str | None = None) -> dict[str, Any]:
    """Measure; `postgres` is the URL of a server on which a database may be made."""
    return asyncio.run(_all(postgres))
