"""A service on a real port with a gateway: in front of real Chromium, or of a parrot that speaks just enough CDP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.base import RemoteSession, SessionSpec
from tabkeeper.service import create_app
from tabkeeper.service.server import serving
from tabkeeper.service.tokens import hash_token
from tabkeeper.testing import FakeProvider

MAIN, ACME, LOOKER = "tk_" + "m" * 43, "tk_" + "a" * 43, "tk_" + "r" * 43
TOKENS = [
    {"name": "main", "hash": hash_token(MAIN), "scopes": ["read", "lease", "direct", "manage"]},
    {"name": "acme", "hash": hash_token(ACME), "scopes": ["lease"], "tenants": ["acme"]},
    {"name": "looker", "hash": hash_token(LOOKER), "scopes": ["read"]},
]


@dataclass
class House:
    pool: SessionPool
    url: str
    app: FastAPI
    parrot: "Parrot | None" = None

    def address(self, query: str = "", token: str = MAIN) -> str:
        """A WebSocket address of the gateway."""
        words = "&".join(part for part in (query, f"token={token}" if token else "") if part)
        return f"{self.url.replace('http', 'ws', 1)}/cdp?{words}"

    def connect(self, query: str = "", token: str = MAIN, **more: Any) -> connect:
        return connect(self.address(query, token), max_size=None, compression=None, proxy=None, **more)

    def http(self, token: str | None = MAIN) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False)

    def sessions(self) -> list[Any]:
        return [one.session for one in self.pool._sessions.running.values()]

    async def usage(self) -> list[Any]:
        """The usage log's rows of the leases that are over, oldest first."""
        from sqlalchemy import text

        await self.pool._ledger.flush()
        with self.pool._ledger.reader.connect() as db:
            return list(db.execute(text("SELECT * FROM lease ORDER BY granted_at, use_number")).mappings())

    async def until(self, fact: Any, seconds: float = 20) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(seconds):
            while not fact():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def house(
    ledger: str, *, parrot: "Parrot | None" = None, open_: bool = False, **sections: Any
) -> AsyncIterator[House]:
    """Run a service; with a parrot its sessions are connections to that, else each is a Chromium of its own."""
    service = {"port": 0, "tokens": TOKENS, **sections.pop("service", {})}
    settings = parse_config(
        {
            "pool": {"max_sessions": 2, "shutdown_grace": 0, **sections.pop("pool", {})},
            "ledger": {"url": ledger},
            "platforms": sections.pop("platforms", {"web": {}}),
            "providers": sections.pop("providers", {"local": {"kind": "local", "isolation": "process"}}),
            "service": service,
            **sections,
        }
    )
    if parrot is not None:
        async with serve(parrot.answer, "127.0.0.1", 0, max_size=None, compression=None) as server:
            parrot.port = server.sockets[0].getsockname()[1]
            providers = {name: ParrotProvider(name, parrot) for name in settings.providers}
            pool = SessionPool(settings, providers=providers, jobs=False)
            app = create_app(pool, open_=open_)
            async with serving(app, settings.service) as url:
                try:
                    yield House(pool, url, app, parrot)
                finally:
                    if parrot.frozen is not None:
                        parrot.frozen.abort()
        return
    pool = SessionPool(settings, jobs=False)
    app = create_app(pool, open_=open_)
    async with serving(app, settings.service) as url:
        yield House(pool, url, app)


async def call(socket: ClientConnection, method: str, session: str | None = None, **params: Any) -> Any:
    """Send one command as a raw client does, and return what it gives."""
    command = {"id": call.number, "method": method, "params": params}  # type: ignore[attr-defined]
    call.number += 1  # type: ignore[attr-defined]
    if session:
        command["sessionId"] = session
    await socket.send(json.dumps(command))
    while True:
        said = json.loads(await socket.recv())
        if said.get("id") == command["id"]:
            assert "error" not in said, said
            return said["result"]


call.number = 1  # type: ignore[attr-defined]


async def closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    """Read to the end, and say how it closed."""
    try:
        async with asyncio.timeout(60):
            while True:
                await socket.recv()
    except ConnectionClosed:
        return socket.close_code, socket.close_reason


@dataclass
class Parrot:
    """A browser that has nothing in it, and repeats what it is asked."""

    port: int = 0
    connections: int = 0
    """Of clients; the gateway's own questions come over connections that it closes again."""
    heard: list[str] = field(default_factory=list)
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to end a "Parrot.sleep", in which it reads nothing."""
    waits: set[str] = field(default_factory=set)
    """What it does not answer until it is awake."""
    nonsense: str = ""
    """What it answers to the gateway's own questions, after it has answered the `first` of them."""
    first: int = 0
    frozen: asyncio.Transport | None = None
    """The connection on which it takes nothing any more, pings and goodbyes included, since a "Parrot.freeze"."""
    flooded: int = 0
    """Bytes that it got rid of in floods."""

    async def answer(self, socket: ServerConnection) -> None:
        self.connections += 1
        try:
            async for message in socket:
                await self._reply(socket, message if isinstance(message, str) else message.decode())
        except ConnectionClosed:
            pass
        finally:
            self.connections -= 1

    async def _reply(self, socket: ServerConnection, message: str) -> None:
        try:
            command = json.loads(message)
            method, number = command["method"], command["id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self.heard.append(message)
            await socket.send('{"error":{"code":-32700,"message":"what?"}}')
            return
        result: dict[str, Any] = {}
        if self.nonsense and method.startswith(("Target.get", "Storage.")):
            self.first -= 1
            if self.first < 0:
                await socket.send(self.nonsense.replace("%d", str(number)))
                return
        if method in self.waits:
            await self.awake.wait()
        match method:
            case "Target.getBrowserContexts":
                result = {"browserContextIds": []}
            case "Target.getTargets":
                result = {"targetInfos": []}
            case "Storage.getCookies":
                result = {"cookies": []}
            case "Parrot.hangUp":
                await socket.close()
                return
            case "Parrot.sleep":
                await self.awake.wait()
            case "Parrot.freeze":
                self.frozen = socket.transport
                socket.transport.pause_reading()
                return
            case "Parrot.utter":
                socket.transport.write(bytes.fromhex(command["params"]["bytes"]))
                socket.transport.close()
                return
            case "Parrot.flood":
                words = json.dumps(
                    {"method": "Parrot.word", "params": {"x": "y" * command["params"]["size"]}}
                )
                for _ in range(command["params"]["times"]):
                    await socket.send(words)
                    self.flooded += len(words)
            case _:
                self.heard.append(message)
                result = {"said": len(message)}
        await socket.send(json.dumps({"id": number, "result": result}))


class ParrotProvider(FakeProvider):
    """Its sessions are connections to a parrot."""

    def __init__(self, name: str, parrot: Parrot) -> None:
        super().__init__(name, SystemClock(), rng=Random(1), latency=(0, 0))
        self.parrot = parrot

    async def create(self, spec: SessionSpec) -> RemoteSession:
        made = await super().create(spec)
        return RemoteSession(
            provider_session_id=made.provider_session_id,
            connect_url=f"ws://127.0.0.1:{self.parrot.port}/{spec.session_id}?key=secret",
            label=made.label,
        )
