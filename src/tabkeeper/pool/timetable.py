"""Runs jobs again and again on APScheduler, each by itself: bounded, never twice at once, and none stops another.

On a virtual clock the same jobs run on the loop's own timers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.errors import LedgerError
from tabkeeper.pool.stats import JobStats

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something that is done again and again. Doing it twice must do no harm."""

    name: str
    every: float
    """Seconds between two starts."""
    work: Callable[[], Awaitable[object]]
    """What it returns is shown as its result, if it is text."""
    timeout: float = 60.0
    """Seconds after which a run is given up."""
    at_once: bool = False
    """Whether it runs at the start, too."""


@dataclass(slots=True)
class _Record:
    job: Job
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    runs: int = 0
    failures: int = 0
    last_run: datetime | None = None
    last_seconds: float | None = None
    last_result: str = ""
    next_run: datetime | None = None


class Timetable:
    """Jobs, when they run, and how it went."""

    def __init__(self, jobs: Iterable[Job], clock: Clock) -> None:
        self._clock = clock
        self._records = {job.name: _Record(job) for job in jobs}
        self._tasks: set[asyncio.Task[object]] = set()
        # A run that was missed is made up for once, however late, and however many were missed.
        self._scheduler = AsyncIOScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )

    def start(self) -> None:
        """Begin."""
        if not isinstance(self._clock, SystemClock):
            self._tasks = {
                asyncio.create_task(self._keep(record), name=f"tabkeeper job {name}")
                for name, record in self._records.items()
            }
            return
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        for name, record in self._records.items():
            more = {"next_run_time": self._clock.now()} if record.job.at_once else {}
            self._scheduler.add_job(
                self._begin, "interval", args=[name], seconds=record.job.every, id=name, **more
            )
        self._scheduler.start()

    def stop(self) -> None:
        """End; a job that runs is not waited for."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        for task in self._tasks:
            task.cancel()

    async def _begin(self, name: str) -> None:
        """Start a job as a task of our own: if it ends with the pool, the scheduler would log that as a failure."""
        task = asyncio.create_task(self.run(name), name=f"tabkeeper job {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, record: _Record) -> None:
        every = record.job.every
        at = self._clock.monotonic() + (0 if record.job.at_once else every)
        while True:
            wait = max(0.0, at - self._clock.monotonic())
            record.next_run = self._clock.now() + timedelta(seconds=wait)
            await asyncio.sleep(wait)
            await self.run(record.job.name)
            at = max(at + every, self._clock.monotonic())

    async def run(self, name: str) -> JobStats:
        """Run a job now, unless it runs already; never raises what the job raised.

        Raises:
            KeyError: there is no such job.
        """
        record = self._records[name]
        if record.lock.locked():
            return self._stats(record)
        async with record.lock:
            record.runs += 1
            record.last_run = self._clock.now()
            began = self._clock.monotonic()
            scope = asyncio.timeout(record.job.timeout)
            try:
                async with scope:
                    said = await record.job.work()
                record.last_result = said if isinstance(said, str) else "ok"
            except Exception as error:
                record.failures += 1
                if scope.expired():
                    record.last_result = f"failed: not done after {record.job.timeout:g} s"
                else:
                    record.last_result = f"failed: {str(error) or type(error).__name__}"[:200]
                if scope.expired() or isinstance(error, LedgerError):
                    log.warning("job %r %s", name, record.last_result)
                else:
                    log.exception("job %r failed; it runs again in %g s", name, record.job.every)
            finally:
                record.last_seconds = self._clock.monotonic() - began
        return self._stats(record)

    def stats(self) -> dict[str, JobStats]:
        """Return how each job went."""
        return {name: self._stats(record) for name, record in self._records.items()}

    def _stats(self, record: _Record) -> JobStats:
        planned = self._scheduler.get_job(record.job.name) if self._scheduler.running else None
        return JobStats(
            every_seconds=record.job.every,
            runs=record.runs,
            failures=record.failures,
            running=record.lock.locked(),
            last_run=record.last_run,
            last_seconds=record.last_seconds,
            last_result=record.last_result,
            next_run=record.next_run if planned is None else planned.next_run_time,
        )
