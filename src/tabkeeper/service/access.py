"""What routes ask of a request: who calls, what they may do, and the rooms behind the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from tabkeeper.clock import Clock
from tabkeeper.config import Scope, ServiceSettings
from tabkeeper.pool.pool import SessionPool
from tabkeeper.service.desk import LeaseDesk
from tabkeeper.service.keyring import Keyring
from tabkeeper.service.problems import TITLES, Problem, ProblemError
from tabkeeper.service.tokens import Caller

_BEARER = HTTPBearer(auto_error=False, description="A token that `tabkeeper tokens create` made.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What routes work with."""

    pool: SessionPool
    desk: LeaseDesk
    settings: ServiceSettings
    clock: Clock
    keyring: Keyring


async def rooms_of(request: Request) -> Rooms:
    """Return the rooms of the service that serves a request."""
    rooms = request.app.state.rooms
    assert isinstance(rooms, Rooms)
    return rooms


def need(scope: Scope, *, everybody: bool = False) -> Any:
    """Return the dependency that lets only callers with a scope through, and gives the route the `Caller`.

    Args:
        scope: what they must be allowed to do.
        everybody: whether what is shown is about all tenants, so that those who act for a few may not see it.
    """

    async def check(request: Request) -> Caller:
        caller = request.state.caller
        assert isinstance(caller, Caller), "the guard lets nobody in without"
        if scope not in caller.scopes:
            raise ProblemError("forbidden", f"token {caller.name!r} lacks the scope {scope!r}")
        if everybody and caller.tenants:
            raise ProblemError(
                "forbidden", f"token {caller.name!r} acts for some tenants only, and this shows all of them"
            )
        return caller

    return Depends(check)


def answers(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Describe the problems that a route may answer with, for the OpenAPI document; what any may is added."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in ("bad-request", "unauthorized", "forbidden", "too-slow", "too-large", *kinds):
        status, title = TITLES[kind]
        said = f"{found[status]['description']}; {title.lower()}" if status in found else title
        found[status] = {"model": Problem, "description": said}
    return found


AnyRooms = Annotated[Rooms, Depends(rooms_of)]
DOCUMENTED = Security(_BEARER)
"""Makes the OpenAPI document say that a token is needed; the guard has checked it by then."""
