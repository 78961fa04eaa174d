"""`SessionPool`: the shell that asks the plan what to do and carries it out. It decides nothing itself.

Everything that changes the pool's state is synchronous code between two awaits, so the pool needs no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from tabkeeper.alerts.channel import Channel, Hook, HookChannel, LogChannel, find_hooks
from tabkeeper.alerts.webhook import Webhook
from tabkeeper.clock import Clock, FleetClock, SystemClock
from tabkeeper.config import PoolConfig, load_config, parse_duration
from tabkeeper.errors import ConfigError, PoolClosedError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.money import Money
from tabkeeper.pool.asking import Ask
from tabkeeper.pool.explain import Explanation, explain_ended, explain_open
from tabkeeper.pool.fleet import is_shared
from tabkeeper.pool.lease import Lease, LeaseRequest
from tabkeeper.pool.metrics import Metrics
from tabkeeper.pool.parts import Parts
from tabkeeper.pool.reconciling import Reconciled
from tabkeeper.pool.shutdown import Shutdown, end_bounded, end_unopened
from tabkeeper.pool.stats import JobStats, PoolStats
from tabkeeper.pool.stocktaking import session_stats
from tabkeeper.pool.waiting import WaitingStats, waiting, waiting_at
from tabkeeper.pool.watch import PoolSample
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import Provider
from tabkeeper.proxies.pool import ProxyPool
from tabkeeper.proxies.sticky import StickyProxies
from tabkeeper.proxies.store import OwnDatabase
from tabkeeper.reports.books import Books
from tabkeeper.reports.standing import Standing
from tabkeeper.vault import Vault

log = logging.getLogger(__name__)

_PACKAGE = str(Path(__file__).parents[1])
_NO_TAGS: Mapping[str, str] = {}


class SessionPool:
    """A pool of browser sessions with limits, priorities and budgets.

    >>> async with SessionPool.from_file("tabkeeper.toml") as pool:             # doctest: +SKIP
    ...     async with pool.get_session("web") as session:
    ...         page = await session.new_page()
    ...         await page.goto("https://example.com")

    Args:
        config: limits, providers, platforms, budgets.
        providers: adapters by name, instead of those the configuration describes (for tests and simulations).
        clock: where time comes from.
        rng: chance for ids and for the jitter of retries; give a seeded one to repeat a simulation.
        inline_ledger: write to the database on the event loop's own thread (for simulations).
        jobs: whether the timetable of jobs runs; by default only on the system's clock.
    """

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider] | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        inline_ledger: bool = False,
        jobs: bool | None = None,
    ) -> None:
        if not isinstance(config, PoolConfig):
            raise TypeError(
                f"SessionPool takes a PoolConfig, not {type(config).__name__}; for a file use "
                "SessionPool.from_file('tabkeeper.toml')"
            )
        self.config = config
        self._given_providers = providers
        self._shared = is_shared(config, clock, inline=inline_ledger)
        self._clock: Clock = FleetClock() if self._shared else clock or SystemClock()
        self._rng = rng or Random()  # noqa: S311 - ids and jitter, no secrets
        self._inline_ledger = inline_ledger
        self._keeps_jobs = isinstance(self._clock, SystemClock) if jobs is None else jobs
        self._providers: dict[str, Provider] = {}
        self._hooks: list[Hook] = []
        self.metrics = Metrics(self.stats)
        """The pool's figures as Prometheus text, and as plain data."""
        self._standing = Standing()
        self._opened = False
        self._ready = False
        self._closing: asyncio.Task[None] | None = None
        self._saving_proxies: asyncio.Task[None] | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> SessionPool:
        """Make a pool from a ``tabkeeper.toml``; nothing starts before ``async with`` or `open`.

        Raises:
            ConfigError: the file has a mistake.
        """
        return cls(load_config(path))

    @property
    def ledger(self) -> Books:
        """The books: `daily_cost()`, `monthly_cost()`, `report()`, `verify()`."""
        self._check_opened()
        return self._parts.books

    @property
    def database(self) -> OwnDatabase:
        """The ledger's database, for what keeps tables of its own there, such as `SiteRegistry.sync`."""
        self._check_opened()
        return self._ledger

    @property
    def proxies(self) -> ProxyPool:
        """The proxies: which there are, how they do; `report` tells how one did."""
        self._check_opened()
        return self._parts.proxied.pool

    @property
    def sticky(self) -> StickyProxies:
        """Which session key has which proxy; shared with `get_session(sticky=...)`."""
        self._check_opened()
        return self._parts.proxied.sticky

    @property
    def is_open(self) -> bool:
        """Whether it gives leases: it was opened, and does not drain or close."""
        return self._ready and self._closing is None and not self._board.draining

    # ── opening and closing ────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> Self:
        """Open the ledger, clean up after earlier runs that died, and make ready to lease.

        Raises:
            ConfigError, LedgerError: it cannot start; nothing is left running.
        """
        if self._opened:
            raise PoolClosedError("this pool was opened before; make a new one")
        self._opened = True
        since, channels = self._clock.now(), self._channels()
        bound = self.config.pool.close_timeout.total_seconds()
        vault = Vault([key.get_secret_value() for key in self.config.security.keys])
        self._ledger = await Ledger.open(
            self.config,
            clock=self._clock,
            inline=self._inline_ledger,
            installation=f"{self._rng.getrandbits(32):08x}",
        )
        try:
            self._providers = dict(
                self._given_providers
                or {name: make_provider(name, settings) for name, settings in self.config.providers.items()}
            )
            self._parts = parts = Parts(
                self.config,
                ledger=self._ledger,
                providers=self._providers,
                clock=self._clock,
                rng=self._rng,
                vault=vault,
                channels=channels,
                shared=self._shared,
                since=since,
            )
            self._view, self._board, self._sessions = parts.view, parts.board, parts.sessions
            self._leases, self._jobs = parts.leases, parts.jobs
            self._shutdown = Shutdown(
                parts, providers=self._providers, ledger=self._ledger, clock=self._clock, bound=bound
            )
            await parts.start()
            await self._sweep_first(bound)
            if self._keeps_jobs:
                self._jobs.start()
            self._ready = True
            await self._jobs.run("heartbeat")
        except BaseException:
            self._ready = False
            await end_unopened(getattr(self, "_parts", None), self._providers, self._ledger, bound=bound)
            raise
        return self

    async def _sweep_first(self, bound: float) -> None:
        """Take up what dead processes left; a provider that does not answer soon is no reason not to start."""
        sweeper = self._parts.sweeper
        try:
            await sweeper.take_over()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(bound):
                    await sweeper.all_tried()
        except BaseException:
            await end_bounded("the sweeper", sweeper.aclose(), bound)
            raise

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def drain(self, grace: timedelta | float | None = None) -> None:
        """Give no more leases, refuse who waits, and return when running leases ended or `grace` is up."""
        self._check_open()
        seconds = parse_duration(self.config.pool.shutdown_grace if grace is None else grace).total_seconds()
        await self._shutdown.drain(seconds)

    async def close(self, grace: timedelta | float | None = None) -> None:
        """End everything: waiters are told, leases get `grace` (default ``pool.shutdown_grace``), sessions close.

        Bounded by the grace time plus four times ``pool.close_timeout``, and once more for each provider. What no
        provider has confirmed by then stays in the ledger, and the next start takes it up. Safe to call twice and
        to cancel: it runs to its end.
        """
        seconds = parse_duration(self.config.pool.shutdown_grace if grace is None else grace).total_seconds()
        if not self._ready:
            return
        if self._closing is None:
            self._closing = asyncio.create_task(self._shutdown.close(seconds), name="tabkeeper close")
        await asyncio.shield(self._closing)

    def _check_opened(self) -> None:
        if not self._ready:
            raise PoolClosedError("open the pool first: 'async with SessionPool(...) as pool:'")

    def _check_open(self) -> None:
        self._check_opened()
        if not self.is_open:
            raise PoolClosedError("the pool is shutting down and gives no more leases")

    # ── leasing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def get_session(
        self,
        platform: str,
        *,
        priority: int = 0,
        timeout: float | timedelta | None = None,
        tenant: str = "default",
        tags: Mapping[str, str] | None = None,
        max_duration: float | timedelta | None = None,
        max_cost: Money | str | None = None,
        profile: str | None = None,
        identity: str | None = None,
        session_id: str | None = None,
        sticky: str | None = None,
        failed_proxies: Collection[str] = (),
        place: str | None = None,
    ) -> LeaseRequest[Lease]:
        """Lease a session: reused if one is idle, else created, else waited for.

        Use ``async with pool.get_session(...) as lease:`` or ``lease = await pool.get_session(...)``.

        Args:
            platform: a name under ``[platforms]``.
            priority: higher is served first; waiting adds one step per ``pool.aging``.
            timeout: longest wait in seconds; default ``queue_timeout`` of the platform or the pool.
            tenant: who is charged.
            tags: kept with the lease in the usage log.
            max_duration: the lease is reclaimed after this many seconds; at most ``lease_timeout``.
            max_cost: the lease is reclaimed before its time and fees cost more, e.g. ``"0.05"`` dollars. Traffic is
                bounded by ``max_gb`` of the price list, for the session as a whole.
            profile: a site's domain: the lease's context begins with what the tenant's last successful lease for it
                saved (cookies, storage, user agent, viewport), and is saved when it succeeds. Needs
                ``security.keys``.
            identity: whose account is logged in, as any text; only a keyed hash of it is kept. One session lives for it
                at a time, which keeps its cookies from lease to lease; how leases share it is
                ``platforms.NAME.identity``.
            session_id: of an earlier lease: its session is preferred, and surely found if it is an identity's and
                lives. `Lease.is_new` says if it was not found.

            sticky: a session key: leases of the same key go through the same proxy, until its time is up or it fails.
                The platform must have proxies.
            failed_proxies: ids of proxies that it must not go through, such as those that a site blocks.
            place: who asks, as it is told of waiting requests and of leaks; the calling line of code if unset.

        Raises (when awaited):
            QueueTimeoutError, QueueFullError, PoolClosedError: nothing was leased.
            BudgetExceededError: a budget or cap does not allow it.
            SessionCreationError: the providers failed.
            LedgerUnavailableError: the database does not take the hold, so nothing was bought.
            NoProxyError: no proxy that fits can be used now.
            MissingKeyError: the platform's proxies are sticky, and there is no key, or it is empty.
            ConfigError: a profile was asked for, and there is no key; or a proxy, and the platform has none.
        """
        ask = Ask(
            platform=platform,
            priority=priority,
            timeout=timeout,
            tenant=tenant,
            tags=tags or _NO_TAGS,
            max_duration=max_duration,
            max_cost=Money.parse(max_cost) if isinstance(max_cost, str) else max_cost,
            place=place or _caller(),
            profile=profile,
            identity=identity,
            session_id=session_id,
            sticky=sticky,
            failed_proxies=failed_proxies,
        )
        return LeaseRequest(lambda: self._acquire(ask))

    async def _acquire(self, ask: Ask) -> Lease:
        self._check_open()
        return await self._leases.acquire(ask)

    # ── by id, and figures ─────────────────────────────────────────────────────────────────────────────────────────

    async def release_session(
        self, session_id: str, *, success: bool = True, reason: str | None = None
    ) -> bool:
        """End the lease that runs on a session; False if there is none. For callers that keep only ids.

        `success` and `reason` are those of `Lease.release`.
        """
        if success and reason is not None:
            raise ValueError(f"reason {reason!r} needs success=False: a success has none")
        running = self._sessions.running.get(session_id)
        if running is None or running.holding is None or running.holding.over:
            return False
        await self._leases.release(running.holding, success=success, error=reason)
        return True

    async def close_session(self, session_id: str, *, reason: str = "closed by request") -> bool:
        """Close a session, ending a lease on it with `LeaseLostError`; False if it is not open. Waits for its end."""
        running = self._sessions.running.get(session_id)
        if running is None or not self._board.end(running.session, reason):
            return False
        while session_id in self._sessions.running and self._sessions.tasks:
            await asyncio.wait(list(self._sessions.tasks), return_when=asyncio.FIRST_COMPLETED)
        return True

    async def explain(self, session_id: str) -> Explanation:
        """Say why a session is kept until when, or why and when it was closed; `str()` of it is for people.

        Raises:
            ConfigError: the ledger knows no session of this id.
            LedgerUnavailableError: the session does not run in this pool, and the database is away.
        """
        self._check_opened()
        running = self._sessions.running.get(session_id)
        if running is not None:
            return explain_open(session_stats(running, self._clock), self._clock.now())
        found = await self._ledger.records.history(session_id)
        if found is None:
            raise ConfigError(f"the ledger knows no session {session_id!r}")
        return explain_ended(found)

    async def reconcile(
        self, *, provider: str | None = None, since: datetime | None = None, dry_run: bool = False
    ) -> Reconciled:
        """Ask providers now what they billed for sessions that are over, and book the difference.

        The same happens every ``ledger.reconcile_every``, a little after sessions end.

        Args:
            provider: only this one.
            since: sessions that ended then or later; two days ago if unset.
            dry_run: only look; nothing is written.

        Raises:
            ConfigError: there is no such provider.
            LedgerUnavailableError: the database is away.
        """
        self._check_opened()
        return await self._parts.reconciler.reconcile(provider=provider, since=since, dry_run=dry_run)

    def stats(self) -> PoolStats:
        """Count sessions, requests and leases of this moment."""
        self._check_opened()
        return self._parts.stats()

    def waiting(self) -> list[WaitingStats]:
        """Tell who waits for a session, at which place, and what stands in the way; longest wait first."""
        self._check_opened()
        return waiting(self._view, self._leases.place_of, self._clock.monotonic())

    def waiting_at(self, place: str) -> WaitingStats | None:
        """Tell of the one request that waits under this `place`, far faster than `waiting`; None if none does."""
        self._check_opened()
        return waiting_at(self._view, self._leases.place_of, place, self._clock.monotonic())

    async def run_job(self, name: str) -> JobStats:
        """Run one of the jobs in `stats().jobs` now, unless it runs already; what it raises is in its result.

        Raises:
            KeyError: there is no such job.
        """
        self._check_opened()
        return await self._jobs.run(name)

    def samples(self) -> list[PoolSample]:
        """Return the pool's figures minute by minute, of the last hour, oldest first."""
        self._check_opened()
        return list(self._parts.watch.samples)

    def on_alert(self, hook: Hook) -> Hook:
        """Call `hook` with every `Alert` from now on; also usable as a decorator.

        A coroutine function runs on the event loop, any other function in a thread. What it raises is logged and it
        is called again later, so it may see an alert twice (by the same `Alert.key`), but none is lost. Several
        processes that register the same function share it: one of them is told.
        """
        self._hooks.append(hook)
        if self._ready:
            self._parts.dispatcher.add_hook(hook)
        return hook

    def _channels(self) -> list[Channel]:
        """Return where alerts go.

        Raises:
            ConfigError: a hook cannot be loaded.
        """
        settings = self.config.alerts
        hooks = [HookChannel(hook) for hook in self._hooks]
        webhooks = [Webhook(one, clock=self._clock) for one in settings.webhooks]
        return [*([LogChannel()] if settings.log else []), *find_hooks(settings.hooks), *hooks, *webhooks]


def _caller() -> str:
    """file:line of the nearest caller outside this package, for the report of a leaked lease."""
    frame = sys._getframe(1)  # noqa: SLF001 - the only way that costs a microsecond
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
