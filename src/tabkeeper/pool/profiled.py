"""What a lease restores from a profile when its context opens, and saves into it when it succeeded.

A failure here costs the profile, never the session and never the lease's release.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

from tabkeeper.clock import Clock
from tabkeeper.errors import TabkeeperError
from tabkeeper.pool.browser import browser_state
from tabkeeper.pool.holding import Holding
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
        if holding.profile is None:
            return {}
        if holding.visit is None:
            left = timedelta(seconds=max(0.0, holding.session.lease_ends - self._clock.monotonic()))
            until = self._clock.now() + left + _MARGIN
            holding.visit = await self._store.begin(holding.profile, holding.id, until)
        state = holding.visit.state
        return {} if state is None else state.context_options()

    async def read(self, holding: Holding) -> None:
        """Read the state of a context that is about to be closed, if it is to be saved."""
        if holding.visit is None or holding.context is None or not holding.visit.may_write:
            return
        before = holding.visit.state
        try:
            async with asyncio.timeout(self._patience):
                holding.state = await browser_state(holding.context, before)
        except Exception as error:  # noqa: BLE001 - a page may do anything while it is read
            log.warning(
                "the profile of %s was not saved: its state could not be read: %r", holding.profile, error
            )

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
