"""Several pools on one PostgreSQL are one pool: limits, queue, idle sessions and jobs are theirs together."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tabkeeper.cli.app import run
from tabkeeper.cli.fleet import shared_findings
from tabkeeper.errors import LeaseLostError, QueueTimeoutError
from tabkeeper.ledger import schema
from tabkeeper.ledger.boardread import read_boards
from tabkeeper.ledger.engines import read_engine, write_engine
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.shared.whole import SharedPoolStats, shared_pools

from .fleet import a_config, die, fleet, until

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.xdist_group("fleet"),
    pytest.mark.usefixtures("nothing_left_open"),
]


async def test_an_idle_session_made_by_one_process_is_leased_by_another(postgres_url: str) -> None:
    async with fleet(postgres_url, 2) as f:
        one, two = f.pools
        first = await one.get_session("web")
        await first.release()
        await until(lambda: two._view.idle)
        second = await two.get_session("web")
        assert second.session_id == first.session_id
        assert not second.is_new
        assert len(f.account.sessions) == 1
        await second.release()
        await until(lambda: (one.stats().idle, two.stats().idle) == (0, 1))


async def test_each_process_leases_first_what_it_has_itself(postgres_url: str) -> None:
    async with fleet(postgres_url, 2) as f:
        first = [await pool.get_session("web") for pool in f.pools]
        for lease in first:  # in the order of the first: at the end the second process's is the last used
            await lease.release()
        await until(lambda: len(f.pools[0]._view.idle) == 2)
        again = [await pool.get_session("web") for pool in f.pools]
        assert [lease.session_id for lease in again] == [lease.session_id for lease in first]
        for lease in again:
            await lease.release()


async def served(pools: list[SessionPool], count: int) -> list[int]:
    """Queue callers at these in turn while the only place is taken; return the order in which they are served."""
    chance, order = Random(count), []
    holder = await pools[0].get_session("web")

    async def call(pool: SessionPool, number: int, tenant: str, priority: int) -> None:
        async with pool.get_session("web", tenant=tenant, priority=priority):
            order.append(number)

    async with asyncio.TaskGroup() as callers:
        for number in range(count):
            who = chance.choice(["acme", "zorg", "beta"]), chance.randrange(3)
            callers.create_task(call(pools[number % len(pools)], number, *who))
            await until(lambda n=number: {len(pool._view.requests) for pool in pools} == {n + 1})
        await holder.release()
    return order


async def test_the_queue_of_all_is_served_in_the_order_of_one(postgres_url: str, sqlite_url: str) -> None:
    # So long that no step of ageing begins between two arrivals.
    settings: Any = {"max_sessions": 1, "aging": "300d", "tenants": {"zorg": {"weight": 3}}}
    count = 60 if PROOF else 18
    async with fleet(postgres_url, 3, **settings) as f:
        together = await served(f.pools, count)
        assert f.account.peak == 1
    async with fleet(sqlite_url, 1, shared=False, **settings) as f:
        assert together == await served(f.pools, count)
    assert together != sorted(together)


async def test_tenants_and_budgets_hold_over_all_processes(postgres_url: str) -> None:
    async with fleet(
        postgres_url,
        2,
        max_sessions=6,
        tenants={"acme": {"max_sessions": 1}},
        budgets=[{"name": "all", "limit": "1.00", "period": "total"}],
    ) as f:
        one, two = f.pools
        first = await one.get_session("web", tenant="acme")
        with pytest.raises(QueueTimeoutError, match="acme"):
            await two.get_session("web", tenant="acme", timeout=0.5)
        other = await two.get_session("web", tenant="zorg")
        await other.release()
        await first.release()


async def test_a_process_that_leaves_hands_its_idle_sessions_on(postgres_url: str) -> None:
    async with fleet(postgres_url, 2) as f:
        one, two = f.pools
        lease = await one.get_session("web")
        await lease.release()
        await until(lambda: one.stats().idle == 1)
        await one.close()
        await until(lambda: two.stats().idle == 1)
        again = await two.get_session("web")
        assert again.session_id == lease.session_id
        await again.release()
        f.pools.remove(one)


async def test_the_last_process_closes_everything(postgres_url: str) -> None:
    async with fleet(postgres_url, 2) as f:
        for pool in f.pools:
            lease = await pool.get_session("web")
            await lease.release()
        for pool in list(f.pools):
            await pool.close()
        assert f.account.open == []


async def test_the_last_alive_leaves_nothing_to_the_dead(postgres_url: str) -> None:
    """Whoever closes between another's death and the next look at it would leave its sessions to nobody."""
    async with fleet(postgres_url, 2, heartbeat="30s") as f:
        one, two = f.pools
        lease = await one.get_session("web")
        await lease.release()
        await until(lambda: one.stats().idle == 1)
        await die(two)
        ended = await asyncio.create_subprocess_exec("true")
        await ended.wait()
        one._board.replica.members[two._board.home].pid = ended.pid
        one._board._membership.beat_at = one._board._clock.raw() + 600
        assert not one._board.alone
        await one.close()
        assert f.account.open == []


async def test_a_process_taken_for_dead_loses_what_it_leased_and_comes_back(postgres_url: str) -> None:
    async with fleet(postgres_url, 2) as f:
        one, two = f.pools
        lease = await one.get_session("web")
        home = one._board.home
        two._board._tell("bury", home, False)
        await until(lambda: one._board.home not in {0, home})
        with pytest.raises(LeaseLostError):
            _ = lease.connect_url
        await lease.release()  # harmless
        await until(lambda: lease.session_id not in two._view.sessions)
        again = await one.get_session("web")
        assert again.session_id != lease.session_id
        await again.release()


async def test_who_waits_in_a_process_taken_for_dead_waits_on(postgres_url: str) -> None:
    async with fleet(postgres_url, 2, max_sessions=1) as f:
        one, two = f.pools
        lease = await two.get_session("web")

        async def call() -> str:
            async with one.get_session("web") as mine:
                return mine.session_id

        caller = asyncio.create_task(call())
        await until(lambda: two._view.requests)
        home = one._board.home
        two._board._tell("bury", home, False)
        await until(lambda: one._board.home not in {0, home})
        await lease.release()
        assert await caller == lease.session_id


async def test_copies_that_disagree_are_loaded_anew_and_loudly(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet(postgres_url, 2) as f:
        one, two = f.pools
        lease = await one.get_session("web")
        two._board.replica.sum += 1  # as a copy that came to another decision
        two._board.replica.sums[two._board.replica.seq] += 1
        await lease.release()
        again = await two.get_session("web")
        await again.release()
        await until(lambda: one._board.reloads + two._board.reloads > 0)
        for pool in (one, two, one):
            more = await pool.get_session("web")
            await more.release()
        await until(lambda: one._board.replica.sum == two._board.replica.sum)
    assert "differs from that of process" in caplog.text


async def test_who_has_another_name_or_does_not_share_has_a_pool_of_its_own(postgres_url: str) -> None:
    async with fleet(postgres_url, 1) as f:
        other = await f.start(a_config(postgres_url, max_sessions=4, name="other"))
        apart = await f.start(a_config(postgres_url, max_sessions=4, shared=False))
        for pool in (*f.pools[:1], other, apart):
            await (await pool.get_session("web")).release()


async def test_jobs_of_all_are_done_by_one_and_handed_over(postgres_url: str) -> None:
    async with fleet(postgres_url, 2) as f:
        one, two = f.pools
        await until(lambda: one._board.leads or two._board.leads)
        leader, other = (one, two) if one._board.leads else (two, one)
        assert not other._board.leads
        assert (await other.run_job("reconcile")).last_result == "another process does it"
        await leader.close()
        await until(lambda: other._board.leads)


def test_the_doctor_looks_at_a_database_that_no_pool_has_used(postgres_url: str) -> None:
    engine = write_engine(postgres_url)
    schema.downgrade(engine)
    found = {one.name: one.detail for one in shared_findings(engine, a_config(postgres_url))}
    assert found["shared pool"] == "no process has begun 'main' yet"
    assert found["notifications"] == "they arrive"
    engine.dispose()


async def test_status_shows_the_pool_of_all_as_one(postgres_url: str, tmp_path: Path, capsys: Any) -> None:
    async with fleet(postgres_url, 2, max_sessions=1, tenants={"acme": {"max_sessions": 4}}) as f:
        one, two = f.pools
        lease = await one.get_session("web", tenant="acme")
        waits = asyncio.ensure_future(two.get_session("web", priority=2))
        await until(lambda: all(len(pool._view.requests) == 1 for pool in f.pools))
        await until(lambda: one._board.leads or two._board.leads)

        def look() -> list[SharedPoolStats]:
            engine = read_engine(postgres_url)
            with engine.connect() as connection:
                found = shared_pools(read_boards(connection))
            engine.dispose()
            return found

        (whole,) = await asyncio.to_thread(look)
        assert [(s.id, s.state, s.uses, s.only_there) for s in whole.sessions] == [
            (lease.session_id, "leased", 1, False)
        ]
        assert [(m.sessions, m.leased, m.waiting) for m in whole.members] == [(1, 1, 0), (0, 0, 1)]
        leads = [pool._ledger.process_id for pool in f.pools if pool._board.leads]
        assert [m.process_id for m in whole.members if m.does_jobs] == leads
        (request,) = whole.waiting
        assert (request.platform, request.priority, request.position) == ("web", 2, 1)
        assert request.blocked_by == "platform 'web' has all 1 sessions it may"
        used = {(limit.kind, limit.name): (limit.used, limit.most) for limit in whole.limits}
        assert used[("pool", "")] == (1, 1)
        assert used[("queue", "")] == (1, 1000)
        assert used[("tenant", "acme")] == (1, 4)
        config = tmp_path / "tabkeeper.toml"
        config.write_text(f'[ledger]\nurl = "{postgres_url}"\n')
        assert await asyncio.to_thread(run, ["status", "-c", str(config)]) == 0
        shown = capsys.readouterr().out
        assert "Shared pool 'main': 2 processes on 1 host, 1 session (1 leased, 0 idle), 1 waiting" in shown
        await lease.release()
        await (await waits).release()


async def test_the_doctor_looks_at_what_a_shared_pool_needs(postgres_url: str) -> None:
    engine = write_engine(postgres_url)
    async with fleet(postgres_url, 2) as f:
        found = {one.name: one for one in shared_findings(engine, f.config)}
        assert {one.level for one in found.values()} <= {"ok", "warn"}  # a slow machine is worth a warning
        assert "room for" in found["connections"].detail
        assert found["notifications"].detail == "they arrive"
        assert found["shared pool"].detail == "2 processes on 1 host share 'main'"
        assert list(shared_findings(engine, a_config(postgres_url, shared=False))) == []
    engine.dispose()
