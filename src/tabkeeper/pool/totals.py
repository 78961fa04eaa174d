"""Asks providers what a whole account used in a period, where nobody but this ledger uses it.

Sessions are compared one by one (`pool.reconciling`); only a total shows what was billed for no session on record.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, time, timedelta

from tabkeeper.clock import Clock
from tabkeeper.ledger.comparing import Figures, Tolerance
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.periods import PeriodComparison, Reading
from tabkeeper.providers.base import Counting, Dated, Provider, ProviderTotal

log = logging.getLogger(__name__)

DAY_LAG = timedelta(hours=1)
"""A provider has this long to add up a day that is over."""
_DAY = timedelta(days=1)


class TotalsLook:
    """Compares totals of one provider.

    Args:
        name, provider: whose.
        ledger, clock: the pool's, or a command's own.
        tolerance: past which a difference is told.
        patience: seconds for one call.
        dry_run: write nothing.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        *,
        ledger: Ledger,
        clock: Clock,
        tolerance: Tolerance,
        patience: float,
        dry_run: bool,
    ) -> None:
        self._name = name
        self._provider = provider
        self._ledger = ledger
        self._clock = clock
        self._tolerance = tolerance
        self._patience = patience
        self._dry_run = dry_run

    async def look(self, since: datetime, *, again: bool) -> list[PeriodComparison]:
        """Compare what can be compared now; with `again`, days that were compared before, too.

        Raises:
            ProviderError: the provider did not say.
            TimeoutError: not in time.
            LedgerError: the ledger is away.
        """
        if isinstance(self._provider, Dated):
            found = await self._days(self._provider, since, again=again)
        elif isinstance(self._provider, Counting):
            found = await self._so_far(self._provider)
        else:
            found = []
        for one in found:
            if not self._dry_run and self.is_past(one):
                self._tell(one)
        return found

    def is_past(self, one: PeriodComparison) -> bool:
        """Tell whether the two sums lie too far apart."""
        return self._tolerance.is_passed(one.ours, one.theirs)

    async def _days(self, provider: Dated, since: datetime, *, again: bool) -> list[PeriodComparison]:
        """Compare the days (UTC) that are over, since this ledger has prices of the provider."""
        known_since = await self._ledger.periods.since(self._name)
        if known_since is None:
            return []
        first = max(since, known_since).astimezone(UTC)
        start = datetime.combine(first.date(), time.min, UTC)
        if start < known_since:
            start += _DAY
        done = {one.start for one in await self._ledger.periods.compared(self._name, since=start)}
        found = []
        while start + _DAY + DAY_LAG <= self._clock.now():
            if again or start not in done:
                async with asyncio.timeout(self._patience):
                    told = await provider.used_on(start.date())
                if told is not None:
                    found.append(await self._compare(start, start + _DAY, told))
            start += _DAY
        return [one for one in found if one is not None]

    async def _so_far(self, provider: Counting) -> list[PeriodComparison]:
        """Compare what was used since the last reading at which nothing ran."""
        before = await self._ledger.periods.reading(self._name)
        at = self._clock.now()
        async with asyncio.timeout(self._patience):
            told = await provider.used_so_far()
        if told is None or told.seconds is None:
            return []
        now = Reading(at=at, seconds_us=round(told.seconds * 1_000_000), proxy_bytes=told.proxy_bytes or 0)
        if before is not None and (now.seconds_us, now.proxy_bytes) == (
            before.seconds_us,
            before.proxy_bytes,
        ):
            return []
        if before is None or now.seconds_us < before.seconds_us or now.proxy_bytes < before.proxy_bytes:
            # The first reading, or the provider has begun to count anew: the next period begins here.
            await self._ledger.periods.compare(
                self._name, at, at, Figures(), reading=now, dry_run=self._dry_run
            )
            return []
        used = ProviderTotal(
            seconds=(now.seconds_us - before.seconds_us) / 1_000_000,
            proxy_bytes=now.proxy_bytes - before.proxy_bytes,
        )
        found = await self._compare(before.at, at, used, reading=now)
        return [] if found is None else [found]

    async def _compare(
        self, start: datetime, end: datetime, told: ProviderTotal, *, reading: Reading | None = None
    ) -> PeriodComparison | None:
        figures = Figures(
            seconds_us=None if told.seconds is None else round(told.seconds * 1_000_000),
            proxy_bytes=told.proxy_bytes,
            cost=told.cost,
        )
        return await self._ledger.periods.compare(
            self._name, start, end, figures, reading=reading, dry_run=self._dry_run
        )

    def _tell(self, one: PeriodComparison) -> None:
        fate = (
            f"{one.booked} is booked as unattributed"
            if one.booked
            else "nothing is booked for the difference"
        )
        detail = (
            f"provider {self._name!r} billed {one.theirs} in all from {one.start:%Y-%m-%d %H:%M} to "
            f"{one.end:%Y-%m-%d %H:%M} (UTC), our sessions of that time come to {one.ours}; {fate}"
        )
        log.warning("%s", detail)
        self._ledger.alerts.tell(
            "reconciliation",
            f"reconciliation|{self._name}|{one.start:%Y-%m-%dT%H:%M:%S}|total",
            detail,
            amount=one.theirs - one.ours,
        )
