"""Leases that share a session (``identity = "shared"``): the first who asks begins it, the last who leaves ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tabkeeper.clock import Clock
from tabkeeper.errors import PoolClosedError, QueueTimeoutError
from tabkeeper.pool.asking import Ask, Asking, profile_of
from tabkeeper.pool.board import Board
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.holding import Holding
from tabkeeper.pool.lease import Host, Lease
from tabkeeper.pool.model import Lane, Request
from tabkeeper.pool.profiled import Profiled

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Turn:
    """One lease that several requests of one identity share, from the first that asks until the last that leaves."""

    lane: Lane
    carrier: Holding | None = None
    """The lease, once there is one."""
    hoping: int = 0
    """Requests that wait for it."""
    error: Exception | None = None
    """Why there is none."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    leading: asyncio.Task[None] = field(init=False)


class Owner(Host, Protocol):
    """Who grants the one lease under the shares."""

    async def wait_for(self, ask: Ask, request: Request) -> Lease:
        """Wait for a lease."""

    def hand_back(self, holding: Holding) -> None:
        """Return a lease that nobody saw."""

    def settle_profile(self, holding: Holding) -> asyncio.Task[None] | None:
        """Save what is to be saved of a profile."""


class Turns:
    """The shared leases of one pool, by lane."""

    def __init__(
        self,
        owner: Owner,
        *,
        asking: Asking,
        board: Board,
        clock: Clock,
        counts: Counts,
        profiled: Profiled,
        clean_timeout: float,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._owner = owner
        self._asking = asking
        self._board = board
        self._clock = clock
        self._counts = counts
        self._profiled = profiled
        self._clean_timeout = clean_timeout
        self._spawn = spawn
        self._turns: dict[Lane, Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    async def share(self, ask: Ask, request: Request) -> Lease:
        """Join the lease that is running, or being waited for, for the same identity; the first brings it about."""
        if ask.max_cost is not None or ask.max_duration is not None:
            raise ValueError(
                "leases that share a session end together, so max_cost and max_duration are not for them"
            )
        late = QueueTimeoutError(
            ask.platform, request.deadline - request.arrived_at, 1, "its session is in use"
        )
        while True:
            turn = self._turns.get(request.lane)
            if turn is None:
                turn = self._turns[request.lane] = Turn(request.lane)
                turn.leading = self._spawn(self._lead(turn, ask), f"lead {ask.platform}")
            joinable = turn.carrier is None or (
                turn.carrier.session.lease_ends - self._clock.monotonic() >= request.lease_seconds / 2
            )
            turn.hoping += 1
            try:
                async with asyncio.timeout(max(0.0, request.deadline - self._clock.monotonic())):
                    await (turn.begun if joinable else turn.over).wait()
            except BaseException as why:
                turn.hoping -= 1
                self._end_turn_if_unwanted(turn)
                if not isinstance(why, TimeoutError):
                    raise
                self._counts.refused += 1
                raise late from None
            turn.hoping -= 1
            if turn.error is not None:
                raise turn.error
            if turn.carrier is not None and not turn.over.is_set() and joinable:
                return Lease(self._owner, self._share_of(turn.carrier, ask, request))

    def _end_turn_if_unwanted(self, turn: Turn) -> None:
        if turn.hoping or turn.over.is_set():
            return
        if turn.carrier is None:
            self._end_turn(turn)
            turn.leading.cancel()
        elif not turn.carrier.shares:
            self._end_turn(turn)
            self._owner.hand_back(turn.carrier)

    async def _lead(self, turn: Turn, ask: Ask) -> None:
        """Wait for the one lease that all of a turn share."""
        try:
            lease = await self._owner.wait_for(ask, self._asking.request_from(ask))
        except asyncio.CancelledError:
            turn.error = PoolClosedError("the pool is shutting down and gives no more leases")
            self._end_turn(turn)
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to those who hope for the lease
            turn.error = error
            self._end_turn(turn)
        else:
            turn.carrier = lease._holding  # noqa: SLF001
            if turn.hoping:
                turn.begun.set()
            else:
                self._end_turn(turn)
                self._owner.hand_back(turn.carrier)

    def _share_of(self, carrier: Holding, ask: Ask, request: Request) -> Holding:
        number = len(carrier.shares) + 1
        is_new = carrier.is_first and number == 1
        share = replace(
            carrier,
            id=f"{carrier.id}.{number}",
            tags=ask.tags,
            place=ask.place,
            requested_at=request.arrived_at,
            granted_at=self._clock.monotonic(),
            is_first=is_new,
            is_new=is_new or ask.session_id not in {None, carrier.session.id},
            profile=profile_of(ask, carrier.proxy),
            carrier=carrier,
            shares=[],
            pages=[],
            scopes=set(),
            watchers=[],
            opening=asyncio.Lock(),
        )
        carrier.shares.append(share)
        self._board.share(carrier.session, carrier.use, request.priority)
        if number > 1:
            self._counts.leases += 1
            self._counts.reused += 1
        return share

    def _end_turn(self, turn: Turn) -> None:
        """Let nobody join any more."""
        if self._turns.get(turn.lane) is turn:
            del self._turns[turn.lane]
        turn.begun.set()
        turn.over.set()

    async def leave(self, share: Holding, *, success: bool, error: str | None) -> None:
        """End a share; the last one ends the lease."""
        carrier = share.carrier
        assert carrier is not None
        share.end("ok" if success else "failed", error)
        last = all(other.over for other in carrier.shares)
        if last:
            self.end_turn_of(carrier)
        try:
            if success:
                await self._profiled.read(share)
            async with asyncio.timeout(self._clean_timeout):
                for page in share.pages:
                    await page.close()
        except Exception as trouble:  # noqa: BLE001 - the last to leave sees whether all is clean
            log.debug("pages of lease %s did not close: %r", share.id, trouble)
        finally:
            saving = self._owner.settle_profile(share)
            if last:
                failed = next((other for other in carrier.shares if other.over != "ok"), None)
                await self._owner.release(
                    carrier, success=failed is None, error=failed.error if failed else None
                )
        if saving is not None:
            await asyncio.shield(saving)

    def end_turn_of(self, carrier: Holding) -> None:
        """Let nobody join a lease that ends."""
        turn = self._turns.get(carrier.session.lane)
        if turn is not None and turn.carrier is carrier:
            self._end_turn(turn)
