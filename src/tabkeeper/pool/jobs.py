"""The timetable: what is done again and again while a pool is open, and nothing but calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from tabkeeper.config import PoolConfig
from tabkeeper.errors import LedgerError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.recovery import recover
from tabkeeper.pool.stats import PoolStats
from tabkeeper.providers.base import Provider

log = logging.getLogger(__name__)

RECOVER_EVERY = 60
"""Seconds between two looks for sessions whose owner died."""


class Jobs:
    """The jobs of one pool, on APScheduler: none runs twice at once, a missed run is made up for once."""

    def __init__(
        self,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        config: PoolConfig,
        stats: Callable[[], PoolStats],
        sessions: Callable[[], list[tuple[str, str, int]]],
    ) -> None:
        self._ledger = ledger
        self._providers = providers
        self._config = config
        self._stats = stats
        self._sessions = sessions
        self._scheduler = AsyncIOScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )

    def start(self) -> None:
        """Begin."""
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        beat = self._config.pool.heartbeat.total_seconds()
        self._scheduler.add_job(self.heartbeat, "interval", seconds=beat, id="heartbeat")
        self._scheduler.add_job(self.recover, "interval", seconds=RECOVER_EVERY, id="recover")
        self._scheduler.start()

    def stop(self) -> None:
        """End; a job that runs is not waited for."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def heartbeat(self) -> None:
        """Say that this process lives, and what its pool is doing."""
        try:
            await self._ledger.heartbeat(self._stats().model_dump(mode="json"), self._sessions())
        except LedgerError as error:
            log.warning("no heartbeat: %s", error)

    async def recover(self) -> None:
        """Take up the sessions of processes that died."""
        try:
            await recover(self._ledger, self._providers)
        except LedgerError as error:
            log.warning("no look for sessions without owner: %s", error)
