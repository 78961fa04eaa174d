"""The timetable: what is done again and again while a pool is open, and nothing but calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tabkeeper.alerts.dispatch import Dispatcher
from tabkeeper.clock import Clock
from tabkeeper.config import PoolConfig, ProxyPoolSettings
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.board import Board
from tabkeeper.pool.checkup import Checkup
from tabkeeper.pool.proxied import Proxied
from tabkeeper.pool.reconciling import Reconciler
from tabkeeper.pool.routing import Router
from tabkeeper.pool.stats import JobStats, PoolStats
from tabkeeper.pool.sweeper import Sweeper
from tabkeeper.pool.timetable import Job, Timetable
from tabkeeper.pool.watch import EVERY, Watch, tell_oversteps
from tabkeeper.profiles.store import ProfileStore
from tabkeeper.reports.books import Books
from tabkeeper.reports.days import DayReports

REFRESH_EVERY = 60
"""Seconds between two looks at prices and allowances, for routes."""
LIMITS_EVERY = 600
"""Seconds after which providers are asked again how many sessions an account may run."""
RECOVER_EVERY = 60
"""Seconds between two looks for sessions whose owner died, in the ledger and at providers."""
CLEANUP_EVERY = 60
"""Seconds between two looks for sessions past their time; the plan's own timer closes them when they are due."""
BUDGETS_EVERY = 300
"""Seconds between two forecasts of budgets; that a threshold is reached is seen by the posting that does it."""
PROXIES_EVERY = 10
"""Seconds between two looks for proxies and bindings that others changed, and for bindings whose time is up."""
REPORT_EVERY = 60
"""Seconds between two looks for local days that are over and have no report yet."""
DELIVER_EVERY = 5
"""Seconds between two looks for alerts to deliver."""


class Jobs:
    """The jobs of one pool."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        sweeper: Sweeper,
        config: PoolConfig,
        clock: Clock,
        stats: Callable[[], PoolStats],
        sessions: Callable[[], list[tuple[str, str, int]]],
        profiles: ProfileStore,
        watch: Watch,
        dispatcher: Dispatcher,
        books: Books,
        checkup: Checkup,
        ask_books: Callable[[], Awaitable[None]],
        board: Board,
        reconciler: Reconciler,
        proxied: Proxied,
        router: Router,
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
        self._checkup = checkup
        self._ask_books = ask_books
        self._days = DayReports(
            ledger,
            books,
            zone=config.ledger.timezone,
            clock=clock,
            tell=config.alerts.daily_report,
            folder=config.ledger.report_folder,
        )
        self._board = board
        self._reconciler = reconciler
        self._router = router
        health, beat = config.health, config.pool.heartbeat.total_seconds()
        check, refresh = health.every.total_seconds(), health.refresh_every.total_seconds()
        reconcile = config.ledger.reconcile_every.total_seconds()
        self._proxied = proxied
        self._timetable = Timetable(
            [
                Job(name="heartbeat", every=beat, work=self.heartbeat, timeout=30),
                Job(name="recover", every=RECOVER_EVERY, work=self.recover, timeout=300, at_once=True),
                Job(name="health", every=check, work=self.check, timeout=max(60.0, check)),
                Job(name="cleanup", every=CLEANUP_EVERY, work=self.clean_up, timeout=30),
                Job(name="refresh", every=refresh, work=self.refresh, timeout=max(60.0, refresh)),
                Job(name="routes", every=REFRESH_EVERY, work=router.refresh, timeout=30),
                Job(
                    name="limits",
                    every=LIMITS_EVERY,
                    work=self._once(router.ask_limits),
                    timeout=60,
                    at_once=True,
                ),
                Job(name="metrics", every=EVERY, work=self.look, timeout=30, at_once=True),
                Job(name="budgets", every=BUDGETS_EVERY, work=self._once(self.check_budgets), timeout=60),
                Job(name="reconcile", every=reconcile, work=self._once(self.reconcile), timeout=900),
                *self._of_proxies(config.proxy_pool),
                Job(name="daily report", every=REPORT_EVERY, work=self._once(self._days.run), timeout=300),
                Job(name="alerts", every=DELIVER_EVERY, work=self.deliver, timeout=900),
            ],
            clock,
        )
        self.start, self.stop, self.run = self._timetable.start, self._timetable.stop, self._timetable.run

    def _of_proxies(self, settings: ProxyPoolSettings) -> list[Job]:
        if not self._proxied.on:
            return []
        jobs = [Job(name="proxies", every=PROXIES_EVERY, work=self._proxied.sync, timeout=30)]
        if settings.probe_url is not None:
            every = settings.probe_every.total_seconds()
            jobs.append(Job(name="probes", every=every, work=self.probe, timeout=max(60.0, every)))
        return jobs

    def _once(self, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """What one process does for all that share the pool; done twice it would do no harm."""

        async def do() -> object:
            return await work() if self._board.leads else "another process does it"

        return do

    def stats(self) -> dict[str, JobStats]:
        """Return how each job went."""
        return self._timetable.stats()

    async def heartbeat(self) -> None:
        """Say that this process lives, and what its pool is doing."""
        await self._ledger.owners.heartbeat(self._stats().model_dump(mode="json"), self._sessions())
        await self._profiles.refresh()

    async def recover(self) -> None:
        """Take up the sessions of processes that died, and end what providers run without an owner."""
        await self._sweeper.round(strays=self._board.leads)

    async def check(self) -> None:
        """Look whether the sessions are well."""
        await self._checkup.round()

    async def refresh(self) -> None:
        """Keep quiet sessions alive."""
        await self._checkup.refresh()

    async def clean_up(self) -> None:
        """Have the plan look once more, should a timer ever have been lost."""
        self._board.poke()

    async def look(self) -> None:
        """Take a sample of the pool's figures and raise what it shows; then ask how the books stand."""
        self._watch.look()
        await self._ask_books()

    async def check_budgets(self) -> None:
        """Raise an alert for each budget that is not expected to last."""
        if self._config.alerts.forecast:
            await tell_oversteps(self._books, self._ledger.alerts)

    async def reconcile(self) -> str:
        """Ask providers what they billed, and what runs there."""
        found = await self._reconciler.scheduled()
        return f"{sum(one.compared for one in found.providers)} compared, {found.adjusted} adjusted"

    async def probe(self) -> None:
        """Try every proxy."""
        await self._proxied.probe()

    async def deliver(self) -> None:
        """Deliver alerts."""
        await self._dispatcher.run()
