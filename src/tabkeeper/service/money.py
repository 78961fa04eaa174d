"""Money and history over HTTP: budgets, reports, what ended, one session's story, alerts, metrics."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import HTMLResponse

from tabkeeper.pool.watch import PoolSample
from tabkeeper.reports.html.page import render_html
from tabkeeper.reports.render_csv import render_csv
from tabkeeper.reports.report import BudgetFigures, CostReport
from tabkeeper.reports.stories import (
    EndedSession,
    SessionStory,
    ended_sessions,
    session_story,
)
from tabkeeper.service.access import DOCUMENTED, AnyRooms, Rooms, answers, need
from tabkeeper.service.alerts import AlertTold, recent_alerts
from tabkeeper.service.problems import ProblemError
from tabkeeper.service.sessions import SessionId

router = APIRouter(dependencies=[DOCUMENTED, need("read", everybody=True)])

_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page of a report carries its styles, and runs nothing."""

Most = Annotated[int, Query(ge=1, le=1000, description="How many, at most.")]
Period = Literal["day", "month"]
AsOfText = Annotated[
    str | None,
    Query(
        max_length=40,
        description="Only what was known at an entry's number, or at an instant in UTC: the same answer for ever.",
        examples=["2026-11-21T08:00"],
    ),
]
Day = Annotated[
    date | None,
    Query(
        alias="date", ge=date(2000, 1, 1), le=date(2200, 1, 1), description="A local day; today if left out."
    ),
]


@router.get("/budgets", tags=["money"], summary="Budgets now", responses=answers("unavailable"))
async def budgets(rooms: AnyRooms) -> list[BudgetFigures]:
    """Tell of every budget what its open window holds: limit, spent, held, left, when it resets."""
    return list((await rooms.pool.ledger.standing()).budgets)


@router.get(
    "/reports/{period}/{when}.html",
    tags=["money"],
    summary="The same as a page",
    response_class=HTMLResponse,
    responses=answers("invalid", "unavailable"),
)
async def page(
    period: Period,
    when: Annotated[
        str,
        Path(
            pattern=r"^2[01]\d\d-\d\d(-\d\d)?$",
            description="A local day such as 2026-11-20, or a month such as 2026-11.",
            examples=["2026-11-20"],
        ),
    ],
    rooms: AnyRooms,
    as_of: AsOfText = None,
) -> Response:
    """Show what a local day or month has cost, as one file that opens offline and prints."""
    day = date.fromisoformat(f"{when}-01" if len(when) == len("2026-11") else when)
    found = await _report(rooms, day, period, as_of)
    return HTMLResponse(render_html(found), headers={"Content-Security-Policy": _PAGE_POLICY})


@router.get(
    "/reports/{period}",
    tags=["money"],
    summary="A day's or a month's costs",
    response_model=CostReport,
    responses={200: {"content": {"text/csv": {}}}, **answers("invalid", "unavailable")},
)
async def report(
    period: Period,
    rooms: AnyRooms,
    day: Day = None,
    form: Annotated[Literal["json", "csv"], Query(alias="format", description="json or csv.")] = "json",
    as_of: AsOfText = None,
) -> CostReport | Response:
    """Report what a local day, or the month around it, has cost, and on what."""
    found = await _report(rooms, day, period, as_of)
    if form == "csv":
        return Response(render_csv(found), media_type="text/csv; charset=utf-8")
    return found


async def _report(rooms: Rooms, day: date | None, period: Period, as_of: str | None) -> CostReport:
    books = rooms.pool.ledger
    return await books.report(day, period, as_of=None if as_of is None else await books.as_of(as_of))


@router.get(
    "/history",
    tags=["history"],
    summary="Sessions that ended last",
    responses=answers("invalid", "unavailable"),
)
async def history(rooms: AnyRooms, limit: Most = 50) -> list[EndedSession]:
    """List the sessions that ended last, newest first, with why they were closed and what they cost."""
    return await rooms.pool.ledger.query(lambda engine: ended_sessions(engine, limit))


@router.get(
    "/sessions/{session_id}/story",
    tags=["history"],
    summary="A session's whole story",
    responses=answers("not-found", "invalid", "unavailable"),
)
async def story(session_id: SessionId, rooms: AnyRooms) -> SessionStory:
    """Tell everything that the ledger knows of one session: states, leases, money."""
    found = await rooms.pool.ledger.query(lambda engine: session_story(engine, session_id))
    if found is None:
        raise ProblemError("not-found", f"the ledger knows no session {session_id!r}")
    return found


@router.get("/alerts", tags=["history"], summary="Latest alerts", responses=answers("invalid", "unavailable"))
async def alerts(rooms: AnyRooms, limit: Most = 50) -> list[AlertTold]:
    """List the latest alerts, newest first, and who has heard of each."""
    return await rooms.pool.ledger.query(lambda engine: recent_alerts(engine, limit))


@router.get("/samples", tags=["history"], summary="The last hour, minute by minute", responses=answers())
async def samples(rooms: AnyRooms) -> list[PoolSample]:
    """Return the pool's figures minute by minute, oldest first."""
    return rooms.pool.samples()


@router.get(
    "/metrics",
    tags=["metrics"],
    summary="All figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **answers()},
)
async def metrics(rooms: AnyRooms) -> Response:
    """Write the pool's metrics in Prometheus' text format."""
    return Response(rooms.pool.metrics.prometheus(), media_type="text/plain; version=0.0.4; charset=utf-8")
