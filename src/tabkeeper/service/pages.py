"""The dashboard's files and its log-in: a token is changed for a cookie that no script can read.

Everything that the page needs is in the package, so it works without a connection to anywhere else.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from tabkeeper.clock import Clock, Instant
from tabkeeper.service.access import answers
from tabkeeper.service.guard import COOKIE, cookies_of
from tabkeeper.service.keyring import Keyring
from tabkeeper.service.models import Asked
from tabkeeper.service.problems import ProblemError
from tabkeeper.service.tokens import Caller

_LASTS = 12 * 3600
_MOST = 1000
_TYPES = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "parts.js": "text/javascript; charset=utf-8",
    "uPlot.LICENSE.txt": "text/plain; charset=utf-8",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
}

router = APIRouter(tags=["dashboard"])


class Logins:
    """Who is logged in to the dashboard; forgotten when the service stops.

    Args:
        keyring: whose tokens are good.
        clock: where time comes from.
    """

    def __init__(self, keyring: Keyring, clock: Clock) -> None:
        self._keyring = keyring
        self._clock = clock
        self._known: OrderedDict[str, tuple[Caller, Instant]] = OrderedDict()

    async def begin(self, token: str) -> str:
        """Return a new cookie's value for a token.

        Raises:
            ProblemError: the token is not known, or may not read.
        """
        caller = await self._keyring.find(token)
        if caller is None:
            raise ProblemError("unauthorized", "the token is not known")
        if "read" not in caller.scopes or caller.tenants:
            raise ProblemError(
                "forbidden", "the dashboard needs a token with the scope 'read' for all tenants"
            )
        while len(self._known) >= _MOST:
            self._known.popitem(last=False)
        cookie = secrets.token_urlsafe(32)
        self._known[cookie] = (caller, self._clock.monotonic() + _LASTS)
        return cookie

    def find(self, cookie: str) -> Caller | None:
        """Return whose cookie it is; None if nobody's, or it is too old."""
        caller, until = self._known.get(cookie, (None, 0.0))
        return caller if until > self._clock.monotonic() else None

    def end(self, cookie: str) -> None:
        """Forget a cookie."""
        self._known.pop(cookie, None)


class LoginBody(Asked):
    """A token."""

    token: str = Field(min_length=1, max_length=200)


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """Show the dashboard; what it shows, it asks for with the log-in of whoever looks."""
    return Response(_read("index.html"), media_type="text/html; charset=utf-8")


@router.get("/assets/{name}", include_in_schema=False)
async def asset(name: Annotated[str, Path(max_length=64)]) -> Response:
    """Give one of the page's files, of a fixed list."""
    if name not in _TYPES:
        raise ProblemError("not-found", "there is no such file")
    return Response(_read(name), media_type=_TYPES[name], headers={"Cache-Control": "no-cache"})


@router.post(
    "/login", status_code=204, summary="Log the dashboard in", responses=answers("invalid", "unavailable")
)
async def login(body: LoginBody, request: Request, response: Response) -> None:
    """Change a token with the scope `read` for a cookie of this browser."""
    cookie = await _logins(request).begin(body.token.strip())
    secure = request.url.scheme == "https"
    _give(response, cookie, "1", lasts=_LASTS, secure=secure)


@router.post("/logout", status_code=204, summary="Log the dashboard out", responses=answers())
async def logout(request: Request, response: Response) -> None:
    """Forget this browser's cookie."""
    for cookie in cookies_of(request.headers):
        _logins(request).end(cookie)
    _give(response, "", "", lasts=0, secure=request.url.scheme == "https")


def _give(response: Response, cookie: str, shown: str, *, lasts: int, secure: bool) -> None:
    """Set the cookie, and one that scripts can see, for the folder where the browser found this.

    With no path in the cookie the browser takes that of what it asked for, which a reverse proxy may have taken away.
    """
    response.set_cookie(
        COOKIE, cookie, max_age=lasts, path=None, httponly=True, samesite="strict", secure=secure
    )
    response.set_cookie(
        "tabkeeper_logged_in", shown, max_age=lasts, path=None, samesite="strict", secure=secure
    )


def _logins(request: Request) -> Logins:
    found = request.app.state.logins
    assert isinstance(found, Logins)
    return found


def _read(name: str) -> bytes:
    return files("tabkeeper.service.dashboard").joinpath(name).read_bytes()
