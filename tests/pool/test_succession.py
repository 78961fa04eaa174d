"""A fleet goes from one version or configuration to the next: who comes later waits, and goes on with what was left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from tabkeeper.errors import ConfigError, QueueTimeoutError
from tabkeeper.ledger.boardread import read_boards
from tabkeeper.ledger.engines import is_worth_retrying, read_engine, write_engine
from tabkeeper.pool.shared.whole import SharedPoolStats, shared_pools

from .crew import crew
from .fleet import a_config, die, fleet, until
from .nursery import Nursery

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("fleet")]


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    made = write_engine(postgres_url)
    yield made
    made.dispose()


def look(url: str) -> SharedPoolStats:
    reader = read_engine(url)
    with reader.connect() as connection:
        (found,) = shared_pools(read_boards(connection))
    reader.dispose()
    return found


async def test_who_comes_with_another_configuration_waits_and_goes_on_with_what_idles(
    postgres_url: str,
) -> None:
    # Nobody is to be taken for dead here, however slow the machine is.
    money: Any = {"budgets": [{"name": "all", "limit": "1.00", "period": "total"}], "heartbeat": "30s"}
    async with fleet(postgres_url, 2, max_sessions=2, **money) as f:
        old, older = f.pools
        first = await old.get_session("web")
        second = await older.get_session("web")
        ids = {first.session_id, second.session_id}
        later = [await f.start(a_config(postgres_url, max_sessions=3, **money)) for _ in range(2)]
        assert all("have another configuration" in pool._board.stands_by for pool in later)
        with pytest.raises(QueueTimeoutError, match=r"end those, .*pool.name, or pool.shared = false"):
            await later[0].get_session("web", timeout=0.2)
        waits = [asyncio.ensure_future(pool.get_session("web")) for pool in later]
        whole = await asyncio.to_thread(look, postgres_url)
        assert [member.stands_by for member in whole.members] == [False, False, True, True]
        await until(lambda: old._board._log.is_awaited and older._board._log.is_awaited)
        assert await later[0].run_job("recover")  # what the others have is not its to end
        await first.release()
        await old.close()
        assert not any(one.done() for one in waits)
        await second.release()
        await older.close()
        leases = await asyncio.gather(*waits)
        assert {lease.session_id for lease in leases} == ids
        assert not any(lease.is_new for lease in leases)
        assert len(f.account.sessions) == 2
        assert later[0]._board.home != later[1]._board.home
        for lease in leases:
            await lease.release()
        f.pools[:2] = []


async def test_after_a_kill_of_the_last_one_what_it_had_is_ended_and_the_next_begins(
    postgres_url: str,
) -> None:
    async with fleet(postgres_url, 1, max_sessions=1) as f:
        (old,) = f.pools
        lease = await old.get_session("web")
        later = await f.start(a_config(postgres_url, max_sessions=2))
        waits = asyncio.ensure_future(later.get_session("web"))
        await die(old)
        other = await waits
        assert other.session_id != lease.session_id
        await other.release()


async def test_who_is_not_to_wait_does_not_start(postgres_url: str) -> None:
    async with fleet(postgres_url, 1) as f:
        with pytest.raises(ConfigError, match=r"has another configuration .*pool.shared = false"):
            await f.start(a_config(postgres_url, max_sessions=4, takeover="refuse"))


async def test_who_stands_by_can_leave_without_ever_having_been_there(postgres_url: str) -> None:
    async with fleet(postgres_url, 1) as f:
        later = await f.start(a_config(postgres_url, max_sessions=4))
        waits = asyncio.ensure_future(later.get_session("web"))
        await asyncio.sleep(0)
        await later.close()
        with pytest.raises(Exception, match="shutting down"):
            await waits
        f.pools.remove(later)
        assert [member.stands_by for member in (await asyncio.to_thread(look, postgres_url)).members] == [
            False
        ]
        await (await f.pools[0].get_session("web")).release()


async def test_a_running_fleet_survives_the_next_schema(postgres_url: str, engine: Engine) -> None:
    """Revisions only add (see the rule in the migrations' own test): to every table, here, and under load."""
    async with fleet(postgres_url, 2, max_sessions=2) as f:
        stop = asyncio.Event()

        async def work(number: int) -> int:
            count = 0
            while not stop.is_set():
                async with f.pools[number % 2].get_session("web"):
                    count += 1
            return count

        workers = [asyncio.ensure_future(work(number)) for number in range(4)]
        await asyncio.to_thread(expand, engine)
        before = f.pools[0].stats().leases
        await until(lambda: f.pools[0].stats().leases > before + 3)
        stop.set()
        assert all(await asyncio.gather(*workers))
        later = await f.start()  # of the version before: the schema is newer than it knows, and good enough
        await (await later.get_session("web")).release()


def expand(engine: Engine) -> None:
    changes = ["CREATE TABLE something_new (id TEXT PRIMARY KEY)"]
    changes += [
        f"ALTER TABLE {table} ADD COLUMN later_on TEXT, ADD COLUMN more_later BIGINT NOT NULL DEFAULT 7"
        for table in inspect(engine).get_table_names()
        if table != "alembic_version"
    ]
    for change in [*changes, "UPDATE alembic_version SET version_num = '9999'"]:
        # One table at a time and as often as it takes, because those who work hold several.
        while True:
            try:
                with engine.begin() as connection:
                    connection.execute(text("SET LOCAL lock_timeout = 500"))
                    connection.execute(text(change))
            except DBAPIError as error:
                if not is_worth_retrying(error):
                    raise
            else:
                break


@pytest.mark.timeout(900)
@pytest.mark.kill
@pytest.mark.skipif(not PROOF, reason="a long one: make proof")
async def test_three_processes_are_rolled_to_the_next_version_one_by_one(
    nursery: Nursery, postgres_url: str, record_property: Any
) -> None:
    async with crew(nursery, postgres_url, max_sessions=3) as c:
        olds = await c.start(3, code="old", tasks=None, at_once=2)
        for old in olds:
            await old.until("released", 2)
        news = []
        for old in olds:
            news += await c.start(1, code="new", tasks=None, at_once=2)
            await news[-1].until("open")
            assert not any(new.said("leased") for new in news)
            old.tell()
            await old.until("closed")
        for new in news:
            await new.until("released", 5)
        for new in news:
            new.tell()
        await c.finished()
        assert c.counts()["failed"] == 0, [worker.lines for worker in c.workers]
        assert c.counts()["lost"] == 0
        before, after = (
            {line[2] for worker in workers for line in worker.lines if line[0] == "leased"}
            for workers in (olds, news)
        )
        assert before & after, "no session went on"
        await c.sound(3)
        record_property("sessions that went on", len(before & after))
