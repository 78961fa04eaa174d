"""The timetable: what is done again and again while a pool is open, and nothing but calls."""

from __future__ import annotations

import logging
from collections.abc import Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from tabkeeper.alerts.dispatch import Dispatcher
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import LedgerError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.stats import PoolStats
from tabkeeper.pool.sweeper import Sweeper
from tabkeeper.pool.watch import EVERY, Watch
from tabkeeper.profiles.store import ProfileStore
from tabkeeper.reports.books import Books

log = logging.getLogger(__name__)

RECOVER_EVERY = 60
"""Seconds between two looks for sessions whose owner died, in the ledger and at providers."""
BUDGETS_EVERY = 300
"""Seconds between two forecasts of budgets; that a threshold is reached is seen by the posting that does it."""
DELIVER_EVERY = 5
"""Seconds between two looks for alerts to deliver."""


class Jobs:
    """The jobs of one pool, on APScheduler: none runs twice at once, a missed run is made up for once."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        sweeper: Sweeper,
        config: PoolConfig,
        stats: Callable[[], PoolStats],
        sessions: Callable[[], list[tuple[str, str, int]]],
        profiles: ProfileStore,
        watch: Watch,
        dispatcher: Dispatcher,
        books: Books,
    ) -> None:
        self._ledger = ledger
        self._sweeper = sweeper
        self._config = config
        self._stats = stats
        self._sessions = sessions
        self._profiles = profiles
        self._watch = watch
        self._dispatcher = dispatcher
        self._books = books
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
        self._scheduler.add_job(self.look, "interval", seconds=EVERY, id="metrics")
        self._scheduler.add_job(self.check_budgets, "interval", seconds=BUDGETS_EVERY, id="budgets")
        self._scheduler.add_job(self.deliver, "interval", seconds=DELIVER_EVERY, id="alerts")
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

    async def look(self) -> None:
        """Take a sample of the pool's figures and raise what it shows."""
        self._watch.look()

    async def check_budgets(self) -> None:
        """Raise an alert for each budget that is not expected to last, once in its window."""
        if not self._config.alerts.forecast:
            return
        for one in await self._books.oversteps():
            self._ledger.alerts.tell(
                "forecast",
                f"forecast|{one.window_id}",
                one.detail,
                budget=one.budget,
                window_id=one.window_id,
                amount=one.expected,
                limit=one.limit,
            )

    async def deliver(self) -> None:
        """Deliver alerts."""
        await self._dispatcher.run()
