"""The browser's end of a relayed conversation: what arrives is handed on at once, with no queue or task in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class GoneError(Exception):
    """The other end is not there any more, or is about to go."""


def _nothing() -> None:
    pass


class BrowserWire(ClientConnection):
    """A connection to a browser whose messages are not awaited but heard; made by `websockets.connect`.

    What comes before anybody listens waits, and nothing more is read meanwhile.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._heard: Callable[[bytes | bytearray], None] | None = None
        self._full = self._room = self._gone = _nothing
        self._early: list[Frame] = []
        self._parts: list[Frame] = []

    def hear(
        self,
        heard: Callable[[bytes | bytearray], None],
        *,
        full: Callable[[], None] = _nothing,
        room: Callable[[], None] = _nothing,
        gone: Callable[[], None] = _nothing,
    ) -> None:
        """Listen from now on.

        Args:
            heard: told of each message.
            full: told that the browser does not take what is sent to it.
            room: told that it does again.
            gone: told that the connection is over.
        """
        self._heard, self._full, self._room, self._gone = heard, full, room, gone
        early, self._early = self._early, []
        for frame in early:
            self._take(frame)
        self.go_on()
        if self.connection_lost_waiter.done():
            gone()

    def say(self, message: str | bytes) -> None:
        """Send one message; what cannot be sent yet waits, and `full` is told.

        Raises:
            GoneError: the browser went away.
        """
        try:
            self.protocol.send_text(message.encode() if isinstance(message, str) else message)
        except InvalidState:
            raise GoneError from None
        self.transport.write(b"".join(self.protocol.data_to_send()))

    def hold(self) -> None:
        """Read nothing more, until `go_on`."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def process_event(self, event: Request | Response | Frame) -> None:
        """Take what the library read."""
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
        elif self._heard is None:
            self._early.append(event)
            self.hold()
        else:
            self._take(event)

    def _take(self, frame: Frame) -> None:
        assert self._heard is not None
        if frame.fin and not self._parts:
            self._heard(frame.data)  # type: ignore[arg-type]  # what was read is never a memoryview
            return
        self._parts.append(frame)
        if frame.fin:
            whole, self._parts = b"".join(one.data for one in self._parts), []
            self._heard(whole)

    def pause_writing(self) -> None:
        """Hear from the transport that the browser reads too slowly."""
        super().pause_writing()
        self._full()

    def resume_writing(self) -> None:
        """Hear from the transport that the browser caught up."""
        super().resume_writing()
        self._room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear from the transport that this is over."""
        super().connection_lost(exc)
        self._gone()
