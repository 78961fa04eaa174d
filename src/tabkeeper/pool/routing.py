"""Keeps the view's routes up to date: what leases are expected to cost, what the month leaves, what providers allow.

It decides nothing: it turns what was learnt into an order of providers, which the planner reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from tabkeeper.clock import Clock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import LedgerError, NoPriceError
from tabkeeper.ledger.expected import Habits
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.rates import RateCard
from tabkeeper.money import Money
from tabkeeper.pool.board import Board
from tabkeeper.pool.model import Lane, Session
from tabkeeper.pool.plan import longest_life
from tabkeeper.providers.base import Provider
from tabkeeper.providers.route import Candidate, by_cost

log = logging.getLogger(__name__)


class Router:
    """The routes of one pool. Platforms that are `ordered` cost it nothing."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        board: Board,
    ) -> None:
        self._config = config
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._board = board
        self._view = board.view
        self._priced = [
            name for name, rules in self._view.rules.platforms.items() if rules.routing != "ordered"
        ]
        self._habits: dict[str, Habits] = {}
        self._used: Mapping[tuple[str, str, str], int] = {}

    async def open(self) -> None:
        """Load what earlier runs have learnt, and set the first routes; a ladder's rungs stay as they are then.

        Raises:
            LedgerUnavailableError: the database cannot be read.
        """
        if not self._priced:
            return
        self._habits = {name: await self._ledger.records.habits(name) for name in self._priced}
        self._used = await self._ledger.records.allowances_used()
        self._score()
        for platform in self._view.ladders:
            self._board.told_route(platform, by_cost(self._candidates(platform)))

    def lease_over(self, platform: str, seconds: float) -> None:
        """A lease ended after this time."""
        if platform in self._habits:
            self._habits[platform].lease_over(seconds)

    async def session_over(self, session: Session, seconds: float, *, uses: int, received: int) -> None:
        """A session has ended and is settled."""
        habits = self._habits.get(session.lane.platform)
        if habits is None:
            return
        if uses:
            habits.session_over(seconds, uses=uses, received=received)
        await self.refresh()

    async def refresh(self) -> None:
        """Look again at prices and allowances: months and price lists change, and other processes use them up."""
        if not self._priced:
            return
        try:
            self._used = await self._ledger.records.allowances_used()
        except LedgerError as error:
            log.warning("allowances could not be read, so routes stay as they are: %s", error)
            return
        self._score()

    def _score(self) -> None:
        for platform in self._priced:
            candidates = self._candidates(platform)
            self._view.costs[platform] = {c.name: c.cost for c in candidates}
            if self._view.rules.platforms[platform].routing == "cheapest":
                names = by_cost(candidates)
                if names != self._view.routes[platform] and self._board.leads:
                    self._board.told_route(platform, names)

    def _candidates(self, platform: str) -> list[Candidate]:
        named = self._view.rules.platforms[platform].providers
        return [
            Candidate(name=name, position=place, cost=self._cost(platform, name))
            for place, name in enumerate(named)
        ]

    def _cost(self, platform: str, provider: str) -> Money | None:
        try:
            card = self._ledger.price_card(provider)
        except NoPriceError:
            return None
        return self._habits[platform].cost_of_a_lease(
            card,
            longest=longest_life(self._view, Lane(platform)),
            included_left=self._left(provider, card),
        )

    def _left(self, provider: str, card: RateCard) -> dict[str, int]:
        return {
            part.kind: max(0, part.included_qty - self._used.get((provider, card.plan, part.kind), 0))
            for part in card.components
            if part.included_qty
        }

    async def ask_limits(self) -> None:
        """Ask providers that tell it how many sessions the account may run; one that hangs delays no other."""
        names = [
            name
            for name in self._view.providers
            if name in self._providers and self._providers[name].capabilities.concurrency
        ]
        await asyncio.gather(*(self._ask_limit(name) for name in names))

    async def _ask_limit(self, name: str) -> None:
        try:
            async with asyncio.timeout(self._config.pool.close_timeout.total_seconds()):
                checks = await self._providers[name].check()
        except Exception as error:  # noqa: BLE001 - it is a help, not a need; the breaker hears of real trouble
            log.info("provider %r does not tell its limit of sessions: %r", name, error)
            return
        for check in checks:
            if check.concurrency is not None:
                self._board.told_limit(name, check.concurrency)
