"""A ledger and a shared pool whose way to PostgreSQL leads through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tabkeeper.cli.fleet import shared_findings
from tabkeeper.ledger.engines import read_engine, write_engine

from .crew import crew
from .fleet import a_config, die, fleet, until
from .nursery import Nursery
from .pooler import pooled

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("fleet")]


@pytest.fixture
def pooled_url(postgres_url: str) -> Iterator[str]:
    with pooled(postgres_url) as url:
        yield url


@pytest.mark.parametrize("more", ["", "ignore_startup_parameters = options"], ids=["refused", "ignored"])
def test_settings_hold_in_each_transaction_whether_their_beginning_is_refused_or_ignored(
    postgres_url: str, more: str
) -> None:
    with pooled(postgres_url, more=more) as url:
        writer, reader = write_engine(url), read_engine(url)
        with writer.connect() as one, writer.connect() as two, reader.connect() as three:
            for _ in range(2):
                for connection, name, value in [
                    (one, "lock_timeout", "5s"),
                    (two, "statement_timeout", "15s"),
                    (three, "transaction_isolation", "repeatable read"),
                    (three, "transaction_read_only", "on"),
                ]:
                    assert connection.execute(text(f"SHOW {name}")).scalar() == value
                for connection in (one, two, three):
                    connection.rollback()
        writer.dispose()
        reader.dispose()


def test_what_is_run_often_is_not_prepared_in_a_session_that_the_next_transaction_does_not_have(
    pooled_url: str,
) -> None:
    writer = write_engine(pooled_url)
    with writer.connect() as often, writer.connect() as other:
        for number in range(12):
            if number == 10:
                other.execute(text("SELECT 1"))  # and keeps the session that `often` had
            assert often.execute(text("SELECT 1 + :n"), {"n": number}).scalar() == number + 1
            often.rollback()
    writer.dispose()


@pytest.mark.parametrize(
    "direct",
    [True, pytest.param(False, marks=pytest.mark.skipif(not PROOF, reason="a long one: make proof"))],
    ids=["direct", "without"],
)
async def test_two_processes_share_a_pool_through_it(
    nursery: Nursery, postgres_url: str, pooled_url: str, direct: bool
) -> None:
    ledger = {"direct_url": postgres_url} if direct else {}
    count = 50 if PROOF else 8
    async with crew(nursery, pooled_url, max_sessions=2, ledger=ledger) as c:
        await c.start(2, tasks=count, at_once=4, hold=0.05)
        await c.finished(500)
        assert c.counts()["released"] == 2 * count, [w.errors[-5:] for w in c.workers]
        await c.sound(2)


async def test_many_that_start_at_once_do_with_two_sessions_of_the_server(postgres_url: str) -> None:
    with pooled(postgres_url, size=2) as url:
        async with fleet(url, 0) as f:
            await asyncio.gather(*(f.start() for _ in range(5)))
            await (await f.pools[4].get_session("web")).release()


async def test_without_a_way_around_it_one_process_does_the_jobs_and_the_next_takes_over(
    pooled_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet(pooled_url, 2) as f:
        one, two = f.pools
        await until(lambda: one._board._log.is_deaf and two._board._log.is_deaf)
        assert [one._board.leads, two._board.leads] == [True, False]
        await die(one)
        await until(lambda: two._board.leads)
        await (await two.get_session("web")).release()
        (finding,) = [found for found in await _doctor(pooled_url) if found.name == "notifications"]
        assert (finding.level, "ledger.direct_url" in finding.advice) == ("warn", True)
    assert "set ledger.direct_url to the server itself" in caplog.text


async def _doctor(url: str) -> list:
    engine = write_engine(url)
    found = await asyncio.to_thread(lambda: list(shared_findings(engine, a_config(url))))
    engine.dispose()
    return found
