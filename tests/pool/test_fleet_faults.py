"""What goes wrong with the database that a pool is shared through: it stops, it is cut off, its clock is set anew."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator
from itertools import count
from random import Random
from statistics import median
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tabkeeper.errors import LedgerUnavailableError, TabkeeperError
from tabkeeper.ledger.boardlog import BoardLog, Line
from tabkeeper.ledger.engines import read_engine, write_engine
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.shared import loop
from tabkeeper.pool.shared.loop import Loop

from .crew import crew
from .fleet import Fleet, a_config, fleet, until
from .nursery import Nursery
from .own_postgres import own_postgres
from .wire import wire

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.proof,
    pytest.mark.xdist_group("fleet"),
    pytest.mark.usefixtures("nothing_left_open"),
]


class Load:
    """Callers who lease and release without end, and watch that nobody shares a session with them."""

    def __init__(self, made: Fleet) -> None:
        self.made = made
        self.in_use: dict[str, SessionPool] = {}
        self.doubled: list[str] = []
        self.counts: Counter[str] = Counter()
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, callers: int) -> None:
        for number in range(callers):
            pool = self.made.pools[number % len(self.made.pools)]
            self._tasks.append(asyncio.create_task(self._call(pool, Random(number))))

    async def _call(self, pool: SessionPool, chance: Random) -> None:
        while not self._stop:
            try:
                lease = await pool.get_session("web", timeout=5)
            except TabkeeperError as error:
                self.counts[type(error).__name__] += 1
                await asyncio.sleep(0.05)
                continue
            if lease.session_id in self.in_use:
                self.doubled.append(lease.session_id)
            self.in_use[lease.session_id] = pool
            await asyncio.sleep(chance.uniform(0, 0.05))
            self.in_use.pop(lease.session_id, None)
            await lease.release()
            self.counts["released"] += 1

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


@pytest.mark.kill
@pytest.mark.timeout(7200 if PROOF else 900)
async def test_the_database_stops_at_once_under_load_and_comes_back(
    nursery: Nursery, record_property: Any
) -> None:
    """Each time nobody is in another's session, nothing is lost or paid twice, and leases go on."""
    stops, chance, took = (20 if PROOF else 1), Random(5), []
    with own_postgres() as server:
        async with crew(nursery, server.url, max_sessions=3, heartbeat="10s", web={"max_uses": 5}) as c:
            workers = await c.start(4 if PROOF else 2, tasks=None, hold=0.1, at_once=3)
            for one in workers:
                await one.until("released", 3)
            for _ in range(stops):
                await asyncio.sleep(chance.uniform(0, 0.5))
                await asyncio.to_thread(server.stop_at_once)
                await asyncio.sleep(chance.uniform(0, 2))
                await asyncio.to_thread(server.start)
                back = monotonic()
                before = [one.said("leased") for one in workers]
                for one, leased in zip(workers, before, strict=True):
                    await one.until("leased", leased + 1)
                took.append(monotonic() - back)
                for one, leased in zip(workers, before, strict=True):
                    await one.until("released", leased + 1)
                assert c.double_leases() == []
                assert await c.violations() == []
                await c.no_strays()
            for one in workers:
                one.tell()
                await one.until("closed")
            found = await c.sound(3)
            record_property("stops", stops)
            record_property("leases", found.grants)
            record_property("leases go on after, s, p50", round(median(took), 2))
            record_property("leases go on after, s, at most", round(max(took), 2))
            assert max(took) <= (10 + 5 if PROOF else 600)


@pytest.mark.parametrize("looks", [True, False])
async def test_what_was_told_when_the_line_broke_is_told_once(
    postgres_url: str, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database commits, and its answer is lost. The control tells again without looking, and so tells twice."""
    append, turns = BoardLog.append, count(1)

    async def without_an_answer(self: BoardLog, **entry: Any) -> Line | None:
        line = await append(self, **entry)
        if "request" in entry["events"] and next(turns) % 3 == 0:
            await self.disconnect()
            raise LedgerUnavailableError("the answer was lost")
        return line

    async def hears_nothing(_: BoardLog, pause: float) -> AsyncGenerator[None, None]:
        while True:
            yield None
            await asyncio.sleep(pause)

    async def tell_again(self: Loop) -> None:
        self._outbox.again()

    monkeypatch.setattr(BoardLog, "append", without_an_answer)
    monkeypatch.setattr(BoardLog, "listen", hears_nothing)
    if not looks:
        monkeypatch.setattr(Loop, "_find_batch", tell_again)
    async with fleet(postgres_url, 1, max_sessions=2, heartbeat="30s") as f:
        load = Load(f)
        load.start(3)
        await until(lambda: load.counts["released"] >= 12)
        await load.stop()
        engine = read_engine(postgres_url)
        with engine.connect() as connection:
            entries = connection.execute(text("SELECT events FROM board_entry")).scalars()
            asked = Counter(event[1] for one in entries for event in json.loads(one) if event[0] == "request")
        engine.dispose()
    assert not load.doubled
    assert (max(asked.values()) == 1) is looks


@pytest.mark.parametrize("broken", [False, True] if PROOF else [True])
async def test_who_is_cut_off_serves_nobody_new_and_is_back_when_the_line_is(
    postgres_url: str, broken: bool
) -> None:
    """Nothing comes through and nobody is told so; then either all comes late, or connections turn out broken."""
    async with wire(postgres_url) as (line, there), fleet(postgres_url, 1, max_sessions=2) as f:
        (two,) = f.pools
        one = await f.start(a_config(there, max_sessions=2))
        lease = await one.get_session("web")
        home = one._board.home
        line.cut()
        try:
            with pytest.raises(TabkeeperError, match="database of the shared pool is away"):
                await one.get_session("web", timeout=0.2)
            assert lease._holding.over == ""  # it runs on
            await until(lambda: home not in two._board.replica.members)
            others = [
                await two.get_session("web") for _ in range(2)
            ]  # its place is another's, its browser is not
            assert lease.session_id not in {other.session_id for other in others}
        finally:
            line.mend(broken=broken)
        await until(lambda: lease._holding.over == "lost")
        for other in others:
            await other.release()
        again = await one.get_session("web")
        await again.release()
        assert f.account.peak <= 2


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_anew_ends_no_lease(postgres_url: str, hours: int) -> None:
    """The database's clock jumps; here its reading does, which is the same to everybody who asks."""
    async with fleet(postgres_url, 2, max_sessions=2) as f:
        one, two = f.pools
        lease = await one.get_session("web")
        at = one._board.replica.at
        engine = write_engine(postgres_url)
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE board_head SET shift = shift + {hours} * 3600000000"))
        engine.dispose()
        other = await two.get_session("web")
        assert 0 <= two._board.replica.at - at < 1800
        assert not lease._holding.over
        await other.release()
        await lease.release()
        assert lease._holding.over == "ok"


async def test_a_late_entry_does_not_set_the_clock_of_all_back(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held up on its way comes later than its teller thought, and no clock is to blame."""
    monkeypatch.setattr(loop, "JUMP", 0.2)
    async with fleet(postgres_url, 1) as f:
        (one,) = f.pools
        engine = write_engine(postgres_url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE board_head SET shift = shift"))
            asked = asyncio.ensure_future(_leased(one))
            waits = text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'board_head'"
            )
            with engine.connect() as other:
                while not other.execute(waits).scalar():
                    other.rollback()
                    await asyncio.sleep(0.01)
            await asyncio.sleep(1)
        await asked
        with engine.connect() as connection:
            assert connection.execute(text("SELECT shift FROM board_head")).scalar() == 0
        engine.dispose()


async def _leased(pool: SessionPool) -> None:
    async with pool.get_session("web"):
        pass


def _sessions_on(url: str) -> int:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            ours = "datname = current_database() AND pid <> pg_backend_pid()"
            return int(
                connection.execute(text(f"SELECT count(*) FROM pg_stat_activity WHERE {ours}")).scalar() or 0
            )
    finally:
        engine.dispose()


async def test_a_process_keeps_to_its_few_connections(postgres_url: str) -> None:
    async with fleet(postgres_url, 1, max_sessions=3) as f:
        load = Load(f)
        load.start(10)
        await until(lambda: load.counts["released"] > 30)
        assert _sessions_on(postgres_url) <= 6
        await load.stop()
