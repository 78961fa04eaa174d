"""`Crawl`: works on a run until its pages are done, on sessions in parallel; what fails on one is tried on another.

The state is touched only between awaits, and every event ends in one step that assigns, then takes sessions, then looks
whether there is anything left. What a visit gave is in the database before anything else is done with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Coroutine
from datetime import timedelta
from typing import Any

from tabkeeper.clock import Clock, Instant, SystemClock
from tabkeeper.errors import (
    BudgetExceededError,
    LedgerError,
    NoProxyError,
    RunLostError,
    TabkeeperError,
)
from tabkeeper.money import Money
from tabkeeper.pool.pool import SessionPool
from tabkeeper.sites.crew import Crew, Hand
from tabkeeper.sites.distributor import match
from tabkeeper.sites.outlet import Export
from tabkeeper.sites.progress import Count, Pace, Progress, estimate
from tabkeeper.sites.registry import SiteRegistry
from tabkeeper.sites.runs import Gain, Run, RunPage, Runs
from tabkeeper.sites.target import Parse
from tabkeeper.sites.work import SiteWork

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
"""Seconds between two looks at what may have changed by time alone: rests that are over, money that came back."""
_PAUSE = 1.0
"""Seconds for which no session is asked for after one could not be had."""
_TRIES = 8
"""Attempts to take a session after which a run that has none gives up."""
_BOOKS_EVERY = 1.0
"""Seconds between two times that items are written out."""


class Crawl:
    """One process's work on one run.

    >>> crawl = Crawl(pool, sites, parse, runs=runs, run=run, platform="web")        # doctest: +SKIP
    >>> await crawl.work(pages)                                                     # doctest: +SKIP

    Args:
        pool: open; the run's sessions are charged to `run.tenant`.
        sites: those of the run.
        parse: ``async def parse(page, target)``, see `tabkeeper.sites.target`.
        runs: where the run is kept.
        run: begun or resumed.
        platform: whose sessions are taken.
        export: where items go; they stay in the database if unset.
        instance_limit: sessions at once.
        attempts: visits after which a page is given up.
        patience: failures in a row after which a site is left alone until the run is resumed.
        grace: how long visits may finish when it is told to stop.
        clock: where time comes from.
    """

    def __init__(
        self,
        pool: SessionPool,
        sites: SiteRegistry,
        parse: Parse,
        *,
        runs: Runs,
        run: Run,
        platform: str,
        export: Export | None = None,
        instance_limit: int = 10,
        attempts: int = 3,
        patience: int = 10,
        grace: timedelta = timedelta(seconds=30),
        clock: Clock | None = None,
    ) -> None:
        self.run = run
        self._pool = pool
        self._runs = runs
        self._registry = sites
        self._export = export
        self._attempts = attempts
        self._grace = grace.total_seconds()
        self._clock = clock or SystemClock()
        self._crew = Crew(pool, platform, run, sites, parse, self._clock)
        settings = pool.config.platforms[platform]
        limits = (instance_limit, pool.config.pool.max_sessions, settings.max_sessions or instance_limit)
        self._limit = min(limits)
        lease = (settings.lease_timeout or pool.config.pool.lease_timeout).total_seconds()
        self._stint = min(lease, pool.config.pool.leak_after.total_seconds()) / 3
        """Seconds after which a session is given back between two pages, so that no lease looks forgotten."""
        self._work = {name: SiteWork(sites.get(name), patience) for name in run.sites}
        self._hands: list[Hand] = []
        self._taking = 0
        self._tries = 0
        self._poor_until: Instant = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._takers: set[asyncio.Task[None]] = set()
        self._event = asyncio.Event()
        self._over = asyncio.Event()
        self._draining = False
        self._fatal: Exception | None = None
        self.stopped_by: TabkeeperError | None = None
        """Why it ended before its pages were done: a budget, or sessions that cannot be had."""
        self._pace = Pace(self._clock.monotonic())
        self._settled = Money(0)

    # ── from outside ───────────────────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """Begin no more visits; `work` returns when those that run are over, or their grace is."""
        self._draining = True
        self._event.set()

    @property
    def draining(self) -> bool:
        """Whether it was told to stop."""
        return self._draining

    @property
    def elsewhere(self) -> int:
        """Addresses found up to now that are of no site of the run."""
        return self._crew.elsewhere

    def progress(self) -> Progress:
        """Say how far it has come."""
        sites = {name: one.count() for name, one in self._work.items()}
        total = Count()
        for one in sites.values():
            total.done += one.done
            total.pending += one.pending
            total.failed += one.failed
            total.items += one.items
            total.retries += one.retries
            total.sessions += one.sessions
        mine = (one for one in self._pool.stats().open_sessions if one.tenant == self.run.tenant)
        running = sum(one.cost.nanos for one in mine)
        left = sum(one.left for one in self._work.values())
        return estimate(
            total,
            sites,
            pace=self._pace,
            now=self._clock.monotonic(),
            cost=Money(self._settled.nanos + running),
            left=left,
        )

    async def work(self, pages: Collection[RunPage]) -> bool:
        """Visit pages, and those found on them, until none is left that can be done; True if all are done.

        A run whose pages are all done is committed.

        Raises:
            RunLostError: another process works on the run.
            LedgerError: the database is away; the run can be resumed.
        """
        standing = await self._runs.standing(self.run)
        for count in standing.sites:
            self._work[count.site].begin(count)
        for page in pages:
            self._work[page.site].add(page)
        clerk = asyncio.create_task(self._keep_books(), name=f"books of run {self.run.id}")
        try:
            while not self._step():
                await self._wait(_LOOK_EVERY)
            await self._finish(self._grace)
        finally:
            await self._finish(0)
            # Not cancelled: what it has written must be noted, or it would be written again.
            self._over.set()
            await asyncio.wait([clerk])
        if self._fatal is not None:
            raise self._fatal
        await self._write_out()
        standing = await self._runs.standing(self.run)
        if standing.failed or standing.pending:
            return False
        await self._runs.commit(self.run)
        return True

    # ── one step ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self) -> bool:
        """Assign what can be assigned and take sessions for the rest; True if there is nothing left to wait for."""
        now = self._clock.monotonic()
        if self._draining or self._fatal is not None or self.stopped_by is not None:
            return True
        if not any(one.left for one in self._work.values()):
            return True
        self._assign(now)
        self._take(now)
        return False

    def _assign(self, now: Instant) -> None:
        free = {hand.lease.session_id: hand for hand in self._hands if not hand.busy}
        if not free:
            return
        blocked: dict[str, set[str]] = {}
        for block in self._registry.blocked():
            blocked.setdefault(block.site, set()).add(block.proxy)
        live = {name: one for name, one in self._work.items() if one.is_live(now)}
        targets = [target for one in live.values() for target in one.waiting(len(free))]
        site_of = {target.id: live[target.site] for target in targets}
        terms = {name: one.terms(blocked.get(name, ())) for name, one in live.items()}
        for pair in match(targets, [hand.free for hand in free.values()], terms):
            hand, site = free.pop(pair.session), site_of[pair.target]
            page = site.begin_visit(pair.target)
            hand.busy = True
            self._spawn(self._visit(hand, page, site), f"visit {page.url}")
        for hand in free.values():
            # Nothing here is for it; the pool knows whether it is worth keeping.
            if not hand.visits:
                self._work[hand.site].rest_until(now + _PAUSE)
            self._dismiss(hand)

    def _take(self, now: Instant) -> None:
        room = self._limit - len(self._hands) - self._taking
        wants = [one for one in self._work.values() if one.is_live(now)] if now >= self._poor_until else []
        while room > 0 and wants:
            # One session for each site in turn, so that none waits for the pages of another.
            wants = [one for one in wants if one.wants_session]
            for site in wants[:room]:
                room -= 1
                self._taking += 1
                site.taking += 1
                self._takers.add(self._spawn(self._take_one(site), f"take a session for {site.name}"))

    async def _take_one(self, site: SiteWork) -> None:
        try:
            hand = await self._crew.take(site.site, site.avoided)
        except NoProxyError as error:
            site.no_proxy(str(error), self._block_ends(site.name), self._clock.monotonic())
        except LedgerError as error:
            self._fatal = error
        except TabkeeperError as error:
            self._no_session(error)
        else:
            self._tries = 0
            site.has_session()
            self._hands.append(hand)
        finally:
            self._taking -= 1
            site.taking -= 1

    def _block_ends(self, site: str) -> Instant | None:
        """When the first of a site's blocks is over."""
        ends = [block.until for block in self._registry.blocked(site)]
        if not ends:
            return None
        return self._clock.monotonic() + (min(ends) - self._clock.now()).total_seconds()

    def _no_session(self, error: TabkeeperError) -> None:
        """Go on with the sessions there are; without any, try again a few times, as money or places may come free."""
        self._poor_until = self._clock.monotonic() + _PAUSE
        if self._hands or self._taking > 1:
            return
        self._tries += 1
        poor = isinstance(error, BudgetExceededError) and not self._pool.stats().sessions
        if poor or self._tries >= _TRIES:
            self.stopped_by = error

    async def _visit(self, hand: Hand, page: RunPage, site: SiteWork) -> None:
        began = self._clock.monotonic()
        why: str | None = None
        try:
            gain = await self._crew.visit(hand, page)
            await self._done(page, site, gain)
        except (LedgerError, RunLostError) as error:
            self._fatal = error
        except Exception as error:  # noqa: BLE001 - whatever a page or its visitor does, the others go on
            avoid, why = self._crew.judge(hand, page, error)
            await self._failed(page, site, error, avoid, began, rest=hand.lease.proxy is None and bool(avoid))
        finally:
            site.end_visit()
            hand.visits += 1
            hand.busy = False
        if why is not None or self._clock.monotonic() - hand.since > self._stint:
            self._dismiss(hand, why)

    async def _done(self, page: RunPage, site: SiteWork, gain: Gain) -> None:
        for new in await self._runs.update(self.run, page, gain):
            self._work[new.site].add(new)
        site.page_done(gain)
        self._pace.page_done(self._clock.monotonic())

    async def _failed(
        self,
        page: RunPage,
        site: SiteWork,
        error: Exception,
        avoid: frozenset[str],
        began: Instant,
        *,
        rest: bool,
    ) -> None:
        now = self._clock.monotonic()
        said = f"{type(error).__name__}: {error}"
        page.attempts += 1
        page.avoid |= avoid
        final = page.attempts >= self._attempts
        log.info("visit %d of %s failed: %s", page.attempts, page.url, said)
        try:
            await self._runs.fail(self.run, page, said, avoid=page.avoid, seconds=now - began, final=final)
        except (LedgerError, RunLostError) as lost:
            self._fatal = lost
        site.page_failed(page, said, now, final=final, rest=rest)

    def _dismiss(self, hand: Hand, why: str | None = None) -> None:
        hand.busy = True
        self._spawn(self._let_go(hand, why), "give a session back")

    async def _let_go(self, hand: Hand, why: str | None) -> None:
        try:
            await self._crew.let_go(hand, why)
        finally:
            self._hands.remove(hand)

    # ── around it ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _keep_books(self) -> None:
        """Write items out, learn what was settled and which proxies are blocked, now and then."""
        while not self._over.is_set():
            try:
                await self._write_out()
            except LedgerError as error:
                log.warning("items of run %s are written later: %s", self.run.id, error)
            except (RunLostError, OSError) as error:
                self._fatal = error
                self._event.set()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BOOKS_EVERY):
                    await self._over.wait()

    async def _write_out(self) -> None:
        if self._export is not None:
            await self._export.flush()
        self._settled = await self._runs.cost(self.run)
        await self._registry.sync(self._pool.database)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()

    async def _finish(self, grace: float) -> None:
        """Let visits end within `grace` seconds, and give all sessions back."""
        for task in self._takers:
            task.cancel()
        if self._tasks and grace > 0:
            await asyncio.wait(list(self._tasks), timeout=grace)
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        await asyncio.gather(*(self._crew.let_go(hand) for hand in self._hands), return_exceptions=True)
        self._hands.clear()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._takers.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)
            if isinstance(error, Exception):
                self._fatal = self._fatal or error
        self._event.set()
