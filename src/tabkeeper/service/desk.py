"""Leases of clients that are elsewhere: each is kept for as long as its client is connected, or heard of in time.

A ticket is what such a client holds, from its place in the queue to the end of its lease. HTTP and the CDP gateway
share one desk, so a lease taken over one can be used and ended over the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

from tabkeeper.clock import Clock, Instant
from tabkeeper.config import ResourceKind
from tabkeeper.errors import PoolClosedError
from tabkeeper.pool.lease import Lease
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.waiting import WaitingStats
from tabkeeper.service.problems import ProblemError
from tabkeeper.service.tokens import Caller, hash_token

log = logging.getLogger(__name__)

_REMEMBERED = 5000
"""Tickets that are over and can still be asked about."""


class TicketState(StrEnum):
    """How far a ticket is."""

    QUEUED = "queued"
    ACTIVE = "active"
    ENDED = "ended"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a client asks for; as the arguments of `SessionPool.get_session`."""

    platform: str
    tenant: str
    priority: int = 0
    timeout: timedelta | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    max_duration: timedelta | None = None
    max_cost: str | None = None
    profile: str | None = None
    identity: str | None = field(default=None, repr=False)
    session_id: str | None = None
    sticky: str | None = None
    failed_proxies: tuple[str, ...] = ()
    block: tuple[ResourceKind, ...] | None = None
    """What the pages of a client of the gateway must not load; what its platform says if unset."""
    ttl: timedelta | None = None
    """How long it may be silent; the service's ``lease_ttl`` if unset."""
    grace: timedelta | None = None
    """How long the lease outlives a connection; the service's ``grace`` if unset."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One client's lease, or its place in the queue."""

    id: str
    token: str = field(repr=False)
    """Who shows it is the holder: for coming back over the gateway."""
    order: Order
    caller: Caller
    place: str
    """By which its request is known in the pool's queue."""
    asked_at: datetime
    expires_at: Instant
    """It is over then, unless its client is heard of or connected."""
    state: TicketState = TicketState.QUEUED
    lease: Lease | None = None
    error: Exception | None = None
    """Why it was refused."""
    why: str = ""
    """Why it is over, or to be over, for people."""
    connections: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is no longer queued."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the lease has ended, or the ticket was refused."""
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    success: bool = False
    reason: str | None = None
    judged: bool = False
    """Whether its client said how it went. Any other end says nothing of the site, so nothing of a profile."""
    farewell: Callable[[], Awaitable[None]] | None = None
    """What is still to be done with the session before the lease ends; it must be bounded."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be done with it."""
        return self.state in {TicketState.ENDED, TicketState.REFUSED}


class LeaseDesk:
    """All tickets of one service.

    Args:
        pool: an open pool; it stays its owner's to close.
        clock: where time comes from.
        ttl: how long a client may be silent while it is not connected.
        grace: how long a lease outlives its connection.
    """

    def __init__(self, pool: SessionPool, *, clock: Clock, ttl: timedelta, grace: timedelta) -> None:
        self._pool = pool
        self._clock = clock
        self._ttl = ttl
        self._grace = grace
        self._tickets: dict[str, Ticket] = {}
        self._done: OrderedDict[str, Ticket] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        """One for each ticket, until nothing more is to be done for it."""
        self._closing = False

    def __len__(self) -> int:
        return len(self._tickets)

    def ask(self, order: Order, caller: Caller) -> Ticket:
        """Put a request into the pool's queue, and return its ticket at once.

        Raises:
            ProblemError: the caller may not act for that tenant.
            PoolClosedError: the service is shutting down.
        """
        if self._closing:
            raise PoolClosedError("the service is shutting down and gives no more leases")
        if not caller.may_act_for(order.tenant):
            raise ProblemError("forbidden", f"token {caller.name!r} may not act for tenant {order.tenant!r}")
        number = f"l{secrets.token_hex(8)}"
        ticket = Ticket(
            id=number,
            token=secrets.token_urlsafe(24),
            order=order,
            caller=caller,
            place=f"client {caller.name!r}, lease {number}",
            asked_at=self._clock.now(),
            expires_at=self._clock.monotonic() + self._ttl_of(order).total_seconds(),
        )
        self._tickets[number] = ticket
        ticket.task = asyncio.create_task(self._carry(ticket), name=f"tabkeeper lease {number}")
        self._tasks.add(ticket.task)
        ticket.task.add_done_callback(self._tasks.discard)
        return ticket

    def find(self, ticket_id: str, caller: Caller) -> Ticket:
        """Return a ticket, if it is the caller's to see.

        Raises:
            ProblemError: there is none, or it is another tenant's, which is not told apart.
        """
        ticket = self._tickets.get(ticket_id) or self._done.get(ticket_id)
        if ticket is None or not caller.may_act_for(ticket.order.tenant):
            raise ProblemError("not-found", "there is no such lease; it may have ended long ago")
        return ticket

    def by_token(self, token: str) -> Ticket | None:
        """Return the ticket that a lease token belongs to; None if it is over, or there never was one."""
        hashed = hash_token(token)
        return next((one for one in self._tickets.values() if hash_token(one.token) == hashed), None)

    def of(self, caller: Caller) -> list[Ticket]:
        """Return the tickets that are not over and the caller's to see, oldest first."""
        return [one for one in self._tickets.values() if caller.may_act_for(one.order.tenant)]

    def queued(self, ticket: Ticket) -> WaitingStats | None:
        """Say where a ticket stands in the pool's queue; None if it does not stand there."""
        return self._pool.waiting_at(ticket.place)

    def heard(self, ticket: Ticket) -> None:
        """Note that the client of a ticket lives."""
        ticket.expires_at = max(
            ticket.expires_at, self._clock.monotonic() + self._ttl_of(ticket.order).total_seconds()
        )

    @contextlib.contextmanager
    def connected(self, ticket: Ticket) -> Iterator[None]:
        """Keep a lease while its client is connected, and for its grace period afterwards."""
        grace = self._grace if ticket.order.grace is None else ticket.order.grace
        with self._kept(ticket, grace):
            yield

    @contextlib.contextmanager
    def attended(self, ticket: Ticket) -> Iterator[None]:
        """Keep a ticket while its client waits for an answer, and for its time to live afterwards."""
        with self._kept(ticket, self._ttl_of(ticket.order)):
            yield

    @contextlib.contextmanager
    def _kept(self, ticket: Ticket, afterwards: timedelta) -> Iterator[None]:
        ticket.connections += 1
        try:
            yield
        finally:
            ticket.connections -= 1
            ticket.expires_at = self._clock.monotonic() + afterwards.total_seconds()
            ticket.stirred.set()

    def expires_in(self, ticket: Ticket) -> float | None:
        """Seconds until the ticket is over if nothing is heard of its client; None while it is connected."""
        if ticket.connections or ticket.is_over:
            return None
        return max(0.0, ticket.expires_at - self._clock.monotonic())

    async def release(
        self, ticket: Ticket, *, success: bool = True, reason: str | None = None, judged: bool = False
    ) -> None:
        """End a ticket: its place in the queue, or its lease. Harmless if it is over; returns when it is.

        Args:
            ticket: to be ended.
            success: how its lease went.
            reason: why it failed.
            judged: these are its client's own words.

        Raises:
            ValueError: a reason for a success.
        """
        if success and reason is not None:
            raise ValueError(f"reason {reason!r} needs success = false: a success has none")
        if ticket.is_over:
            assert ticket.task is not None
            await asyncio.wait([ticket.task])  # what is left of its end, so that its outcome is known
            return
        ticket.success, ticket.reason, ticket.judged = success, reason, judged
        await self._end(ticket, "released" if ticket.lease is not None else "withdrawn")

    async def dismiss(self, is_good: Callable[[Caller], Awaitable[bool]]) -> None:
        """End the tickets of callers who are not good any more."""
        for ticket in list(self._tickets.values()):
            if not await is_good(ticket.caller):
                ticket.reason = ticket.why = "its token was revoked"
                log.warning("lease %s of client %r: %s", ticket.id, ticket.caller.name, ticket.why)
                ticket.stirred.set()

    async def aclose(self) -> None:
        """End all tickets, and see those out that are just ending."""
        self._closing = True
        tickets = list(self._tickets.values())
        for ticket in tickets:
            ticket.reason = "the service was stopped"
        await asyncio.gather(*(self._end(ticket, "the service was stopped") for ticket in tickets))
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ttl_of(self, order: Order) -> timedelta:
        return order.ttl or self._ttl

    async def _end(self, ticket: Ticket, why: str) -> None:
        ticket.why = ticket.why or why
        ticket.stirred.set()
        assert ticket.task is not None
        await asyncio.wait([ticket.task])

    # ── the life of one ticket ─────────────────────────────────────────────────────────────────────────────────────

    async def _carry(self, ticket: Ticket) -> None:
        """Wait for the lease, keep it while its client lives, and give it back. Ended by `why`, never cancelled."""
        waiting = asyncio.ensure_future(self._lease(ticket.order, ticket.place))
        try:
            await self._until(waiting, ticket)
            if not ticket.why:
                ticket.lease = waiting.result()
                ticket.state = TicketState.ACTIVE
                self.heard(ticket)
                ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                ticket.lease.on_end(partial(_settle, ended))
                ticket.settled.set()
                await self._until(ended, ticket)
                ticket.why = ticket.lease.ending or ticket.why
        except Exception as error:  # noqa: BLE001 - it is the client's to hear
            ticket.error = error
        finally:
            await self._put_away(ticket, waiting)

    async def _until(self, event: asyncio.Future[Lease] | asyncio.Future[None], ticket: Ticket) -> None:
        """Wait for `event`, or until the ticket is ended or its client falls silent."""
        while not event.done() and not ticket.why:
            left = None if ticket.connections else ticket.expires_at - self._clock.monotonic()
            if left is not None and left <= 0:
                ticket.why = ticket.reason = "its client fell silent"
                log.warning("lease %s of client %r: %s", ticket.id, ticket.caller.name, ticket.why)
                return
            stirred = asyncio.ensure_future(ticket.stirred.wait())
            try:
                await asyncio.wait({event, stirred}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stirred.cancel()
            ticket.stirred.clear()

    async def _put_away(self, ticket: Ticket, waiting: asyncio.Future[Lease]) -> None:
        waiting.cancel()
        await asyncio.wait([waiting])
        if ticket.lease is None and not waiting.cancelled() and waiting.exception() is None:
            ticket.lease = waiting.result()  # it came as the client left
        refused = ticket.error is not None and ticket.lease is None
        ticket.state = TicketState.REFUSED if refused else TicketState.ENDED
        self._tickets.pop(ticket.id, None)
        self._done[ticket.id] = ticket
        while len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)
        ticket.settled.set()
        ticket.over.set()
        if ticket.lease is not None:
            if ticket.farewell is not None:
                try:
                    await ticket.farewell()
                except Exception:
                    log.exception("what the client of lease %s did could not be undone", ticket.id)
            await ticket.lease.release(
                success=ticket.success, reason=None if ticket.success else ticket.reason
            )

    async def _lease(self, order: Order, place: str) -> Lease:
        return await self._pool.get_session(
            order.platform,
            priority=order.priority,
            timeout=order.timeout,
            tenant=order.tenant,
            tags=order.tags,
            max_duration=order.max_duration,
            max_cost=order.max_cost,
            profile=order.profile,
            identity=order.identity,
            session_id=order.session_id,
            sticky=order.sticky,
            failed_proxies=order.failed_proxies,
            place=place,
        )


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
