"""A session in use is taken from the least important holder for a more important request; the books are right."""

import asyncio

import pytest
from sqlalchemy import text

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import LeaseLostError
from tabkeeper.money import Money
from tabkeeper.pool.lease import Lease
from tabkeeper.testing import run_virtual

from .world import world

RATES = {"per_session": "0.01", "per_hour": "3.60"}


def test_the_holder_is_told_the_bill_is_right_and_who_comes_back_gets_a_new_session():
    async def story(clock: VirtualClock) -> None:
        platforms = {"web": {"evict_in_use": True}, "mail": {}}
        async with world(clock, max_sessions=1, platforms=platforms, rates=RATES) as w:
            lost = await w.pool.get_session("web", tenant="acme")
            await asyncio.sleep(20)

            async def never(_: object) -> None:
                await asyncio.sleep(1000)

            using = asyncio.create_task(lost.use(never, timeout=500))
            await asyncio.sleep(0)
            urgent = await w.pool.get_session("mail", priority=1, tenant="zorg")
            with pytest.raises(LeaseLostError, match="higher priority") as told:
                await using
            assert (told.value.reason, told.value.session_id) == ("evicted in use", lost.session_id)
            assert urgent.session_id != lost.session_id
            await lost.release()
            assert not await w.pool.release_session(lost.session_id), "a late release does nothing"

            async def come_back() -> Lease:
                return await w.pool.get_session("web", session_id=lost.session_id)

            back = asyncio.create_task(come_back())
            await asyncio.sleep(1)
            assert not back.done(), "nobody takes from a more important one"
            await urgent.release()
            again = await back
            assert again.is_new
            assert again.session_id not in {lost.session_id, urgent.session_id}
            await again.release()

            stats = w.pool.stats()
            assert (stats.evicted_in_use, stats.lost, stats.lease_results["web"]["evicted"]) == (1, 0, 1)
            assert "tabkeeper_evicted_in_use_total 1" in w.pool.metrics.prometheus()
            said = await w.pool.explain(lost.session_id)
            assert said.reason == "evicted in use"
            assert "higher priority" in said.text
            assert await w.violations() == []
            rows = await w.pool._ledger._read(  # what the books say of the lost lease
                lambda c: c.execute(
                    text(
                        "SELECT outcome, error, end_age_us - start_age_us AS us, cost_n FROM lease WHERE id = :id"
                    ),
                    {"id": f"{lost.session_id}.1"},
                ).one()
            )
            assert (rows.outcome, rows.error) == ("evicted", "evicted in use")
            assert Money(rows.cost_n) >= Money.parse("0.03")

    run_virtual(story)
