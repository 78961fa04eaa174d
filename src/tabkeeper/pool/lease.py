"""What the caller holds: the right to use one session for a while, its pages, and the way to give it back.

A lease is a thin hand on a `Holding`, the pool's own record of it; ending a lease twice or late does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from playwright.async_api import Browser, BrowserContext, Page

from tabkeeper.clock import Instant
from tabkeeper.errors import LeaseLostError, SessionInUseError, SessionTimeoutError
from tabkeeper.money import Money
from tabkeeper.pool.browser import SessionBrowser, is_browser_error, trouble
from tabkeeper.pool.health import Trouble
from tabkeeper.pool.holding import Holding
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.passage import Passage
from tabkeeper.pool.reach import Reach
from tabkeeper.proxies.model import Proxy

T = TypeVar("T")

UNDER_ITS_HOLDER = frozenset({"lost", "reclaimed", "evicted"})
"""How a lease ends that its holder did not release."""


class Host(Protocol):
    """What a lease needs from its pool."""

    reach: Reach
    """The ways from a lease to its browser."""

    async def profile_options(self, holding: Holding) -> dict[str, Any]:
        """What restores the lease's profile in a new context."""

    async def release(self, holding: Holding, *, success: bool, error: str | None = None) -> None:
        """Give the session back."""

    def hurt(self, holding: Holding, kind: Trouble, error: BaseException) -> None:
        """An operation failed on the session."""

    def cost_of(self, holding: Holding) -> Money:
        """What the lease has cost so far."""

    def wall(self, at: Instant) -> datetime:
        """An instant as a date."""


class Lease:
    """The right to use a session until `release`, the end of the ``async with`` block, or `deadline`."""

    __slots__ = ("_holding", "_host", "is_new")

    def __init__(self, host: Host, holding: Holding) -> None:
        self._host = host
        self._holding = holding
        self.is_new: bool = holding.is_new
        """True if the session was created for this lease, or is not the one that `session_id` named."""

    def __repr__(self) -> str:
        state = self._holding.over or "running"
        return f"<Lease {self.id} on {self.session_id} ({self.platform} at {self.provider}, {state})>"

    @property
    def id(self) -> str:
        """The lease's id in the usage log."""
        return self._holding.id

    @property
    def session_id(self) -> str:
        """Our id of the session."""
        return self._holding.session.id

    @property
    def token(self) -> tuple[str, int]:
        """(session id, number of its use): what tells this lease from all others on the session."""
        return (self._holding.session.id, self._holding.use)

    @property
    def platform(self) -> str:
        """What kind of work it was leased for."""
        return self._holding.session.lane.platform

    @property
    def provider(self) -> str:
        """Who runs the browser."""
        return self._holding.session.provider

    @property
    def tenant(self) -> str:
        """Who is charged for the lease's share."""
        return self._holding.tenant

    @property
    def connect_url(self) -> str:
        """Where a CDP client of your own connects. It may contain a key: do not log it.

        A session whose address was asked for is closed after the lease instead of being reused: nobody can know
        what another client left in it.

        Raises:
            LeaseLostError: the lease is over.
            SessionInUseError: other sessions share the browser, so you would see what is theirs.
        """
        self._check()
        self._check_own(self._host.reach.browser_of(self._holding))
        return self._host.reach.connect_url_of(self._holding)

    def passage(self) -> Passage:
        """Return the way to the browser for a relay that watches what its client does, such as the CDP gateway.

        Raises:
            LeaseLostError: the lease is over.
            SessionInUseError: other sessions share the browser, so its client would see what is theirs.
        """
        self._check()
        self._check_own(self._host.reach.browser_of(self._holding))
        return self._host.reach.passage_of(self._holding)

    async def live_view(self) -> str:
        """Ask the provider for an address at which a person can watch the session, and often use it.

        Who has it needs no key, and it works as long as the session lives: do not log it. A session whose address
        was asked for is closed after the lease instead of being reused, so that nobody watches the next one.

        Raises:
            LeaseLostError: the lease is over.
            ProviderRequestError: the provider has no live view.
            ProviderError: it could not be asked.
        """
        self._check()
        return await self._host.reach.live_view_of(self._holding)

    @property
    def outcome(self) -> str:
        """How it ended: ok, failed, reclaimed (its time was up) or lost; empty while it runs."""
        return self._holding.over

    @property
    def ending(self) -> str:
        """Why it ended, in a few words; empty while it runs."""
        return self._ending() if self._holding.over else ""

    def on_end(self, watcher: Callable[[], object]) -> None:
        """Call `watcher` once when the lease is over, whoever ended it; at once if it is. It must not raise."""
        if self._holding.over:
            watcher()
        else:
            self._holding.watchers.append(watcher)

    @property
    def granted_at(self) -> datetime:
        """When the lease began (UTC)."""
        return self._host.wall(self._holding.granted_at)

    @property
    def deadline(self) -> datetime:
        """When the lease is reclaimed if it is not released (UTC)."""
        holding = self._holding
        ends = holding.session.lease_ends if not holding.over else holding.granted_at
        return self._host.wall(ends)

    @property
    def waited(self) -> timedelta:
        """How long the request was in the queue."""
        return timedelta(seconds=self._holding.granted_at - self._holding.requested_at)

    @property
    def cost(self) -> Money:
        """What this lease has cost, so far or in the end, by the provider's price list.

        The ledger's figure may still differ in the end: when an allowance of the plan covers part of the session.
        """
        return self._host.cost_of(self._holding)

    @property
    def hourly_rate(self) -> Money:
        """What an hour of the session costs by its price list, fees and traffic aside."""
        return Money(round(Meter(self._holding.card).rate * 3600))

    @property
    def bytes_received(self) -> int:
        """What the session has received during this lease; as far as it was counted if the session is closed."""
        return self._host.reach.bytes_of(self._holding)

    @property
    def proxy(self) -> Proxy | None:
        """The proxy that the session goes through, the same for its whole life; None if there is none."""
        return self._holding.proxy

    def _check(self) -> None:
        if self._holding.over:
            raise LeaseLostError(self.session_id, self.platform, self._ending())

    def _check_own(self, session: SessionBrowser) -> None:
        if session.shared:
            raise SessionInUseError(
                f"session {self.session_id} shares its browser with others, so it is not handed out whole: use "
                f'context() or new_page(), or set isolation = "process" for provider {self.provider!r}'
            )

    def _ending(self) -> str:
        if self._holding.over in {"ok", "failed"}:
            return "it was released"
        return self._holding.error or self._holding.over

    async def browser(self) -> Browser:
        """Connect over CDP (once per session) and return the Playwright browser.

        Contexts opened from it are closed when the lease ends. The browser's own first context is not yours:
        a page opened there makes the session be closed instead of reused.

        Raises:
            LeaseLostError: the lease is over.
            SessionInUseError: other sessions share the browser, so you would see what is theirs.
        """
        self._check()
        session = self._host.reach.browser_of(self._holding)
        self._check_own(session)
        try:
            return await session.browser()
        except Exception as error:
            self._raise_if_lost(error)
            raise

    async def context(self, **options: Any) -> BrowserContext:
        """Return the lease's context: clean when the lease begins, closed when it ends.

        Leases of one identity have the same context one after the other, and only their pages are closed.

        With a profile it begins with what was saved, and is saved when the lease is released as a success.

        Args:
            **options: for Playwright's `Browser.new_context`, at the first call only.

        Raises:
            LeaseLostError: the lease is over.
            SealedError, LedgerUnavailableError: its profile cannot be read.
            ValueError: options were given after the context was opened.
        """
        self._check()
        holding = self._holding
        async with holding.opening:
            if holding.context is not None:
                if options:
                    raise ValueError(
                        "the lease's context is open already; pass its options at the first call"
                    )
                return holding.context
            async with self._while_held():
                holding.context = await self._open(options)
            return holding.context

    async def _open(self, options: dict[str, Any]) -> BrowserContext:
        holding = self._holding
        browser = self._host.reach.browser_of(holding)
        stays = holding.session.lane.identity is not None
        if stays and options and browser.has_home:
            raise ValueError(
                "the identity's context is open already, from an earlier lease; pass options when is_new is true"
            )
        options = await self._host.profile_options(holding) | options
        return await (browser.home if stays else browser.new_context)(holding.block, options)

    async def new_page(self) -> Page:
        """Open a page in the lease's context.

        Raises:
            LeaseLostError: the lease is over, or the browser died.
        """
        async with self._while_held():
            context = await self.context()
            page = await self._host.reach.browser_of(self._holding).new_page(context)
        self._holding.pages.append(page)
        return page

    @asynccontextmanager
    async def _while_held(self) -> AsyncIterator[None]:
        """Give up when the lease is lost: Playwright may never answer what a browser was asked as it died."""
        holding = self._holding
        scope = asyncio.timeout(None)
        holding.scopes.add(scope)
        try:
            async with scope:
                yield
        except Exception as error:
            self._raise_if_lost(error)
            raise
        finally:
            holding.scopes.discard(scope)

    async def use(self, operation: Callable[[Lease], Awaitable[T]], *, timeout: float | None = None) -> T:
        """Run `operation(lease)` within the platform's `use_timeout` (or `timeout` seconds).

        An error lowers the session's health: a timeout by 0.2, a network error by 0.1, any other by 0.3; a
        session below 0.5 must recover in a check before anybody gets it.

        Raises:
            SessionTimeoutError: it took too long; the operation was cancelled.
            LeaseLostError: the session ended meanwhile; the operation was cancelled.
            Exception: whatever `operation` raised.
        """
        self._check()
        holding = self._holding
        seconds = holding.use_timeout if timeout is None else timeout
        scope = asyncio.timeout(seconds)
        holding.scopes.add(scope)
        try:
            async with scope:
                return await operation(self)
        except TimeoutError as error:
            self._raise_if_lost(error)
            self._host.hurt(holding, "timeout", error)
            if not scope.expired():
                raise
            raise SessionTimeoutError(
                f"an operation on session {self.session_id} (platform {self.platform!r} at {self.provider!r}) took "
                f"longer than {seconds:g} s; raise platforms.{self.platform}.use_timeout, or make it faster"
            ) from error
        except Exception as error:
            self._raise_if_lost(error)
            self._host.hurt(holding, trouble(error), error)
            raise
        finally:
            holding.scopes.discard(scope)

    def _raise_if_lost(self, error: BaseException) -> None:
        if self._holding.over in UNDER_ITS_HOLDER:
            raise LeaseLostError(self.session_id, self.platform, self._ending()) from error

    async def release(self, *, success: bool = True, reason: str | None = None) -> None:
        """Give the session back. Safe to repeat, and harmless when the lease is over already.

        Args:
            success: whether the work succeeded; counted in the reports, and by ``routing = "escalate"``.
            reason: why it did not, kept in the usage log; with ``"blocked"`` the session is closed, not reused.

        Raises:
            ValueError: a reason for a success.
        """
        if success and reason is not None:
            raise ValueError(f"reason {reason!r} needs success=False: a success has none")
        await self._host.release(self._holding, success=success, error=reason)

    async def end_of_block(self, error: BaseException | None) -> None:
        """Release at the end of an ``async with`` block, as a failure if `error` ended it.

        Raises:
            LeaseLostError: the block failed because the browser had ended under it.
        """
        was_over = self._holding.over
        note = None if error is None else f"{type(error).__name__}: {error}"[:500]
        await self._host.release(self._holding, success=error is None, error=note)
        if was_over in UNDER_ITS_HOLDER and is_browser_error(error):
            raise LeaseLostError(self.session_id, self.platform, self._ending()) from error


class EndsWithBlock(Protocol):
    """A lease, of this process's pool or of another's."""

    async def end_of_block(self, error: BaseException | None) -> None:
        """Release it at the end of an ``async with`` block."""
        ...


L = TypeVar("L", bound=EndsWithBlock)


class LeaseRequest(Generic[L]):
    """What `get_session` returns: await it for a `Lease`, or enter it and have the lease released at the end."""

    __slots__ = ("_acquire", "_lease")

    def __init__(self, acquire: Callable[[], Awaitable[L]]) -> None:
        self._acquire = acquire
        self._lease: L | None = None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"this is a request for a session, not a lease yet, so it has no {name!r}: use "
            "'async with pool.get_session(...) as session:' or 'session = await pool.get_session(...)'"
        )

    def __await__(self) -> Generator[Any, None, L]:
        return self._acquire().__await__()

    async def __aenter__(self) -> L:
        self._lease = await self._acquire()
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None
        assert lease is not None
        await lease.end_of_block(error)
