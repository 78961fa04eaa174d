"""A way to a proxy that counts what passes in both directions, and is cut when as much has passed as was paid for.

It listens on this machine alone and reads nothing of what it passes on, so HTTP, HTTPS and SOCKS5 are one to it. What a
browser says of its own traffic leaves out what workers, uploads and encryption add; what a proxy bills does not.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import replace

from tabkeeper.proxies.model import Proxy

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 64 * 1024
"""Bytes read at a time; never more than may still pass."""


class Relay:
    """The way of one session to its proxy, for the session's life.

    Args:
        proxy: where it leads.
        most: bytes that may pass, in both directions together. Not one more is taken in.
        on_spent: called once, when so many have passed.
    """

    def __init__(self, proxy: Proxy, most: int, on_spent: Callable[[], object]) -> None:
        self._proxy = proxy
        self._on_spent = on_spent
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()
        self._reaching: set[asyncio.Task[None]] = set()
        self.left = most
        """Bytes that may still pass."""
        self.moved = 0
        """Bytes that have passed."""

    async def open(self) -> Proxy:
        """Begin to listen, and return the proxy as a browser on this machine is to be told of it."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        scheme = "socks5" if self._proxy.scheme == "socks5" else "http"
        return replace(self._proxy, scheme=scheme, host="127.0.0.1", port=port)

    def close(self) -> int:
        """Let nothing more pass, and return how many bytes have. Safe to repeat."""
        if self._server is not None:
            self._server.close()
        for task in self._reaching:
            task.cancel()
        for end in list(self._ends):
            end.cut()
        return self.moved

    # ── for its ends ───────────────────────────────────────────────────────────────────────────────────────────────

    def came(self, end: _End) -> None:
        """One end of a connection is there; the browser's has the proxy's made."""
        self._ends.add(end)
        if end.other is None:
            task = asyncio.create_task(self._reach(end), name="tabkeeper-relay")
            self._reaching.add(task)
            task.add_done_callback(self._reaching.discard)

    async def _reach(self, end: _End) -> None:
        proxy = self._proxy
        context = ssl.create_default_context() if proxy.scheme == "https" else None
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _End(self, end), proxy.host, proxy.port, ssl=context
            )
        except OSError as error:
            log.debug("proxy %s cannot be reached: %s", proxy.id, error)
            end.cut()
            return
        end.begin()

    def went(self, end: _End) -> None:
        """One end of a connection is gone."""
        self._ends.discard(end)

    def passed(self, size: int) -> None:
        """Count what was taken in."""
        self.moved += size
        self.left -= size

    def check(self) -> None:
        """Cut everything if nothing more may pass."""
        if self.left <= 0:
            self.close()
            tell, self._on_spent = self._on_spent, lambda: None
            tell()


class _End(asyncio.BufferedProtocol):
    """One end of a connection; what it takes in goes out at the other."""

    def __init__(self, relay: Relay, other: _End | None = None) -> None:
        self._relay = relay
        self.transport: asyncio.Transport | None = None
        self._memory = bytearray(_MOST_AT_ONCE)
        self.other = other

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.other is None:
            transport.pause_reading()
        else:
            self.other.other = self
        self._relay.came(self)

    def begin(self) -> None:
        """Take in what comes: the other end is there."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return memoryview(self._memory)[: max(1, min(len(self._memory), self._relay.left))]

    def buffer_updated(self, nbytes: int) -> None:
        self._relay.passed(nbytes)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(bytes(self._memory[:nbytes]))
        self._relay.check()

    def eof_received(self) -> bool:
        out = None if self.other is None else self.other.transport
        if out is None or not out.can_write_eof():
            return False
        out.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.begin()

    def connection_lost(self, _error: Exception | None) -> None:
        self._relay.went(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def cut(self) -> None:
        """Break it off at once."""
        if self.transport is not None:
            self.transport.abort()
