"""How the web server must be run for the gateway: long messages, signs of life, and a way to drop a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from tabkeeper.config import GatewaySettings
from tabkeeper.service.gateway.wire import SECOND_LOOK, nothing

CLIENT = "tabkeeper.client"
"""Under this name in a scope's state: the connection itself."""
_EARLY = 128 * 1024
"""Bytes that a client may send before it is let in, its request among them."""

CONNECTIONS = f"{__name__}.connections"
"""The logger of what happens to them."""
_quiet = logging.getLogger(CONNECTIONS)
_quiet.setLevel(logging.WARNING)  # what it says below that quotes addresses, with the tokens in them
_quiet.addFilter(lambda record: not _blames_client(record))


def _blames_client(record: logging.LogRecord) -> bool:
    """Whether a traceback says that a client's text is none: its mistake, of which it is told by code 1007."""
    return record.exc_info is not None and isinstance(record.exc_info[1], UnicodeDecodeError)


class _Heard(asyncio.Queue[ASGIReceiveEvent]):
    """Where the library puts what a client says, once it is to be heard without being awaited."""

    def __init__(self, heard: Callable[[str | None], None]) -> None:
        super().__init__()
        self.heard = heard

    def put_nowait(self, item: ASGIReceiveEvent) -> None:
        if item["type"] == "websocket.receive":
            self.heard(item.get("text"))
        else:
            super().put_nowait(item)


class GatewayProtocol(WebSocketsSansIOProtocol):
    """A client's connection, which may be heard and spoken to directly, past ASGI, and can be dropped.

    Closing politely waits until the client has read everything, so one that reads nothing would stay for ever.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.logger = self.conn.logger = _quiet
        self.conn.debug = False
        self._full = self._room = nothing
        self._early = 0
        self._held = False
        self._sign = False
        """It gave a sign of life since it was asked for one."""
        self._looked = False
        """That none came was seen once."""

    def data_received(self, data: bytes) -> None:
        """Take what came; a client that talks without end before it is let in is not waited for."""
        self._sign = True
        if not self.handshake_complete:
            self._early += len(data)
            if self._early > _EARLY:
                self.drop()
                return
        super().data_received(data)

    def eof_received(self) -> None:
        """Learn that nothing more will come."""
        if self.waiting:
            self.drop()  # else it would stay until all is read that was to be sent

    def handle_connect(self, event: Request) -> None:
        """Begin a connection."""
        super().handle_connect(event)
        if self.response.status_code == 101:  # else there is no scope
            self.scope["state"][CLIENT] = self

    async def send(self, message: ASGISendEvent) -> None:
        """Send for the application."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # a refusal is an answer, too: else it is logged as a fault
        if message["type"] == "websocket.close" and self.close_timer is not None:
            self.close_timer.cancel()  # the library would then wait on until all is read
            self.close_timer = self.loop.call_later(self.close_timeout, self.drop)

    def handle_cont(self, event: Frame) -> None:
        """Take a piece of a message. One buffer: a million small pieces would be a million objects."""
        begun: bytes | bytearray = self.frames[0] if self.frames else b""
        whole = begun if isinstance(begun, bytearray) else bytearray(begun)
        whole += event.data
        self.frames = [whole]  # type: ignore[list-item]
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """Hand on a message; drop who sends text that is none when it cannot be told so any more, or not yet."""
        try:
            super().send_receive_event_to_app()
        except InvalidState:
            self.drop()

    def handle_close(self, event: Frame) -> None:
        """Let a client go that said goodbye, whether or not it reads what is still to be sent."""
        super().handle_close(event)
        if self.waiting:
            self.loop.call_later(self.close_timeout, self.drop)

    # ── signs of life: an answer waits behind all else that is on its way, so whatever comes is one ────────────────

    def send_keepalive_ping(self) -> None:
        """Ask for a sign of life."""
        self._sign = self._looked = False
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """End the connection if none came, unless nothing was read meanwhile."""
        if self._sign or self._held:
            self.pong_timer = None
            self.schedule_ping()
            return
        if not self._looked:
            self._looked = True
            again = min(SECOND_LOOK, self.ping_timeout or SECOND_LOOK)
            self.pong_timer = self.loop.call_later(again, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        if self.waiting:
            self.drop()

    # ── past ASGI, once it is accepted ─────────────────────────────────────────────────────────────────────────────

    def hear(
        self,
        heard: Callable[[str | None], None],
        *,
        full: Callable[[], None] = nothing,
        room: Callable[[], None] = nothing,
    ) -> None:
        """Listen from now on; how the client leaves is still told by ASGI's `receive`.

        Args:
            heard: told of each message, None for one that is not text.
            full: told that the client does not take what is sent to it.
            room: told that it does again.
        """
        self._full, self._room = full, room
        if isinstance(self.queue, _Heard):
            self.queue.heard = heard
        else:
            early, self.queue = self.queue, _Heard(heard)
            while not early.empty():
                self.queue.put_nowait(early.get_nowait())
        # The library would stop reading after each message, until it is fetched: it is told that it did.
        self.read_paused = True
        self.go_on()
        if not self.writable.is_set():
            full()

    def say(self, message: str) -> None:
        """Send text; what cannot be sent yet waits, and `full` is told. A client that is leaving hears nothing more."""
        self.carry(Frame(Opcode.TEXT, message.encode()).serialize(mask=False))

    def carry(self, frames: bytes) -> None:
        """Send whole frames as they are."""
        if self.conn.state is State.OPEN and not self.close_sent:
            self.transport.write(frames)

    def hold(self) -> None:
        """Read nothing more, until `go_on`."""
        self._held = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self._held:
            self._held, self._sign = False, True  # what it said meanwhile is still to be read
        if not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def waiting(self) -> int:
        """Bytes that the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    def drop(self) -> None:
        """End the connection at once, whatever still waits to be sent."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """Hear from the transport that the client reads too slowly."""
        super().pause_writing()
        self._full()

    def resume_writing(self) -> None:
        """Hear from the transport that the client caught up."""
        super().resume_writing()
        self._room()


def uvicorn_options(settings: GatewaySettings) -> dict[str, Any]:
    """Return what `uvicorn.Config` must be told."""
    seconds = settings.ping.total_seconds()
    return {
        "ws": GatewayProtocol,
        "ws_max_size": settings.max_message_mb * 2**20,
        "ws_ping_interval": seconds,
        "ws_ping_timeout": seconds,
        # CDP to a browser nearby: time is dearer than bytes.
        "ws_per_message_deflate": False,
    }
