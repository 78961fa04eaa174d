"""Puts the service on a port, on the running event loop, with bounds that a web server does not have by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from tabkeeper.config import ServiceSettings
from tabkeeper.service.gateway.server import CONNECTIONS, uvicorn_options

_SPEAK_OF_REQUESTS = ("uvicorn.error", CONNECTIONS)
"""Loggers."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the loop."""
        yield


def _in_a_line(record: logging.LogRecord) -> bool:
    """Say of requests that the end of the service cut off no more than that; for a log's filter."""
    if record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError):
        record.msg, record.args, record.exc_info = "a request was cut off: the service stops", (), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _protocol(patience: float) -> type[H11Protocol]:
    class Impatient(H11Protocol):
        """Hangs up on a client that does not finish the head of its request in time (slow headers)."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect()

        def data_received(self, data: bytes) -> None:
            if not self._is_answering():
                self._expect()
            super().data_received(data)
            if self._is_answering():
                self._relax()

        def _is_answering(self) -> bool:
            cycle: RequestResponseCycle | None = (
                self.cycle
            )  # None before the first request, whatever its type says
            return cycle is not None and not cycle.response_complete

        def handle_websocket_upgrade(self, event: object) -> None:
            self._relax()
            super().handle_websocket_upgrade(event)  # type: ignore[arg-type]

        def connection_lost(self, exc: Exception | None) -> None:
            self._relax()
            super().connection_lost(exc)

        def _expect(self) -> None:
            if self._late is None:
                self._late = self.loop.call_later(patience, self.transport.abort)

        def _relax(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Impatient


@contextlib.asynccontextmanager
async def serving(app: FastAPI, settings: ServiceSettings) -> AsyncIterator[str]:
    """Serve `app` while the block runs; gives the address, such as ``http://127.0.0.1:8020``.

    At the end clients are told first that their leases are over, while they can still be answered.

    Raises:
        OSError: the port is taken.
        Exception: whatever the start of the application raised.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family)
    with contextlib.closing(listener):
        # Connections inherit it; asyncio sets it for those of its own listeners only. Without it a short message waits
        # until the one before it is acknowledged, which the other side may put off for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with app.router.lifespan_context(app):
            config = uvicorn.Config(
                app,
                http=_protocol(settings.header_timeout.total_seconds()),
                **uvicorn_options(app.state.rooms.pool.config.gateway),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                h11_max_incomplete_event_size=32768,
                forwarded_allow_ips=list(settings.forwarders),
                timeout_keep_alive=30,
                timeout_graceful_shutdown=2,
            )
            server = _Server(config)
            running = asyncio.create_task(server.serve(sockets=[listener]), name="tabkeeper http")
            shown = f"[{settings.host}]" if ":" in settings.host else settings.host
            try:
                yield f"http://{shown}:{listener.getsockname()[1]}"
            finally:
                try:
                    await app.state.hush()
                finally:
                    server.should_exit = True
                    for name in _SPEAK_OF_REQUESTS:
                        logging.getLogger(name).addFilter(_in_a_line)
                    try:
                        await asyncio.shield(running)
                    finally:
                        for name in _SPEAK_OF_REQUESTS:
                            logging.getLogger(name).removeFilter(_in_a_line)
