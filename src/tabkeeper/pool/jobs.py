"""The timetable: what is done again and again while a pool is open, and nothing but calls."""

from __future__ import annotations

import logging
from collections.abc import Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import LedgerError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.stats import PoolStats
from tabkeeper.pool.sweeper import Sweeper
from tabkeeper.profiles.store import ProfileStore

log = logging.getLogger(__name__)

RECOVER_EVERY = 60
"""Seconds between two looks for sessions whose owner died, in the ledger and at providers."""


class Jobs:
    """The jobs of one pool, on APScheduler: none runs twice at once, a missed run is made up for once."""

    def __init__(
        self,
        ledger: Ledger,
        sweeper: Sweeper,
        config: PoolConfig,
        stats: Callable[[], PoolStats],
        sessions: Callable[[], list[tuple[str, str, int]]],
        *,
        profiles: ProfileStore,
    ) -> None:
        self._ledger = ledger
        self._sweeper = sweeper
        self._config = config
        self._stats = stats
        self._sessions = sessions
        self._profiles = profiles
        self._scheduler = AsyncIOScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )

    def start(self) -> None:
        """Begin."""
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        beat = self._config.pool.heartbeat.total_seconds()
        self._scheduler.add_job(self.heartbeat, "interval", seconds=beat, id="heartbeat")
        self._scheduler.add_job(
            self.recover, "interval", seconds=RECOVER_EVERY, id="recover", next_run_time=SystemClock().now()
        )
        self._scheduler.start()

    def stop(self) -> None:
        """End; a job that runs is not waited for."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def heartbeat(self) -> None:
        """Say that this process lives, and what its pool is doing."""
        try:
            await self._ledger.heartbeat(self._stats().model_dump(mode="json"), self._sessions())
            await self._profiles.refresh()
        except LedgerError as error:
            log.warning("no heartbeat: %s", error)

    async def recover(self) -> None:
        """Take up the sessions of processes that died, and end what providers run without an owner."""
        try:
            await self._sweeper.round()
        except LedgerError as error:
            log.warning("no look for sessions without owner: %s", error)
