"""How a pool ends: nobody is let in, leases get their grace, then all it has is closed, each part in bounded time.

What a provider has not confirmed by then stays in the ledger; the next start takes it up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping

from tabkeeper.clock import Clock
from tabkeeper.errors import PoolClosedError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.model import Session, State
from tabkeeper.pool.parts import Parts
from tabkeeper.providers.base import Provider

log = logging.getLogger(__name__)

_LEAVING = 5.0
"""Seconds that leaving a shared board may take besides what the bounds of sessions allow."""


class Shutdown:
    """Ends one pool.

    Args:
        parts, providers, ledger, clock: the pool's.
        bound: seconds for each part to end.
    """

    def __init__(
        self, parts: Parts, *, providers: Mapping[str, Provider], ledger: Ledger, clock: Clock, bound: float
    ) -> None:
        self._parts = parts
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._bound = bound
        self._board = parts.board
        self._sessions = parts.sessions

    async def drain(self, grace: float) -> None:
        """Let nobody in, refuse who waits, end idle sessions; return when leases ended or `grace` seconds are up."""
        self._close_doors()
        await self._wait_for_leases(grace)

    async def close(self, grace: float) -> None:
        """Drain, then end every part of the pool."""
        await self.drain(grace)
        await end_bounded("what was told to the board", self._board.settled(), self._bound)
        for session in self._board.mine():
            if not self._outlives(session):
                self._board.end(session, "shutdown")
        await end_bounded("what was told to the board", self._board.settled(), self._bound)
        await self._let_tasks_end()
        self._sessions.stopping = True
        for task in list(self._sessions.tasks):
            task.cancel()
        await self._let_tasks_end()
        await end_bounded("the board", self._board.aclose(), 2 * self._bound + _LEAVING)
        await self._let_tasks_end()  # those of sessions that came to it while it left
        self._parts.jobs.stop()
        await end_bounded("the sweeper", self._parts.sweeper.aclose(), self._bound)
        await end_bounded("what is noted of proxies", self._parts.proxied.save(), self._bound)
        await end_bounded("Playwright", self._sessions.connections.aclose(), self._bound)
        await end_providers(self._providers, self._bound)
        # The end itself may have raised alerts; what cannot be delivered now is delivered by the next start.
        await end_bounded("the delivery of alerts", self._parts.dispatcher.run(), self._bound)
        await self._ledger.aclose()

    def _close_doors(self) -> None:
        if self._board.draining:
            return
        self._board.drain()
        for request in self._board.waiting():
            self._parts.leases.refuse(
                request, PoolClosedError("the pool is shutting down and gives no more leases")
            )
        for session in self._board.mine():
            if session.state in {State.IDLE, State.CREATING, State.UNHEALTHY} and not self._outlives(session):
                self._board.end(session, "shutdown")

    def _outlives(self, session: Session) -> bool:
        """Whether other processes of a shared pool go on with a session when this one closes."""
        return session.state is State.IDLE and session.lane.home is None and not self._board.alone

    async def _wait_for_leases(self, seconds: float) -> None:
        leases = self._parts.leases
        held = leases.held()
        if held and seconds > 0:
            log.warning(
                "waiting up to %g s for %d leases to end: %s", seconds, len(held), "; ".join(held[:5])
            )
        try:
            async with asyncio.timeout(seconds):
                await leases.all_ended()
        except TimeoutError:
            held = leases.held()
            log.warning("%d leases were not released and are ended: %s", len(held), "; ".join(held[:5]))

    async def _let_tasks_end(self) -> None:
        until = self._clock.monotonic() + self._bound
        while self._sessions.tasks and (left := until - self._clock.monotonic()) > 0:
            await asyncio.wait(list(self._sessions.tasks), timeout=left)


async def end_unopened(
    parts: Parts | None, providers: Mapping[str, Provider], ledger: Ledger, *, bound: float
) -> None:
    """End what a pool that could not be opened had begun with; `parts` is None if it did not come so far."""
    if parts is not None:
        await end_bounded("the board", parts.board.aclose(), 2 * _LEAVING)
    await end_providers(providers, bound)
    await ledger.aclose()


async def end_providers(providers: Mapping[str, Provider], bound: float) -> None:
    """End each provider within `bound` seconds."""
    for name, provider in providers.items():
        await end_bounded(f"provider {name!r}", provider.aclose(), bound)


async def end_bounded(what: str, ending: Awaitable[object], bound: float) -> None:
    """Await an end, but at most `bound` seconds, and whatever it raises: the others must end, too."""
    try:
        async with asyncio.timeout(bound):
            await ending
    except Exception:
        log.exception("%s did not stop cleanly", what)
