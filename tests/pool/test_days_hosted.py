"""Days of a hosted provider that misbehaves at random, with processes that are killed, in virtual time.

Pool, ledger, adapter and the emulator's application are the real ones; there is no wire and no browser. Afterwards
nothing may run that nobody owns, the books must be sound, and they must have counted what the provider measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import TabkeeperError
from tabkeeper.pool import sweeper
from tabkeeper.providers.emulator import KINDS, EmulatedSession, Limits
from tabkeeper.testing import run_virtual

from .far import FAST, Far, Life, separate_processes

SEEDS = 1000 if os.environ.get("TABKEEPER_PROOF") else 40
BLOCKS = max(8, SEEDS // 20)
REAP = 420
"""Seconds within which a provider that behaves again has nothing left that nobody owns: 90 until a heartbeat is old,
60 until somebody looks, 60 until the sweeper tries again, and as much for what comes late."""


class Day:
    """One simulated stretch of traffic, and what was seen in it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.kind = self.rng.choice(sorted(KINDS))
        self.history = hashlib.sha256()
        self.ended: Counter[str] = Counter()
        self.problems: list[str] = []

    def saw(self, *facts: object) -> None:
        self.history.update(repr(facts).encode())

    async def run(self, clock: VirtualClock) -> str:
        with tempfile.TemporaryDirectory(dir=FAST) as folder, separate_processes():
            await self._run(clock, Path(folder))
        return self.history.hexdigest()

    async def _run(self, clock: VirtualClock, folder: Path) -> None:
        rng = self.rng
        limits = Limits(
            concurrent=rng.choice([2, 4, 100]),
            creates_per_minute=rng.choice([6, 1000]),
            connect_seconds=1e9,
            boot_seconds=rng.choice([0, 0, 3]),
        )
        far = Far(
            clock,
            folder,
            kind=self.kind,
            seed=self.seed,
            limits=limits,
            max_sessions=rng.choice([1, 3, 6]),
            session_ttl=rng.choice(["2m", "15m"]),
            idle_timeout=rng.choice(["5s", "60s"]),
            lease_timeout="60s",
            create_timeout=rng.choice(["5s", "20s"]),
            close_timeout=rng.choice(["3s", "10s"]),
            queue_timeout="30s",
        )
        lives = [await far.live() for _ in range(rng.choice([1, 1, 2]))]
        callers: list[asyncio.Task[None]] = []
        for n in range(60):
            await asyncio.sleep(rng.choice([0, 0, 1, 2, 5, 20]))
            if rng.random() < 0.35:
                self.misbehave(far)
            if rng.random() < 0.04:
                await self.lose(far, rng.choice(lives))
            if rng.random() < 0.03:
                victim = rng.choice(lives)
                self.saw("killed", victim.number)
                await victim.kill()
                lives.remove(victim)
                lives.append(await far.live())
            life = rng.choice(lives)
            callers.append(life.start(self.call(life, n)))
        await asyncio.sleep(150)
        if forgotten := [one for one in callers if not one.done()]:
            self.problems.append(f"{len(forgotten)} callers were never answered")
        far.emulator.behave()
        for life in lives[1:] if rng.random() < 0.5 else lives:
            await (life.kill() if rng.random() < 0.5 else life.close())
        if all(life.dead for life in lives):
            lives.append(await far.live())
        last = next(life for life in lives if not life.dead)
        await last.start(last.pool.drain(grace=60))
        await asyncio.sleep(REAP)
        self.leaks(far)
        await self.settle(far, last)
        self.problems += [
            f"{one.name}: {one.meaning} ({one.sample})"
            for one in await last.start(last.pool._ledger.verify())
        ]
        self.bill(far, missed := Counter())
        if missed and last.adapter.capabilities.usage:
            # A provider that says of a running session that it does not know it is believed, until it sends the bill.
            await last.start(last.pool.reconcile())
            self.ended["repaired"] += len(missed)
            self.bill(far, missed := Counter())
        self.problems += missed
        self.saw(far.rows("SELECT id, state, seconds_us, cost_n FROM session ORDER BY id"))
        await last.close()
        self.ended["created"] = sum(
            life.pool._leases.counts.creation_results["far", "ok"] for life in far.lives
        )
        for life in far.lives:
            # An answer that was on its way to a dead process may have made it begin something.
            await life.bury()

    def misbehave(self, far: Far) -> None:
        rng = self.rng
        on, do, more = rng.choice(
            [
                ("create", "late", {"seconds": rng.choice([2, 8, 30, 90])}),
                ("create", "slow", {"seconds": rng.choice([2, 8, 30, 90])}),
                ("create", "drop", {}),
                ("create", "status after", {"status": rng.choice([500, 502, 504])}),
                ("create", "status", {"status": rng.choice([500, 503])}),
                ("create", "status", {"status": 429, "retry_after": rng.choice([None, "3"])}),
                ("create", "status", {"status": 402}),
                ("release", "status", {"status": rng.choice([401, 500])}),
                ("release", "status after", {"status": 500}),
                ("release", "drop", {}),
                ("release", "slow", {"seconds": 15}),
                ("get", "status", {"status": rng.choice([401, 404, 500])}),
                ("get", "stale", {}),
                ("list", "lag", {"seconds": rng.choice([10, 60, 120])}),
                ("list", "empty", {}),
                ("list", "stale", {}),
                ("list", "status", {"status": rng.choice([401, 500])}),
                ("any", "drop", {}),
            ]
        )
        far.emulator.misbehave(on, do, times=rng.choice([1, 1, 2, 6]), **more)
        self.saw(on, do, more)

    async def lose(self, far: Far, life: Life) -> None:
        """A session ends at its provider under whoever uses it; a look at it tells."""
        if far.running():
            one = self.rng.choice(far.emulator.running)
            await far.emulator.lose(one.id)
            mine = [
                running.remote.provider_session_id
                for running in life.pool._sessions.running.values()
                if running.remote is not None and one.id in running.remote.provider_session_id
            ]
            for known in mine:
                life.adapter._over(known, "lost")

    async def call(self, life: Life, n: int) -> None:
        rng = self.rng
        hold_for, timeout = rng.choice([0, 1, 3, 10, 45, 90]), rng.choice([5, 30])
        began = life.far.clock.monotonic()
        try:
            lease = await life.pool.get_session("web", timeout=timeout)
        except TabkeeperError as error:
            self.ended[type(error).__name__] += 1
            self.saw(n, type(error).__name__)
            if life.far.clock.monotonic() - began > timeout + 1:
                self.problems.append(
                    f"caller {n} waited {life.far.clock.monotonic() - began:g} s for an error"
                )
            return
        self.saw(n, lease.session_id, lease.token[1])
        self.ended["served"] += 1
        await asyncio.sleep(hold_for)
        await lease.release(success=rng.random() < 0.8)

    def billed(self, far: Far, one: EmulatedSession) -> float | None:
        """What the provider bills of a session, in seconds; None for nothing."""
        if far.emulator.starts_on_connect and not one.connected:
            return None
        return float(far.emulator.billed_seconds(one))

    def leaks(self, far: Far) -> None:
        far.emulator._advance()
        running = [one for one in far.emulator.running if self.billed(far, one) is not None]
        unknown = "SELECT id FROM session WHERE ended_at IS NULL AND provider_session_id IS NULL"
        # Where nobody can say whose a session is, only its timeout ends it, and money is held for it until then.
        excused = 0 if far.lives[0].adapter.capabilities.list_by_label else len(far.rows(unknown))
        if len(running) > excused:
            self.problems.append(
                f"{len(running)} of {len(far.emulator.sessions)} sessions leak at {self.kind}"
            )

    async def settle(self, far: Far, last: Life) -> None:
        """Wait until the last hold is over."""
        for _ in range(600):
            if not far.rows("SELECT id FROM session WHERE ended_at IS NULL"):
                break
            await asyncio.sleep(20)
        else:
            self.problems.append("holds are open though all is over")
        if last.pool._parts.sweeper.debts:
            self.problems.append("the sweeper still owes sessions")

    def bill(self, far: Far, missed: Counter[str]) -> None:
        """Hold each session's seconds against the provider's: ours may only be more."""
        rows = {row.id: row for row in far.rows("SELECT * FROM session")}
        by_id = {row.provider_session_id: row for row in rows.values() if row.provider_session_id}
        lied = {row.session_id for row in far.rows("SELECT session_id FROM alert_event WHERE kind = 'stray'")}
        counted: Counter[str] = Counter()
        nameless: list[float] = []
        for one in far.emulator.sessions.values():
            row = by_id.get(one.id) or next(
                (row for row in rows.values() if row.id in str(dict(one.request))), None
            )
            if row is None:
                row = next((r for key, r in by_id.items() if one.id in key), None)
            billed = self.billed(far, one)
            if row is None:
                if billed is not None:
                    nameless.append(billed)
                continue
            counted[row.id] += 1
            if row.id in lied:
                continue  # its provider said that it did not know it; it was ended later, and told
            # Some providers tell lengths in whole seconds.
            slack = 1.0 if row.quality == "provider" else 0.01
            if billed is not None and row.seconds_us / 1e6 < billed - slack:
                missed[f"{row.id}: {row.seconds_us / 1e6} s ({row.quality}), billed {billed} s"] += 1
        estimates = [
            row.seconds_us / 1e6
            for row in rows.values()
            if row.provider_session_id is None and row.quality == "estimate"
        ]
        if far.lives[0].adapter.capabilities.list_by_label:
            estimates.clear()
        pairs = zip_longest(sorted(nameless, reverse=True), sorted(estimates, reverse=True), fillvalue=0.0)
        if any(theirs > ours + 0.01 for theirs, ours in pairs):
            missed[f"not in the books: {nameless} s, estimated: {estimates}"] += 1
        if counted and max(counted.values()) > 1:
            missed["one session of ours was created twice"] += 1
        self.ended["sessions"] = len(rows)


def live_through(seed: int) -> Day:
    day = Day(seed)
    day_hash = run_virtual(day.run)
    assert day.problems == [], f"seed {seed} ({day.kind}, history {day_hash[:12]}): {day.problems}"
    assert day.ended["served"] or not day.ended["created"], f"seed {seed}: nobody was served: {day.ended}"
    return day


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_session_leaks_whatever_a_provider_does(block: int) -> None:
    days = [live_through(seed) for seed in range(block, SEEDS, BLOCKS)]
    # On a day on which every creation fails nobody can be served; most are not like that.
    assert sum(day.ended["served"] > 0 for day in days) > len(days) / 2
    assert sum(day.ended["repaired"] for day in days) <= 1 + sum(day.ended["sessions"] for day in days) / 100


def test_the_same_seed_gives_the_same_history() -> None:
    first, second, other = (run_virtual(Day(seed).run) for seed in (7, 7, 8))
    assert first == second
    assert first != other


def test_without_the_sweeper_sessions_leak(monkeypatch) -> None:
    """The control: what the days above prove is the sweeper's doing."""

    async def nothing(self: Any) -> None: ...

    monkeypatch.setattr(sweeper.Sweeper, "round", nothing)
    monkeypatch.setattr(sweeper.Sweeper, "take_over", nothing)
    monkeypatch.setattr(sweeper.Sweeper, "watch", lambda self, debt: None)
    leaked = 0
    for seed in range(8):
        day = Day(seed)
        run_virtual(day.run)
        leaked += any("leak" in problem for problem in day.problems)
    assert leaked
