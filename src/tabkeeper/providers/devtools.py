"""A few words of the DevTools protocol over a plain WebSocket, for sweeping a browser without a Playwright driver.

Only for browsers on this machine (no TLS, no proxy); leases speak to browsers through Playwright.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

_MAX_BYTES = 64 * 2**20


class DevToolsError(Exception):
    """The browser did not answer, or refused."""


class DevTools:
    """One connection to a browser; use with ``async with``."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        host, port = self._url.hostname or "127.0.0.1", self._url.port or 80
        try:
            self._reader, self._writer = await asyncio.open_connection(host, port)
        except OSError as error:
            raise DevToolsError(f"no connection: {error}") from None
        key = base64.b64encode(os.urandom(16)).decode()
        self._writer.write(
            f"GET {self._url.path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = b""
        except BaseException:
            self._writer.transport.abort()
            raise
        if not head.startswith(b"HTTP/1.1 101"):
            self._writer.transport.abort()
            raise DevToolsError("the browser refused the connection")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0)  # lets the transport close its socket

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """Send one command and return its result.

        Raises:
            DevToolsError: the browser went away, or answered with an error.
        """
        number = next(self._ids)
        self._send(json.dumps({"id": number, "method": method, "params": params}).encode())
        while True:
            try:
                message = json.loads(await self._receive())
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                raise DevToolsError(f"{method}: {error}") from None
            if message.get("id") == number:
                if "error" in message:
                    raise DevToolsError(f"{method}: {message['error'].get('message')}")
                result: dict[str, Any] = message["result"]
                return result

    def _send(self, payload: bytes) -> None:
        assert len(payload) < 2**16
        size = (
            bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        )
        # Clients must mask (RFC 6455, 5.3); a mask of zeros is one, and leaves the text as it is.
        self._writer.write(b"\x81" + size + bytes(4) + payload)

    async def _receive(self) -> bytes:
        """Return the next text message; DevTools sends no fragments, pings or masks worth a word."""
        while True:
            head = await self._reader.readexactly(2)
            size = head[1] & 0x7F
            if size >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
            if size > _MAX_BYTES:
                raise ValueError("message too long")
            payload = await self._reader.readexactly(size)
            if head[0] & 0x0F == 8:
                raise ValueError("connection closed by the browser")
            if head[0] & 0x0F == 1:
                return payload


async def sweep(url: str, *, alone: Callable[[], bool]) -> int:
    """Close what nobody uses in a browser: contexts and pages; returns how many.

    Playwright's contexts end with its connection, others may stay. If the browser is `alone` (no session uses it),
    everything goes; else only pages that no client is attached to, with their contexts. Contexts without a page are
    then left in peace: somebody may be about to open one.

    Raises:
        DevToolsError: the browser did not answer.
    """
    async with DevTools(url) as browser:
        # Asked in the same step as the list is requested: a context made later is not on the list.
        everything = alone()
        found = await browser.call("Target.getBrowserContexts")
        contexts = set(found["browserContextIds"])
        pages = [t for t in (await browser.call("Target.getTargets"))["targetInfos"] if t["type"] == "page"]
        used = {page.get("browserContextId") for page in pages if page["attached"]}
        opened = {page.get("browserContextId") for page in pages}
        doomed = contexts if everything else contexts & (opened - used)
        loose = [
            page["targetId"]
            for page in pages
            if page.get("browserContextId") not in contexts and (everything or not page["attached"])
        ]
        for context in doomed:
            await browser.call("Target.disposeBrowserContext", browserContextId=context)
        for target in loose:
            await browser.call("Target.closeTarget", targetId=target)
        return len(doomed) + len(loose)
