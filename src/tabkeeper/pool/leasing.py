"""Granting and ending leases: from a request's future to the usage log's row, and what a lease asks of its pool.

It carries out what the plan decided about requests; it never chooses who gets what.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from tabkeeper.clock import Clock, Instant
from tabkeeper.config import PoolConfig
from tabkeeper.errors import (
    BudgetExceededError,
    QueueFullError,
    TabkeeperError,
)
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.rates import accrued
from tabkeeper.ledger.types import LeaseUsage
from tabkeeper.money import ZERO, Money
from tabkeeper.pool.asking import Ask, Asking, profile_of
from tabkeeper.pool.board import Board
from tabkeeper.pool.caps import affordable_seconds, not_the_leases
from tabkeeper.pool.checkup import limits_from
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.health import Trouble
from tabkeeper.pool.holding import Holding
from tabkeeper.pool.lease import Lease
from tabkeeper.pool.model import Request, Session, State
from tabkeeper.pool.profiled import Profiled
from tabkeeper.pool.proxied import MovedError, Proxied
from tabkeeper.pool.reach import Reach
from tabkeeper.pool.routing import Router
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.pool.sharing import Turns
from tabkeeper.pool.spans import span
from tabkeeper.profiles.store import ProfileStore
from tabkeeper.providers.base import Provider

log = logging.getLogger(__name__)

BLOCKED = "blocked"
"""The reason of a failed lease that the site kept out: its session is not used again."""


class Leases:
    """The leases of one pool. It is the `lease.Host` of each of them."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        board: Board,
        sessions: Sessions,
        profiles: ProfileStore,
        proxied: Proxied,
        counts: Counts,
        router: Router,
        asking: Asking,
        take: Callable[[Session], Awaitable[bool]],
    ) -> None:
        self._asking = asking
        self._take = take
        self._config = config
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._board = board
        self._view = board.view
        self._sessions = sessions
        self._profiles = profiles
        self._proxied = proxied
        self._router = router
        self._profiled = Profiled(profiles, clock, config.pool.clean_timeout.total_seconds())
        self._futures: dict[int, asyncio.Future[Lease]] = {}
        self._asked: dict[int, Ask] = {}
        self._ended = asyncio.Event()
        self._limits = limits_from(config.health)
        self.counts = counts
        self.reach = Reach(config, providers=providers, sessions=sessions, profiled=self._profiled)
        self.turns = Turns(
            self,
            asking=asking,
            board=board,
            clock=clock,
            counts=counts,
            profiled=self._profiled,
            clean_timeout=config.pool.clean_timeout.total_seconds(),
            spawn=sessions.spawn,
        )

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def acquire(self, ask: Ask) -> Lease:
        """Wait for a lease; see `SessionPool.get_session`."""
        with span("lease", platform=ask.platform, tenant=ask.tenant, priority=ask.priority) as tell:
            lease = await self._acquire(ask)
            tell(provider=lease.provider, session=lease.session_id, lease=lease.id, is_new=lease.is_new)
            return lease

    async def _acquire(self, ask: Ask) -> Lease:
        request = self._asking.request_from(ask)
        if request.lane.identity is not None and self._config.platforms[ask.platform].identity == "shared":
            return await self.turns.share(ask, request)
        while True:
            try:
                return await self.wait_for(ask, request)
            except MovedError:
                again = self._asking.request_from(ask)
                again.arrived_at, again.deadline = request.arrived_at, request.deadline
                request = again

    async def wait_for(self, ask: Ask, request: Request) -> Lease:
        """Put a request before the board and wait for its answer."""
        if self._board.queued >= self._config.pool.max_queued:
            self.counts.refused += 1
            raise QueueFullError(ask.platform, self._board.queued)
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._futures[request.id] = future
        self._asked[request.id] = ask
        self._board.request(request)
        self.counts.peak_queued = max(self.counts.peak_queued, self._board.queued)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.hand_back(future.result()._holding)  # noqa: SLF001 - it came in the moment of cancellation
            else:
                self._board.withdraw(request)
            raise
        finally:
            self._futures.pop(request.id, None)
            self._asked.pop(request.id, None)

    def place_of(self, request_id: int) -> str:
        """Say who asked for a waiting request's lease; empty if that is not known."""
        ask = self._asked.get(request_id)
        return "" if ask is None else ask.place

    def held(self) -> list[str]:
        """Say of each running lease what it is for and where it was taken."""
        return [
            f"{running.session.lane.platform}, taken at {running.holding.place}"
            for running in self._sessions.running.values()
            if running.holding is not None and not running.holding.over
        ]

    async def all_ended(self) -> None:
        """Return when this process has no session leased."""
        while any(running.holding is not None for running in self._sessions.running.values()):
            self._ended.clear()
            await self._ended.wait()

    # ── carrying out what the plan decided ─────────────────────────────────────────────────────────────────────────

    def grant(self, request: Request, session: Session, use: int) -> None:
        """Carry out `Grant`, unless the caller has left, the browser is dead, or the lease's own cap forbids it."""
        future = self._futures.get(request.id)
        running = self._sessions.running.get(session.id)
        if running is None:
            self._sessions.spawn(self._grant_taken(request, session, use), f"take {session.id}")
            return
        assert running.remote is not None
        assert running.hold is not None
        if future is None or future.done():
            # The caller left between its cancellation and its withdrawal.
            self._board.released(session, use, keep=True, reason="")
            return
        if not self._providers[session.provider].alive(running.remote.provider_session_id):
            self._board.lost(session, "browser died")
            request.waiting = True
            self._board.request(request)
            return
        if running.leases and not self._proxied.may_go_on(running.proxy):
            assert running.proxy is not None
            self._board.end(session, f"proxy {running.proxy.id} failed")
            if request.lane.proxy is not None:
                self.refuse(request, MovedError(f"proxy {running.proxy.id!r} is no longer used"))
            else:
                request.waiting = True
                self._board.request(request)
            return
        ask = self._asked[request.id]
        now = self._clock.monotonic()
        age = now - running.sent_at
        if ask.max_cost is not None and not self._cap_lease(ask, running, age, now):
            self._board.released(session, use, keep=True, reason="")
            self.refuse(request, self._unaffordable(ask, running, age))
            return
        settings = self._config.platforms[request.lane.platform]
        holding = Holding(
            id=f"{session.id}.{use}",
            session=session,
            use=use,
            tenant=request.tenant,
            priority=request.priority,
            tags=ask.tags,
            place=ask.place,
            requested_at=request.arrived_at,
            granted_at=now,
            is_first=running.leases == 0,
            is_new=running.leases == 0 or ask.session_id not in {None, session.id},
            start_age=age,
            card=running.hold.card,
            use_timeout=settings.use_timeout.total_seconds(),
            block=settings.block,
            bytes_before=running.browser.meter.received if running.browser else 0,
            proxy=running.proxy,
            profile=profile_of(ask, running.proxy),
        )
        running.holding = holding
        running.leases += 1
        running.last_used = now
        counts = self.counts
        counts.leases += 1
        counts.reused += not holding.is_first
        counts.prewarm_used += holding.is_first and session.ahead is not None
        counts.waited += now - request.arrived_at
        counts.waited_for(now - request.arrived_at)
        counts.queue_wait.add(now - request.arrived_at)
        future.set_result(Lease(self, holding))

    async def _grant_taken(self, request: Request, session: Session, use: int) -> None:
        """Grant a session that another process made, once it is in our hands."""
        taken = await self._take(session)
        if session.state is not State.LEASED or session.uses != use or session.home != self._board.home:
            self._again(request)
        elif taken:
            self.grant(request, session, use)
        else:
            self._board.lost(session, "it could not be taken over")
            self._again(request)

    def _again(self, request: Request) -> None:
        """Let a request wait that was granted what is of no use to it, unless its caller has left."""
        future = self._futures.get(request.id)
        if future is not None and not future.done():
            request.waiting = True
            self._board.request(request)

    def _cap_lease(self, ask: Ask, running: Running, age: float, now: Instant) -> bool:
        assert ask.max_cost is not None
        assert running.hold is not None
        first = running.leases == 0
        longest = running.session.lease_ends - now
        before = not_the_leases(running.hold.card, age, first=first)
        seconds = affordable_seconds(running.hold.card, age, before, ask.max_cost, longest)
        if seconds <= 0:
            return False
        self._board.shorten(running.session, running.session.uses, now + seconds)
        return True

    def _unaffordable(self, ask: Ask, running: Running, age: float) -> BudgetExceededError:
        assert ask.max_cost is not None
        assert running.hold is not None
        before = not_the_leases(running.hold.card, age, first=running.leases == 0)
        return BudgetExceededError(
            budget="max_cost",
            limit=ask.max_cost,
            spent=ZERO,
            held=ZERO,
            needed=accrued(running.hold.card, age + 1) - before,
            resets_at=None,
            subject=f'one second of a lease on "{ask.platform}" at {running.session.provider}',
        )

    def refuse(self, request: Request, error: TabkeeperError) -> None:
        """Answer a waiting request with an error."""
        self._board.withdraw(request)
        self.counts.refused += 1
        self.counts.waited_for(self._clock.monotonic() - request.arrived_at)
        future = self._futures.get(request.id)
        if future is not None and not future.done():
            future.set_exception(error)

    def report_leak(self, session: Session) -> None:
        """Say who holds a lease suspiciously long, and where it was taken."""
        running = self._sessions.running.get(session.id)
        if running is None or running.holding is None:
            return
        self.counts.leaks += 1
        holding = running.holding
        held = self._clock.monotonic() - holding.granted_at
        left = max(0.0, session.lease_ends - self._clock.monotonic())
        said = (
            f"lease {holding.id} on platform {session.lane.platform!r} has been held for {held:.0f} s; it was taken "
            f"at {holding.place} and is reclaimed in {left:.0f} s"
        )
        log.warning("%s", said)
        self._ledger.alerts.tell("leak", f"leak|{holding.id}", said, session_id=session.id)

    # ── what leases ask of us (lease.Host) ─────────────────────────────────────────────────────────────────────────

    def wall(self, at: Instant) -> datetime:
        """See `lease.Host`."""
        return self._clock.now() + timedelta(seconds=at - self._clock.monotonic())

    def cost_of(self, holding: Holding) -> Money:
        """See `lease.Host`."""
        age = holding.end_age
        if age is None:
            age = holding.start_age + self._clock.monotonic() - holding.granted_at
        before = not_the_leases(holding.card, holding.start_age, first=holding.is_first)
        return accrued(holding.card, age) - before

    def hurt(self, holding: Holding, kind: Trouble, error: BaseException) -> None:
        """See `lease.Host`."""
        holding.error = f"{type(error).__name__}: {error}"[:500]
        running = self._sessions.running.get(holding.session.id)
        if running is not None and not holding.over:
            running.health.hurt(kind)
            self.counts.troubles[kind] += 1

    async def profile_options(self, holding: Holding) -> dict[str, Any]:
        """See `lease.Host`."""
        return await self._profiled.options(holding)

    async def release(self, holding: Holding, *, success: bool, error: str | None = None) -> None:
        """See `lease.Host`."""
        if holding.over:
            return
        if holding.carrier is not None:
            await self.turns.leave(holding, success=success, error=error)
            return
        sharing = [share for share in holding.shares if not share.over]
        if sharing:  # somebody ended it by the session's id
            for share in sharing:
                await self.turns.leave(share, success=success, error=error)
            return
        blocked = not success and error == BLOCKED
        holding.end("ok" if success else "failed", error)
        running = self._sessions.running[holding.session.id]
        self._proxied.learn(
            holding.proxy,
            success=success,
            used=running.browser is not None and running.browser.used,
            error=holding.error,
        )
        clean = False
        exposed = running.exposed or running.relayed
        try:
            if success:
                await self._profiled.read(holding)
            untouched = running.browser is None or not running.browser.used
            clean = (untouched or await self._clean(running)) and not exposed
        finally:
            decline = running.health.decline(self._limits)
            reason = decline if clean else "used by another client" if exposed else "not cleaned"
            self._record(running, holding)
            self._board.released(
                holding.session,
                holding.use,
                keep=clean and not decline and not blocked,
                reason="blocked" if blocked else reason,
                check=running.health.is_sick(self._limits),
                success=success,
            )
            saving = self.settle_profile(holding)
        if saving is not None:
            await asyncio.shield(saving)  # who leases next finds what was saved

    def settle_profile(self, holding: Holding) -> asyncio.Task[None] | None:
        """Save what is to be saved of a profile; None if there is none."""
        if holding.visit is None:
            return None
        return self._sessions.spawn(
            self._profiled.settle(holding, holding.over), f"save profile {holding.id}"
        )

    async def _clean(self, running: Running) -> bool:
        assert running.browser is not None
        try:
            async with asyncio.timeout(self._config.pool.clean_timeout.total_seconds()):
                left = await running.browser.clean()
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody else gets this session
            log.warning("session %s could not be cleaned and is closed: %r", running.session.id, error)
            self.counts.dirty += 1
            return False
        if left:
            self.counts.dirty += 1
            log.warning(
                "session %s is not clean after a lease and is closed: %s", running.session.id, "; ".join(left)
            )
        return not left

    def hand_back(self, holding: Holding) -> None:
        """Return a lease that its caller never saw."""
        if not holding.over:
            holding.end("ok", "cancelled before use")
            running = self._sessions.running[holding.session.id]
            self._record(running, holding)
            self._board.released(holding.session, holding.use, keep=True, reason="")

    def end_holding(self, session: Session, outcome: str, why: str) -> None:
        """End a lease under its holder."""
        running = self._sessions.running.get(session.id)
        if running is None or running.holding is None:
            return
        holding = running.holding
        if holding.over:
            self._record(running, holding)  # released, still being cleaned: its row must come before the bill
            return
        if outcome == "lost":
            self.counts.lost += 1
        elif outcome == "evicted":
            self.counts.evicted_in_use += 1
        holding.end(outcome, why)
        self._record(running, holding)
        self.turns.end_turn_of(holding)
        for ended in (holding, *(share for share in holding.shares if not share.over)):
            ended.end(outcome, why)
            self.settle_profile(ended)
            for scope in list(ended.scopes):
                if not scope.expired():  # else it is cancelling its operation already, and cannot be moved
                    scope.reschedule(asyncio.get_running_loop().time())

    def _record(self, running: Running, holding: Holding) -> None:
        """Write the usage log's row of a lease that has ended, once."""
        if running.holding is not holding:
            return
        running.holding = None
        self._ended.set()
        session = holding.session
        self.counts.lease_results[session.lane.platform, holding.over] += 1
        now = running.last_used = self._clock.monotonic()
        holding.end_age = now - running.sent_at
        self._router.lease_over(session.lane.platform, now - holding.granted_at)
        wall = self._clock.now()
        received = running.browser.meter.received if running.browser is not None else 0
        holding.received = received - holding.bytes_before
        self._ledger.record_lease(
            LeaseUsage(
                lease_id=holding.id,
                session_id=session.id,
                use_number=holding.use,
                platform=session.lane.platform,
                provider=session.provider,
                tenant=holding.tenant,
                priority=holding.priority,
                requested_at=wall - timedelta(seconds=now - holding.requested_at),
                granted_at=wall - timedelta(seconds=now - holding.granted_at),
                released_at=wall,
                waited=holding.granted_at - holding.requested_at,
                start_age=holding.start_age,
                end_age=holding.end_age,
                is_new=holding.is_first,
                outcome=holding.over,
                error=holding.error,
                bytes_received=holding.received,
                place=holding.place,
                tags=holding.tags,
            )
        )
