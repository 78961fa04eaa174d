"""A process of a shared pool that works through tasks: leases, holds a little, releases, and says so line by line.

While it holds a session it holds a lock of the kernel's, too: that is gone with the process and with nothing else, so
whoever finds it taken shares a browser with somebody.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from random import Random
from time import monotonic
from typing import Any
from unittest import mock

import psycopg  # noqa: F401 - so that it is there when this process is forked

from tabkeeper.config import parse_config
from tabkeeper.errors import BudgetExceededError, TabkeeperError
from tabkeeper.pool import fleet, reconciling
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.shared.board import PostgresBoard
from tabkeeper.pool.shared.watcher import Watcher
from tabkeeper.pool.sweeper import Sweeper


def say(*words: object) -> None:
    print(*words, flush=True)


@contextmanager
def alone_in(folder: str, session_id: str) -> Iterator[None]:
    """Hold a session's lock, and tell if somebody else does."""
    file = os.open(f"{folder}/{session_id}", os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("doubled", session_id)
        yield
    finally:
        os.close(file)


async def task(pool: SessionPool, number: int, chance: Random, order: dict[str, Any]) -> None:
    tenant = chance.choice(order["tenants"])
    try:
        lease = await pool.get_session(
            "web", tenant=tenant, priority=chance.randrange(3), timeout=900, tags={"task": str(number)}
        )
    except BudgetExceededError:
        say("refused", number)
        return
    except TabkeeperError as error:
        say("failed", number, repr(error))
        return
    with alone_in(order["locks"], lease.session_id):
        say("leased", number, lease.session_id, lease.token[1])
        until = monotonic() + chance.uniform(0.3, 1.0) * order["hold"]
        while not lease._holding.over and (left := until - monotonic()) > 0:
            await asyncio.sleep(min(left, 0.1))
    if lease._holding.over:
        say(lease._holding.over, number)
    await lease.release()
    say("released", number, lease.session_id, lease.token[1])


async def do_jobs(pool: SessionPool) -> None:
    """Do what one process does for all, again and again instead of now and then, and at once instead of later."""
    reconciling.FIGURES_AFTER = timedelta(0)
    led = False
    while True:
        if led != pool._board.leads:
            led = pool._board.leads
            say("leads" if led else "follows")
        await pool.run_job("daily report")
        await pool.run_job("reconcile")
        await asyncio.sleep(0.1)


async def told() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def _without(protection: str) -> list[Any]:
    """What takes a protection off, so that a control can show that its lack is seen."""
    look = Watcher.look
    match protection:
        case "":
            return []
        case "burials":
            return [
                mock.patch.object(Watcher, "look", return_value=[]),
                mock.patch.object(Sweeper, "round"),
            ]
        case "doubt":
            return [
                mock.patch.object(
                    Watcher, "look", lambda self, *told: [(home, True) for home, _ in look(self, *told)]
                )
            ]
        case "election":
            return [mock.patch.object(PostgresBoard, "leads", True)]
    raise ValueError(protection)


async def main(order: dict[str, Any]) -> None:
    for patch in _without(order["without"]):
        patch.start()
    chance = Random(order["seed"])
    if order["code"]:
        fleet.code_of_decisions = lambda: order["code"]
    async with SessionPool(parse_config(order["config"])) as pool:
        say("open", pool._board.home)
        jobs = asyncio.create_task(do_jobs(pool)) if order["jobs"] else None
        if order["waits"]:
            await told()
        numbers = count() if order["tasks"] is None else iter(range(order["tasks"]))
        enough = asyncio.create_task(told()) if order["tasks"] is None else asyncio.Future()

        async def call() -> None:
            for number in numbers:
                await task(pool, number, chance, order)
                if enough.done():
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(order["at_once"]):
                group.create_task(call())
        say("done")
        if order["stay"]:
            await told()
        if jobs is not None:
            jobs.cancel()
            await asyncio.wait([jobs])
        await pool.close(grace=0)
    say("closed")
