"""Sessions over HTTP: which are open, how they do, one's story, and ending them; and the service's own health."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from tabkeeper.errors import ConfigError
from tabkeeper.pool.explain import Explanation
from tabkeeper.pool.stats import PoolStats, SessionStats
from tabkeeper.pool.waiting import WaitingStats
from tabkeeper.service.access import DOCUMENTED, AnyRooms, answers, need
from tabkeeper.service.health import health
from tabkeeper.service.models import CleanupAnswer, HealthAnswer, SessionAnswer, SessionsStatsAnswer
from tabkeeper.service.problems import ProblemError

router = APIRouter(tags=["sessions"])

READER = [DOCUMENTED, need("read", everybody=True)]
"""Dependencies of what shows the whole pool."""
MANAGER = [DOCUMENTED, need("manage", everybody=True)]
SessionId = Annotated[
    str, Path(description="As the session's `id`.", max_length=80, pattern=r"^[A-Za-z0-9_.-]+$")
]


@router.get(
    "/health",
    summary="Is the service usable, and how full is it",
    responses={503: {"model": HealthAnswer, "description": "No lease can be given now"}, **answers()},
)
async def get_health(response: Response, rooms: AnyRooms) -> HealthAnswer:
    """For load balancers and people; needs no token. 503 if nothing is usable."""
    found = await health(rooms)
    if found.status == "unavailable":
        response.status_code = 503
    return found


@router.head("/health", include_in_schema=False)
async def head_health(response: Response, rooms: AnyRooms) -> None:
    """Answer those who watch the service by HEAD with the status alone."""
    await get_health(response, rooms)


@router.get("/sessions", summary="List open sessions", dependencies=READER, responses=answers())
async def sessions(rooms: AnyRooms) -> list[SessionAnswer]:
    """List every open session of this pool."""
    return [session_answer(one) for one in rooms.pool.stats().open_sessions]


@router.get("/sessions/stats", summary="Sessions in brief", dependencies=READER, responses=answers())
async def sessions_stats(rooms: AnyRooms) -> SessionsStatsAnswer:
    """Count the open sessions, and say how they do."""
    stats = rooms.pool.stats()
    uses = [one.uses for one in stats.open_sessions]
    return SessionsStatsAnswer(
        status="degraded" if stats.unhealthy else "ok",
        total=stats.sessions,
        healthy=stats.sessions - stats.unhealthy,
        degraded=stats.unhealthy,
        average_age_minutes=round(stats.average_age_seconds / 60, 3),
        average_uses=round(sum(uses) / len(uses), 3) if uses else 0.0,
    )


@router.post(
    "/sessions/cleanup", summary="Clean up now", dependencies=MANAGER, responses=answers("unavailable")
)
async def cleanup(rooms: AnyRooms) -> CleanupAnswer:
    """Close what is past its time, and take up what processes that died left running; else done every minute."""
    before = rooms.pool.stats().cleaning.closes
    results = [(await rooms.pool.run_job(name)).last_result for name in ("recover", "cleanup", "health")]
    closed = rooms.pool.stats().cleaning.closes - before
    failed = [result for result in results if result.startswith("failed")]
    return CleanupAnswer(
        status="failed" if failed else "ok",
        closed=closed,
        message="; ".join(failed) or f"{closed} sessions were ended",
    )


@router.get(
    "/sessions/{session_id}",
    summary="Why a session is kept, or was closed",
    dependencies=READER,
    responses=answers("not-found", "invalid", "unavailable"),
)
async def explain(session_id: SessionId, rooms: AnyRooms) -> Explanation:
    """Explain one session, open or ended, in figures and in words."""
    try:
        return await rooms.pool.explain(session_id)
    except ConfigError:
        raise ProblemError("not-found", f"the ledger knows no session {session_id!r}") from None


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    summary="Close a session",
    dependencies=MANAGER,
    responses=answers("not-found", "invalid"),
)
async def close(session_id: SessionId, rooms: AnyRooms) -> None:
    """Close a session of this pool; a lease on it is lost."""
    if not await rooms.pool.close_session(session_id, reason="closed by request"):
        raise ProblemError("not-found", f"this pool runs no session {session_id!r}")


@router.get("/queue", summary="Who waits", dependencies=READER, responses=answers())
async def queue(rooms: AnyRooms) -> list[WaitingStats]:
    """Tell who waits for a session, at which place, and what stands in the way; longest wait first."""
    return rooms.pool.waiting()


@router.get("/stats", summary="All figures of the pool", dependencies=READER, responses=answers())
async def stats(rooms: AnyRooms) -> PoolStats:
    """Count sessions, requests and leases of this moment, and all else that `pool.stats()` has."""
    return rooms.pool.stats()


def session_answer(one: SessionStats) -> SessionAnswer:
    """Return one session as the API tells it."""
    until = one.kept.until if one.kept is not None else None
    return SessionAnswer(
        id=one.id,
        platform=one.platform,
        provider=one.provider,
        tenant=one.tenant,
        identity=one.identity,
        state=one.state,
        uses=one.uses,
        created_at=one.created_at,
        last_used=one.last_used,
        last_refresh=one.last_refresh,
        keep_alive=min((at for at in (until, one.fresh_until) if at is not None), default=None)
        if one.state == "idle"
        else None,
        lease_ends=one.lease_ends,
        health=one.health,
        cost=one.cost,
    )
