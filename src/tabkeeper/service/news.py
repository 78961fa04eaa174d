"""What changes, as it changes: one look a second while somebody listens, told to all who do.

A listener that does not keep up misses what lies between, never the latest; so it can neither slow others nor grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime

from tabkeeper.clock import Clock, Instant
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.stats import ProviderStats, WholeStats
from tabkeeper.pool.waiting import WaitingStats
from tabkeeper.reports.report import BudgetFigures, CostReport
from tabkeeper.service.alerts import AlertTold, recent_alerts
from tabkeeper.service.fleet import FleetNow, fleet_of
from tabkeeper.service.models import JobNow, SessionAnswer, Told
from tabkeeper.service.problems import ProblemError
from tabkeeper.service.sessions import session_answer

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
MONEY_SECONDS = 3.0
"""Between two looks at the books, which ask the database."""
MOST_LISTENERS = 100
_ALERTS = 20


class Now(Told):
    """The pool at this moment."""

    at: datetime
    is_open: bool
    capacity: str
    sessions: int
    max_sessions: int
    idle: int
    leased: int
    creating: int
    unhealthy: int
    ending: int
    queued: int
    max_queued: int
    leases: int
    reuse_rate: float
    utilisation: float
    mean_wait_seconds: float
    whole: WholeStats
    """The same counts for all processes that share the pool."""
    open_sessions: tuple[SessionAnswer, ...]
    queue: tuple[WaitingStats, ...]
    """The first hundred of those who wait."""
    providers: Mapping[str, ProviderStats]
    jobs: Mapping[str, JobNow]


class MoneyNow(Told):
    """The books at this moment."""

    at: datetime
    budgets: tuple[BudgetFigures, ...]
    day: CostReport
    alerts: tuple[AlertTold, ...]


class News:
    """Looks at a pool for its listeners.

    Args:
        pool: an open pool.
        clock: where time comes from.
    """

    def __init__(self, pool: SessionPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._latest: dict[str, tuple[int, str]] = {}
        self._changed = asyncio.Event()
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._money: MoneyNow | None = None
        self._money_at: Instant = 0.0
        self._fleet: FleetNow | None = None
        self._fleet_at: Instant | None = None
        self._asking = asyncio.Lock()
        self._over = False

    def now(self) -> Now:
        """Look at the pool."""
        stats = self._pool.stats()
        return Now(
            at=self._clock.now(),
            is_open=self._pool.is_open,
            capacity=f"{stats.sessions}/{stats.max_sessions}",
            reuse_rate=stats.reuse_rate,
            utilisation=stats.utilisation,
            open_sessions=tuple(session_answer(one) for one in stats.open_sessions),
            queue=tuple(self._pool.waiting()[:100]),
            providers=stats.accounts,
            jobs={
                name: JobNow.model_validate(job.model_dump(include=set(JobNow.model_fields)))
                for name, job in stats.jobs.items()
            },
            **{name: getattr(stats, name) for name in _PLAIN},
        )

    async def money(self) -> MoneyNow:
        """Look at the books, at most every few seconds."""
        async with self._asking:
            now = self._clock.monotonic()
            if self._money is None or now - self._money_at >= MONEY_SECONDS:
                books = self._pool.ledger
                self._money = MoneyNow(
                    at=self._clock.now(),
                    budgets=(await books.standing()).budgets,
                    day=await books.report(),
                    alerts=tuple(await books.query(lambda engine: recent_alerts(engine, _ALERTS))),
                )
                self._money_at = now
            return self._money

    async def fleet(self) -> FleetNow | None:
        """Look at all processes of the pool, at most every few seconds; None if it has only this one."""
        async with self._asking:
            now = self._clock.monotonic()
            if self._fleet_at is None or now - self._fleet_at >= MONEY_SECONDS:
                self._fleet = await self._pool.ledger.look(fleet_of(self._pool.database.process_id))
                self._fleet_at = now
            return self._fleet

    @contextlib.contextmanager
    def seat(self) -> Iterator[None]:
        """Have a listener's place while the block runs; taken before the answer begins, so that it can be a refusal.

        Raises:
            ProblemError: too many listen already.
        """
        if self._listeners >= MOST_LISTENERS:
            raise ProblemError("too-many", f"{MOST_LISTENERS} listen already", retry_after=10)
        self._listeners += 1
        try:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_on(), name="tabkeeper news")
            yield
        finally:
            self._listeners -= 1

    async def listen(self) -> AsyncIterator[tuple[int, str, str]]:
        """Give (number, kind, JSON) of what is new, first of what is; until the service stops. It needs a `seat`."""
        seen: dict[str, int] = {}
        while not self._over:
            changed = self._changed
            fresh = [(n, kind, said) for kind, (n, said) in self._latest.items() if seen.get(kind) != n]
            for number, kind, said in fresh:
                seen[kind] = number
                yield number, kind, said
            if not fresh:
                await changed.wait()

    async def aclose(self) -> None:
        """Let nobody listen any more."""
        self._over = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        self._announce()

    def _announce(self) -> None:
        """Wake all who listen; those who come later wait for the next time."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _look_on(self) -> None:
        try:
            while self._listeners and not self._over:
                try:
                    self._tell("now", self.now())
                    self._tell("money", await self.money())
                    fleet = await self.fleet()
                    if fleet is not None:
                        self._tell("fleet", fleet)
                except Exception:
                    log.exception(
                        "the pool and its books could not be looked at for those who listen; it is tried again"
                    )
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._latest.clear()

    def _tell(self, kind: str, news: Told) -> None:
        number, before = self._latest.get(kind, (0, ""))
        said = news.model_dump_json()
        if said != before:
            self._latest[kind] = (number + 1, said)
            self._announce()


_PLAIN = (
    "sessions",
    "max_sessions",
    "idle",
    "leased",
    "creating",
    "unhealthy",
    "ending",
    "queued",
    "max_queued",
    "leases",
    "mean_wait_seconds",
    "whole",
)
