"""What all emulators share towards their clients: requests and errors, connections to browsers, misbehaviour on order.

An emulator of a vendor is a subclass that knows its paths and words; what it holds is an `Account`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, ClassVar, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from tabkeeper.clock import Clock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import ProviderError
from tabkeeper.providers.emulator.account import Account, Bill, Limits, Refused
from tabkeeper.providers.emulator.faults import Deed, Fault, Faults, Verb
from tabkeeper.providers.emulator.relay import relay
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase

__all__ = ["Answer", "Bill", "Emulator", "Limits", "Refused"]

_log = logging.getLogger(__name__)

Answer = Callable[[Request], Awaitable[Response]]


class Emulator(Account):
    """One account at an emulated provider; `serving` puts it on a port.

    Args:
        limits: of the account.
        keys: valid keys; any is if unset.
        clock: where time comes from; with a `VirtualClock` call `catch_up` after moving it.
        browser: settings of the local browsers behind it.
    """

    kind: ClassVar[
        Literal[
            "anchor",
            "browser_use",
            "browserbase",
            "browserless",
            "hyperbrowser",
            "kernel",
            "steel",
        ]
    ]
    strangers: ClassVar[int] = 401
    """Status with which a connection without a right to a session is refused."""
    keeps_labels: ClassVar[bool] = True
    """Its API has a place for a client's own name of a session, or ids that clients choose."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        keys: Sequence[str] = (),
        clock: Clock | None = None,
        browser: ProviderSettings | None = None,
    ) -> None:
        super().__init__(limits, clock=clock, browser=browser)
        self.url = ""
        """Base address of the API, once it is served."""
        self.requests: list[tuple[str, str, Mapping[str, str], bytes]] = []
        """Every request that came in: method, path with query, headers, body."""
        self._keys = frozenset(keys)
        self._faults = Faults()
        self._drop: Callable[[Request], None] = lambda _: None

    # -- what a vendor's emulator says ---------------------------------------------------------------------------

    @abstractmethod
    def routes(self) -> Sequence[BaseRoute]:
        """The paths of the API."""

    @abstractmethod
    def key_of(self, request: Request) -> str | None:
        """Return the key that a request carries."""

    @abstractmethod
    def error(self, refused: Refused) -> Response:
        """Word an error as the provider does."""

    # -- for tests -----------------------------------------------------------------------------------------------

    def misbehave(self, on: Verb, do: Deed, **more: Any) -> Fault:
        """Order misbehaviour; see `Fault` for what can be said.

        Raises:
            ValueError: there is no such misbehaviour.
        """
        known = {one.name for one in fields(Fault)} - {"done"}
        if unknown := sorted(more.keys() - known):
            raise ValueError(f"{unknown[0]}: faults know only {', '.join(sorted(known))}")
        return self._faults.add(Fault(on=on, do=do, **more))

    def behave(self) -> None:
        """Take back all orders to misbehave."""
        self._faults.clear()
        self.out_of_money = False

    # -- running it ----------------------------------------------------------------------------------------------

    async def start(self, url: str, drop: Callable[[Request], None]) -> None:
        """Begin; `serving` calls this with the address, and with how to drop a request's connection.

        Raises:
            ConfigError: there is no browser on this machine.
        """
        self.url = url
        self._drop = drop
        await self.open()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                *self.routes(),
                Route("/_emulator/faults", self._admin_faults, methods=["POST", "DELETE"]),
                Route("/_emulator/sessions", self._admin_sessions, methods=["GET"]),
                Route("/_emulator/sessions/{id}/lose", self._admin_lose, methods=["POST"]),
                Route("/_emulator/sessions/{id}/bill", self._admin_bill, methods=["POST"]),
                WebSocketRoute("/connect", self._connect),
            ]
        )

    def route(self, verb: Verb, method: str, path: str, answer: Answer) -> Route:
        """Return a route of the API that checks the key, catches up with time, and misbehaves when ordered to."""

        async def handle(request: Request) -> Response:
            body = await request.body()
            target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            self.requests.append((request.method, target, dict(request.headers), body))
            self._advance()
            try:
                response = await self._answer(verb, request, answer)
            except Refused as refused:
                response = self.error(refused)
            response.headers["date"] = format_datetime(self._clock.now(), usegmt=True)
            return response

        return Route(path, handle, methods=[method])

    async def _answer(self, verb: Verb, request: Request, answer: Answer) -> Response:
        fault = self._faults.take(verb, request.path_params.get("id"))
        if fault is not None and fault.do == "status":
            raise self.refusal(fault)
        key = self.key_of(request)
        if not key or (self._keys and key not in self._keys):
            raise self.refusal(Fault(on=verb, do="status", status=401))
        request.state.fault = fault
        if fault is not None and fault.do == "slow":
            await asyncio.sleep(fault.seconds)
            self._advance()
        response = await answer(request)
        if fault is not None and fault.do == "late":
            await asyncio.sleep(fault.seconds)
        elif fault is not None and fault.do == "drop":
            self._drop(request)
        elif fault is not None and fault.do == "status after":
            raise self.refusal(fault)
        return response

    # -- answers -------------------------------------------------------------------------------------------------

    def find(self, request: Request) -> EmulatedSession:
        """Return the session that a path names.

        Raises:
            Refused: there is none.
        """
        session = self.sessions.get(request.path_params["id"])
        if session is None:
            raise self.refusal(Fault(on="get", do="status", status=404))
        return session

    def listed(self, request: Request) -> list[EmulatedSession]:
        """Return the sessions that a list may show; an order may make it lag or lie."""
        fault: Fault | None = request.state.fault
        found = list(self.sessions.values())
        if fault is None:
            return found
        if fault.do == "empty":
            return []
        if fault.do == "lag":
            young = self._clock.now() - timedelta(seconds=fault.seconds)
            return [one for one in found if one.created_at <= young]
        return [self.seen(request, one) for one in found]

    def seen(self, request: Request, session: EmulatedSession) -> EmulatedSession:
        """Return a session as an answer shows it; an order may make it show an old picture."""
        fault: Fault | None = request.state.fault
        if fault is not None and fault.do == "stale":
            return replace(session, phase=Phase.RUNNING, ended_at=None)
        return session

    # -- connections ---------------------------------------------------------------------------------------------

    def connect_url(self, session: EmulatedSession) -> str:
        """Return where a CDP client connects."""
        return f"{self.url.replace('http', 'ws', 1)}/connect?signingKey={session.secret}"

    def opened_by(self, websocket: WebSocket) -> EmulatedSession | None:
        """Return the session that a connection has the right to; None refuses it."""
        secret = websocket.query_params.get("signingKey", "")
        return next((one for one in self.sessions.values() if one.secret == secret), None)

    async def _connect(self, websocket: WebSocket) -> None:
        self._advance()
        session = self.opened_by(websocket)
        if session is None:
            await websocket.send_denial_response(Response(status_code=self.strangers))
            return
        if session.phase is not Phase.RUNNING or session.haunted:
            await websocket.send_denial_response(Response(status_code=410))
            return
        try:
            target = await self.browser_of(session)
        except (ProviderError, asyncio.CancelledError) as error:
            _log.warning("session %s has no browser: %r", session.id, error)
            await websocket.send_denial_response(Response(status_code=410 if session.phase.over else 502))
            return
        session.connected = True
        session.connections += 1
        spell = [self._clock.monotonic(), math.inf]
        session.spells.append(spell)
        try:
            await relay(websocket, target, self._ended[session.id])
        finally:
            session.connections -= 1
            spell[1] = self._clock.monotonic()
            if not session.connections and not session.keep_alive and not session.haunted:
                self.end(session, Phase.COMPLETED, "disconnected")

    # -- by HTTP -------------------------------------------------------------------------------------------------

    async def _admin_faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.behave()
            return Response(status_code=204)
        try:
            order = await request.json()
            self.misbehave(**order)
        except (ValueError, TypeError) as error:
            return JSONResponse({"message": str(error)}, 400)
        return JSONResponse(order, 201)

    async def _admin_sessions(self, _: Request) -> Response:
        self._advance()
        return JSONResponse(
            [
                {
                    "id": one.id,
                    "phase": one.phase.value,
                    "why": one.why,
                    "seconds": self._lasted(one),
                    "connections": one.connections,
                    "proxyBytes": one.proxy_bytes,
                }
                for one in self.sessions.values()
            ]
        )

    async def _admin_bill(self, request: Request) -> Response:
        try:
            self.bills_more(request.path_params["id"], **await request.json())
        except KeyError:
            return Response(status_code=404)
        except (ValueError, TypeError) as error:
            return JSONResponse({"message": str(error)}, 400)
        return Response(status_code=204)

    async def _admin_lose(self, request: Request) -> Response:
        with contextlib.suppress(KeyError):
            await self.lose(request.path_params["id"], quietly="quietly" in request.query_params)
            return Response(status_code=204)
        return Response(status_code=404)
