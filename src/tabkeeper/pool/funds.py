"""The money of a session that is to be created: the worst case is held before its provider is asked, or given back.

A budget that does not allow it sends the request to a cheaper provider, lets it wait, or refuses it, as it is set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from tabkeeper.clock import Clock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import BudgetExceededError, LedgerError, NoPriceError, ProviderRequestError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Hold, HoldRequest
from tabkeeper.pool.board import Board, Effect
from tabkeeper.pool.failures import Failures
from tabkeeper.pool.model import Session, State
from tabkeeper.pool.plan import longest_life
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.providers.base import Provider
from tabkeeper.proxies.model import Proxy

log = logging.getLogger(__name__)

BUDGET_POLL = 5.0
"""Seconds after which a refused budget is asked again: another process may have settled meanwhile."""


class Funds:
    """Holds and gives back the money of one pool's sessions that do not run yet."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        board: Board,
        sessions: Sessions,
        failures: Failures,
    ) -> None:
        self._config = config
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._board = board
        self._sessions = sessions
        self._failures = failures

    async def hold(self, running: Running) -> Hold | None:
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
            self._failures.tell(session, error)
            return None
        except LedgerError as error:
            del self._sessions.running[session.id]
            self._failures.for_all(session, "the ledger failed", error)
            return None
        running.hold = hold
        limits = self._providers[session.provider].capabilities
        least = limits.min_seconds
        if hold.max_seconds < least:
            # The provider would let it run, and bill it, past the money held for it.
            await self.void(session, "its hold is too short for the provider")
            self._sessions.running.pop(session.id, None)
            short = ProviderRequestError(
                session.provider,
                f"its sessions live at least {least:g} s, and max_session_cost of platform "
                f"{session.lane.platform!r} pays for {hold.max_seconds:g} s; raise it",
            )
            self._failures.tell(session, short)
            return None
        self._board.held(session, max(least, limits.whole_steps(hold.max_seconds)))
        # What the hold allows, and whether anybody still wants the session, is known only then.
        await self._board.settled()
        if session.state is not State.CREATING:
            await self.void(session, "ended before it was created")
            self._failures.gone(running)
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

    async def void(self, session: Session, reason: str) -> None:
        """Give back what was held for a session that will never be; if the ledger fails, it stays held."""
        try:
            await self._ledger.void(session.id, reason=reason)
        except LedgerError as error:
            log.warning("the hold of session %s is still open: %s", session.id, error)
        self._board.money_freed()

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
            then=lambda request: self._failures.refuse(request, error),
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
