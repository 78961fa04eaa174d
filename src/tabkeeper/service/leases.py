"""Leases over HTTP: asking for one, waiting for it, keeping it, giving it back."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from tabkeeper.errors import SessionInUseError
from tabkeeper.service.access import DOCUMENTED, AnyRooms, Rooms, answers, need
from tabkeeper.service.desk import Order, Ticket, TicketState
from tabkeeper.service.models import (
    LeaseAnswer,
    LeaseRequestBody,
    NewLeaseAnswer,
    QueuePlace,
    ReleaseBody,
    seconds,
)
from tabkeeper.service.problems import Problem, ProblemError, problem_of
from tabkeeper.service.tokens import Caller

_A_MOMENT = 0.05
"""Seconds in which a session that is idle is granted, even to who would not wait."""

router = APIRouter(prefix="/leases", tags=["leases"], dependencies=[DOCUMENTED])

LeaseId = Annotated[str, Path(description="As the lease's `id`.", max_length=64, pattern=r"^[a-z0-9]+$")]
Leaser = Annotated[Caller, need("lease")]


@router.post(
    "",
    status_code=201,
    summary="Ask for a session",
    responses={
        202: {"model": NewLeaseAnswer, "description": "It waits in the queue; ask again at `Location`"},
        **answers(
            "budget-exceeded",
            "session-in-use",
            "no-proxy",
            "invalid",
            "queue-full",
            "queue-timeout",
            "creation-failed",
            "closing",
            "unavailable",
        ),
    },
)
async def lease(
    body: LeaseRequestBody, request: Request, response: Response, rooms: AnyRooms, caller: Leaser
) -> NewLeaseAnswer:
    """Lease a session: one that is idle, else a new one, else wait for one."""
    if body.direct and "direct" not in caller.scopes:
        raise ProblemError("forbidden", f"token {caller.name!r} lacks the scope 'direct'")
    most = rooms.settings.max_wait.total_seconds()
    wait = most if body.wait is None else min(body.wait, most)
    order = _order(body, caller)
    ticket = rooms.desk.ask(order, caller)
    await _settled(ticket, request, rooms, wait)
    if ticket.state is TicketState.REFUSED:
        assert ticket.error is not None
        raise ticket.error
    if ticket.is_over:
        raise ProblemError("lease-over", f"the lease ended at once: {ticket.why}")
    direct = None
    if body.direct and ticket.lease is not None:
        try:
            direct = ticket.lease.connect_url
        except SessionInUseError:
            await rooms.desk.release(ticket, success=True)
            raise
    response.headers["Location"] = f"{rooms.settings.path}/leases/{ticket.id}"
    if ticket.state is TicketState.QUEUED:
        response.status_code = 202
        response.headers["Retry-After"] = "1"
    return NewLeaseAnswer(
        **_answer(ticket, rooms).model_dump(exclude={"problem"}),
        token=ticket.token,
        cdp_url=_cdp_url(request, ticket, rooms.settings.path),
        connect_url=direct,
    )


@router.get("", summary="List leases and places in the queue", responses=answers())
async def leases(rooms: AnyRooms, caller: Leaser) -> list[LeaseAnswer]:
    """List what this service's clients hold and wait for, as far as the token may see it."""
    return [_answer(ticket, rooms) for ticket in rooms.desk.of(caller)]


@router.get("/{lease_id}", summary="Look at a lease", responses=answers("not-found", "invalid"))
async def look(
    lease_id: LeaseId,
    request: Request,
    rooms: AnyRooms,
    caller: Leaser,
    wait: Annotated[
        float, Query(ge=0, le=10**8, allow_inf_nan=False, description="Seconds to wait while it is queued.")
    ] = 0,
) -> LeaseAnswer:
    """Say how far a lease is. Asking keeps its place in the queue, and the lease, as `heartbeat` does."""
    ticket = rooms.desk.find(lease_id, caller)
    rooms.desk.heard(ticket)
    if wait and ticket.state is TicketState.QUEUED:
        most = min(wait, rooms.settings.max_wait.total_seconds())
        await _settled(ticket, request, rooms, most, give_up=False)
    return _answer(ticket, rooms)


@router.post(
    "/{lease_id}/heartbeat", summary="Keep a lease", responses=answers("not-found", "lease-over", "invalid")
)
async def heartbeat(lease_id: LeaseId, rooms: AnyRooms, caller: Leaser) -> LeaseAnswer:
    """Say that the lease's holder lives; needed at least once per `ttl` while no CDP client is connected."""
    ticket = rooms.desk.find(lease_id, caller)
    if ticket.is_over:
        raise ProblemError("lease-over", f"the lease is over: {_why(ticket)}")
    rooms.desk.heard(ticket)
    return _answer(ticket, rooms)


@router.delete("/{lease_id}", summary="Give a lease back", responses=answers("not-found", "invalid"))
async def release(
    lease_id: LeaseId, rooms: AnyRooms, caller: Leaser, body: ReleaseBody | None = None
) -> LeaseAnswer:
    """End a lease, or leave the queue. Harmless if it is over already; answers with what it cost."""
    how = body or ReleaseBody()
    ticket = rooms.desk.find(lease_id, caller)
    await rooms.desk.release(ticket, success=how.success, reason=how.reason, judged=True)
    return _answer(ticket, rooms)


def _order(body: LeaseRequestBody, caller: Caller) -> Order:
    return Order(
        platform=body.platform,
        tenant=body.tenant or caller.tenant,
        priority=body.priority,
        timeout=seconds(body.timeout),
        tags=body.tags,
        max_duration=seconds(body.max_duration),
        max_cost=body.max_cost,
        profile=body.profile,
        identity=body.identity,
        session_id=body.session_id,
        sticky=body.sticky,
        failed_proxies=body.failed_proxies,
        ttl=seconds(body.ttl),
    )


async def _settled(
    ticket: Ticket, request: Request, rooms: Rooms, wait: float, *, give_up: bool = True
) -> None:
    """Wait until a ticket is no longer queued; a client that goes away meanwhile leaves the queue if `give_up`."""
    settled = asyncio.ensure_future(ticket.settled.wait())
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        with rooms.desk.attended(ticket):
            await asyncio.wait(
                {settled, gone}, timeout=max(wait, _A_MOMENT), return_when=asyncio.FIRST_COMPLETED
            )
        if give_up and gone.done():  # nobody heard of the lease if it came meanwhile
            await rooms.desk.release(ticket, success=False, reason="its client left")
    except asyncio.CancelledError:
        if give_up:
            await rooms.desk.release(ticket, success=False, reason="its client left")
        raise
    finally:
        settled.cancel()
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _why(ticket: Ticket) -> str:
    return ticket.why or str(ticket.error or ticket.state)


def _answer(ticket: Ticket, rooms: Rooms) -> LeaseAnswer:
    lease = ticket.lease
    common = {
        "id": ticket.id,
        "status": str(ticket.state),
        "platform": ticket.order.platform,
        "tenant": ticket.order.tenant,
        "priority": ticket.order.priority,
        "asked_at": ticket.asked_at,
        "expires_in_seconds": rooms.desk.expires_in(ticket),
    }
    if lease is None:
        place = rooms.desk.queued(ticket) if ticket.state is TicketState.QUEUED else None
        problem = None if ticket.error is None else problem_of(ticket.error, rooms.clock).document()
        said = "it waits for a session" if not ticket.is_over else _why(ticket)
        if place is not None:
            said = f"place {place.position} in the queue: {place.blocked_by}"
        return LeaseAnswer(
            **common,
            message=said,
            queue=None if place is None else QueuePlace.model_validate(place.model_dump()),
            problem=None if problem is None else Problem.model_validate(problem),
        )
    said = "a new session was created" if lease.is_new else "a session that was there already"
    return LeaseAnswer(
        **common,
        message=said if not ticket.is_over else f"the lease is over: {_why(ticket)}",
        session_id=lease.session_id,
        usage_id=lease.id,
        provider=lease.provider,
        is_new=lease.is_new,
        granted_at=lease.granted_at,
        deadline=lease.deadline,
        waited_seconds=round(lease.waited.total_seconds(), 3),
        cost=lease.cost,
        hourly_rate=lease.hourly_rate,
        bytes_received=lease.bytes_received,
        outcome=lease.outcome or None,
    )


def _cdp_url(request: Request, ticket: Ticket, path: str) -> str:
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return f"{scheme}://{request.headers['host']}{path}/cdp?lease={ticket.token}"
