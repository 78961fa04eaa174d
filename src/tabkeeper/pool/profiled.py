"""What a lease restores from a profile when its context opens, and saves into it when it succeeded.

A failure here costs the profile, never the session and never the lease's release.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from playwright.async_api import Error as PlaywrightError

from tabkeeper.clock import Clock
from tabkeeper.errors import LeaseLostError, ProviderRequestError, SessionInUseError, TabkeeperError
from tabkeeper.pool.browser import SessionBrowser
from tabkeeper.pool.holding import Holding
from tabkeeper.pool.moving import browser_state, can_move_in, move_in, move_out
from tabkeeper.profiles.state import BrowserState
from tabkeeper.profiles.store import ProfileStore

log = logging.getLogger(__name__)

_MARGIN = timedelta(seconds=60)
"""The right to write outlives the lease by this much, for its state to be read and saved."""


class Profiled:
    """The profiles of one pool's leases.

    Args:
        store: where profiles are kept.
        clock: where time comes from.
        patience: seconds that reading a context's state may take.
    """

    def __init__(self, store: ProfileStore, clock: Clock, patience: float) -> None:
        self._store = store
        self._clock = clock
        self._patience = patience

    async def options(self, holding: Holding) -> dict[str, Any]:
        """Return what restores the lease's profile in a new context; nothing if it has none.

        Raises:
            SealedError, LedgerUnavailableError: it cannot be read.
        """
        state = await self._begin(holding)
        return {} if state is None else state.context_options()

    async def _begin(self, holding: Holding) -> BrowserState | None:
        if holding.profile is None:
            return None
        if holding.over:
            raise LeaseLostError(holding.session.id, holding.session.lane.platform, "the lease is over")
        if holding.visit is None:
            left = timedelta(seconds=max(0.0, holding.session.lease_ends - self._clock.monotonic()))
            until = self._clock.now() + left + _MARGIN
            holding.visit = await self._store.begin(holding.profile, holding.id, until)
            if holding.over:
                await self.leave(holding)
                raise LeaseLostError(holding.session.id, holding.session.lane.platform, "the lease is over")
        return holding.visit.state

    async def restore(self, holding: Holding, browser: SessionBrowser) -> None:
        """Put the lease's profile into the browser's first context, for a client of its own; once in a session's life.

        If it cannot be done, nothing is said against the profile.

        Raises:
            SealedError, LedgerUnavailableError: it cannot be read.
            ConfigError: Playwright cannot do that yet.
            SessionInUseError: the identity's browser has somebody else's state, which would be lost.
            ProviderError: the browser cannot be reached.
        """
        if holding.profile is None:
            return
        if browser.home_profile is not None and holding.session.lane.identity is not None:
            await self._go_on(holding, browser)
            return
        can_move_in()
        state = await self._begin(holding)
        try:
            _check_home(holding, browser, state)
            if state is not None:
                await self._move_in(holding, browser, state)
        except BaseException:
            await self._undo(holding)
            raise
        browser.home_profile = holding.profile
        browser.home_source = None if holding.visit is None else holding.visit.source

    async def _undo(self, holding: Holding) -> None:
        visit, holding.visit = holding.visit, None
        if visit is not None:
            try:
                await self._store.left(visit, unused=True)
            except TabkeeperError as error:
                log.warning("the profile of %s could not be given back: %s", visit.key, error)

    async def _go_on(self, holding: Holding, browser: SessionBrowser) -> None:
        """See that an identity's browser still holds what is saved; its first lease put it there."""
        if browser.home_profile != holding.profile:
            raise _in_use(holding, f"with the profile of {browser.home_profile}")
        await self._begin(holding)
        now = None if holding.visit is None else holding.visit.source
        if now != browser.home_source and browser.home_source is not None:
            await self._undo(holding)
            raise ProviderRequestError(
                holding.session.provider,
                f"the profile of {holding.profile} was replaced or retired since session {holding.session.id} "
                "began with it, so that is closed; try again",
            )
        browser.home_source = now

    async def _move_in(self, holding: Holding, browser: SessionBrowser, state: BrowserState) -> None:
        try:
            async with browser.visit(self._patience) as visited, asyncio.timeout(self._patience):
                await move_in(visited, state)
        except (PlaywrightError, TimeoutError) as error:
            # Its own words could quote the browser's address, and with it a key.
            raise ProviderRequestError(
                holding.session.provider,
                f"the profile of {holding.profile} was not restored ({type(error).__name__}); try again",
            ) from None

    async def remember(self, holding: Holding, browser: SessionBrowser, origins: Collection[str]) -> None:
        """Read the state of the browser's first context, if it is to be saved; its client must be gone."""
        visit = holding.visit
        if visit is None or not visit.may_write:
            return
        try:
            async with browser.visit(self._patience) as visited, asyncio.timeout(self._patience * 4):
                holding.state = await move_out(visited, visit.state, origins, seconds=self._patience)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs the profile, not the lease
            self._unread(holding, type(error).__name__)

    async def leave(self, holding: Holding) -> None:
        """Give the lease's profile back as it was: how the lease ends says nothing of the site."""
        await self.settle(holding, "left")

    async def read(self, holding: Holding) -> None:
        """Read the state of a context that is about to be closed, if it is to be saved."""
        if holding.visit is None or holding.context is None or not holding.visit.may_write:
            return
        before = holding.visit.state
        try:
            async with asyncio.timeout(self._patience):
                holding.state = await browser_state(holding.context, before)
        except Exception as error:  # noqa: BLE001 - a page may do anything while it is read
            self._unread(holding, repr(error))

    def _unread(self, holding: Holding, why: str) -> None:
        log.warning("the profile of %s was not saved: its state could not be read: %s", holding.profile, why)

    async def settle(self, holding: Holding, outcome: str) -> None:
        """Tell the store how the lease ended; "ok" and "failed" count, any other end says nothing."""
        visit, holding.visit = holding.visit, None
        if visit is None:
            return
        try:
            if outcome == "ok":
                await self._store.succeeded(visit, holding.state)
            elif outcome == "failed":
                await self._store.failed(visit)
            else:
                await self._store.left(visit)
        except (TabkeeperError, ValueError) as error:
            log.warning("the profile of %s was not saved: %s", visit.key, error)


def _check_home(holding: Holding, browser: SessionBrowser, state: BrowserState | None) -> None:
    """See that what is in an identity's browser may be replaced; a session without one begins clean each time."""
    if holding.session.lane.identity is not None and state is not None and browser.home_used:
        raise _in_use(holding, "without a profile")


def _in_use(holding: Holding, how: str) -> SessionInUseError:
    return SessionInUseError(
        f"session {holding.session.id} keeps its identity's browser, which was used {how}: ask for the same, or "
        f"close the session for the profile of {holding.profile} to be restored in the next"
    )
