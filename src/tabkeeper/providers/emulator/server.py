"""Puts an emulator on a port of this machine, on the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import uvicorn
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from tabkeeper.providers.emulator.core import Emulator

E = TypeVar("E", bound=Emulator)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the loop."""
        yield


@contextlib.asynccontextmanager
async def serving(emulator: E, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[E]:
    """Serve `emulator` while the block runs; port 0 takes a free one, and `emulator.url` says which.

    Raises:
        OSError: the port is taken.
        ConfigError: there is no browser on this machine.
    """
    transports: dict[tuple[str, int], asyncio.Transport] = {}

    class Protocol(H11Protocol):
        """Lets a connection be dropped in the middle of a request."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transports[transport.get_extra_info("peername")[:2]] = transport

    def drop(request: Request) -> None:
        assert request.client is not None
        transports[request.client.host, request.client.port].abort()

    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    with contextlib.closing(listener):
        # asyncio does so for its own listeners only, and a short message would wait for the one before it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        shown = f"[{host}]" if ":" in host else host
        await emulator.start(f"http://{shown}:{listener.getsockname()[1]}", drop)
        config = uvicorn.Config(
            emulator.app(),
            http=Protocol,
            ws="websockets-sansio",
            ws_max_size=2**30,
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield emulator
        finally:
            await emulator.aclose()
            server.should_exit = True
            await running
