"""The timetable: no job stops another, none runs twice at once, each is bounded, and all of it can be seen."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tabkeeper.clock import SystemClock, VirtualClock
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.pool.timetable import Job, Timetable
from tabkeeper.testing import run_virtual

from .world import world

START = datetime(2026, 1, 1, tzinfo=UTC)


async def nothing() -> None:
    pass


def test_a_job_that_raises_or_hangs_stops_no_other(caplog: pytest.LogCaptureFixture):
    ran: list[float] = []

    async def story(clock: VirtualClock) -> None:
        async def broken() -> None:
            raise ZeroDivisionError("on purpose")

        async def away() -> None:
            raise LedgerUnavailableError("the database is away")

        async def hangs() -> None:
            await asyncio.sleep(10**9)

        async def works() -> str:
            ran.append(clock.monotonic())
            return "3 things done"

        jobs = {"broken": broken, "away": away, "hangs": hangs, "works": works}
        table = Timetable([Job(name=n, every=60, work=w, timeout=200) for n, w in jobs.items()], clock)
        table.start()
        await asyncio.sleep(601)
        stats = table.stats()
        assert ran == [60.0 * n for n in range(1, 11)]
        assert (stats["works"].runs, stats["works"].failures, stats["works"].last_result) == (
            10,
            0,
            "3 things done",
        )
        assert stats["works"].next_run == START + timedelta(seconds=660)
        assert (stats["broken"].runs, stats["broken"].failures) == (10, 10)
        assert stats["broken"].last_result == "failed: on purpose"
        assert stats["away"].last_result == "failed: the database is away"
        assert stats["hangs"].failures == 2, "given up after 200 s, and tried again"
        assert stats["hangs"].last_result == "failed: not done after 200 s"
        assert stats["hangs"].last_seconds == 200
        table.stop()

    run_virtual(story)
    assert sum("broken" in record.getMessage() for record in caplog.records) == 10


def test_a_job_that_runs_is_not_started_again():
    async def story(clock: VirtualClock) -> None:
        inside, most = 0, 0

        async def slow() -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(100)
            inside -= 1

        table = Timetable([Job(name="slow", every=10, work=slow, timeout=1000)], clock)
        table.start()
        await asyncio.sleep(50)
        assert (await table.run("slow")).running
        await asyncio.sleep(500)
        assert most == 1
        table.stop()

    run_virtual(story)


async def test_on_the_systems_clock_apscheduler_keeps_the_time():
    ran = asyncio.Event()

    async def work() -> None:
        ran.set()

    table = Timetable(
        [Job(name="now", every=3600, work=work, at_once=True), Job(name="later", every=3600, work=nothing)],
        SystemClock(),
    )
    table.start()
    await asyncio.wait_for(ran.wait(), 60)
    stats = table.stats()
    assert stats["now"].runs == 1
    assert stats["later"].runs == 0
    assert timedelta(minutes=58) < stats["later"].next_run - datetime.now(UTC) < timedelta(minutes=61)
    table.stop()


async def test_a_job_that_the_end_cuts_short_is_no_error(caplog: pytest.LogCaptureFixture):
    inside, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    table = Timetable([Job(name="endless", every=3600, work=endless, at_once=True)], SystemClock())
    table.start()
    await asyncio.wait_for(inside.wait(), 60)
    table.stop()
    await asyncio.wait_for(ended.wait(), 60)
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == []
    assert table.stats()["endless"].failures == 0


def test_a_pool_shows_how_each_of_its_jobs_went():
    async def story(clock: VirtualClock) -> None:
        async with world(clock, jobs=True) as w:
            await asyncio.sleep(3600)
            jobs = w.pool.stats().jobs
            assert {name: job.failures for name, job in jobs.items() if job.failures} == {}
            for name in ("recover", "health", "cleanup", "refresh", "metrics"):
                assert 59 <= jobs[name].runs <= 61, name
            assert 11 <= jobs["budgets"].runs <= 12
            assert 719 <= jobs["alerts"].runs <= 720
            assert jobs["heartbeat"].last_result == "ok"
            with pytest.raises(KeyError):
                await w.pool.run_job("no such job")

    run_virtual(story)
