"""The sessions that run, and their end: disconnect, close until the provider confirms, settle.

It decides nothing: it carries out a `Close` of the plan and tells the board how it went. A session is never forgotten:
its place and its hold end only with a confirmed end. How sessions begin is in `creation`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tabkeeper.clock import Clock, Instant
from tabkeeper.config import PoolConfig
from tabkeeper.errors import (
    LedgerError,
)
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Hold, SessionUsage, StateChange
from tabkeeper.money import ZERO
from tabkeeper.pool.board import Board
from tabkeeper.pool.browser import SessionBrowser
from tabkeeper.pool.caps import charged_bytes
from tabkeeper.pool.connection import Connections
from tabkeeper.pool.debts import owe
from tabkeeper.pool.health import Health
from tabkeeper.pool.holding import Holding
from tabkeeper.pool.kept import expected_money
from tabkeeper.pool.model import ENDING, Session, State
from tabkeeper.pool.relay import Relay
from tabkeeper.pool.routing import Router
from tabkeeper.pool.spans import session_span
from tabkeeper.providers.base import Provider, RemoteSession
from tabkeeper.proxies.model import Proxy

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """What belongs to one session besides the planner's view of it."""

    session: Session
    sent_at: Instant
    """When the create call was sent: the session's age, and its bill, count from here."""
    hold: Hold | None = None
    remote: RemoteSession | None = None
    browser: SessionBrowser | None = None
    holding: Holding | None = None
    proxy: Proxy | None = None
    """What it goes through, for its whole life."""
    relay: Relay | None = None
    """Counts what it moves through a proxy that has a price, where that can be done on this machine."""
    way: Proxy | None = None
    """The proxy as the browser is told of it: the relay, if there is one."""
    health: Health = field(default_factory=Health)
    creating: asyncio.Task[None] | None = None
    sent: bool = False
    """The create call was sent, so that a session may exist."""
    exposed: bool = False
    """Its address was given to a client of the caller's own."""
    relayed: bool = False
    """Such a client is, or was, led to it by somebody who has not vouched for what it left."""
    leases: int = 0
    """Leases that really began."""
    last_used: Instant = 0.0
    """When its last lease began or ended."""
    last_refresh: Instant = 0.0
    """When it was last kept alive without being used."""
    checked_at: Instant = 0.0


class Sessions:
    """The sessions of one pool that run, and all work under way for them."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        rng: Random,
        board: Board,
        router: Router,
    ) -> None:
        self._config = config
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._board = board
        self._router = router
        self.connections = Connections()
        self.running: dict[str, Running] = {}
        self.end_unknown: Callable[[Session], None] = board.closed
        """Ends what the board wants closed, and of which nothing is known here."""
        self.tasks: set[asyncio.Task[None]] = set()
        """All work under way; the pool's end waits for it."""
        self.prewarmed_in_vain = 0
        """Sessions created before anybody asked that nobody asked for."""
        self.wasted = ZERO
        """What these cost."""
        self.closes = 0
        """Sessions whose provider was asked to end them."""
        self.closes_failed = 0
        """Those of them for which once was not enough."""
        self.stopping = False
        """The pool ends: unconfirmed closes are left to the next start."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a piece of work that the pool's end waits for."""
        task = asyncio.create_task(work, name=f"tabkeeper {name}")
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed unexpectedly", task.get_name(), exc_info=error)

    # ── end ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def lost(self, session_id: str, reason: str) -> None:
        """A provider, or the connection, says that a session is dead."""
        running = self.running.get(session_id)
        if running is not None and running.session.state not in ENDING:
            self._board.lost(running.session, reason)

    def is_ending(self, session_id: str) -> bool:
        """Tell whether a session of this pool is on its way out."""
        running = self.running.get(session_id)
        return running is not None and running.session.state in ENDING

    def close(self, session: Session) -> None:
        """Carry out `Close`."""
        running = self.running.get(session.id)
        if running is None:
            # Ended between the decision to create it and the money for it: there is nothing to close.
            self.end_unknown(session)
        elif running.creating is not None:
            running.creating.cancel()
        else:
            self.spawn(self.end(running), f"close {session.id}")

    async def end(self, running: Running) -> None:
        """Disconnect, have the provider end the session until it confirms, and settle."""
        session = running.session
        assert running.remote is not None
        old = "lost" if session.state is State.LOST else "draining"
        self.note(session, "", old, session.reason + _figures(session))
        if running.browser is not None:
            await self.leave(running.browser, session)
        if old == "lost" or running.health.silent:
            await self._tell_drift(running.remote, session)
        confirmed = await self._confirm_close(running)
        own = own_bytes(running)
        if confirmed is None:
            return  # the row stays open, so the next start takes it up
        seconds = self._clock.monotonic() - running.sent_at
        self.running.pop(session.id, None)
        self._board.closed(session)
        received = running.browser.meter.received if running.browser is not None else 0
        assert running.hold is not None
        if not confirmed:
            await self._settle_expired(session, own)
            return
        usage = SessionUsage(
            seconds=seconds, proxy_bytes=charged_bytes(running.hold.card, received), own_proxy_bytes=own
        )
        try:
            cost = await self._ledger.settle(
                session.id, usage, reason=session.reason, state="lost" if old == "lost" else "closed"
            )
            if session.ahead is not None and not running.leases:
                self.prewarmed_in_vain += 1
                self.wasted += cost.cost
        except LedgerError as error:
            log.warning("session %s is over, but its cost could not be settled yet: %s", session.id, error)
        self._board.money_freed()
        await self._router.session_over(session, seconds, uses=running.leases, received=received)

    async def leave(self, browser: SessionBrowser, session: Session) -> None:
        """Disconnect from a session, which goes on."""
        try:
            async with asyncio.timeout(self._config.pool.clean_timeout.total_seconds()):
                await browser.aclose()
        except Exception as error:  # noqa: BLE001 - a dying browser may raise anything; its end follows anyway
            log.debug("session %s did not disconnect cleanly: %r", session.id, error)

    async def _tell_drift(self, remote: RemoteSession, session: Session) -> None:
        """Put on record if the provider says of a dead session that it runs: it is paid for, and serves nobody."""
        provider = self._providers[session.provider]
        if provider.capabilities.host_bound:
            return
        try:
            async with asyncio.timeout(self._config.pool.close_timeout.total_seconds()):
                if not (await provider.get(remote.provider_session_id)).running:
                    return
            await self._ledger.drift.note(
                "dead",
                session.provider,
                f"provider {session.provider!r} says that session {session.id} runs, but its browser does not answer "
                f"({session.reason}); it is closed",
                session_id=session.id,
                provider_session_id=remote.provider_session_id,
            )
        except Exception as error:  # noqa: BLE001 - a remark about a session must not keep it from being closed
            log.debug("what %r says of session %s is not known: %r", session.provider, session.id, error)

    async def _confirm_close(self, running: Running) -> bool | None:
        """Ask the provider to end the session until it confirms.

        False if it never did, but its own timeout has passed; None if the pool stopped first.
        """
        session = running.session
        assert running.remote is not None
        assert running.hold is not None
        provider = self._providers[session.provider]
        began = self._clock.monotonic()
        wait = 0.25
        failed = False
        self.closes += 1
        while True:
            try:
                with session_span("close", session):
                    async with asyncio.timeout(self._config.pool.close_timeout.total_seconds()):
                        await provider.close(running.remote.provider_session_id)
            except Exception as error:  # noqa: BLE001 - whatever it was, the session may still cost money
                log.warning("session %s is not closed at %r yet: %r", session.id, session.provider, error)
                self.closes_failed += not failed
                failed = True
                await owe(
                    self._ledger,
                    session.id,
                    session.provider,
                    reason=session.reason,
                    error=error,
                    seconds=self._clock.monotonic() - began,
                )
            else:
                if failed:
                    await self._no_longer_owed(session)
                return True
            if self.stopping:
                return None
            if provider.capabilities.own_timeout and self._clock.now() >= running.hold.expires_at:
                return False
            await asyncio.sleep(wait * self._rng.uniform(0.75, 1.25))
            wait = min(wait * 2, 30.0)

    async def _no_longer_owed(self, session: Session) -> None:
        try:
            await self._ledger.released(session.id)
        except LedgerError as error:
            log.warning("the end of session %s could not be noted yet: %s", session.id, error)

    async def _settle_expired(self, session: Session, own: int | None) -> None:
        reason = f"{session.reason}; its end was never confirmed, and its time is over"
        try:
            await self._ledger.settle_orphan(session.id, reason=reason, own_proxy_bytes=own)
            await self._ledger.released(session.id)
        except LedgerError as error:
            log.warning("session %s is over, but its cost could not be settled yet: %s", session.id, error)
        self._board.money_freed()

    def note(self, session: Session, old: str, new: str, reason: str) -> None:
        """Record a change of state."""
        self._ledger.record_state(
            StateChange(session_id=session.id, at=self._clock.now(), old=old, new=new, reason=reason)
        )


def own_bytes(running: Running) -> int | None:
    """Let nothing more pass through a session's own proxy, and return what did; None if nobody counted all of it."""
    if running.relay is not None:
        return running.relay.close()
    if running.proxy is None or running.proxy.price_per_gb is None or running.browser is None:
        return None
    return running.browser.meter.received


def _figures(session: Session) -> str:
    """What the decision to keep it no longer was made of; nothing where money had no say."""
    verdict = session.verdict
    if session.ahead is not None and not session.uses:
        ahead = session.ahead
        return f": created ahead, as somebody was expected with a chance of {ahead.chance:.0%}; nobody came"
    if session.reason not in {"idle", "evicted"} or verdict is None or verdict.rule != "value":
        return ""
    return (
        f": kept {verdict.until - verdict.decided_at:.0f} s; the next lease was expected to cost "
        f"{expected_money(verdict.expected)} that way, {expected_money(verdict.fresh)} with a new session"
    )
