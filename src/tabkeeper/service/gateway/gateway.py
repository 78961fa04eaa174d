"""Lets CDP clients in, through the same door as everybody: admission first, then the upgrade, then the conversation.

A lease ends with its client's goodbye. A connection that breaks without one leaves it for the grace period, and whoever
shows the lease's token comes back to it without asking for admission again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from starlette.types import Receive, Scope, Send

from tabkeeper.service.access import Rooms
from tabkeeper.service.desk import Ticket
from tabkeeper.service.gateway.browser import BrowserGoneError
from tabkeeper.service.gateway.relay import Ending, Relay
from tabkeeper.service.gateway.seat import Seat
from tabkeeper.service.gateway.server import CLIENT, GatewayProtocol
from tabkeeper.service.gateway.talk import Talk
from tabkeeper.service.gateway.wish import order_of, read_query
from tabkeeper.service.guard import refuse
from tabkeeper.service.problems import ProblemError, problem_of
from tabkeeper.service.tokens import Caller

log = logging.getLogger(__name__)

RELEASED, TIME_UP, LOST, OVER_BUDGET = 4000, 4001, 4002, 4003
"""Close codes: the lease was released elsewhere; its time is up; its browser is gone; its `max_cost` is spent."""
_LOST_SOON = 1.0
"""Seconds in which the pool hears of a browser's end after its connection broke."""
_PARTING = 10.0
"""Seconds for conversations to end once all leases are over."""
_POLITE = 5.0
"""Seconds for a client to take what is still to be sent, so that it can be told why it is over."""


class _ClientLeftError(Exception):
    """The client went before it was let in."""


class Gateway:
    """The gateway of one service.

    Args:
        rooms: the pool, and the desk where leases are asked for.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._config = rooms.pool.config
        self._seats: dict[str, Seat] = {}
        self._conversations: set[asyncio.Future[None]] = set()

    @property
    def seats(self) -> Mapping[str, Seat]:
        """The leases that clients were led to and that are not over, by ticket."""
        return self._seats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._conversations.add(ended)
        try:
            await self._serve(scope, receive, send)
        finally:
            self._conversations.discard(ended)
            ended.set_result(None)

    async def aclose(self) -> None:
        """Wait until all clients are told that their leases are over; call it when these are."""
        if self._conversations:
            await asyncio.wait(self._conversations, timeout=_PARTING)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as connected, AsyncExitStack() as stack:
            try:
                words = read_query(scope["query_string"])
                ticket = self._ticket_for(words, _caller_of(scope))
                connected.enter_context(self._rooms.desk.connected(ticket))
                await self._admitted(ticket, receive, ours="lease" not in words)
                try:
                    seat = self._seat_of(ticket)
                    await seat.ready()
                    browser = await stack.enter_async_context(seat.connection())
                except Exception as error:
                    if "lease" not in words:
                        await self._rooms.desk.release(ticket, success=False, reason=str(error)[:500])
                    raise
            except _ClientLeftError:
                return
            except BrowserGoneError as error:
                await refuse(ProblemError("provider-failed", str(error)), scope, receive, send)
                return
            except Exception as error:
                problem = problem_of(error, self._rooms.clock)
                if problem.kind == "internal":
                    log.exception("a client of the gateway could not be served")
                await refuse(problem, scope, receive, send)
                return
            await send({"type": "websocket.accept", "headers": [(b"tabkeeper-lease", ticket.token.encode())]})
            talk = Talk(seat.custody, seat.passage.meter.heard, lambda: self._about(ticket, seat))
            stall = self._config.gateway.stall.total_seconds()
            client: GatewayProtocol = scope["state"][CLIENT]
            ending = await Relay(client, browser, talk, stall=stall).run(receive, ticket.over)
            await stack.aclose()
            if ending.by == "browser":
                seat.custody.spend(ending.reason or "its browser went away")
            await self._part(ticket, ending, send, client)

    # ── coming ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ticket_for(self, words: dict[str, str], caller: Caller) -> Ticket:
        """Return the ticket of an earlier connection, or a new one.

        Raises:
            ProblemError: there is no such lease, or the caller may not have one.
        """
        if "lease" in words:
            return self.find(words["lease"], caller)
        if "lease" not in caller.scopes:
            raise ProblemError("forbidden", f"token {caller.name!r} lacks the scope 'lease'")
        return self._rooms.desk.ask(order_of(words, caller, self._config), caller)

    def find(self, token: str, caller: Caller) -> Ticket:
        """Return a running lease by its token.

        Raises:
            ProblemError: there is none, or it is another tenant's, which is not told apart.
        """
        ticket = self._rooms.desk.by_token(token)
        if ticket is None or not caller.may_act_for(ticket.order.tenant):
            raise ProblemError("not-found", "there is no such lease; it may be over: connect for a new one")
        return ticket

    async def _admitted(self, ticket: Ticket, receive: Receive, *, ours: bool) -> None:
        """Wait until the pool has decided, or the client has left."""
        settled = asyncio.ensure_future(ticket.settled.wait())
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({settled, leaving}, return_when=asyncio.FIRST_COMPLETED)
            left = not settled.done()
        finally:
            for one in (settled, leaving):
                one.cancel()
            await asyncio.wait({settled, leaving})
        if left:
            if ours:
                await self._rooms.desk.release(ticket, success=False, reason="its client left")
            raise _ClientLeftError
        if ticket.error is not None:
            raise ticket.error
        if ticket.lease is None or ticket.is_over:
            raise ProblemError("lease-over", ticket.why)

    def _seat_of(self, ticket: Ticket) -> Seat:
        seat = self._seats.get(ticket.id)
        if seat is not None:
            return seat
        assert ticket.lease is not None
        passage = ticket.lease.passage()
        seconds = self._config.pool.clean_timeout.total_seconds()
        order = ticket.order
        block = self._config.platforms[order.platform].block if order.block is None else order.block
        seat = self._seats[ticket.id] = Seat(
            ticket.lease,
            passage,
            block=block,
            sweep_seconds=seconds,
            ping=self._config.gateway.ping.total_seconds(),
        )

        async def farewell() -> None:
            try:
                await seat.farewell(success=ticket.success, judged=ticket.judged)
            finally:
                self._seats.pop(ticket.id, None)

        ticket.farewell = farewell
        return seat

    def _about(self, ticket: Ticket, seat: Seat) -> dict[str, Any]:
        lease = seat.lease
        return {
            "id": ticket.id,
            "token": ticket.token,
            "reconnect": f"{self._rooms.settings.path}/cdp?lease={ticket.token}",
            "watch": f"{self._rooms.settings.path}/cdp/watch?lease={ticket.token}",
            "sessionId": lease.session_id,
            "platform": lease.platform,
            "provider": lease.provider,
            "tenant": lease.tenant,
            "isNew": lease.is_new,
            "block": list(seat.block),
            "deadline": lease.deadline.isoformat(),
            "cost": lease.cost.text(),
            "bytesReceived": seat.custody.received,
            "bytesSent": seat.custody.sent,
        }

    # ── going ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _part(self, ticket: Ticket, ending: Ending, send: Send, client: GatewayProtocol) -> None:
        desk = self._rooms.desk
        told: tuple[int, str] | None = None
        match ending.by:
            case "client":
                await desk.release(ticket, judged=True)
            case "release":
                await desk.release(ticket, success=ending.success, reason=ending.reason, judged=True)
                told = 1000, "the lease was released"
            case "binary":
                told = 1003, "CDP is spoken in text frames"
            case "browser":
                await self._heard_of_its_end(ticket)
                told = self._why_over(ticket, ending.reason or "")
                await desk.release(ticket, success=False, reason=ending.reason)
            case "lease":
                told = self._why_over(ticket)
            case "stall":
                log.warning("lease %s: %s and was disconnected", ticket.id, ending.reason)
                client.drop()
            case "silence":
                log.info("lease %s: %s; it may come back", ticket.id, ending.reason)
        if told is not None:
            await _close(send, client, *told)

    async def _heard_of_its_end(self, ticket: Ticket) -> None:
        try:
            async with asyncio.timeout(_LOST_SOON):
                await ticket.over.wait()
        except TimeoutError:
            return

    def _why_over(self, ticket: Ticket, browser: str = "") -> tuple[int, str]:
        lease = ticket.lease
        assert lease is not None
        match lease.outcome:
            case "reclaimed" if self._cost_ended(ticket):
                return OVER_BUDGET, f"its max_cost of {ticket.order.max_cost} is spent"
            case "reclaimed":
                return TIME_UP, "the lease's time is up"
            case "lost" | "evicted":
                return LOST, ticket.why or lease.ending
            case "":
                return (LOST, browser) if not ticket.why else (1012, ticket.why)
            case _:
                return (1012 if "stopped" in ticket.why else RELEASED), ticket.why or lease.ending

    def _cost_ended(self, ticket: Ticket) -> bool:
        """Whether a lease was cut short, before the time that it would have had by its platform and its order."""
        lease, order = ticket.lease, ticket.order
        if lease is None or order.max_cost is None:
            return False
        usual = self._config.platforms[order.platform].lease_timeout or self._config.pool.lease_timeout
        ran = self._rooms.clock.now() - lease.granted_at
        return ran < min(usual, order.max_duration or usual) * 0.99


def _caller_of(scope: Scope) -> Caller:
    caller = scope["state"]["caller"]
    assert isinstance(caller, Caller), "the guard lets nobody in without"
    return caller


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _close(send: Send, client: GatewayProtocol, code: int, reason: str) -> None:
    said = reason.encode()[:120].decode("utf-8", "ignore")  # a close frame holds 123 bytes
    try:
        async with asyncio.timeout(_POLITE):
            await send({"type": "websocket.close", "code": code, "reason": said})
    except TimeoutError:
        log.debug("a client read nothing, so it could not be told %s", said)
        client.drop()
    except (OSError, RuntimeError) as error:  # it left first
        log.debug("a client was gone before it could be told %s: %r", said, error)
