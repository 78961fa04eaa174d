"""How sessions begin: hold the money, ask the provider once, write down what came of it.

It decides nothing: it carries out a `Create` of the plan and tells the board how it went. Money comes first: the row
and the hold are committed before the provider is called. A create is sent once; what became of one that was not
answered is looked up by its label.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from random import Random

from tabkeeper.clock import Clock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import (
    BudgetExceededError,
    LedgerError,
    LedgerUnavailableError,
    NoPriceError,
    NoProxyError,
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderError,
    ProviderNotFoundError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    SessionCreationError,
    TabkeeperError,
)
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Hold, HoldRequest
from tabkeeper.pool.board import Board, Effect
from tabkeeper.pool.browser import SessionBrowser
from tabkeeper.pool.caps import most_bytes, most_own_bytes
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.debts import Debt
from tabkeeper.pool.model import PlatformRules, Request, Session, State
from tabkeeper.pool.plan import longest_life
from tabkeeper.pool.proxied import Proxied, spec_of
from tabkeeper.pool.relay import Relay
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.pool.spans import span
from tabkeeper.pool.sweeper import FIRST_PAUSE, Sweeper
from tabkeeper.pool.traffic import Meter
from tabkeeper.providers.base import Provider, ProxySpec, RemoteSession, SessionSpec
from tabkeeper.providers.breaker import Kind, Setback
from tabkeeper.proxies.model import Proxy
from tabkeeper.vault import Vault

log = logging.getLogger(__name__)

LASTING = (NoPriceError, ProviderAuthError, ProviderPaymentError, ProviderRequestError)
"""Errors that the same call will meet again."""
BUSY = (ProviderCapacityError, ProviderRateLimitError)
"""Errors that say nothing against the provider or the request: wait and come again."""
FIRST_LOOK = 0.5
"""Seconds between the first two looks for a session whose creation was not answered; they double."""
BUDGET_POLL = 5.0
"""Seconds after which a refused budget is asked again: another process may have settled meanwhile."""


class Creation:
    """Creates the sessions of one pool."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        rng: Random,
        board: Board,
        sessions: Sessions,
        vault: Vault,
        sweeper: Sweeper,
        counts: Counts,
        proxied: Proxied,
        refuse: Callable[[Request, TabkeeperError], None],
    ) -> None:
        self._config = config
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._board = board
        self._sessions = sessions
        self._vault = vault
        self._sweeper = sweeper
        self._counts = counts
        self._proxied = proxied
        self._refuse = refuse

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
            hold = await self._hold(running)
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
            self._sessions.connections.to(remote.connect_url, shared=remote.shared),
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
            self._failed_for_all(session, "no proxy", error)
            return False
        return True

    def _failed_for_all(self, session: Session, blame: str, error: TabkeeperError) -> None:
        """No provider is to blame, and none could help."""
        self._board.failed(
            session,
            blame=blame,
            setback=None,
            counts=False,
            hope="never",
            then=lambda request: self._refuse(request, error),
        )

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
            session, "over before it was ready", then=lambda request: self._refuse(request, error)
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
        ask = self._hold_request(session, session.provider, running.proxy)
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
            self._sessions.running.pop(session.id, None)
            self._failed(session, error)
            return None
        except LedgerError as error:
            del self._sessions.running[session.id]
            self._failed_for_all(session, "the ledger failed", error)
            return None
        running.hold = hold
        limits = self._providers[session.provider].capabilities
        least = limits.min_seconds
        if hold.max_seconds < least:
            # The provider would let it run, and bill it, past the money held for it.
            await self._void(session, "its hold is too short for the provider")
            self._sessions.running.pop(session.id, None)
            short = ProviderRequestError(
                session.provider,
                f"its sessions live at least {least:g} s, and max_session_cost of platform "
                f"{session.lane.platform!r} pays for {hold.max_seconds:g} s; raise it",
            )
            self._failed(session, short)
            return None
        self._board.held(session, max(least, limits.whole_steps(hold.max_seconds)))
        # What the hold allows, and whether anybody still wants the session, is known only then.
        await self._board.settled()
        if session.state is not State.CREATING:
            await self._void(session, "ended before it was created")
            self._gone(running)
            return None
        return hold

    def _hold_request(self, session: Session, provider: str, proxy: Proxy | None) -> HoldRequest:
        price = None if proxy is None else proxy.price_per_gb or None
        return HoldRequest(
            session_id=session.id,
            platform=session.lane.platform,
            provider=provider,
            tenant=session.tenant,
            max_seconds=self._life_wanted(session, provider),
            max_session_cost=self._config.platforms[session.lane.platform].max_session_cost,
            proxy_price=price,
            proxy_bytes=0 if price is None else int(self._config.proxy_pool.max_gb * 10**9),
        )

    def _life_wanted(self, session: Session, provider: str) -> float:
        """Seconds to hold money for: the longest life the plan can give it, within what the provider allows."""
        limits = self._providers[provider].capabilities
        # Where timeouts are whole minutes, part of one would be held for nothing and cut off the end.
        wanted = limits.whole_steps(longest_life(self._board.view, session.lane), up=True)
        if limits.max_seconds is not None:
            wanted = min(wanted, limits.max_seconds)
        return max(wanted, limits.min_seconds)

    def _over_budget(self, running: Running, error: BudgetExceededError) -> None:
        session = running.session
        del self._sessions.running[session.id]
        now = self._clock.monotonic()
        until = now + BUDGET_POLL
        if error.resets_at is not None:
            until = min(until, now + max(0.0, (error.resets_at - self._clock.now()).total_seconds()))
        effect: Effect = "refuse"
        fits: frozenset[str] = frozenset()
        if error.on_exceed == "wait":
            effect = "wait"
        elif error.on_exceed == "fallback" and (fits := self._cheaper(running, error)):
            effect = "cheaper"
        self._board.denied(
            session,
            until=until,
            why=str(error),
            effect=effect,
            fits=fits,
            hope="never" if effect == "refuse" else "always",
            then=lambda request: self._refuse(request, error),
        )

    def _cheaper(self, running: Running, error: BudgetExceededError) -> frozenset[str]:
        """Name the platform's providers whose worst case is less than what was refused, and fits into what is left.

        A budget of one provider says nothing about the others.
        """
        session = running.session
        left = error.limit - error.spent - error.held
        lane = self._board.view.lane(session.lane)
        names = set(lane.rules.providers) - {session.provider}
        if self._clock.monotonic() < lane.paid_from:  # another budget has said no already
            names &= lane.fits
        own = any(b.name == error.budget and b.provider is not None for b in self._config.budgets)
        worst = {
            name: self._ledger.worst_case(self._hold_request(session, name, running.proxy)) for name in names
        }
        return frozenset(
            name
            for name, amount in worst.items()
            if amount is not None and (own or not amount or (amount < error.needed and amount <= left))
        )

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
                with span(
                    "create", session=session.id, platform=session.lane.platform, provider=session.provider
                ):
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
            await self._void(session, f"not created: {type(failed).__name__}")
        self._creation_failed(running, error)
        return None

    def _creation_failed(self, running: Running, error: ProviderError) -> None:
        session = running.session
        self._counts.creations_failed += 1
        self._counts.creation_results[session.provider, "failed"] += 1
        self._sessions.running.pop(session.id, None)
        log.warning("session %s (platform %r) was not created: %s", session.id, session.lane.platform, error)
        if isinstance(error, ProviderCapacityError) and not any(
            one.session.provider == session.provider for one in self._sessions.running.values()
        ):
            work = self._sweeper.look_into_refusal(session.provider)
            self._sessions.spawn(work, f"look into {session.provider}")
        self._failed(session, error)

    def _failed(self, session: Session, error: TabkeeperError) -> None:
        """Tell the board what it means; refuse the request if it has had its attempts or has no other hope."""
        rules = self._rules_of(session)
        lasting = isinstance(error, LASTING)
        setback = Setback(
            kind=_kind(error),
            base=rules.retry_base,
            longest=rules.retry_max,
            retry_after=error.retry_after if isinstance(error, ProviderError) else None,
            jitter=self._rng.uniform(0.75, 1.25),
        )
        self._board.failed(
            session,
            blame=str(error),
            setback=setback,
            counts=not isinstance(error, BUSY),
            hope="providers" if lasting else "attempts",
            then=lambda request: self._refuse(request, _no_session(session, request, error)),
        )

    def _rules_of(self, session: Session) -> PlatformRules:
        return self._board.view.rules.platforms[session.lane.platform]

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
                await self._void(session, f"not created: {never}")
                return None
            except Exception as error:  # noqa: BLE001 - an adapter that breaks its contract must not cost a place
                log.warning(
                    "session %s cannot be looked up at %r yet: %r", session.id, session.provider, error
                )
            else:
                if found is not None and found.running and found.connect_url:
                    return found
                if found is None and provider.capabilities.host_bound:
                    await self._void(session, "not created: no answer")
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
            await self._void(running.session, "ended before it was created")
        elif running.hold is not None:
            running.remote = await self._look_up(running, may_be_answered=True)
        running.creating = None
        if running.remote is None:
            self._gone(running)
            return
        if running.session.state is State.CREATING:
            self._board.end(running.session, "creation broke off")
        else:
            await self._sessions.end(running)

    def _gone(self, running: Running) -> None:
        self._sessions.running.pop(running.session.id, None)
        running.creating = None
        if running.session.state is not State.CLOSED:
            self._board.closed(running.session)

    async def _void(self, session: Session, reason: str) -> None:
        try:
            await self._ledger.void(session.id, reason=reason)
        except LedgerError as error:
            log.warning("the hold of session %s is still open: %s", session.id, error)
        self._board.money_freed()


def _kind(error: TabkeeperError) -> Kind:
    if isinstance(error, ProviderCapacityError):
        return "capacity"
    if isinstance(error, ProviderRateLimitError):
        return "rate"
    return "lasting" if isinstance(error, LASTING) else "failure"


def _no_session(session: Session, request: Request, error: TabkeeperError) -> SessionCreationError:
    refusal = SessionCreationError(
        f"no session for platform {session.lane.platform!r} after {request.failures} "
        f"attempt{'s' if request.failures != 1 else ''}; last: {error}"
    )
    refusal.__cause__ = error
    return refusal
