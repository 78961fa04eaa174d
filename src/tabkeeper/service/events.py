"""The pool and its books at this moment, once or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from tabkeeper.service.access import DOCUMENTED, AnyRooms, answers, need
from tabkeeper.service.fleet import FleetNow
from tabkeeper.service.news import MoneyNow, News, Now
from tabkeeper.service.problems import ProblemError
from tabkeeper.service.tokens import Caller

router = APIRouter(tags=["now"], dependencies=[DOCUMENTED, need("read", everybody=True)])


@router.get("/now", summary="The pool now", responses=answers())
async def now(request: Request) -> Now:
    """Tell of this moment what the dashboard shows of it: sessions, queue, providers, jobs."""
    return _news(request).now()


@router.get("/money", summary="The books now", responses=answers("unavailable"))
async def money(request: Request) -> MoneyNow:
    """Tell of this moment, or three seconds ago, what the dashboard shows of it: budgets, the day's report, alerts."""
    return await _news(request).money()


@router.get(
    "/fleet", summary="The pool over all its processes", responses=answers("not-found", "unavailable")
)
async def fleet(request: Request) -> FleetNow:
    """Tell of a pool that processes share what runs and who waits in all of them; 404 if it has only this one."""
    found = await _news(request).fleet()
    if found is None:
        raise ProblemError("not-found", "this pool has one process; /now tells all of it")
    return found


async def _seat(request: Request) -> AsyncIterator[None]:
    """Have a place among the listeners before the answer begins, and until it ends."""
    with _news(request).seat():
        yield


@router.get(
    "/events",
    summary="The same as it changes",
    dependencies=[Depends(_seat)],
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **answers("too-many")},
)
async def events(
    request: Request, rooms: AnyRooms, caller: Annotated[Caller, need("read", everybody=True)]
) -> AsyncIterator[ServerSentEvent]:
    """Send what `/now`, `/money` and `/fleet` answer whenever it changes, as server-sent events of these names."""
    async for number, kind, said in _news(request).listen():
        if not await rooms.keyring.is_good(caller):
            return
        yield ServerSentEvent(raw_data=said, event=kind, id=str(number), retry=2000)


def _news(request: Request) -> News:
    news = request.app.state.news
    assert isinstance(news, News)
    return news
