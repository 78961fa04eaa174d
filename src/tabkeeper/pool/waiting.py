"""Who waits in the queue, at which place, and for what: as plain figures for people and programs."""

from __future__ import annotations

from collections.abc import Callable

from tabkeeper.clock import Instant
from tabkeeper.pool.model import Lane, Request
from tabkeeper.pool.plan import why_waiting
from tabkeeper.pool.stats import Frozen
from tabkeeper.pool.view import View


class WaitingStats(Frozen):
    """One request that has no session yet."""

    platform: str
    tenant: str
    priority: int
    place: str
    """Who asked: a line of code, or what the caller of `get_session` said."""
    position: int
    """Among those that wait for the same sessions, 1 is next."""
    waited_seconds: float
    gives_up_in_seconds: float
    blocked_by: str
    """What stands between it and a session, in a few words."""


def waiting(view: View, place_of: Callable[[int], str], now: Instant) -> list[WaitingStats]:
    """Tell of all waiting requests, those that wait longest first."""
    ranks: dict[int, int] = {}
    ranked: set[Lane] = set()
    found = []
    for request in view.requests.values():
        lane = view.lane(request.lane)
        if request.lane not in ranked:
            ranked.add(request.lane)
            ranks |= {one.id: i for i, one in enumerate(sorted(lane.waiting, key=lane.waiting.key), 1)}
        found.append(_told(view, request, place_of(request.id), ranks.get(request.id, 1), now))
    return sorted(found, key=lambda one: -one.waited_seconds)


def waiting_at(view: View, place_of: Callable[[int], str], place: str, now: Instant) -> WaitingStats | None:
    """Tell of the one waiting request that `place` asked for, without a look at what the others wait for."""
    request = next((one for one in view.requests.values() if place_of(one.id) == place), None)
    if request is None:
        return None
    queue = view.lane(request.lane).waiting
    mine = queue.key(request)
    return _told(view, request, place, 1 + sum(queue.key(one) < mine for one in queue), now)


def _told(view: View, request: Request, place: str, position: int, now: Instant) -> WaitingStats:
    return WaitingStats(
        platform=request.lane.platform,
        tenant=request.tenant,
        priority=request.priority,
        place=place,
        position=position,
        waited_seconds=round(now - request.arrived_at, 3),
        gives_up_in_seconds=round(max(0.0, request.deadline - now), 3),
        blocked_by=why_waiting(view, request, now),
    )
