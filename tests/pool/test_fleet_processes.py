"""Real processes share a pool: exact limits and budgets, and what happens when one is killed, frozen, or cut off."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from typing import Any

import pytest
from sqlalchemy import text

from tabkeeper.ledger.engines import write_engine
from tabkeeper.ledger.instants import DAY_US
from tabkeeper.money import Money

from .crew import PROOF, Worker, crew
from .history import Loss, past_the_limit
from .nursery import Nursery
from .wire import wire

pytestmark = [pytest.mark.postgres, pytest.mark.kill, pytest.mark.proof, pytest.mark.xdist_group("fleet")]


Kept = Callable[[str, object], None]
_MEMBER = "SELECT 1 FROM board_member m JOIN process p ON p.id = m.process_id WHERE p.pid = {}"


def within(losses: Sequence[Loss], seconds: float, keep: Kept) -> None:
    """Judge how fast those that were lost were missed, and all they had was back; a busy machine may take longer."""
    took = sorted(loss.recovered or math.inf for loss in losses)
    keep("missed after, s, at most", round(max(loss.buried or math.inf for loss in losses), 2))
    keep("recovered after, s, p50", round(median(took), 2))
    keep("recovered after, s, at most", round(took[-1], 2))
    assert took[-1] <= (seconds if PROOF else 600)


@pytest.mark.timeout(900)
async def test_limits_tenants_and_a_hard_budget_hold_at_every_instant(
    nursery: Nursery, postgres_url: str, record_property: Kept
) -> None:
    # Each lease has a session of its own, which costs a begun hour and a fee: exactly so many can be paid.
    count, tasks, limit = (8, 50, Money.parse("50.00")) if PROOF else (2, 8, Money.parse("3.00"))
    price = Money.parse("0.367123457")
    affordable = limit.nanos // price.nanos
    async with crew(
        nursery,
        postgres_url,
        max_sessions=4,
        # What is slow because the machine is must not be given up: it would be paid for nothing.
        heartbeat="30s",
        create_timeout="10m",
        close_timeout="10m",
        web={"max_uses": 1},
        rates={"per_hour": "0.36", "per_session": "0.007123457", "increment": "1h", "minimum": "1h"},
        tenants={"acme": {"max_sessions": 2}, "zorg": {"weight": 3}},
        budgets=[{"name": "all", "limit": str(limit), "period": "total", "mode": "hard"}],
    ) as c:
        await c.start(count, tasks=tasks, tenants=["acme", "zorg", "beta"])
        await c.finished(800)
        counts = c.counts()
        assert counts["released"] == affordable, [w.errors[-5:] for w in c.workers]
        assert counts["refused"] == count * tasks - affordable > 0
        found = await c.sound(4)
        assert found.leases["acme"] <= 2
        (window,) = c.rows("SELECT held_n, spent_n FROM budget_window")
        assert (window.held_n, window.spent_n) == (0, affordable * price.nanos)
        assert len(c.emulator.sessions) == affordable
        assert past_the_limit(c.rows) == 0
        record_property("leases", counts["released"])
        record_property("refused for want of money", counts["refused"])
        record_property("spent", str(Money(window.spent_n)))
        record_property("entries of the log", found.entries)


@pytest.mark.timeout(900)
async def test_without_the_shared_board_and_a_hard_budget_both_limits_are_passed(
    nursery: Nursery, postgres_url: str
) -> None:
    """The control: the same processes, each with a board of its own, and a budget that only tells."""
    async with crew(
        nursery,
        postgres_url,
        max_sessions=2,
        shared=False,
        budgets=[{"name": "all", "limit": "0.01", "period": "total", "mode": "soft"}],
    ) as c:
        workers = await c.start(2, tasks=2, at_once=2, hold=1000.0)
        for one in workers:
            await one.until("leased", 2)
        assert c.most_sessions() == 4
        assert past_the_limit(c.rows) > 0


@pytest.mark.timeout(7200 if PROOF else 900)
async def test_random_kills_leak_nothing(nursery: Nursery, postgres_url: str, record_property: Kept) -> None:
    """Workers are killed at random instants under load, each followed by another."""
    chance, kills = Random(7), int(os.environ.get("TABKEEPER_KILLS", "200" if PROOF else "2"))
    load: Any = {"tasks": None, "at_once": 6, "hold": 0.3}
    async with crew(nursery, postgres_url, max_sessions=6, heartbeat="2s", web={"max_uses": 5}) as c:
        alive = await c.start(4 if PROOF else 2, **load)
        (keeper,) = await c.start(tasks=0, stay=True)
        for one in (keeper, *alive):
            await one.until("open")
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.2, 1.5))
            victim = alive.pop(chance.randrange(len(alive)))
            await victim.until("leased")
            await c.kill(victim)
            alive += await c.start(**load)
            await alive[-1].until("open")
        await alive[-1].until("released", 3)
        for one in alive:
            await c.kill(one)
        while c.rows("SELECT 1 FROM board_member OFFSET 1"):
            await asyncio.sleep(0.2)
        await (
            c.no_strays()
        )  # what was asked for in a last breath may come up late, and is found a minute later
        keeper.tell()
        await keeper.until("closed")
        found = await c.sound(6)
        within(c.losses, 2 + 5, record_property)
        record_property("kills", len(c.losses))
        record_property("leases", found.grants)


@pytest.mark.timeout(900)
async def test_without_burials_what_a_killed_process_had_runs_on(nursery: Nursery, postgres_url: str) -> None:
    """The control: nobody looks who is gone."""
    async with crew(nursery, postgres_url, max_sessions=3) as c:
        (victim,) = await c.start(tasks=2, hold=1000.0, at_once=2, without="burials")
        (worker,) = await c.start(tasks=2, hold=0.01, without="burials")
        await victim.until("leased", 2)
        await worker.until("open")
        await c.kill(victim)
        await worker.until("closed")
        assert len(c.running()) >= 2
        c.judged()
        assert c.losses[0].buried is None


@pytest.mark.timeout(7200 if PROOF else 900)
@pytest.mark.parametrize(
    "how", ["frozen", pytest.param("cut off", marks=pytest.mark.skipif(not PROOF, reason="make proof"))]
)
async def test_a_process_that_comes_back_from_silence_does_no_harm(
    nursery: Nursery, postgres_url: str, how: str, record_property: Kept
) -> None:
    """Each is frozen, or its line to the database cut, in the middle of its leases, until the others go on without."""
    rounds, chance = (20 if PROOF else 1), Random(3)
    async with wire(postgres_url) as (line, there), crew(nursery, postgres_url, heartbeat="2s") as c:
        others = await c.start(3 if PROOF else 1, tasks=None, hold=0.3, at_once=3)
        for _ in range(rounds):
            (silent,) = await c.start(tasks=2, hold=10_000.0, at_once=2, url=there)
            await silent.until("leased", 2)
            await asyncio.sleep(chance.uniform(0, 0.5))
            c.lost(silent)
            if how == "frozen":
                silent.signal(signal.SIGSTOP)
            else:
                line.cut()
            while c.rows(_MEMBER.format(silent.pid)):
                await asyncio.sleep(0.2)
            for one in others:
                await one.until("released", one.said("released") + 2)
            if how == "frozen":
                silent.signal(signal.SIGCONT)
            else:
                line.mend(broken=chance.random() < 0.5)
            await silent.until("lost", 2)
            await silent.until("closed")
        for one in others:
            one.tell()
            await one.until("closed")
        await c.sound(4)
        within(c.losses, 2 + 5, record_property)
        record_property("times", rounds)


@pytest.mark.timeout(900)
async def test_without_doubt_a_frozen_process_shares_its_browser(nursery: Nursery, postgres_url: str) -> None:
    """The control: whoever is silent is taken for surely gone, and what it had leased is leased again."""
    async with crew(nursery, postgres_url, max_sessions=1, heartbeat="2s") as c:
        (worker,) = await c.start(tasks=None, hold=0.01, without="doubt")
        while not worker.said("doubled"):
            (frozen,) = await c.start(tasks=1, hold=10_000.0)
            await frozen.until("leased")
            frozen.signal(signal.SIGSTOP)
            while c.rows(_MEMBER.format(frozen.pid)):
                await asyncio.sleep(0.2)
            await worker.until("released", worker.said("released") + 2)
        assert c.double_leases()


def three_days_ago(url: str) -> None:
    """Let the ledger have begun three days earlier than it says: so many more reports are due."""
    engine = write_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE process SET started_at = started_at - 3 * {DAY_US}"))
    engine.dispose()


async def bill_more(emulator: Any) -> None:
    """Bill each session for more than it used as soon as it is over."""
    while True:
        for session in emulator.sessions.values():
            if session.lasted is not None and not session.surplus:
                emulator.bills_more(session.id, seconds=600)
        await asyncio.sleep(0.01)


_TWICE = {
    "a day reported twice": "SELECT day FROM report_run GROUP BY day HAVING count(*) > 1",
    "a report told twice": "SELECT detail FROM alert_event WHERE kind = 'daily_report' GROUP BY 1 HAVING count(*) > 1",
    "a bill booked twice": "SELECT session_id FROM entry WHERE kind = 'adjust' GROUP BY 1 HAVING count(*) > 1",
}


@pytest.mark.timeout(7200 if PROOF else 900)
@pytest.mark.parametrize(
    "election", [True, pytest.param(False, marks=pytest.mark.skipif(not PROOF, reason="make proof"))]
)
async def test_when_who_does_the_jobs_of_all_is_killed_another_does(
    nursery: Nursery, postgres_url: str, election: bool, record_property: Kept
) -> None:
    """In the midst of reports of many days, and of bills that differ. Without an election all do them all: no harm."""
    kills, order = (10 if PROOF else 1), {"jobs": True, "tasks": None, "hold": 0.05}
    order["without"] = "" if election else "election"
    async with crew(nursery, postgres_url, web={"max_uses": 2}, alerts={"daily_report": True}) as c:

        def reported() -> int:
            return len(c.rows("SELECT 1 FROM report_run"))

        def leaders() -> list[Worker]:
            return [one for one in alive if one.said("leads") > one.said("follows")]

        alive = await c.start(3 if PROOF else 2, **order)
        for one in alive:
            await one.until("released")
        billing = asyncio.create_task(bill_more(c.emulator))
        took = []
        for number in range(1, kills + 1):
            three_days_ago(postgres_url)
            while reported() <= 3 * (number - 1) or not leaders():
                await asyncio.sleep(0.02)
            leader = leaders()[0]
            alive.remove(leader)
            killed = time.monotonic()
            await c.kill(leader)
            while not leaders():
                await asyncio.sleep(0.02)
            took.append(time.monotonic() - killed)
            alive += await c.start(**order)
            await alive[-1].until("released")
        three_days_ago(postgres_url)
        days = 3 * (kills + 1)
        while reported() < days or not c.rows("SELECT 1 FROM entry WHERE kind = 'adjust'"):
            await asyncio.sleep(0.2)
        for one in alive:
            one.tell()
            await one.until("closed")
        billing.cancel()
        for what, query in _TWICE.items():
            assert c.rows(query) == [], what
        (compared,) = c.rows("SELECT count(*) AS n FROM recon_item WHERE state = 'compared'")
        (looked,) = c.rows("SELECT coalesce(sum(sessions), 0) AS n FROM recon_run")
        assert not election or looked.n <= compared.n, "bills were compared twice"
        (writers,) = c.rows("SELECT count(DISTINCT process_id) AS n FROM report_run")
        assert writers.n > PROOF
        await c.sound(4)
        if election:
            record_property("another leads after, s, at most", round(max(took), 2))
            assert max(took) <= (5 if PROOF else 600)
        record_property("kills", kills)
        record_property("days reported", days)
        record_property("bills compared", compared.n)
