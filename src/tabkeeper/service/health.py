"""Can the service be used now, and how full is it: looked at in one place for load balancers and for people."""

from __future__ import annotations

import asyncio

from tabkeeper import __version__
from tabkeeper.pool.stats import PoolStats
from tabkeeper.service.access import Rooms
from tabkeeper.service.models import HealthAnswer, JobHealth

_PATIENCE = 2.0
"""Seconds for the database to answer."""


async def health(rooms: Rooms) -> HealthAnswer:
    """Look at the pool, its database, its providers and its jobs."""
    stats = rooms.pool.stats()
    database = await _database(rooms)
    jobs = {
        name: JobHealth(
            ok=not job.last_result.startswith("failed"), last_run=job.last_run, last_result=job.last_result
        )
        for name, job in stats.jobs.items()
    }
    fatal = list(_fatal(rooms, stats, database))
    minor = [
        f"provider {name!r} is left alone" for name, one in stats.accounts.items() if one.state != "closed"
    ]
    minor += [f"job {name!r}: {job.last_result}" for name, job in jobs.items() if not job.ok]
    full = f"{stats.whole.sessions}/{stats.max_sessions}"
    return HealthAnswer(
        status="unavailable" if fatal else "degraded" if minor else "ok",
        version=__version__,
        capacity=full,
        session_capacity=full,
        active_sessions=stats.leased,
        max_sessions=stats.max_sessions,
        persistent_sessions=stats.idle,
        queued=stats.queued,
        database=database,
        jobs=jobs,
        providers={name: one.state for name, one in stats.accounts.items()},
        problems=tuple(fatal + minor),
        timestamp=rooms.clock.now(),
    )


async def _database(rooms: Rooms) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            await rooms.pool.ledger.ping()
    except TimeoutError:
        return "it does not answer"
    except Exception as error:  # noqa: BLE001 - whatever it is, this is where it is told; its words may hold addresses
        return f"it cannot be read ({type(error).__name__})"
    return "ok"


def _fatal(rooms: Rooms, stats: PoolStats, database: str) -> list[str]:
    found = []
    if not rooms.pool.is_open:
        found.append("the pool is shutting down")
    if database != "ok":
        found.append(f"the database: {database}")
    if not stats.platforms:
        found.append("no platform is configured, so there is nothing to lease")
    elif not stats.idle and not stats.leased and all(one.state == "open" for one in stats.accounts.values()):
        found.append("every provider is left alone after failures, and no session is there")
    return found
