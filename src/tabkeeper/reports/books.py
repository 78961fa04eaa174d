"""What a program asks the ledger about money: today's cost, this month's, a whole report, and whether it all adds up.

Queries run in a thread, so the event loop never waits for the database.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Protocol, TypeVar

from sqlalchemy import Engine, StaticPool, text

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger import report_runs
from tabkeeper.ledger.engines import is_away
from tabkeeper.ledger.types import Violation
from tabkeeper.ledger.windows import window_bounds, window_of_date
from tabkeeper.money import Money
from tabkeeper.reports.as_of import EVERYTHING, AsOf, as_of_text
from tabkeeper.reports.daily import build_report, cost_between
from tabkeeper.reports.outlook import Overstep, oversteps
from tabkeeper.reports.render_json import read_json
from tabkeeper.reports.report import CostReport, ReportPeriod
from tabkeeper.reports.standing import Standing, standing

T = TypeVar("T")


class ReadableLedger(Protocol):
    """What reports need of a ledger."""

    @property
    def reader(self) -> Engine:
        """Where queries go; nothing is written through it."""
        ...

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run a query in a thread that the ledger's end waits for."""
        ...

    async def flush(self) -> None:
        """Write what is queued, so that a report shows all that has happened."""
        ...

    async def verify(self) -> list[Violation]:
        """Check every invariant."""
        ...


class Books:
    """Reads costs out of an open ledger.

    >>> books = Books(ledger, timezone="Europe/Berlin")    # doctest: +SKIP
    >>> await books.daily_cost()                           # doctest: +SKIP
    Money.parse('12.34')
    """

    def __init__(self, ledger: ReadableLedger, *, timezone: str = "UTC", clock: Clock | None = None) -> None:
        """Read from `ledger`.

        Args:
            ledger: an open ledger; it stays its owner's to close.
            timezone: whose midnight begins a day or a month.
            clock: where "today" comes from.
        """
        self._ledger = ledger
        self._timezone = timezone
        self._clock = SystemClock() if clock is None else clock

    async def daily_cost(self, date: date | None = None) -> Money:
        """Cost of all sessions begun on a local day; today if None. Running sessions are not in it yet."""
        return await self._cost("day", date)

    async def monthly_cost(self, date: date | None = None) -> Money:
        """Cost of all sessions begun in the local month of a date; this month if None."""
        return await self._cost("month", date)

    async def report(
        self, date: date | None = None, period: ReportPeriod = "day", *, as_of: AsOf | None = None
    ) -> CostReport:
        """Build the whole report of the local day or month that contains a date.

        Args:
            date: any date of the period; today if None.
            period: day or month.
            as_of: tell only what was known then, which gives the same report for ever; all that is known if None.
        """
        seen = AsOf(EVERYTHING, self._clock.now()) if as_of is None else as_of
        return await self.query(
            lambda engine: build_report(
                engine, period=period, zone=self._timezone, now=seen.now, day=date, upto=seen.entry
            )
        )

    async def as_of(self, given: str) -> AsOf:
        """Find the moment that a person wrote: the number of an entry, or an instant of the past.

        Raises:
            ConfigError: it is neither.
        """
        now = self._clock.now()

        def read(engine: Engine) -> AsOf:
            with engine.connect() as connection:
                return as_of_text(connection, given, now)

        return await self.query(read)

    async def oversteps(self) -> list[Overstep]:
        """Return the budgets whose open window is forecast to end over its limit."""
        now = self._clock.now()

        def query(engine: Engine) -> list[Overstep]:
            with engine.connect() as connection:
                return oversteps(connection, now)

        return await self.query(query)

    async def kept_report(self, date: date) -> CostReport | None:
        """Return the report of a local day as it was kept after the day's end; None if there is none (yet)."""
        zone = self._timezone

        def read(engine: Engine) -> str | None:
            with engine.connect() as connection:
                return report_runs.kept(connection, zone, date)

        found = await self.query(read)
        return None if found is None else read_json(found)

    async def kept_days(self, most: int) -> list[date]:
        """Return the latest local days whose reports are kept, the newest first."""
        zone = self._timezone

        def read(engine: Engine) -> list[date]:
            with engine.connect() as connection:
                return report_runs.kept_days(connection, zone, most)

        return await self.query(read)

    async def standing(self) -> Standing:
        """Return cost by platform and provider, budgets, and alerts, as they stand now."""
        now = self._clock.now()

        def query(engine: Engine) -> Standing:
            with engine.connect() as connection:
                return standing(connection, self._timezone, now)

        return await self.query(query)

    async def ping(self) -> None:
        """Ask the database for nothing at all; what its driver raises says that it is away."""

        def nothing(engine: Engine) -> None:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))

        await self._off_the_loop(nothing)

    async def verify(self) -> list[Violation]:
        """Return every broken invariant of the ledger; an empty list means that all of it adds up."""
        await self._ledger.flush()
        return await self._ledger.verify()

    async def _cost(self, period: ReportPeriod, day: date | None) -> Money:
        if day is None:
            window = window_bounds(period, self._timezone, self._clock.now())
        else:
            window = window_of_date(period, self._timezone, day)
        return await self.query(lambda engine: cost_between(engine, window.start, window.end))

    async def query(self, query: Callable[[Engine], T]) -> T:
        """Run a query of one's own on the ledger's reader, after all that is queued was written."""
        await self._ledger.flush()
        return await self._off_the_loop(query)

    async def look(self, query: Callable[[Engine], T]) -> T:
        """Run a query of one's own on what is written by now; what is queued is not waited for.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        try:
            return await self._off_the_loop(query)
        except Exception as error:
            if is_away(error):
                raise LedgerUnavailableError("the ledger's database is away") from error
            raise

    async def _off_the_loop(self, query: Callable[[Engine], T]) -> T:
        engine = self._ledger.reader
        if isinstance(engine.pool, StaticPool):
            # A ledger in memory has one connection, whose transactions must not meet in two threads.
            return query(engine)
        return await self._ledger.in_thread(lambda: query(engine))
