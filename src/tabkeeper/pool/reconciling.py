"""Asks providers what they billed and what runs there, and hands the answers to the ledger to compare.

It decides nothing about money: what a difference becomes is the ledger's business (`ledger.reconcile`). One look is
bounded: so many sessions of a provider, a few calls at a time, and none after a provider failed.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from tabkeeper.clock import Clock
from tabkeeper.errors import ConfigError, LedgerError, ProviderError, ProviderNotFoundError
from tabkeeper.ledger.comparing import Figures, Tolerance, capture_rate
from tabkeeper.ledger.drift import Drift
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.periods import PeriodComparison
from tabkeeper.ledger.reconcile import Comparison, Due, Run
from tabkeeper.ledger.types import OpenSession
from tabkeeper.money import ZERO, Money
from tabkeeper.pool.totals import TotalsLook
from tabkeeper.providers.base import Provider, ProviderUsage

log = logging.getLogger(__name__)

LOOK_BACK = timedelta(days=2)
"""Sessions that ended longer ago are left alone, unless asked for."""
FIGURES_AFTER = timedelta(minutes=2)
"""Seldom is a bill final the moment a session ends, so the schedule leaves providers this long."""
LIST_LAG = timedelta(seconds=15)
"""A session this young need not be on its provider's list."""
MOST_AT_ONCE = 200
"""Sessions of one provider in one scheduled look; the next look goes on."""
_CALLS = 4
_SETTLING = 1.0
"""Seconds in which a session that is just being closed may come to its end."""
_LONGEST = 366 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderReconciled:
    """What came of one provider."""

    provider: str
    compared: int = 0
    """Sessions whose figures it told."""
    waiting: int = 0
    """Sessions whose figures it did not tell, or not yet."""
    ours: Money = ZERO
    """What was booked for the compared sessions before the look."""
    theirs: Money = ZERO
    """What its figures come to."""
    adjusted: int = 0
    """Entries written (or that would be, if only looking)."""
    past: bool = False
    """A session, or a day, differs by more than the tolerance."""
    capture_rate: float | None = None
    """The part of its bill that we had booked by ourselves; None if it billed nothing."""
    periods: tuple[PeriodComparison, ...] = ()
    """Totals of the whole account, where it is `exclusive` and its provider tells them."""
    drift: tuple[Drift, ...] = ()
    error: str = ""
    """Why the look was cut short."""

    @property
    def difference(self) -> Money:
        """Theirs less ours."""
        return self.theirs - self.ours

    @property
    def ok(self) -> bool:
        """Nothing that somebody should look into."""
        return not (self.past or self.drift or self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What came of one reconciliation; printing it tells one line for each provider."""

    at: datetime
    since: datetime
    dry_run: bool
    providers: tuple[ProviderReconciled, ...]

    @property
    def ok(self) -> bool:
        """Whether every provider is `ProviderReconciled.ok`."""
        return all(one.ok for one in self.providers)

    @property
    def adjusted(self) -> int:
        """Entries written."""
        return sum(one.adjusted for one in self.providers)

    def __str__(self) -> str:
        return "\n".join(_line(one) for one in self.providers) or "no provider tells what it bills"


def _line(one: ProviderReconciled) -> str:
    sessions = f"{one.compared} session{'' if one.compared == 1 else 's'}"
    told = (
        f"{one.provider}: {sessions} compared, ours {one.ours}, theirs {one.theirs}, {one.adjusted} adjusted"
    )
    if one.capture_rate is not None:
        told += f", capture rate {one.capture_rate:.1%}"
    if one.waiting:
        told += f", {one.waiting} without figures"
    for period in one.periods:
        told += f"\n  {period_line(period)}"
    for drift in one.drift:
        told += f"\n  drift ({drift.kind}): {drift.detail}"
    return told + (f"\n  cut short: {one.error}" if one.error else "")


def period_line(one: PeriodComparison) -> str:
    """Tell a period's totals in one line."""
    told = f"all of {one.start:%Y-%m-%d %H:%M} to {one.end:%Y-%m-%d %H:%M} UTC: ours {one.ours}, theirs {one.theirs}"
    return f"{told}, {one.booked} booked as unattributed" if one.booked else told


class Reconciler:
    """Reconciles one ledger with the providers of a configuration.

    Args:
        providers, ledger, clock: the pool's, or a command's own.
        tolerance: past which a difference is told.
        patience: seconds for one call.
        back, most: how far a scheduled look goes back, and for how many sessions of a provider it asks.
        ending: whether a session, by our id, is just being closed here.
        lost: told of sessions of this process that their provider ended.
        exclusive: providers whose account nobody else uses, so that its totals are ours.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        tolerance: Tolerance,
        patience: float,
        back: timedelta = LOOK_BACK,
        most: int = MOST_AT_ONCE,
        ending: Callable[[str], bool] = lambda _: False,
        lost: Callable[[str, str], None] = lambda _id, _why: None,
        exclusive: Container[str] = (),
    ) -> None:
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._tolerance = tolerance
        self._patience = patience
        self._back = back
        self._most = most
        self._ending = ending
        self._lost = lost
        self._exclusive = exclusive
        self._one_at_a_time = asyncio.Lock()

    async def scheduled(self) -> Reconciled:
        """Compare what ended lately and was not compared yet, within bounds; see `reconcile`."""
        return await self._reconcile(
            list(self._providers), self._clock.now() - self._back, settled_for=FIGURES_AFTER, most=self._most
        )

    async def reconcile(
        self, *, provider: str | None = None, since: datetime | None = None, dry_run: bool = False
    ) -> Reconciled:
        """Compare everything that ended since an instant (two days ago), compared before or not.

        With `dry_run` nothing is written, and what runs is not looked at.

        Raises:
            ConfigError: there is no such provider.
            LedgerError: the ledger is away.
        """
        since = since or self._clock.now() - LOOK_BACK
        if provider is not None and provider not in self._providers:
            known = ", ".join(self._providers)
            raise ConfigError(f"there is no provider {provider!r}; configured: {known}")
        names = list(self._providers) if provider is None else [provider]
        return await self._reconcile(
            names, since, settled_for=timedelta(0), most=100_000, again=True, dry_run=dry_run
        )

    async def _reconcile(
        self,
        names: Iterable[str],
        since: datetime,
        *,
        settled_for: timedelta,
        most: int,
        again: bool = False,
        dry_run: bool = False,
    ) -> Reconciled:
        asked = [name for name in names if not self._providers[name].capabilities.host_bound]
        async with self._one_at_a_time:
            began = self._clock.now()
            found = await asyncio.gather(
                *(
                    self._look(name, since, settled_for=settled_for, most=most, again=again, dry_run=dry_run)
                    for name in asked
                )
            )
        return Reconciled(at=began, since=since, dry_run=dry_run, providers=tuple(found))

    async def _look(
        self, name: str, since: datetime, *, settled_for: timedelta, most: int, again: bool, dry_run: bool
    ) -> ProviderReconciled:
        began = self._clock.now()
        error = await self._look_for_drift(name) if not dry_run else ""
        look = _Look(self._ledger, name, self._providers[name], self._patience, dry_run=dry_run)
        if not error and self._providers[name].capabilities.usage:
            due = await self._ledger.reconciliation.due(
                name, since=since, settled_for=settled_for, most=most, again=again
            )
            error = await look.ask(due)
        past = await self._tell_past(name, look.found, dry_run=dry_run)
        periods: list[PeriodComparison] = []
        if not error and name in self._exclusive:
            totals = self._totals_of(name, dry_run=dry_run)
            try:
                periods = await totals.look(since, again=again)
            except (ProviderError, TimeoutError, LedgerError) as failed:
                error = str(failed) or f"no answer within {self._patience:g} s"
                log.warning("what %r billed in all is not known: %s", name, error)
            past += sum(map(totals.is_past, periods))
        ours, theirs = _total(one.ours for one in look.found), _total(one.theirs for one in look.found)
        done = ProviderReconciled(
            provider=name,
            compared=len(look.found),
            waiting=look.waiting,
            ours=ours,
            theirs=theirs,
            adjusted=sum(one.adjusted for one in look.found) + sum(one.adjusted for one in periods),
            past=bool(past),
            capture_rate=capture_rate(
                _total(one.settled for one in look.found), theirs + _total(one.booked for one in periods)
            ),
            periods=tuple(periods),
            # On a schedule only what is new; asked for, all there was: a session that was ended is drift, too.
            drift=tuple(await self._ledger.drift.seen(since=since if again else began, provider=name)),
            error=error,
        )
        if not dry_run and (done.compared or done.waiting or error):
            await self._ledger.reconciliation.ran(
                Run(
                    provider=name,
                    sessions=done.compared,
                    waiting=done.waiting,
                    ours=ours,
                    theirs=theirs,
                    adjusted=done.adjusted,
                    past=past,
                    error=error,
                )
            )
        return done

    def _totals_of(self, name: str, *, dry_run: bool) -> TotalsLook:
        return TotalsLook(
            name,
            self._providers[name],
            ledger=self._ledger,
            clock=self._clock,
            tolerance=self._tolerance,
            patience=self._patience,
            dry_run=dry_run,
        )

    # -- differences ---------------------------------------------------------------------------------------------

    async def _tell_past(self, name: str, found: Sequence[Comparison], *, dry_run: bool) -> int:
        """Raise an alert for each day in which too much differs, once; how many sessions or days do."""
        past = sum(self._tolerance.is_passed(one.ours, one.theirs) for one in found)
        for day in sorted({one.day for one in found}):
            of_day = [one for one in found if one.day == day]
            ours, theirs = _total(one.ours for one in of_day), _total(one.theirs for one in of_day)
            whole = self._tolerance.is_passed(ours, theirs)
            past += whole
            if not dry_run and (
                whole or any(self._tolerance.is_passed(one.ours, one.theirs) for one in of_day)
            ):
                self._tell(name, day, of_day, ours, theirs)
        return past

    def _tell(self, name: str, day: date, of_day: Sequence[Comparison], ours: Money, theirs: Money) -> None:
        worst = max(of_day, key=lambda one: abs((one.theirs - one.ours).nanos))
        self._ledger.alerts.tell(
            "reconciliation",
            f"reconciliation|{name}|{day}",
            f"provider {name!r} billed {theirs} for sessions of {day} (UTC) that were booked with {ours}; the ledger "
            f"is adjusted; session {worst.session_id} differs most: {worst.ours} here, {worst.theirs} there",
            amount=theirs - ours,
        )

    # -- drift ---------------------------------------------------------------------------------------------------

    async def _look_for_drift(self, name: str) -> str:
        """Compare what is open here with what its provider lists; why that could not be done, if so."""
        provider = self._providers[name]
        open_here = await self._ledger.records.open_sessions(name, before=self._clock.now() - LIST_LAG)
        if not open_here:
            return ""
        try:
            async with asyncio.timeout(self._patience):
                listed = {one.provider_session_id for one in await provider.running()}
            missing = [one for one in open_here if one.provider_session_id not in listed]
            if missing:
                await asyncio.sleep(_SETTLING)
            still_open = (
                {one.session_id for one in await self._ledger.records.open_sessions(name)}
                if missing
                else set()
            )
            for one in missing:
                if one.session_id in still_open and not self._ending(one.session_id):
                    await self._look_at(name, provider, one)
        except (ProviderError, TimeoutError) as error:
            log.warning("what runs at %r cannot be compared: %r", name, error)
            return str(error) or type(error).__name__
        return ""

    async def _look_at(self, name: str, provider: Provider, one: OpenSession) -> None:
        """A session is open here and not listed there: who is right?"""
        try:
            async with asyncio.timeout(self._patience):
                runs = (await provider.get(one.provider_session_id)).running
        except ProviderNotFoundError:
            runs = False
        detail = (
            f"provider {name!r} does not list session {one.session_id}, which runs there"
            if runs
            else f"session {one.session_id} is open here, but provider {name!r} says that it is over"
        )
        log.warning("%s", detail)
        await self._ledger.drift.note(
            "unlisted" if runs else "ended",
            name,
            detail,
            session_id=one.session_id,
            provider_session_id=one.provider_session_id,
        )
        if not runs:
            self._lost(one.session_id, "its provider says that it is over")


class _Look:
    """The comparison of one provider's sessions."""

    def __init__(
        self, ledger: Ledger, name: str, provider: Provider, patience: float, *, dry_run: bool
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._provider = provider
        self._patience = patience
        self._dry_run = dry_run
        self._slots = asyncio.Semaphore(_CALLS)
        self._failure = ""
        self.found: list[Comparison] = []
        self.waiting = 0

    async def ask(self, due: Sequence[Due]) -> str:
        """Compare them all; why it was cut short, if it was."""
        async with asyncio.TaskGroup() as group:
            for one in due:
                group.create_task(self._compare(one))
        return self._failure

    async def _compare(self, due: Due) -> None:
        async with self._slots:
            if self._failure:
                return
            try:
                async with asyncio.timeout(self._patience):
                    told = await self._provider.usage(due.provider_session_id)
            except ProviderNotFoundError:
                told = None
            except (ProviderError, TimeoutError) as error:
                self._failure = str(error) or f"no answer within {self._patience:g} s"
                log.warning("what %r billed is not known: %s", self._name, self._failure)
                return
            try:
                await self._take(due, figures_of(told))
            except LedgerError as error:
                self._failure = str(error)
                log.warning("what %r billed is not compared: %s", self._name, error)

    async def _take(self, due: Due, figures: Figures | None) -> None:
        if figures is None:
            self.waiting += 1
            if not self._dry_run:
                await self._ledger.reconciliation.not_yet(due)
            return
        compared = await self._ledger.reconciliation.compare(due.session_id, figures, dry_run=self._dry_run)
        if compared is not None:
            self.found.append(compared)


def figures_of(told: ProviderUsage | None) -> Figures | None:
    """Return a provider's final figures; None if it has none yet, or none that can be true."""
    if told is None or told.ended_at is None or (told.seconds is None and told.cost is None):
        return None
    seconds, traffic = told.seconds, told.proxy_bytes
    if seconds is not None and not (math.isfinite(seconds) and 0 <= seconds <= _LONGEST):
        return None
    if (traffic is not None and traffic < 0) or (told.cost is not None and told.cost.nanos < 0):
        return None
    return Figures(
        seconds_us=None if seconds is None else round(seconds * 1_000_000),
        proxy_bytes=traffic,
        cost=told.cost,
    )


def _total(amounts: Iterable[Money]) -> Money:
    return Money(sum(amount.nanos for amount in amounts))
