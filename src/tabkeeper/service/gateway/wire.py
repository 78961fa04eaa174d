"""The browser's end of a relayed conversation: whole frames are handed on as they came, with no task or queue between.

What a browser sends to a client and what a client is sent differ in nothing, so a frame needs no second framing: only
its length is read here. Everything but plain messages (pings, fragments, closing, what is wrong) is the library's.
"""

from __future__ import annotations

import asyncio
import os
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
LONGEST = 256 * 2**20
"""Bytes of a browser's longest message: clients take no longer ones either (Playwright's and Puppeteer's own bound)."""
SECOND_LOOK = 1.0
"""Seconds in which an answer is read that is there already: it may have been us who stood still, not the other end."""


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
        self._parts = bytearray()
        """Of a message that comes in pieces. One buffer: a million small pieces would be a million objects."""
        self._held = False
        self._sign = False
        """It gave a sign of life since it was asked for one."""
        self.ending = "the browser ended the connection"
        """Why it is over, once it is."""

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
        """Bytes that the browser has not taken yet."""
        return self.transport.get_write_buffer_size()

    # ── signs of life ──────────────────────────────────────────────────────────────────────────────────────────────

    async def keepalive(self) -> None:
        """Ask for a sign of life now and then, and end the connection if none comes; run by the library.

        Its own way counts answers only. Those wait behind all that is on its way to a slow client, or to the browser,
        so here everything that arrives or is taken is a sign, and nothing is missed while nothing is read.
        """
        assert self.ping_interval is not None
        assert self.ping_timeout is not None
        while True:
            await asyncio.sleep(self.ping_interval)
            before = self._ask()
            await asyncio.sleep(self.ping_timeout)
            if not self._lives(before):
                await asyncio.sleep(min(SECOND_LOOK, self.ping_timeout))
            if not self._lives(before):
                self.ending = f"the browser gave no sign of life for {self.ping_timeout:g} s"
                self.transport.abort()
                return

    def _lives(self, before: int) -> bool:
        return self._sign or self._held or 0 < self.waiting < before

    def _ask(self) -> int:
        self._sign = False
        if self._is_open():
            self.protocol.send_ping(os.urandom(4))
            self.send_data()
        return self.waiting

    async def drain(self) -> None:
        """Wait for nothing: who hears `Ears.full` holds back, and a goodbye that is not taken must not wait long."""

    # ── what the transport tells ───────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._sign = True
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
        self._sign = True
        if self._ears is not None:
            self._ears.room()

    def eof_received(self) -> None:
        """Learn that nothing more will come."""
        super().eof_received()
        if self.waiting:
            self.transport.abort()  # else it would wait until all is taken that was to be sent

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
            stop = begin + length
            if data[at + 1] > 127 or (
                end >= begin and length > LONGEST
            ):  # masked, as no server may; or too long
                ears.carry(data[carried:at])
                super().data_received(data[at:])
                ears.gone()
                return
            if end < stop:
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
                        ears.gone()  # it says no more, whether or not it hangs up
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
        self._parts += event.data
        if event.fin:
            whole = bytes(self._parts)
            self._parts.clear()
            assert self._ears is not None
            if self._ears.heard(whole):
                self._ears.carry(Frame(Opcode.TEXT, whole).serialize(mask=False))
