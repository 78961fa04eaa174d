"""Looks after the sessions between leases: checks that they are well, and keeps them alive.

It decides by `health.py` and tells the board; a session that somebody has leased is only asked for its pulse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from playwright.async_api import Error as PlaywrightError

from tabkeeper.clock import Clock
from tabkeeper.config import HealthSettings
from tabkeeper.errors import ProviderError, ProviderNotFoundError
from tabkeeper.pool.board import Board
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.health import MB, Limits, Probe
from tabkeeper.pool.model import Session, State
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.providers.base import Provider, RemoteSession
from tabkeeper.providers.devtools import DevTools, DevToolsError
from tabkeeper.providers.memory import tree_bytes

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Sessions looked at together."""
_PROMPT = 1.0
"""Seconds after which an idle session that has not answered yet is no longer given to anybody."""
_AGAIN = 1.0
"""Seconds between two checks of a session that is recovering."""


def limits_from(settings: HealthSettings) -> Limits:
    """Take the pure limits from the configuration."""
    return Limits(
        memory=settings.memory_mb * MB,
        unhealthy_below=settings.unhealthy_below,
        recovery=settings.recovery,
        slow_factor=settings.slow_factor,
        slow_floor=settings.slow_floor.total_seconds(),
        memory_factor=settings.memory_factor,
        memory_floor=settings.memory_floor_mb * MB,
    )


class Checkup:
    """Checks and refreshes the sessions of one pool."""

    def __init__(
        self,
        settings: HealthSettings,
        *,
        providers: Mapping[str, Provider],
        sessions: Sessions,
        board: Board,
        clock: Clock,
        counts: Counts,
        take: Callable[[Session], Awaitable[bool]],
    ) -> None:
        self._take = take
        self._settings = settings
        self.limits = limits_from(settings)
        self._providers = providers
        self._sessions = sessions
        self._board = board
        self._clock = clock
        self._counts = counts

    # ── checks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def check(self, session: Session) -> None:
        """Carry out `Check`: nobody gets the session until this has found it well."""
        running = self._sessions.running.get(session.id)
        if running is None:
            self._sessions.spawn(self._take_and_check(session), f"take {session.id}")
        elif running.remote is None:
            self._board.checked(session, ok=False)
        else:
            self._sessions.spawn(self._recover(running), f"check {session.id}")

    async def _take_and_check(self, session: Session) -> None:
        if await self._take(session):
            await self._recover(self._sessions.running[session.id])
        else:
            self._board.checked(session, ok=False, reason="it could not be taken over")

    async def _recover(self, running: Running) -> None:
        session, health = running.session, running.health
        was_sick = health.is_sick(self.limits)
        while session.state is State.UNHEALTHY:
            if not await self._examine(running):
                return
            if not health.is_sick(self.limits):
                break
            await asyncio.sleep(_AGAIN)
        self._counts.recovered += was_sick
        self._board.checked(session, ok=True)

    async def round(self) -> None:
        """Look at every session once."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(running: Running) -> None:
            async with slots:
                await self._look(running)

        async with asyncio.TaskGroup() as group:
            for running in list(self._sessions.running.values()):
                if running.remote is not None and running.session.state in {State.IDLE, State.LEASED}:
                    group.create_task(one(running))

    async def _look(self, running: Running) -> None:
        session = running.session
        assert running.remote is not None
        if session.state is State.LEASED:
            if not self._alive(running):
                self._sessions.lost(session.id, "found dead by a check")
                return
            running.health.memory = await self._memory(running.remote)
            running.health.verdict = running.health.decline(self.limits)
            return
        if session.state is not State.IDLE:
            return
        looking = asyncio.create_task(self._examine(running), name=f"tabkeeper look {session.id}")
        try:
            done, _ = await asyncio.wait({looking}, timeout=_PROMPT)
            if not done:
                self._board.doubt(session)
            if await looking:
                self._board.checked(session, ok=True)
        finally:
            looking.cancel()

    async def _examine(self, running: Running) -> bool:
        """Look at a session that nobody has, and have it replaced unless it is well."""
        session = running.session
        self._counts.checks += 1
        probe = await self._probe(running)
        running.checked_at = self._clock.monotonic()
        reason = running.health.judge(probe, self.limits)
        if not reason:
            return True
        self._counts.checks_failed += 1
        log.warning("session %s at %r is replaced: %s", session.id, session.provider, reason)
        if session.state is State.UNHEALTHY:
            self._board.checked(session, ok=False, reason=reason)
        elif session.state is State.IDLE:
            self._board.end(session, reason)
        return False  # leased in this very moment: closed when it is released

    async def _probe(self, running: Running) -> Probe:
        assert running.remote is not None
        began = self._clock.monotonic()
        if not self._alive(running):
            return Probe(answered=False, detail="it is dead")
        seconds = self._settings.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                await self._ask(running, connect=False)
        except TimeoutError:
            return Probe(answered=False, detail=f"no answer within {seconds:g} s")
        except (PlaywrightError, DevToolsError, ProviderError) as error:
            said = str(error).partition("\n")[0]
            return Probe(answered=False, detail=said[:200])
        took = self._clock.monotonic() - began
        return Probe(answered=True, seconds=took, memory=await self._memory(running.remote))

    def _alive(self, running: Running) -> bool:
        assert running.remote is not None
        return self._providers[running.session.provider].alive(running.remote.provider_session_id)

    async def _ask(self, running: Running, *, connect: bool) -> None:
        """Make the browser, or where nobody is connected its provider, answer.

        With `connect` a hosted browser is connected to, if need be: only CDP counts as use with most providers.
        """
        remote, provider = running.remote, self._providers[running.session.provider]
        assert remote is not None
        if running.browser is not None and running.browser.connected:
            await running.browser.ping()
        elif remote.pid is not None:
            async with DevTools(remote.connect_url) as browser:
                await browser.call("Browser.getVersion")
        elif connect and running.browser is not None and not provider.capabilities.host_bound:
            await running.browser.browser()
            await running.browser.ping()
        elif not (await provider.get(remote.provider_session_id)).running:
            raise ProviderNotFoundError(running.session.provider, "it is over")

    async def _memory(self, remote: RemoteSession) -> int | None:
        if remote.pid is None:
            return None
        used = await asyncio.to_thread(tree_bytes, remote.pid, remote.pid_started)
        if used is None or not remote.shared:
            return used
        # Nobody can tell whose the memory of a shared browser is.
        sharing = sum(
            other.remote is not None and other.remote.pid == remote.pid
            for other in self._sessions.running.values()
        )
        return used // max(1, sharing)

    # ── keeping alive ──────────────────────────────────────────────────────────────────────────────────────────────

    async def refresh(self) -> None:
        """Keep alive what was neither used nor refreshed for a while; that does not count as use."""
        now, after = self._clock.monotonic(), self._settings.refresh_after.total_seconds()
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for running in list(self._sessions.running.values()):
                quiet = now - max(running.last_refresh, running.last_used)
                if running.remote is not None and running.session.state is State.IDLE and quiet >= after:
                    group.create_task(self._refresh(running, slots))

    async def _refresh(self, running: Running, slots: asyncio.Semaphore) -> None:
        try:
            async with slots, asyncio.timeout(self._settings.timeout.total_seconds()):
                await self._ask(running, connect=True)
        except (PlaywrightError, DevToolsError, ProviderError, TimeoutError) as error:
            # The next check decides what that means.
            self._counts.refreshes_failed += 1
            log.warning("session %s could not be refreshed: %r", running.session.id, error)
            return
        self._counts.refreshes += 1
        running.last_refresh = self._clock.monotonic()
