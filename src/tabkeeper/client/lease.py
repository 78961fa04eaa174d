"""A lease of a remote pool: kept alive by heartbeats, and lost when the service says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from playwright.async_api import Browser, BrowserContext, Page

from tabkeeper.client.problems import UnknownLeaseError
from tabkeeper.errors import (
    ConfigError,
    LeaseLostError,
    SessionTimeoutError,
    TabkeeperError,
)
from tabkeeper.money import Money
from tabkeeper.pool.browser import is_browser_error
from tabkeeper.pool.lease import UNDER_ITS_HOLDER

log = logging.getLogger(__name__)

T = TypeVar("T")


class Service(Protocol):
    """What a lease needs from its pool."""

    def forget(self, lease: RemoteLease) -> None:
        """Note that a lease is over."""

    async def call(
        self, method: str, path: str, body: object = None, *, platform: str = "", allow: int = 0
    ) -> Any:
        """Call the service, and return what it answers as plain data."""

    async def connect(self, address: str) -> Browser:
        """Connect to a browser over CDP."""


class RemoteLease:
    """The right to use a session until `release`, the end of the ``async with`` block, or `deadline`.

    Args:
        pool: whose it is.
        told: what the service answered.
        at_home: its context is the browser's first one, in which the service restored a profile.
    """

    def __init__(self, pool: Service, told: Mapping[str, Any], *, at_home: bool = False) -> None:
        self._pool = pool
        self._at_home = at_home
        self._told = dict(told)
        self._browser: Browser | None = None
        self._context: BrowserContext | None = None
        self._opening = asyncio.Lock()
        self._scopes: set[asyncio.Timeout] = set()
        self._released = False
        self._watchers: list[Callable[[], object]] = []
        self._ttl = float(self._told["expires_in_seconds"] or 60.0)
        self._beating = asyncio.create_task(self._beat(), name=f"tabkeeper heartbeat {self.id}")

    def __repr__(self) -> str:
        return f"<RemoteLease {self.id} on {self.session_id} ({self.platform}, {self.outcome or 'running'})>"

    @property
    def id(self) -> str:
        """The lease's id at the service."""
        return str(self._told["id"])

    @property
    def session_id(self) -> str:
        """The pool's id of the session."""
        return str(self._told["session_id"])

    @property
    def platform(self) -> str:
        """What kind of work it was leased for."""
        return str(self._told["platform"])

    @property
    def provider(self) -> str:
        """Who runs the browser."""
        return str(self._told["provider"])

    @property
    def tenant(self) -> str:
        """Who is charged."""
        return str(self._told["tenant"])

    @property
    def is_new(self) -> bool:
        """Whether the session was created for this lease, or is not the one that `session_id` named."""
        return bool(self._told["is_new"])

    @property
    def granted_at(self) -> datetime:
        """When the lease began (UTC)."""
        return datetime.fromisoformat(self._told["granted_at"])

    @property
    def deadline(self) -> datetime:
        """When it is taken back if it is not released (UTC)."""
        return datetime.fromisoformat(self._told["deadline"])

    @property
    def waited(self) -> timedelta:
        """How long the request was in the queue."""
        return timedelta(seconds=self._told["waited_seconds"])

    @property
    def cost(self) -> Money:
        """What it has cost, as of the last heartbeat, or in the end."""
        return Money.parse(self._told["cost"])

    @property
    def outcome(self) -> str:
        """How it ended: ok, failed, reclaimed or lost; empty while it runs."""
        return str(self._told["outcome"] or "") if self._is_over else ""

    @property
    def ending(self) -> str:
        """Why it ended, in a few words; empty while it runs."""
        return str(self._told["message"]) if self._is_over else ""

    def on_end(self, watcher: Callable[[], object]) -> None:
        """Call `watcher` once when the lease is known to be over, whoever ended it; at once if it is."""
        if self._is_over:
            watcher()
        else:
            self._watchers.append(watcher)

    @property
    def hourly_rate(self) -> Money:
        """What an hour of the session costs by its price list, fees and traffic aside."""
        return Money.parse(self._told["hourly_rate"])

    @property
    def bytes_received(self) -> int:
        """What the session has received during this lease, as of the last heartbeat, or in the end."""
        return int(self._told["bytes_received"])

    @property
    def connect_url(self) -> str:
        """Where a CDP client of your own connects. Who has it holds the lease: do not log it.

        Raises:
            LeaseLostError: the lease is over.
        """
        self._check()
        return str(self._told["connect_url"] or self._told["cdp_url"])

    async def browser(self) -> Browser:
        """Connect over CDP (once) and return the Playwright browser.

        Raises:
            LeaseLostError: the lease is over.
        """
        async with self._opening:
            if self._browser is None:
                address = self.connect_url
                async with self._while_held():
                    self._browser = await self._pool.connect(address)
            return self._browser

    async def context(self, **options: Any) -> BrowserContext:
        """Return the lease's context: clean when the lease begins, or as its profile was saved.

        Args:
            **options: for Playwright's `Browser.new_context`, at the first call only; not with a profile.

        Raises:
            LeaseLostError: the lease is over.
            ValueError: options were given after the context was opened, or with a profile.
        """
        if self._at_home and options:
            raise ValueError(
                "with a profile a remote lease's context is the browser's first one, which takes no options"
            )
        browser = await self.browser()
        async with self._opening, self._while_held():
            if self._context is None:
                self._context = browser.contexts[0] if self._at_home else await browser.new_context(**options)
            elif options:
                raise ValueError("the lease's context is open already; pass its options at the first call")
            return self._context

    async def new_page(self) -> Page:
        """Open a page in the lease's context.

        Raises:
            LeaseLostError: the lease is over.
        """
        context = await self.context()
        async with self._while_held():
            return await context.new_page()

    async def use(self, operation: Callable[[RemoteLease], Awaitable[T]], *, timeout: float = 60) -> T:
        """Run `operation(lease)` within `timeout` seconds; it is cancelled when the lease is lost.

        Raises:
            SessionTimeoutError: it took too long.
            LeaseLostError: the lease ended meanwhile.
        """
        self._check()
        scope = asyncio.timeout(timeout)
        self._scopes.add(scope)
        try:
            async with scope:
                return await operation(self)
        except Exception as error:
            self._raise_if_lost(error)
            if isinstance(error, TimeoutError) and scope.expired():
                raise SessionTimeoutError(
                    f"an operation on session {self.session_id} (platform {self.platform!r}) took longer than "
                    f"{timeout:g} s"
                ) from error
            raise
        finally:
            self._scopes.discard(scope)

    async def release(self, *, success: bool = True, reason: str | None = None) -> None:
        """Give the session back. Safe to repeat, and harmless when the lease is over already.

        Raises:
            ValueError: a reason for a success.
            PoolError: the service cannot be reached; it takes the lease back by itself then.
        """
        if success and reason is not None:
            raise ValueError(f"reason {reason!r} needs success=False: a success has none")
        if self._released:
            return
        self._released = True
        self._beating.cancel()
        await asyncio.wait([self._beating])
        self._pool.forget(self)
        body = {"success": success} if reason is None else {"success": success, "reason": reason}
        try:
            # Before the browser is let go: to the gateway that would be the lease's end, and nothing of its success.
            self._told |= await self._pool.call("DELETE", f"/leases/{self.id}", body)
        except UnknownLeaseError as error:
            self._lose(str(error))
        finally:
            self._tell_watchers()
            if self._browser is not None:
                with contextlib.suppress(Exception):  # it may be gone, and is not ours to mend
                    await self._browser.close()

    async def end_of_block(self, error: BaseException | None) -> None:
        """Release at the end of an ``async with`` block, as a failure if `error` ended it.

        Raises:
            LeaseLostError: the block failed because the browser had ended under it.
        """
        lost = self._is_over
        note = None if error is None else f"{type(error).__name__}: {error}".splitlines()[0][:300]
        try:
            await self.release(success=error is None, reason=note)
        except TabkeeperError as unreleased:
            if error is None and not lost:
                raise
            # What ended the block matters more, and the service takes the lease back by itself.
            log.warning("lease %s could not be given back: %s", self.id, unreleased)
        # Only now: the service may have known since the last heartbeat.
        if self.outcome in UNDER_ITS_HOLDER and is_browser_error(error):
            raise LeaseLostError(self.session_id, self.platform, self.ending) from error

    @property
    def _is_over(self) -> bool:
        return str(self._told["status"]) != "active"

    def _check(self) -> None:
        if self._is_over or self._released:
            raise LeaseLostError(
                self.session_id, self.platform, self.ending if self._is_over else "it was released"
            )

    def _raise_if_lost(self, error: BaseException) -> None:
        if self._is_over and not self._released:
            raise LeaseLostError(self.session_id, self.platform, self.ending) from error

    @contextlib.asynccontextmanager
    async def _while_held(self) -> Any:
        """Give up when the lease is lost: Playwright may never answer what a browser was asked as it died."""
        self._check()
        scope = asyncio.timeout(None)
        self._scopes.add(scope)
        try:
            async with scope:
                yield
        except Exception as error:
            self._raise_if_lost(error)
            raise
        finally:
            self._scopes.discard(scope)

    async def _beat(self) -> None:
        """Tell the service that the holder lives, and notice when the lease is over."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while not self._is_over:
            await asyncio.sleep(max(0.05, self._ttl / 3))
            try:
                self._told |= await self._pool.call("GET", f"/leases/{self.id}")
                heard = loop.time()
            except (UnknownLeaseError, ConfigError) as error:  # a token that was revoked lost its leases, too
                self._lose(str(error))
            except TabkeeperError as error:  # it may come back
                silent = loop.time() - heard
                if silent > self._ttl and not self._is_connected:
                    self._lose(
                        f"nothing was heard of the service for {silent:.0f} s, so it took it back: {error}"
                    )
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(loop.time())
        self._tell_watchers()

    @property
    def _is_connected(self) -> bool:
        return self._browser is not None and self._browser.is_connected()

    def _lose(self, why: str) -> None:
        """Note that the lease is over though the service did not tell how it ended."""
        self._told |= {"status": "ended", "outcome": "lost", "message": why}

    def _tell_watchers(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()
