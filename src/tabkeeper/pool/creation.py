"""How sessions begin: hold the money, ask the provider once, write down what came of it.

It decides nothing: it carries out a `Create` of the plan and tells the board how it went. Money comes first: the
row and the hold are committed before the provider is called. A create is sent once; what became of one that was not
answered is looked up by its label. What a failure means is said by `failures`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from tabkeeper.clock import Clock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import (
    LedgerUnavailableError,
    NoProxyError,
    OutcomeUnknownError,
    ProviderError,
    ProviderNotFoundError,
    SessionCreationError,
)
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Hold
from tabkeeper.pool.board import Board
from tabkeeper.pool.browser import SessionBrowser
from tabkeeper.pool.caps import most_bytes, most_own_bytes
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.debts import Debt
from tabkeeper.pool.failures import Failures
from tabkeeper.pool.funds import Funds
from tabkeeper.pool.model import Session, State
from tabkeeper.pool.proxied import Proxied, spec_of
from tabkeeper.pool.relay import Relay
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.pool.spans import session_span
from tabkeeper.pool.sweeper import FIRST_PAUSE, Sweeper
from tabkeeper.pool.traffic import Meter
from tabkeeper.providers.base import Provider, ProxySpec, RemoteSession, SessionSpec
from tabkeeper.vault import Vault

log = logging.getLogger(__name__)

FIRST_LOOK = 0.5
"""Seconds between the first two looks for a session whose creation was not answered; they double."""


class Creation:
    """Creates the sessions of one pool."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        board: Board,
        sessions: Sessions,
        vault: Vault,
        sweeper: Sweeper,
        counts: Counts,
        proxied: Proxied,
        funds: Funds,
        failures: Failures,
    ) -> None:
        self._config = config
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._board = board
        self._sessions = sessions
        self._vault = vault
        self._sweeper = sweeper
        self._counts = counts
        self._proxied = proxied
        self._funds = funds
        self._failures = failures

    def create(self, session: Session) -> None:
        """Carry out `Create`."""
        running = Running(session, self._clock.monotonic())
        self._sessions.running[session.id] = running
        running.creating = self._sessions.spawn(self._create(running), f"create {session.id}")

    async def _create(self, running: Running) -> None:
        try:
            await self._begin(running)
        finally:
            if running.remote is None and running.relay is not None:
                running.relay.close()

    async def _begin(self, running: Running) -> None:
        session = running.session
        if not self._give_proxy(running):
            return
        try:
            hold = await self._funds.hold(running)
            if hold is None:
                return
            await self._lay_way(running, hold)
            remote = await self._ask_provider(running, hold)
            if remote is None:
                return
        except asyncio.CancelledError:
            # Only the pool cancels this: the session was ended before it was ready.
            await self._abandon(running)
            raise
        except Exception as error:
            # An adapter that breaks its contract must not cost a place for ever, nor leave its caller waiting.
            log.exception("session %s could not be created at %r", session.id, session.provider)
            await self._broken(running, error)
            return
        running.remote = remote
        running.last_used = self._clock.monotonic()
        self._counts.created(session.provider, running.last_used - running.sent_at)
        self.reach(running)
        try:
            await self._ledger.activate(
                session.id,
                provider_session_id=remote.provider_session_id,
                pid=remote.pid,
                pid_started=remote.pid_started,
                connect_sealed=self._vault.seal_if_possible(remote.connect_url),
                identity=session.lane.identity,
            )
        except LedgerUnavailableError as error:
            # The hold is on record and the provider knows our label, so nothing is lost if this row comes late.
            log.warning(
                "session %s runs, but the ledger could not note its provider's id: %s", session.id, error
            )
        finally:
            running.creating = None
            if session.state is State.CREATING:
                self._welcome(session)
            else:
                self._sessions.spawn(self._sessions.end(running), f"close {session.id}")

    def reach(self, running: Running) -> None:
        """Make ready to connect to a session that runs."""
        session, remote = running.session, running.remote
        assert remote is not None
        assert running.hold is not None
        running.browser = SessionBrowser(
            self._sessions.connections.to(
                remote.connect_url,
                shared=remote.shared,
                about={
                    "session": session.id,
                    "platform": session.lane.platform,
                    "provider": session.provider,
                    "tenant": session.tenant,
                },
            ),
            shared=remote.shared,
            proxy=self._context_proxy(running),
            on_lost=lambda why: self._sessions.lost(session.id, why),
            meter=Meter(
                self._most_received(running),
                on_limit=lambda: self._board.end(session, "its traffic cap is reached"),
                on_navigation=running.health.navigated,
            ),
        )

    def _most_received(self, running: Running) -> int | None:
        """Return after how many bytes the browser's own figures end a session; a relay needs none of them."""
        assert running.hold is not None
        bounds = [most_bytes(running.hold.card)]
        if running.relay is None:
            bounds.append(most_own_bytes(running.hold.card))
        return min((bound for bound in bounds if bound is not None), default=None)

    async def _lay_way(self, running: Running, hold: Hold) -> None:
        """Put a relay before a proxy whose traffic costs money, if the browser runs on this machine."""
        running.way = running.proxy
        most = most_own_bytes(hold.card)
        if running.proxy is None or most is None:
            return
        if not self._providers[running.session.provider].capabilities.proxy_by_context:
            return
        session = running.session
        running.relay = Relay(
            running.proxy, most, lambda: self._board.end(session, "its traffic cap is reached")
        )
        running.way = await running.relay.open()

    def _give_proxy(self, running: Running) -> bool:
        """Choose the session's proxy before anything is paid for; False if there is none, after telling the board."""
        session = running.session
        in_use = [other.proxy for other in self._sessions.running.values()]
        try:
            running.proxy = self._proxied.pick(session.lane, in_use)
        except NoProxyError as error:
            del self._sessions.running[session.id]
            self._failures.for_all(session, "no proxy", error)
            return False
        return True

    def _context_proxy(self, running: Running) -> ProxySpec | None:
        by_context = self._providers[running.session.provider].capabilities.proxy_by_context
        return spec_of(running.way) if by_context else None

    def _welcome(self, session: Session) -> None:
        if self._clock.monotonic() < session.dies_at:
            self._sessions.note(session, "creating", "idle", "created")
            self._board.ready(session)
            return
        error = SessionCreationError(
            f"sessions of platform {session.lane.platform!r} take longer to start at {session.provider!r} than they "
            f"may live ({session.dies_at - session.created_at:.0f} s); raise session_ttl, or max_session_cost if it "
            "is set"
        )
        self._board.too_late(
            session, "over before it was ready", then=lambda request: self._failures.refuse(request, error)
        )

    async def _broken(self, running: Running, error: Exception) -> None:
        session = running.session
        request = session.covers if session.state is State.CREATING else None
        await self._abandon(running)
        if request is not None and request.waiting:
            refusal = SessionCreationError(f"session {session.id} could not be created: {error!r}")
            refusal.__cause__ = error
            self._failures.refuse(request, refusal)

    async def _ask_provider(self, running: Running, hold: Hold) -> RemoteSession | None:
        """Send the create call, once; None if it failed, after telling board and requester."""
        session = running.session
        running.sent_at = self._clock.monotonic()
        spec = SessionSpec(
            session_id=session.id,
            platform=session.lane.platform,
            max_seconds=hold.max_seconds,
            proxy=spec_of(running.way),
        )
        # It must be there well before the money held for it runs out.
        longest = session.dies_at - self._clock.monotonic()
        patience = self._config.pool.create_timeout.total_seconds()
        seconds = max(0.0, min(patience, longest))
        why = (
            "" if seconds == patience else ", the life its hold allows: raise session_ttl or max_session_cost"
        )
        running.sent = True
        self._counts.creations += 1
        try:
            async with asyncio.timeout(seconds):
                with session_span("create", session):
                    return await self._providers[session.provider].create(spec)
        except (TimeoutError, OutcomeUnknownError) as unknown:
            error: ProviderError = (
                unknown
                if isinstance(unknown, OutcomeUnknownError)
                else OutcomeUnknownError(session.provider, f"no session within {seconds:g} s{why}")
            )
            adopted = await self._look_up(running, may_be_answered=isinstance(unknown, TimeoutError))
            if adopted is not None:
                log.warning(
                    "session %s was created though its call failed (%s); it is used", session.id, error
                )
                return adopted
        except ProviderError as failed:
            error = failed
            await self._funds.void(session, f"not created: {type(failed).__name__}")
        self._failures.at_provider(running, error)
        return None

    async def _look_up(self, running: Running, *, may_be_answered: bool) -> RemoteSession | None:
        """Find a session whose create call got no answer, or none yet. What does not show in time is the sweeper's."""
        session = running.session
        provider = self._providers[session.provider]
        bound = self._config.pool.close_timeout.total_seconds()
        until = self._clock.monotonic() + bound
        pause = FIRST_LOOK
        while (left := until - self._clock.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    found = await provider.find(session.id)
            except ProviderNotFoundError as never:
                await self._funds.void(session, f"not created: {never}")
                return None
            except Exception as error:  # noqa: BLE001 - an adapter that breaks its contract must not cost a place
                log.warning(
                    "session %s cannot be looked up at %r yet: %r", session.id, session.provider, error
                )
            else:
                if found is not None and found.running and found.connect_url:
                    return found
                if found is None and provider.capabilities.host_bound:
                    await self._funds.void(session, "not created: no answer")
                    return None
                if found is not None and not found.running:
                    break
                if not (may_be_answered or provider.capabilities.list_by_label):
                    break  # nobody is left who could tell
            await asyncio.sleep(min(pause, max(0.0, until - self._clock.monotonic())))
            pause *= 2
        self._leave_to_sweeper(running)
        return None

    def _leave_to_sweeper(self, running: Running) -> None:
        """Keep row and hold until it is known what became of the session; its place in the pool is free."""
        session = running.session
        assert running.hold is not None
        self._sessions.note(session, "creating", "unknown", "creation was not answered")
        self._sweeper.watch(
            Debt(
                session_id=session.id,
                provider=session.provider,
                provider_session_id=None,
                expires_at=running.hold.expires_at,
                reason="creation was not answered",
                since=self._clock.monotonic(),
                sent_at=running.sent_at,
                next_at=self._clock.monotonic() + FIRST_PAUSE,
            )
        )

    async def _abandon(self, running: Running) -> None:
        """Clean up after a creation that the pool itself cancelled."""
        await asyncio.wait([self._sessions.spawn(self._abandoned(running), f"abandon {running.session.id}")])

    async def _abandoned(self, running: Running) -> None:
        if running.hold is not None and not running.sent:
            await self._funds.void(running.session, "ended before it was created")
        elif running.hold is not None:
            running.remote = await self._look_up(running, may_be_answered=True)
        running.creating = None
        if running.remote is None:
            self._failures.gone(running)
            return
        if running.session.state is State.CREATING:
            self._board.end(running.session, "creation broke off")
        else:
            await self._sessions.end(running)
