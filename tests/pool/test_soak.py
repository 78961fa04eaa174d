"""A month of a pool's life in virtual time, with faults: what it holds on to at the end is what it held at the start.

`make test` lives through a day and a half; `TABKEEPER_PROOF=1` through thirty days.
"""

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import TabkeeperError
from tabkeeper.testing import Faults, run_virtual

from .world import World, world

PROOF = bool(os.environ.get("TABKEEPER_PROOF"))
DAYS = 30.0 if PROOF else 1.5
WARM = 0.5
"""Days after which whatever is made once has been made."""
JOBS_EVERY = 1800
"""Seconds between two runs of every job; on their own timetable they would be most of what a month takes."""
PER_DAY = 288


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def day(w: World, chance: Random, days: float) -> None:
    """Callers of all kinds, sessions that die, and every job now and then."""
    end = asyncio.get_running_loop().time() + days * 86400
    async with asyncio.TaskGroup() as group:
        group.create_task(jobs(w, end))
        while (now := asyncio.get_running_loop().time()) < end:
            group.create_task(caller(w, chance))
            if chance.random() < 0.03 and w.provider.open:
                w.provider.kill(chance.choice(w.provider.open).label)
            # Busy hours and quiet ones.
            busy = 0.2 if int(now // 3600) % 24 in range(8, 20) else 1.8
            await asyncio.sleep(chance.expovariate(PER_DAY / 86400 / busy))


async def jobs(w: World, end: float) -> None:
    while asyncio.get_running_loop().time() < end:
        for name in w.pool.stats().jobs:
            assert not (await w.pool.run_job(name)).last_result.startswith("failed"), name
        await asyncio.sleep(JOBS_EVERY)


async def caller(w: World, chance: Random) -> None:
    timeout, works = chance.choice([2, 30]), chance.expovariate(1 / 20)
    with suppress(TabkeeperError, ZeroDivisionError, TimeoutError):
        async with asyncio.timeout(None if chance.random() < 0.95 else 0.5):
            async with w.pool.get_session(
                chance.choice(["shop", "mail"]), tenant=chance.choice(["acme", "default"]), timeout=timeout
            ) as lease:
                await lease.use(lambda _: asyncio.sleep(works), timeout=60)
                if chance.random() < 0.1:
                    raise ZeroDivisionError


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """What is logged would be kept by the test runner, and look like a leak."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_sessions_tasks_memory_and_file_handles_end_where_they_began(
    capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
):
    chance = Random(4)

    async def story(clock: VirtualClock) -> None:
        faults = Faults(create_fails=0.05, create_unanswered=0.02, close_fails=0.05)
        async with world(
            clock,
            faults=faults,
            platforms={"shop": {}, "mail": {}},
            rates={"per_hour": "0.10"},
            budgets=[{"name": "daily", "limit": "3.00"}],
            max_sessions=4,
            session_ttl="20m",
            idle_timeout="18m",
        ) as w:
            await day(w, chance, WARM)
            await asyncio.sleep(3600)
            assert w.provider.open == []
            tasks, before, files = len(asyncio.all_tasks()), objects(), handles()
            began, worked = time.perf_counter(), time.process_time()
            await day(w, chance, DAYS)
            took, worked = time.perf_counter() - began, time.process_time() - worked
            await asyncio.sleep(3600)
            stats, after = w.pool.stats(), objects()
            with capsys.disabled():
                print(
                    f"\n{DAYS:g} days in {took:.0f} s ({worked:.0f} s of them at work): {stats.leases} leases, "
                    f"{stats.creations} creations ({stats.creations_failed} failed), {stats.lost} lost, "
                    f"{stats.health.checks} checks; objects {before} -> {after}, "
                    f"tasks {tasks} -> {len(asyncio.all_tasks())}, files {files} -> {handles()}"
                )
            assert stats.leases > 150 * DAYS
            assert stats.lost > 0
            assert stats.health.checks > 0
            assert stats.creations_failed > 0
            assert (stats.sessions, stats.queued, w.provider.open) == (0, 0, [])
            assert len(asyncio.all_tasks()) == tasks
            assert handles() == files
            assert await w.violations() == []
            # The fake provider keeps every session it ever made, and every call; the pool must keep nothing.
            w.provider.sessions.clear()
            w.provider.calls.clear()
            assert objects() < before * 1.02 + 500
            record_property("virtual days", DAYS)
            record_property("seconds", round(took))
            record_property("seconds of processor time", round(worked))
            record_property("leases", stats.leases)
            record_property("lost", stats.lost)
            if PROOF:
                assert worked < 120, "that is what it takes on a machine that does nothing else"

    run_virtual(story)
