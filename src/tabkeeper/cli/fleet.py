"""What `tabkeeper doctor` looks at where processes share a pool: room for connections, notifications, who runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sqlalchemy import Engine, inspect, text

from tabkeeper.cli.findings import Finding
from tabkeeper.config import PoolConfig
from tabkeeper.ledger.engines import write_engine
from tabkeeper.pool.fleet import asks_to_share
from tabkeeper.reports.render_parts import counted

CONNECTIONS = 6
"""Connections that one process of a shared pool uses at most."""
_PATIENCE = 2.0
"""Seconds that a notification may take to arrive."""
_SLOW_MS = 10.0
"""Milliseconds per answer from which leases are slow; each takes two entries of the log."""
_CHANNEL = "tabkeeper_doctor"
_DEAF = Finding(
    name="notifications",
    level="warn",
    detail="they do not arrive, so processes look for news once a second",
    advice="behind PgBouncer in transaction mode, set ledger.direct_url to the server itself",
)


def shared_findings(engine: Engine, settings: PoolConfig) -> Iterator[Finding]:
    """Look at what processes that share a pool need of their database; nothing if this one shares none.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database went away.
    """
    if settings.pool.shared is True and engine.dialect.name != "postgresql":
        advice = "give ledger.url the address of a PostgreSQL, or set pool.shared = false"
        yield Finding(
            name="shared pool", level="fail", detail="it is shared through PostgreSQL only", advice=advice
        )
        return
    if not asks_to_share(settings):
        return
    yield _room(engine)
    yield _speed(engine)
    yield _notifications(engine, settings)
    if not settings.security.keys:
        advice = "make a key with `tabkeeper db new-key` and give all processes the same security.keys"
        detail = "there are no keys, so processes share limits and the queue, but no sessions"
        yield Finding(name="shared sessions", level="warn", detail=detail, advice=advice)
    yield _members(engine, settings.pool.name)


def _room(engine: Engine) -> Finding:
    with engine.connect() as connection:
        most, used = connection.execute(
            text("SELECT current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity)")
        ).one()
    left = most - used
    detail = f"{used} of {most} connections are in use; a process takes up to {CONNECTIONS}"
    if left < CONNECTIONS:
        advice = "raise max_connections of the server, or put a pooler in front of it (see ledger.direct_url)"
        return Finding(name="connections", level="warn", detail=detail, advice=advice)
    return Finding(
        name="connections", level="ok", detail=f"{detail}: room for {_processes(left // CONNECTIONS)} more"
    )


def _speed(engine: Engine) -> Finding:
    took = []
    with engine.connect() as connection:
        for _ in range(5):
            began = time.perf_counter()
            connection.execute(text("SELECT 1"))
            took.append(time.perf_counter() - began)
    millis = sorted(took)[2] * 1000
    detail = f"an answer takes {millis:.1f} ms"
    if millis < _SLOW_MS:
        return Finding(name="way to the database", level="ok", detail=detail)
    advice = "a lease waits for two of them: move database and workers closer together"
    return Finding(name="way to the database", level="warn", detail=detail, advice=advice)


def _notifications(engine: Engine, settings: PoolConfig) -> Finding:
    direct = settings.ledger.direct_url
    listener = engine if direct is None else write_engine(direct)
    try:
        listening = listener.raw_connection()
        try:
            if listening.info.get("pooled"):
                return _DEAF
            ear = listening.driver_connection
            assert ear is not None
            ear.execute(f"LISTEN {_CHANNEL}")
            ear.commit()
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": _CHANNEL})
            heard = any(True for _ in ear.notifies(timeout=_PATIENCE, stop_after=1))
        finally:
            listening.close()
    finally:
        if listener is not engine:
            listener.dispose()
    if heard:
        return Finding(name="notifications", level="ok", detail="they arrive")
    return _DEAF


def _members(engine: Engine, pool: str) -> Finding:
    with engine.connect() as connection:
        if not inspect(connection).has_table("board_member"):
            return Finding(name="shared pool", level="ok", detail=f"no process has begun {pool!r} yet")
        processes, hosts, planners = connection.execute(
            text(
                "SELECT count(*), count(DISTINCT host), count(DISTINCT planner) FROM board_member WHERE board = :pool"
            ),
            {"pool": pool},
        ).one()
    detail = f"{_processes(processes)} on {counted(hosts, 'host')} share {pool!r}"
    if planners > 1:
        advice = (
            "one of them will not start: give all the same version and configuration, or another pool.name"
        )
        return Finding(name="shared pool", level="warn", detail=f"{detail}; they differ", advice=advice)
    return Finding(name="shared pool", level="ok", detail=detail)


def _processes(number: int) -> str:
    return f"{number} process{'' if number == 1 else 'es'}"
