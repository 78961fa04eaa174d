"""The browser's end of a relayed conversation: whole frames are handed on as they came, with no task or queue between.

What a browser sends to a client and what a client is sent differ in nothing, so a frame needs no second framing: only
its length is read here. Everything but plain messages (pings, fragments, closing, what is wrong) is the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State

_WHOLE_TEXT = 0x81
"""The first byte of a text message in one frame."""
_END_OF_HEAD = b"\r\n\r\n"


class GoneError(Exception):
    """The other end is not there any more, or is about to go."""


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ears:
    """Who is told what a browser does."""

    heard: Callable[[bytes], bool]
    """A message; says whether it is for the client."""
    carry: Callable[[bytes], None]
    """Frames with messages for the client, whole, as they are to be sent."""
    full: Callable[[], None] = nothing
    """The browser does not take what is sent to it ..."""
    room: Callable[[], None] = nothing
    """... and does again."""
    gone: Callable[[], None] = nothing
    """The connection is over."""


class BrowserWire(ClientConnection):
    """A connection to a browser whose messages are not awaited but heard; made by `websockets.connect`.

    What comes before anybody listens waits, and nothing more is read meanwhile.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._ears: Ears | None = None
        self._rest: list[bytes] = []
        """The beginning of a frame, or what came too early."""
        self._wanted = 0
        """Bytes that must be there before it is worth looking."""
        self._had = 0
        self._tail = b""
        """The last bytes of an unfinished handshake."""
        self._parts: list[Frame] = []

    def hear(self, ears: Ears) -> None:
        """Listen from now on."""
        early = b"".join(self._rest) if self._ears is None else b""
        self._ears = ears
        if early:
            self._forget()
            self._read(early)
        self.go_on()
        if self.connection_lost_waiter.done():
            ears.gone()

    def say(self, message: str) -> None:
        """Send one message; what cannot be sent yet waits, and `Ears.full` is told.

        Raises:
            GoneError: the browser went away.
        """
        try:
            self.protocol.send_text(message.encode())
        except InvalidState:
            raise GoneError from None
        self.send_data()

    def hold(self) -> None:
        """Read nothing more, until `go_on`."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # ── what the transport tells ───────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if not self._is_open():
            head, data = self._split(data)
            super().data_received(head)
            if not data:
                return
            if not self._is_open():
                super().data_received(data)
                return
        if self._ears is None:
            self._keep(data, 0)
            self.hold()
            return
        if self._rest:
            self._keep(data, self._wanted)
            if self._had < self._wanted:
                return
            data = b"".join(self._rest)
            self._forget()
        self._read(data)

    def pause_writing(self) -> None:
        """Learn that the browser reads too slowly."""
        super().pause_writing()
        if self._ears is not None:
            self._ears.full()

    def resume_writing(self) -> None:
        """Learn that the browser caught up."""
        super().resume_writing()
        if self._ears is not None:
            self._ears.room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that this is over."""
        super().connection_lost(exc)
        if self._ears is not None:
            self._ears.gone()

    # ── frames ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Tell the end of the handshake from what came with it, which the library must not begin to read."""
        seen = len(self._tail)
        end = (self._tail + data).find(_END_OF_HEAD)
        self._tail = (self._tail + data)[1 - len(_END_OF_HEAD) :]
        if end < 0:
            return data, b""
        end += len(_END_OF_HEAD) - seen
        return data[:end], data[end:]

    def _is_open(self) -> bool:
        return self.protocol.state is State.OPEN

    def _keep(self, data: bytes, wanted: int) -> None:
        self._rest.append(data)
        self._had += len(data)
        self._wanted = wanted

    def _forget(self) -> None:
        self._rest.clear()
        self._had = 0

    def _read(self, data: bytes) -> None:
        """Carry on the frames in `data`, neighbours together; what is not whole waits."""
        ears = self._ears
        assert ears is not None
        carried = at = 0
        """Up to where all is done, and up to where all was looked at; between them is what will be carried."""
        end = len(data)
        wanted = 2
        while end - at >= 2:
            begin, length = at + 2, data[at + 1]
            if length == 126:
                begin = at + 4
                length = int.from_bytes(data[at + 2 : begin])
            elif length == 127:
                begin = at + 10
                length = int.from_bytes(data[at + 2 : begin])
            elif length > 127:  # masked, as no server may
                ears.carry(data[carried:at])
                super().data_received(data[at:])
                return
            stop = begin + length
            if end < begin or end < stop:
                wanted = max(begin, stop) - at if end >= begin else begin - at
                break
            plain = data[at] == _WHOLE_TEXT
            if not plain or not ears.heard(data[begin:stop]):
                if carried < at:
                    ears.carry(data[carried:at])
                carried = stop
                if not plain:
                    super().data_received(data[at:stop])
                    if not self._is_open():
                        super().data_received(data[stop:])
                        return
            at = stop
        if carried < at:
            ears.carry(data[carried:at])
        if at < end:
            self._keep(data[at:], wanted)

    def process_event(self, event: Request | Response | Frame) -> None:
        """Take what the library read: messages in pieces, besides what is its own business."""
        if not isinstance(event, Frame) or event.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            super().process_event(event)
            return
        self._parts.append(event)
        if event.fin:
            whole, self._parts = b"".join(one.data for one in self._parts), []
            assert self._ears is not None
            if self._ears.heard(whole):
                self._ears.carry(Frame(Opcode.TEXT, whole).serialize(mask=False))
