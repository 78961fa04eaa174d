"""Everything an open pool is made of: who knows whom is decided here, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from random import Random

from tabkeeper.alerts.channel import Channel
from tabkeeper.alerts.dispatch import Dispatcher
from tabkeeper.clock import Clock, FleetClock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import TabkeeperError
from tabkeeper.ledger.comparing import Tolerance
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.asking import Asking
from tabkeeper.pool.board import Board, MemoryBoard
from tabkeeper.pool.carrying import Carrying
from tabkeeper.pool.checkup import Checkup
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.creation import Creation
from tabkeeper.pool.failures import Failures
from tabkeeper.pool.fleet import bound_platforms, shared_board
from tabkeeper.pool.funds import Funds
from tabkeeper.pool.handing import Handing
from tabkeeper.pool.jobs import Jobs
from tabkeeper.pool.keep import Keeper
from tabkeeper.pool.leasing import Leases
from tabkeeper.pool.memory import remember
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import Action, Request
from tabkeeper.pool.proxied import Proxied
from tabkeeper.pool.reconciling import Reconciler
from tabkeeper.pool.routing import Router
from tabkeeper.pool.rules import meters_from, rules_from
from tabkeeper.pool.sessions import Sessions
from tabkeeper.pool.shared.teller import Hooks
from tabkeeper.pool.stats import PoolStats
from tabkeeper.pool.stocktaking import take_stats
from tabkeeper.pool.sweeper import Sweeper, label_prefix
from tabkeeper.pool.view import View
from tabkeeper.pool.watch import Watch
from tabkeeper.profiles.store import ProfileStore
from tabkeeper.providers.base import Provider
from tabkeeper.reports.books import Books
from tabkeeper.reports.standing import Standing
from tabkeeper.vault import Vault


class Parts:
    """The parts of one pool. Making them starts nothing; `start` does, in the order in which they need each other."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        clock: Clock,
        rng: Random,
        vault: Vault,
        channels: Sequence[Channel],
        shared: bool,
        since: datetime,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._providers = providers
        self._clock = clock
        self._rng = rng
        self._shared = shared
        self._vault = vault
        self._standing = Standing()
        self._saving_proxies: asyncio.Task[None] | None = None
        self.books = Books(ledger, timezone=config.ledger.timezone, clock=clock)
        rules = rules_from(self._config)
        meters = meters_from(self._config, self._ledger)
        self._keeper = keeper = Keeper(rules, meters)
        self.view = View(rules, self._new_id, keeper)
        self.board = self._make_board(meters)
        counts = Counts()
        self.router = Router(
            self._config,
            providers=self._providers,
            ledger=self._ledger,
            clock=self._clock,
            board=self.board,
        )
        self.sessions = Sessions(
            self._config,
            providers=self._providers,
            ledger=self._ledger,
            clock=self._clock,
            rng=self._rng,
            board=self.board,
            router=self.router,
        )
        self.sweeper = Sweeper(
            providers=self._providers,
            ledger=self._ledger,
            clock=self._clock,
            rng=self._rng,
            patience=self._config.pool.close_timeout.total_seconds(),
            ours=self._is_ours,
            money_freed=self.board.money_freed,
            exclusive=self._exclusive(),
        )
        self.proxied = Proxied(
            self._config,
            providers=self._providers,
            database=self._ledger,
            clock=self._clock,
            rng=self._rng,
            vault=self._vault,
        )
        failures = Failures(
            board=self.board,
            sessions=self.sessions,
            sweeper=self.sweeper,
            counts=counts,
            rng=self._rng,
            refuse=self._refuse,
        )
        self.creation = Creation(
            self._config,
            providers=self._providers,
            ledger=self._ledger,
            clock=self._clock,
            board=self.board,
            sessions=self.sessions,
            vault=self._vault,
            sweeper=self.sweeper,
            counts=counts,
            proxied=self.proxied,
            funds=Funds(
                self._config,
                providers=self._providers,
                ledger=self._ledger,
                clock=self._clock,
                board=self.board,
                sessions=self.sessions,
                failures=failures,
            ),
            failures=failures,
        )
        self.handing = Handing(
            providers=self._providers,
            ledger=self._ledger,
            clock=self._clock,
            board=self.board,
            sessions=self.sessions,
            sweeper=self.sweeper,
            vault=self._vault,
            reach=self.creation.reach,
        )
        self.profiles = ProfileStore(self._ledger, self._vault, self._clock, self._config.all_profiles)
        self.leases = Leases(
            self._config,
            providers=self._providers,
            ledger=self._ledger,
            clock=self._clock,
            board=self.board,
            sessions=self.sessions,
            profiles=self.profiles,
            proxied=self.proxied,
            counts=counts,
            router=self.router,
            asking=Asking(
                self._config,
                clock=self._clock,
                board=self.board,
                proxied=self.proxied,
                require_key=self.profiles.require_key,
                bound=bound_platforms(self._config, self._providers, self._vault),
            ),
            take=self.handing.take,
        )
        self.checkup = Checkup(
            self._config.health,
            providers=self._providers,
            sessions=self.sessions,
            board=self.board,
            clock=self._clock,
            counts=counts,
            take=self.handing.take,
        )
        self.carrying = Carrying(
            board=self.board,
            leases=self.leases,
            creation=self.creation,
            sessions=self.sessions,
            checkup=self.checkup,
            clock=self._clock,
        )
        self.watch = Watch(
            self._config.alerts,
            stats=self.stats,
            waiting=self.board.waiting,
            counts=counts,
            outbox=self._ledger.alerts,
            clock=self._clock,
        )
        self.dispatcher = Dispatcher(
            self._ledger.alerts,
            self._config.alerts,
            channels,
            since=since,
            rng=self._rng,
            kept_report=self.books.kept_report,
        )
        tolerance = self._config.ledger.reconcile_tolerance
        self.reconciler = Reconciler(
            providers=self._providers,
            ledger=self._ledger,
            clock=self._clock,
            tolerance=Tolerance(absolute=tolerance.absolute, relative=tolerance.relative),
            patience=self._config.pool.close_timeout.total_seconds(),
            back=self._config.ledger.reconcile_back,
            most=self._config.ledger.reconcile_most,
            ending=self.sessions.is_ending,
            lost=self.sessions.lost,
            exclusive=self._exclusive(),
        )
        self.jobs = Jobs(
            ledger=self._ledger,
            sweeper=self.sweeper,
            profiles=self.profiles,
            config=self._config,
            clock=self._clock,
            stats=self.stats,
            sessions=self._open_sessions,
            watch=self.watch,
            dispatcher=self.dispatcher,
            books=self.books,
            checkup=self.checkup,
            ask_books=self._take_standing,
            board=self.board,
            reconciler=self.reconciler,
            proxied=self.proxied,
            router=self.router,
        )

    async def start(self) -> None:
        """Learn from the ledger what is known, start the providers, and join the board."""
        await remember(self._keeper, self._ledger, self._config, self._clock)
        await self.router.open()
        await self.proxied.start(self._save_proxies)
        for provider in self._providers.values():
            await provider.start(self.sessions.lost)
        if self._shared:
            self.handing.attach(self._hooks_of_board, self.leases.end_holding)
        await self.board.open()

    def stats(self) -> PoolStats:
        """Count sessions, requests and leases of this moment."""
        return take_stats(
            self.view,
            self.board.mine(),
            self.board.waiting(),
            self.leases.counts,
            self.profiles.stats(),
            sessions=self.sessions,
            clock=self._clock,
            jobs=self.jobs.stats(),
            books=self._standing,
        )

    def _make_board(self, meters: Mapping[str, Meter]) -> Board:
        if not self._shared:
            return MemoryBoard(self.view, self._clock, self._carry_out)
        assert isinstance(self._clock, FleetClock)
        self._hooks_of_board = Hooks(carry_out=self._carry_out)
        return shared_board(
            self._config, self.view, self._clock, self._hooks_of_board, ledger=self._ledger, meters=meters
        )

    def _refuse(self, request: Request, error: TabkeeperError) -> None:
        self.leases.refuse(request, error)

    def _carry_out(self, actions: Iterable[Action]) -> None:
        self.carrying.carry_out(actions)

    def _is_ours(self, session_id: str) -> bool:
        # Who stands by does not know what the others have, and will be left what idles there.
        known = session_id in self.sessions.running or session_id in self.view.sessions
        return known or bool(self.board.stands_by)

    def _exclusive(self) -> dict[str, float]:
        # By then its creation was answered, or given up, in whichever process it was.
        settings = self._config.pool
        bound = 2 * settings.create_timeout.total_seconds() + settings.close_timeout.total_seconds()
        return {name: bound for name, provider in self._config.providers.items() if provider.exclusive}

    def _save_proxies(self) -> None:
        if self._saving_proxies is None or self._saving_proxies.done():
            self._saving_proxies = self.sessions.spawn(self.proxied.save(), "save proxies")

    async def _take_standing(self) -> None:
        self._standing = await self.books.standing()

    def _open_sessions(self) -> list[tuple[str, str, int]]:
        return [(session.id, str(session.state), session.uses) for session in self.board.mine()]

    def _new_id(self) -> str:
        return f"{label_prefix(self._ledger.installation)}{self._rng.getrandbits(64):016x}"
