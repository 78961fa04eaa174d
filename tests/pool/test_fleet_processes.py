"""Real processes share a pool: exact limits and budgets, and what happens when one is killed, frozen, or cut off."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from .crew import crew

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
pytestmark = [pytest.mark.postgres, pytest.mark.kill, pytest.mark.proof, pytest.mark.xdist_group("fleet")]


@pytest.mark.timeout(900)
@pytest.mark.skipif(not PROOF, reason="a long one: make proof")
async def test_limits_tenants_and_a_hard_budget_hold_at_every_instant(
    postgres_url: str, record_property
) -> None:
    count, tasks = (8, 50) if PROOF else (3, 12)
    async with crew(
        postgres_url,
        max_sessions=4,
        tenants={"acme": {"max_sessions": 2}, "zorg": {"weight": 3}},
        budgets=[{"name": "all", "limit": "20.00", "period": "total", "mode": "hard"}],
    ) as c:
        await c.start(count, tasks=tasks, tenants=["acme", "zorg", "beta"])
        await c.finished(800)
        counts = c.counts()
        assert counts["released"] == count * tasks, [w.errors[-5:] for w in c.workers]
        assert c.most_sessions() <= 4
        assert c.most_leases() <= 4
        assert c.most_leases("acme") <= 2
        assert c.double_leases() == 0
        assert c.running() == [], [w.errors[-15:] for w in c.workers]
        assert await c.violations() == []
        record_property("leases", counts["released"])
        record_property("sessions", len(c.emulator.sessions))


@pytest.mark.timeout(900)
@pytest.mark.skipif(not PROOF, reason="a long one: make proof")
async def test_without_the_shared_board_the_limit_is_passed(postgres_url: str) -> None:
    """The control: the same processes, each with a board of its own."""
    async with crew(postgres_url, max_sessions=4, shared=False) as c:
        await c.start(2, tasks=12, at_once=6, hold=2.0)
        await c.finished(800)
        assert c.most_sessions() > 4


@pytest.mark.timeout(900)
async def test_what_a_killed_process_had_is_reclaimed(postgres_url: str, record_property) -> None:
    async with crew(postgres_url, max_sessions=3) as c:
        (victim,) = await c.start(tasks=3, hold=1000.0, at_once=3)
        (worker,) = await c.start(tasks=6, hold=0.1, at_once=3, waits=True)
        await victim.until("leased", 3)
        await worker.until("open")
        worker.tell()  # not before: all that it needed would be done, and it gone, before the other had begun
        killed = time.monotonic()
        victim.signal(signal.SIGKILL)
        await worker.until("released", 1)
        took = time.monotonic() - killed
        await worker.until("closed")
        record_property("seconds until its sessions were leased again", round(took, 2))
        assert c.most_sessions() <= 3
        assert c.double_leases() == 0
        assert c.running() == [], [w.errors[-15:] for w in c.workers]
        assert await c.violations() == []


@pytest.mark.timeout(900)
@pytest.mark.skipif(not PROOF, reason="a long one: make proof")
async def test_a_frozen_process_that_comes_back_does_no_harm(postgres_url: str) -> None:
    async with crew(postgres_url, max_sessions=2, heartbeat="2s") as c:
        (frozen,) = await c.start(tasks=2, hold=8.0, at_once=2)
        (worker,) = await c.start(tasks=4, hold=0.1, at_once=2)
        await frozen.until("leased", 2)
        await worker.until("open")
        frozen.signal(signal.SIGSTOP)
        await worker.until("released", 4)  # it has the sessions' places now
        frozen.signal(signal.SIGCONT)
        await frozen.until("lost", 2)
        await c.finished()
        assert c.most_sessions() <= 2
        assert c.double_leases() == 0
        assert c.running() == [], [w.errors[-15:] for w in c.workers]
        assert await c.violations() == []


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not PROOF, reason="a long one: make proof")
async def test_random_kills_leak_nothing(postgres_url: str, record_property) -> None:
    from random import Random

    chance, kills = Random(7), int(os.environ.get("TABKEEPER_KILLS", "200"))
    async with crew(postgres_url, max_sessions=6, heartbeat="2s") as c:
        alive = await c.start(4, tasks=10_000, at_once=6, hold=0.3)
        (keeper,) = await c.start(tasks=0, stay=True)
        for one in alive:
            await one.until("open")
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            victim = alive.pop(chance.randrange(len(alive)))
            victim.signal(signal.SIGKILL)
            await victim.end()
            alive += await c.start(tasks=10_000, at_once=6, hold=0.3)
            await alive[-1].until("open")
        for one in alive:
            one.signal(signal.SIGKILL)
            await one.end()
        async with asyncio.timeout(120):
            while len(c.running()) > 6 or c.rows("SELECT 1 FROM board_member OFFSET 1"):
                await asyncio.sleep(0.2)
        keeper.tell()
        await keeper.until("closed")
        assert c.most_sessions() <= 6
        assert c.double_leases() == 0
        assert c.running() == [], [w.errors[-15:] for w in c.workers]
        assert await c.violations() == []
        record_property("kills", kills)
        record_property("leases", c.counts()["released"])
