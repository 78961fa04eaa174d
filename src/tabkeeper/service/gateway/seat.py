"""What the gateway keeps for one lease, however often its client connects, and what it does before the lease ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection

from tabkeeper.config import ResourceKind
from tabkeeper.errors import SessionInUseError
from tabkeeper.pool.lease import Lease
from tabkeeper.pool.passage import Passage
from tabkeeper.service.gateway.blocking import Blocking
from tabkeeper.service.gateway.browser import (
    BrowserGoneError,
    Inventory,
    close_what_came,
    dial,
    dial_wire,
    sweep,
    talking_to,
)
from tabkeeper.service.gateway.custody import Custody
from tabkeeper.service.gateway.visited import Visited
from tabkeeper.service.gateway.wire import BrowserWire

log = logging.getLogger(__name__)

_LEAVING = 5.0
"""Seconds for connections to end before their lease is swept."""


class Seat:
    """One lease as the gateway knows it."""

    def __init__(
        self,
        lease: Lease,
        passage: Passage,
        *,
        block: Sequence[ResourceKind] = (),
        sweep_seconds: float,
        ping: float,
    ) -> None:
        self.lease = lease
        self.passage = passage
        self.block = block
        self.custody = Custody(at_home=passage.is_home)
        if passage.has_profile and not passage.is_home:
            self.custody.spend("its first context has a profile")
        self._sweep_seconds = sweep_seconds
        self._ping = ping
        self._before: Inventory | None = None
        self._holding_on: ClientConnection | None = None
        self._blocking: Blocking | None = None
        self._visited: Visited | None = None
        self._readying = asyncio.Lock()
        self._left = False
        """The lease is over, or just ending."""
        self._connections = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def ready(self) -> None:
        """See that the browser answers, and what is in it, before the first client comes.

        Raises:
            BrowserGoneError: it does not answer.
            TabkeeperError: the lease's profile could not be restored.
        """
        async with self._readying:
            if self._before is not None:
                return
            try:
                await self._make_ready()
            except BaseException:
                if self._left:
                    await self._let_go()
                raise

    async def _make_ready(self) -> None:
        async with talking_to(self.passage.connect_url) as browser:
            if not self.passage.outlives_connections and self._holding_on is None:
                # Else the browser would end with its client's first connection, and there were no coming back.
                self._holding_on = await dial(self.passage.connect_url)
            before = await Inventory.of(browser)
        self._raise_if_left()
        if self.passage.has_profile:
            try:
                await self.passage.restore()
            except SessionInUseError:
                self.passage.vouch()  # no client was let in, and nothing was changed
                raise
            if self._visited is None:
                self._visited = await Visited.begin(self.passage.connect_url, self.custody.own)
        if self.block and self._blocking is None:
            self._blocking = await Blocking.begin(self.passage.connect_url, self.block)
        self._raise_if_left()
        self._before = before

    def _raise_if_left(self) -> None:
        if self._left:
            raise BrowserGoneError("the lease is over")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[BrowserWire]:
        """Connect one more client to the browser.

        Raises:
            BrowserGoneError: it cannot be reached.
        """
        # It counts from here on: a lease that ends meanwhile must not give the session to the next while this connects.
        self._raise_if_left()
        self._connections += 1
        self._empty.clear()
        try:
            connection = await dial_wire(self.passage.connect_url, ping=self._ping)
            try:
                self._raise_if_left()
                yield connection
            finally:
                await connection.close()
        finally:
            self._connections -= 1
            if not self._connections:
                self._empty.set()

    async def farewell(self, *, success: bool, judged: bool) -> None:
        """Undo what clients did and vouch for the session, if all they did is known; called before the lease ends.

        Args:
            success: whether the lease ends as one, so that its profile is to be saved.
            judged: whether its client said so. Else its end says nothing of a profile.
        """
        self._left = True
        try:
            async with asyncio.timeout(_LEAVING):
                async with self._readying:  # whoever makes it ready for a client hears that it is over
                    pass
                await self._empty.wait()
            await self._stop_blocking()
            clean = await self._sweep()
            if self._visited is not None and success and judged:
                await self.passage.remember(self._visited.origins)
            if clean:
                self.passage.vouch()
        except TimeoutError as error:
            log.warning("session %s is closed after its lease: %r", self.lease.session_id, error)
        finally:
            if not judged:
                await self.passage.leave()
            await self._let_go()

    async def _let_go(self) -> None:
        """Hang up on the browser; who is just getting it ready does so when they are done."""
        await self._stop_blocking()
        visited, self._visited = self._visited, None
        if visited is not None:
            await visited.aclose()
        holding_on, self._holding_on = self._holding_on, None
        if holding_on is not None:
            await holding_on.close()

    async def _stop_blocking(self) -> None:
        blocking, self._blocking = self._blocking, None
        if blocking is not None:
            await blocking.aclose()

    async def _sweep(self) -> bool:
        """Close what clients left, and say whether the session is as good as before."""
        try:
            return await self._is_swept()
        except (BrowserGoneError, TimeoutError) as error:
            log.warning("session %s is not clean after a client: %r", self.lease.session_id, error)
            return False

    async def _is_swept(self) -> bool:
        passage = self.passage
        stays = passage.outlives_connections and not passage.is_shared and not self.custody.spent
        if self._before is None or not (stays or passage.has_profile):
            log.debug("session %s is not swept: %s", self.lease.session_id, self.custody.spent)
            return False
        async with (
            asyncio.timeout(self._sweep_seconds),
            talking_to(passage.connect_url) as browser,
        ):
            if not stays:
                await close_what_came(browser, self._before, home=True)
                return False
            left = await sweep(browser, self._before, home=passage.is_home or passage.has_profile)
        if left:
            log.warning("session %s is not clean after a client: %s", self.lease.session_id, left)
        return not left
