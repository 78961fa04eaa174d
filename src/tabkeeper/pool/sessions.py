"""Starting and ending sessions: hold the money, create, record; close, confirm, settle.

All waiting of the pool for providers and for the ledger happens here. It decides nothing: it carries out a `Create`
or a `Close` of the plan and tells the board how it went. Money comes first and a session is never forgotten: its row
and hold are committed before the provider is called, and its place and hold end only with a confirmed end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from tabkeeper.clock import Clock, Instant
from tabkeeper.config import PoolConfig
from tabkeeper.errors import (
    BudgetExceededError,
    LedgerError,
    LedgerUnavailableError,
    NoPriceError,
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    SessionCreationError,
    TabkeeperError,
)
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Hold, HoldRequest, SessionUsage, StateChange
from tabkeeper.pool.board import Board, Effect
from tabkeeper.pool.browser import Connections, Meter, SessionBrowser
from tabkeeper.pool.caps import most_bytes
from tabkeeper.pool.lease import Holding
from tabkeeper.pool.model import ENDING, PlatformRules, Request, Session, State
from tabkeeper.pool.plan import longest_life
from tabkeeper.providers.base import Provider, RemoteSession, SessionSpec

log = logging.getLogger(__name__)

LASTING = (ProviderAuthError, ProviderPaymentError, ProviderRequestError)
"""Errors that the same call will meet again."""
BUSY = (ProviderCapacityError, ProviderRateLimitError)
"""Errors that say nothing against the provider or the request: wait and come again."""
BUDGET_POLL = 5.0
"""Seconds after which a refused budget is asked again: another process may have settled meanwhile."""


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
    health: float = 1.0
    creating: asyncio.Task[None] | None = None
    sent: bool = False
    """The create call was sent, so that a session may exist."""
    exposed: bool = False
    """Its address was given to a client of the caller's own."""
    leases: int = 0
    """Leases that really began."""


class Sessions:
    """The sessions of one pool, from hold to settlement."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        rng: Random,
        board: Board,
        refuse: Callable[[Request, TabkeeperError], None],
    ) -> None:
        self._config = config
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._refuse = refuse
        self.board = board
        self.connections = Connections()
        self.running: dict[str, Running] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        """All work under way; the pool's end waits for it."""
        self.stopping = False
        """The pool ends: unconfirmed closes are left to the next start."""

    # ── create ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def create(self, session: Session) -> None:
        """Carry out `Create`."""
        running = Running(session, self._clock.monotonic())
        self.running[session.id] = running
        running.creating = self._spawn(self._create(running), f"create {session.id}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"tabkeeper {name}")
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed unexpectedly", task.get_name(), exc_info=error)

    async def _create(self, running: Running) -> None:
        session = running.session
        try:
            hold = await self._hold(running)
            if hold is None:
                return
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
        assert running.hold is not None
        running.browser = SessionBrowser(
            self.connections.to(remote.connect_url, shared=remote.shared),
            shared=remote.shared,
            on_lost=lambda why: self.lost(session.id, why),
            meter=Meter(
                most_bytes(running.hold.card),
                on_limit=lambda: self.board.end(session, "its traffic cap is reached"),
            ),
        )
        try:
            await self._ledger.activate(
                session.id,
                provider_session_id=remote.provider_session_id,
                pid=remote.pid,
                pid_started=remote.pid_started,
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
                self._spawn(self._close(running), f"close {session.id}")

    def _welcome(self, session: Session) -> None:
        if self._clock.monotonic() < session.dies_at:
            self.note(session, "creating", "idle", "created")
            self.board.ready(session)
            return
        request = session.covers
        self.board.end(session, "over before it was ready")
        if request is not None and request.waiting:
            request.failures += 1
            if request.failures >= self._rules_of(session).create_attempts:
                platform = session.lane.platform
                self._refuse(
                    request,
                    SessionCreationError(
                        f"sessions of platform {platform!r} take longer to start at {session.provider!r} than they "
                        f"may live ({session.dies_at - session.created_at:.0f} s); raise session_ttl, or "
                        "max_session_cost if it is set"
                    ),
                )

    async def _broken(self, running: Running, error: Exception) -> None:
        session = running.session
        request = session.covers if session.state is State.CREATING else None
        await self._abandon(running)
        if request is not None and request.waiting:
            refusal = SessionCreationError(f"session {session.id} could not be created: {error!r}")
            refusal.__cause__ = error
            self._refuse(request, refusal)

    async def _hold(self, running: Running) -> Hold | None:
        """Hold the worst case; None if the ledger refused, after telling board and requester."""
        session = running.session
        platform = self._config.platforms[session.lane.platform]
        ask = HoldRequest(
            session_id=session.id,
            platform=session.lane.platform,
            provider=session.provider,
            tenant=session.tenant,
            max_seconds=longest_life(self.board.view, session.lane),
            max_session_cost=platform.max_session_cost,
        )
        asking = asyncio.ensure_future(self._ledger.hold(ask))
        try:
            hold = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # The ledger may commit the hold all the same, and then somebody must give it back.
            await asyncio.wait([asking])
            if not asking.cancelled() and asking.exception() is None:
                running.hold = asking.result()
            raise
        except BudgetExceededError as error:
            self._over_budget(running, error)
            return None
        except NoPriceError as error:
            self.running.pop(session.id, None)
            self._failed(session, error, wait=self._rules_of(session).retry_max, counts=True, lasting=True)
            return None
        except LedgerError as error:
            del self.running[session.id]
            request = self.board.failed(session, blame="the ledger failed", provider_wait=0.0, counts=False)
            if request is not None:
                self._refuse(request, error)
            return None
        running.hold = hold
        self.board.held(session, hold.max_seconds)
        if session.state is not State.CREATING:
            await self._void(session, "ended before it was created")
            self._gone(running)
            return None
        return hold

    def _over_budget(self, running: Running, error: BudgetExceededError) -> None:
        session = running.session
        del self.running[session.id]
        now = self._clock.monotonic()
        until = now + BUDGET_POLL
        if error.resets_at is not None:
            until = min(until, now + max(0.0, (error.resets_at - self._clock.now()).total_seconds()))
        effect: Effect = "refuse"
        if error.on_exceed == "wait":
            effect = "wait"
        elif error.on_exceed == "fallback" and self._free_provider_of(session):
            effect = "only free"
        request = self.board.denied(session, until=until, why=str(error), effect=effect)
        if effect == "refuse" and request is not None:
            self._refuse(request, error)

    def _free_provider_of(self, session: Session) -> bool:
        rules = self.board.view.rules
        free = set(rules.platforms[session.lane.platform].providers) & rules.free_providers
        return bool(free - {session.provider})

    async def _ask_provider(self, running: Running, hold: Hold) -> RemoteSession | None:
        """Send the create call, once; None if it failed, after telling board and requester."""
        session = running.session
        running.sent_at = self._clock.monotonic()
        spec = SessionSpec(
            session_id=session.id, platform=session.lane.platform, max_seconds=hold.max_seconds
        )
        # It must be there well before the money held for it runs out.
        longest = session.dies_at - self._clock.monotonic()
        patience = self._config.pool.create_timeout.total_seconds()
        seconds = max(0.0, min(patience, longest))
        why = (
            "" if seconds == patience else ", the life its hold allows: raise session_ttl or max_session_cost"
        )
        running.sent = True
        try:
            async with asyncio.timeout(seconds):
                return await self._providers[session.provider].create(spec)
        except (TimeoutError, OutcomeUnknownError) as unknown:
            error: ProviderError = (
                unknown
                if isinstance(unknown, OutcomeUnknownError)
                else OutcomeUnknownError(session.provider, f"no session within {seconds:g} s{why}")
            )
            adopted = await self._look_up(session)
            if adopted is not None:
                log.warning(
                    "session %s was created though its call failed (%s); it is used", session.id, error
                )
                return adopted
        except ProviderError as failed:
            error = failed
            await self._void(session, f"not created: {type(failed).__name__}")
        self._creation_failed(running, error)
        return None

    def _creation_failed(self, running: Running, error: ProviderError) -> None:
        session = running.session
        self.running.pop(session.id, None)
        log.warning("session %s (platform %r) was not created: %s", session.id, session.lane.platform, error)
        rules = self._rules_of(session)
        failures = self.board.view.providers[session.provider].failures
        wait = min(rules.retry_max, rules.retry_base * 2.0 ** min(failures, 30)) * self._rng.uniform(
            0.75, 1.25
        )
        lasting = isinstance(error, LASTING)
        if lasting:
            wait = rules.retry_max
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        self._failed(session, error, wait=wait, counts=not isinstance(error, BUSY), lasting=lasting)

    def _failed(
        self, session: Session, error: TabkeeperError, *, wait: float, counts: bool, lasting: bool
    ) -> None:
        """Leave the provider alone for a while; refuse the request if it has had its attempts or has no other hope."""
        request = self.board.failed(session, blame=str(error), provider_wait=wait, counts=counts)
        if request is None:
            return
        rules = self._rules_of(session)
        now = self._clock.monotonic()
        others_left = any(self.board.view.providers[name].retry_at <= now for name in rules.providers)
        if request.failures >= rules.create_attempts or (lasting and not others_left):
            refusal = SessionCreationError(
                f"no session for platform {session.lane.platform!r} after {request.failures} "
                f"attempt{'s' if request.failures != 1 else ''}; last: {error}"
            )
            refusal.__cause__ = error
            self._refuse(request, refusal)

    def _rules_of(self, session: Session) -> PlatformRules:
        return self.board.view.rules.platforms[session.lane.platform]

    async def _look_up(self, session: Session) -> RemoteSession | None:
        """Find a session whose create call got no answer. If there is none, account for what it may have cost."""
        provider = self._providers[session.provider]
        for wait in (0.5, 1.0, 2.0, 4.0, None) if provider.capabilities.list_by_label else ():
            try:
                async with asyncio.timeout(self._config.pool.close_timeout.total_seconds()):
                    found = await provider.list(session.id)
            except Exception as error:  # noqa: BLE001 - an adapter that breaks its contract must not cost a place
                log.warning(
                    "session %s cannot be looked up at %r yet: %s", session.id, session.provider, error
                )
                if wait is not None:
                    await asyncio.sleep(wait)
                continue
            for remote in found:
                if remote.label == session.id:
                    return remote
            # Only a provider on this machine can be sure that nothing appears later.
            if provider.capabilities.host_bound:
                await self._void(session, "not created: no answer")
                return None
            break
        await self._settle_orphan(session, "creation was not answered")
        return None

    async def _abandon(self, running: Running) -> None:
        """Clean up after a creation that the pool itself cancelled."""
        await asyncio.wait([self._spawn(self._abandoned(running), f"abandon {running.session.id}")])

    async def _abandoned(self, running: Running) -> None:
        if running.hold is not None and not running.sent:
            await self._void(running.session, "ended before it was created")
        elif running.hold is not None:
            running.remote = await self._look_up(running.session)
        running.creating = None
        if running.remote is None:
            self._gone(running)
            return
        if running.session.state is State.CREATING:
            self.board.end(running.session, "creation broke off")
        else:
            await self._close(running)

    def _gone(self, running: Running) -> None:
        self.running.pop(running.session.id, None)
        running.creating = None
        if running.session.state is not State.CLOSED:
            self.board.closed(running.session)

    async def _void(self, session: Session, reason: str) -> None:
        try:
            await self._ledger.void(session.id, reason=reason)
        except LedgerError as error:
            log.warning("the hold of session %s is still open: %s", session.id, error)
        self.board.money_freed()

    async def _settle_orphan(self, session: Session, reason: str) -> None:
        try:
            await self._ledger.settle_orphan(session.id, reason=reason)
        except LedgerError as error:
            log.warning("the hold of session %s is still open: %s", session.id, error)
        self.board.money_freed()

    # ── end ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def lost(self, session_id: str, reason: str) -> None:
        """A provider, or the connection, says that a session is dead."""
        running = self.running.get(session_id)
        if running is not None and running.session.state not in ENDING:
            self.board.lost(running.session, reason)

    def close(self, session: Session) -> None:
        """Carry out `Close`."""
        running = self.running.get(session.id)
        if running is None:
            # Ended between the decision to create it and the money for it: there is nothing to close.
            self.board.closed(session)
        elif running.creating is not None:
            running.creating.cancel()
        else:
            self._spawn(self._close(running), f"close {session.id}")

    async def _close(self, running: Running) -> None:
        session = running.session
        assert running.remote is not None
        old = "lost" if session.state is State.LOST else "draining"
        self.note(session, "", old, session.reason)
        if running.browser is not None:
            await self._disconnect(running.browser, session)
        if not await self._confirm_close(running.remote, session):
            return  # the row stays open, so the next start takes it up
        seconds = self._clock.monotonic() - running.sent_at
        self.running.pop(session.id, None)
        self.board.closed(session)
        usage = SessionUsage(
            seconds=seconds, proxy_bytes=running.browser.meter.received if running.browser else 0
        )
        try:
            await self._ledger.settle(
                session.id, usage, reason=session.reason, state="lost" if old == "lost" else "closed"
            )
        except LedgerError as error:
            log.warning("session %s is over, but its cost could not be settled yet: %s", session.id, error)
        self.board.money_freed()

    async def _disconnect(self, browser: SessionBrowser, session: Session) -> None:
        try:
            async with asyncio.timeout(self._config.pool.clean_timeout.total_seconds()):
                await browser.aclose()
        except Exception as error:  # noqa: BLE001 - a dying browser may raise anything; its end follows anyway
            log.debug("session %s did not disconnect cleanly: %r", session.id, error)

    async def _confirm_close(self, remote: RemoteSession, session: Session) -> bool:
        """Ask the provider to end the session until it confirms; False if the pool stopped first."""
        provider = self._providers[session.provider]
        wait = 0.25
        while True:
            try:
                async with asyncio.timeout(self._config.pool.close_timeout.total_seconds()):
                    await provider.close(remote.provider_session_id)
            except Exception as error:  # noqa: BLE001 - whatever it was, the session may still cost money
                log.warning("session %s is not closed at %r yet: %r", session.id, session.provider, error)
                await self._owe_release(session, error)
            else:
                return True
            if self.stopping:
                return False
            await asyncio.sleep(wait * self._rng.uniform(0.75, 1.25))
            wait = min(wait * 2, 30.0)

    async def _owe_release(self, session: Session, error: Exception) -> None:
        """Put the release on record, so that it is shown, and taken up by the next start if this process ends."""
        try:
            await self._ledger.release_later(session.id, reason=session.reason, error=repr(error)[:500])
        except LedgerError as failed:
            log.warning("the unconfirmed end of session %s could not be noted: %s", session.id, failed)

    def note(self, session: Session, old: str, new: str, reason: str) -> None:
        """Record a change of state."""
        self._ledger.record_state(
            StateChange(session_id=session.id, at=self._clock.now(), old=old, new=new, reason=reason)
        )
