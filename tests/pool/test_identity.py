"""Identities: one session each, in turn or together; found again by its id; known by a keyed hash and nothing else."""

import asyncio
from random import Random

import pytest
from sqlalchemy import text

from tabkeeper.config import parse_config
from tabkeeper.errors import LeaseLostError, QueueTimeoutError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.testing import run_virtual

from .world import world

EXCLUSIVE = {"web": {}}
SHARED = {"web": {"identity": "shared"}}


def created(w) -> int:
    return sum(verb == "create" for _, verb, _ in w.provider.calls)


@pytest.mark.proof
@pytest.mark.parametrize("platforms", [EXCLUSIVE, SHARED], ids=["exclusive", "shared"])
def test_ten_parallel_requests_of_one_identity_make_one_creation(platforms, record_property):
    async def story(clock):
        async with world(clock, platforms=platforms, max_sessions=10) as w:
            together = peak = 0
            seen, new = set(), 0

            async def work():
                nonlocal together, peak, new
                async with w.pool.get_session("web", identity="ada@example.com") as lease:
                    together += 1
                    peak = max(peak, together)
                    seen.add(lease.session_id)
                    new += lease.is_new
                    await asyncio.sleep(1)
                    together -= 1

            await asyncio.gather(*(work() for _ in range(10)))
            assert (created(w), len(seen), new) == (1, 1, 1)
            assert peak == (10 if platforms is SHARED else 1)
            assert w.pool.stats().leases == 10
            assert w.pool.stats().reused == 9
            assert await w.violations() == []
            record_property("parallel requests", 10)
            record_property("creations", created(w))

    run_virtual(story)


def test_control_without_an_identity_the_same_requests_make_ten_creations():
    async def story(clock):
        async with world(clock, max_sessions=10) as w:
            leases = await asyncio.gather(*(w.pool.get_session("web") for _ in range(10)))
            assert created(w) == 10
            for lease in leases:
                await lease.release()

    run_virtual(story)


def ended(w) -> list[str]:
    with w.pool._ledger.reader.connect() as connection:
        found = connection.execute(text("SELECT close_reason FROM session WHERE close_reason IS NOT NULL"))
        return [reason for (reason,) in found]


@pytest.mark.proof
def test_eleven_users_at_a_cap_of_ten_make_one_eviction(record_property):
    async def story(clock):
        async with world(
            clock, latency=(1, 9), close_latency=(1, 3), max_sessions=10, session_ttl="1h", idle_timeout="1h"
        ) as w:
            most = 0

            async def visit(user):
                nonlocal most
                async with w.pool.get_session("web", identity=f"{user}@example.com", timeout=90):
                    most = max(most, w.pool.stats().sessions)
                    await asyncio.sleep(30)

            await asyncio.gather(*(visit(user) for user in range(11)))
            await w.pool._ledger.flush()
            assert (created(w), ended(w)) == (11, ["evicted"])
            assert most == 10
            record_property("users", 11)
            record_property("sessions at most", most)
            record_property("evictions", 1)

    run_virtual(story)


def test_identities_tenants_and_platforms_do_not_meet():
    async def story(clock):
        async with world(clock, platforms={"web": {}, "mail": {}}, max_sessions=10) as w:
            asked = [
                ("web", "ada", "acme"), ("web", "ada", "zorg"), ("web", "bob", "acme"), ("mail", "ada", "acme"),
                ("web", None, "acme"),
            ]  # fmt: skip
            seen = []
            for platform, identity, tenant in asked * 2:
                async with w.pool.get_session(platform, identity=identity, tenant=tenant) as lease:
                    seen.append(lease.session_id)
            assert seen[:5] == seen[5:]
            assert len(set(seen)) == 5

    run_virtual(story)


def test_a_session_id_given_back_finds_its_session_and_an_unknown_one_says_that_it_is_new():
    async def story(clock):
        async with world(clock, max_sessions=5) as w:
            async with w.pool.get_session("web", identity="ada") as first:
                assert first.is_new
            for wanted in (
                {"session_id": first.session_id},
                {"session_id": first.session_id, "identity": "ada"},
            ):
                async with w.pool.get_session("web", **wanted) as again:
                    assert (again.session_id, again.is_new) == (first.session_id, False)
            async with w.pool.get_session("web", session_id=first.session_id, tenant="zorg") as other:
                assert other.session_id != first.session_id, "another tenant's"
                assert other.is_new
            async with w.pool.get_session("web", session_id="s-unknown", identity="ada") as lease:
                assert (lease.session_id, lease.is_new) == (first.session_id, True)
            await w.pool.close_session(first.session_id)
            async with w.pool.get_session("web", session_id=first.session_id, identity="ada") as lease:
                assert lease.session_id != first.session_id
                assert lease.is_new

    run_virtual(story)


def test_a_plain_session_s_id_is_preferred_while_it_is_idle():
    async def story(clock):
        async with world(clock, max_sessions=3) as w:
            leases = [await w.pool.get_session("web") for _ in range(3)]
            for lease in leases:
                await lease.release()
            async with w.pool.get_session("web", session_id=leases[0].session_id) as again:
                assert (again.session_id, again.is_new) == (leases[0].session_id, False)
                async with w.pool.get_session("web", session_id=leases[0].session_id) as other:
                    assert other.is_new

    run_virtual(story)


def test_a_session_that_dies_ends_all_who_share_it():
    async def story(clock):
        async with world(clock, platforms=SHARED) as w:
            one, two = await asyncio.gather(*(w.pool.get_session("web", identity="ada") for _ in range(2)))
            w.provider.kill(one.session_id)
            await asyncio.sleep(1)
            for lease in (one, two):
                with pytest.raises(LeaseLostError):
                    await lease.context()
                await lease.release()
            async with w.pool.get_session("web", identity="ada") as lease:
                assert lease.session_id != one.session_id

    run_virtual(story)


def test_who_shares_may_leave_in_any_order_twice_or_by_the_session_s_id():
    async def story(clock):
        async with world(clock, platforms=SHARED) as w:
            for ends in range(3):
                leases = await asyncio.gather(*(w.pool.get_session("web", identity="ada") for _ in range(3)))
                await leases[ends].release()
                await leases[ends].release()
                assert w.pool.stats().leased == 1
                async with w.pool.get_session("web", identity="ada") as late:
                    assert late.session_id == leases[0].session_id
                await w.pool.release_session(late.session_id)
                assert w.pool.stats().leased == 0
            assert created(w) == 1
            assert await w.violations() == []

    run_virtual(story)


def test_impatient_and_cancelled_sharers_leave_nothing_behind():
    async def story(clock):
        async with world(clock, platforms=SHARED, latency=(5.0, 5.0)) as w:
            with pytest.raises(QueueTimeoutError):
                await w.pool.get_session("web", identity="ada", timeout=1)
            for after in range(12):
                asking = [asyncio.ensure_future(_get(w, "bob")) for _ in range(2)]
                await asyncio.sleep(after / 2)
                for task in asking:
                    task.cancel()
                for outcome in await asyncio.gather(*asking, return_exceptions=True):
                    if not isinstance(outcome, BaseException):
                        await outcome.release()
            await asyncio.sleep(20)
            assert w.pool.stats().leased == 0
            assert w.pool.stats().queued == 0
            assert not w.pool._leases.turns

    async def _get(w, identity):
        return await w.pool.get_session("web", identity=identity)

    run_virtual(story)


@pytest.mark.parametrize("seed", range(5))
def test_random_crowds_share_and_never_pass_one_session_per_identity(seed):
    async def story(clock):
        chance = Random(seed)
        async with world(clock, seed=seed, platforms=SHARED, max_sessions=3, lease_timeout="20s") as w:

            async def caller():
                await asyncio.sleep(chance.uniform(0, 60))
                wanted = {
                    "identity": chance.choice(["ada", "bob", "eve", None]),
                    "timeout": chance.choice([1, 5, 30]),
                }
                task = asyncio.ensure_future(hold(wanted, chance.uniform(0, 25)))
                if chance.random() < 0.2:
                    await asyncio.sleep(chance.uniform(0, 5))
                    task.cancel()
                await asyncio.gather(task, return_exceptions=True)

            async def hold(wanted, seconds):
                async with w.pool.get_session("web", **wanted):
                    await asyncio.sleep(seconds)

            async def watch():
                while True:
                    lanes = [s.lane for s in w.pool._view.sessions.values() if s.lane.identity]
                    assert len(lanes) == len(set(lanes))
                    await asyncio.sleep(0.5)

            watching = asyncio.ensure_future(watch())
            await asyncio.gather(*(caller() for _ in range(60)))
            watching.cancel()
            await asyncio.sleep(30)
            assert w.pool.stats().leased == 0
            assert not w.pool._leases.turns
            assert await w.violations() == []

    run_virtual(story)


async def test_only_a_keyed_hash_of_an_identity_is_stored_and_another_key_gives_another(sqlite_url, tmp_path):
    from tabkeeper.clock import SystemClock
    from tabkeeper.testing import FakeProvider

    async def stored(key: str) -> str:
        config = parse_config(
            {"ledger": {"url": sqlite_url}, "platforms": {"web": {}}, "security": {"identity_key": key}}
        )
        provider = FakeProvider("local", SystemClock(), latency=(0, 0))
        async with SessionPool(config, providers={"local": provider}) as pool:
            async with pool.get_session("web", identity="ada@example.com:hunter2"):
                pass
            await pool._ledger.flush()
            with pool._ledger.reader.connect() as db:
                return db.execute(
                    text("SELECT identity FROM session ORDER BY created_at DESC LIMIT 1")
                ).scalar()

    one, again, other = await stored("k1"), await stored("k1"), await stored("k2")
    assert one == again != other
    raw = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert one.encode() in raw
    for secret in (b"ada@example.com", b"hunter2", b"k1k1"):
        assert secret not in raw
