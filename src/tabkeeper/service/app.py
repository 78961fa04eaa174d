"""Puts the service together: routes, the guard around them, one form for all errors, the pool's life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from tabkeeper import __version__
from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import ServiceSettings
from tabkeeper.errors import ConfigError, TabkeeperError
from tabkeeper.ledger.tokens import stored
from tabkeeper.pool.pool import SessionPool
from tabkeeper.service import events, leases, money, pages, sessions
from tabkeeper.service.access import Rooms
from tabkeeper.service.desk import LeaseDesk
from tabkeeper.service.gateway.gateway import Gateway
from tabkeeper.service.gateway.routes import gateway_routes
from tabkeeper.service.guard import Guard
from tabkeeper.service.keyring import FRESH_SECONDS, Keyring
from tabkeeper.service.news import News
from tabkeeper.service.problems import MEDIA_TYPE, ProblemError, problem_of
from tabkeeper.service.tokens import Caller

log = logging.getLogger(__name__)

_KINDS = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
}


def create_app(
    pool: SessionPool,
    settings: ServiceSettings | None = None,
    *,
    clock: Clock | None = None,
    open_: bool = False,
) -> FastAPI:
    """Make the service of a pool; its lifespan opens the pool, unless it is open already, and closes what it opened.

    Args:
        pool: opened or not.
        settings: the pool's own ``[service]`` if unset.
        clock: where time comes from.
        open_: let everybody in who reaches it, with all rights and without a token.

    Its lifespan raises ConfigError if nobody has a token, and `open_` was not said.
    """
    settings = pool.config.service if settings is None else settings
    clock = SystemClock() if clock is None else clock
    keyring = Keyring(settings, clock, lambda: pool.ledger.look(stored))
    logins = pages.Logins(keyring, clock)
    news = News(pool, clock)
    desk = LeaseDesk(pool, clock=clock, ttl=settings.lease_ttl, grace=settings.grace)
    rooms = Rooms(pool=pool, desk=desk, settings=settings, clock=clock, keyring=keyring)
    gateway = Gateway(rooms)

    async def hush() -> None:
        await news.aclose()
        await desk.aclose()
        await gateway.aclose()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ours = not pool.is_open
        if ours:
            await pool.open()
        minding: asyncio.Task[None] | None = None
        try:
            if not open_ and await keyring.is_empty():
                raise ConfigError(
                    "the service has no token, so nobody could be let in: run `tabkeeper tokens create`, or set "
                    'service.token = "env:TABKEEPER_TOKEN"; --open lets everybody in who reaches it'
                )
            minding = asyncio.create_task(_mind(desk, keyring), name="tabkeeper tokens")
            yield
        finally:
            if minding is not None:
                minding.cancel()
                await asyncio.wait([minding])
            await hush()
            if ours:
                await pool.close()

    app = FastAPI(
        title="Tabkeeper",
        version=__version__,
        summary="A cost-aware pool of browser sessions with a budget ledger that cannot be overspent.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": settings.path}] if settings.path else None,
    )
    app.state.rooms = rooms
    app.state.hush = hush
    """Ends what its clients hold and hear, telling them; to be awaited before the server hangs up on them."""
    app.state.logins = logins
    app.state.news = news
    for router in (leases.router, sessions.router, events.router, money.router, pages.router):
        app.include_router(router)
    app.router.routes.extend(gateway_routes(rooms, gateway))
    _answer_errors(app, clock)
    _describe_errors(app)

    def holder(token: str) -> Caller | None:
        ticket = desk.by_token(token)
        return None if ticket is None else ticket.caller

    app.add_middleware(
        Guard,
        settings=settings,
        keyring=keyring,
        logins=logins.find,
        holders=holder,
        open_=open_,
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Location", "Retry-After"],
        )
    return app


async def _mind(desk: LeaseDesk, keyring: Keyring) -> None:
    """Take the leases back of those whose tokens are good no more, within a second or two."""
    while True:
        await asyncio.sleep(FRESH_SECONDS)
        try:
            await desk.dismiss(keyring.is_good)
        except Exception:
            log.exception("leases of revoked tokens could not be taken back; it is tried again")


def _answer_errors(app: FastAPI, clock: Clock) -> None:
    def answer(problem: ProblemError) -> JSONResponse:
        return JSONResponse(
            problem.document(), problem.status, headers=problem.headers(), media_type=MEDIA_TYPE
        )

    async def known(_: Request, error: Exception) -> JSONResponse:
        return answer(problem_of(error, clock))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        if any(one["type"] == "json_invalid" for one in error.errors()):
            return answer(ProblemError("bad-request", "the body is not JSON"))
        sent = request.headers.get("content-type", "none")
        if any(one["loc"] == ("body",) for one in error.errors()) and "json" not in sent:
            return answer(
                ProblemError(
                    "invalid", "send the body as JSON, with the header 'Content-Type: application/json'"
                )
            )
        said = [_mistake(one) for one in error.errors()]
        return answer(ProblemError("invalid", "; ".join(said[:5])))

    async def plain(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        kind = _KINDS.get(error.status_code, "bad-request")
        response = answer(ProblemError(kind, str(error.detail)))
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
        return response

    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error, clock)
        if problem.kind == "internal":
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(problem)

    for kind in (ProblemError, TabkeeperError, ValueError, TypeError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unforeseen)


def _describe_errors(app: FastAPI) -> None:
    """Have the OpenAPI document say that all errors are problem documents, those of validation included."""
    write = app.openapi

    def openapi() -> dict[str, Any]:
        document = write()
        problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
        operations = (one for path in document["paths"].values() for one in path.values())
        for status, response in ((s, r) for one in operations for s, r in one["responses"].items()):
            told = [one.get("schema", {}).get("$ref", "") for one in response.get("content", {}).values()]
            if int(status) >= 400 and any(one.endswith(("/Problem", "/HTTPValidationError")) for one in told):
                response["content"] = {MEDIA_TYPE: problem}
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _mistake(error: dict[str, Any]) -> str:
    """Say what is wrong and where, without repeating what was sent: it may be a secret."""
    where = ".".join(str(part) for part in error["loc"] if part != "body")
    return f"{where}: {error['msg']}" if where else str(error["msg"])
