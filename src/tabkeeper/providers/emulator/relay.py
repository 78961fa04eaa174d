"""Carries a CDP conversation between a client of the emulator and a local browser, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed


async def relay(client: WebSocket, target: str, ended: asyncio.Event) -> None:
    """Accept `client` and carry its words to `target` and back until either side or the session ends."""
    async with connect(target, max_size=None, compression=None, proxy=None) as browser:
        await client.accept()
        work = {
            asyncio.create_task(_to_browser(client, browser)),
            asyncio.create_task(_to_client(browser, client)),
            asyncio.create_task(ended.wait()),
        }
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the client left first
            await client.close(1000)


async def _to_browser(client: WebSocket, browser: ClientConnection) -> None:
    with contextlib.suppress(WebSocketDisconnect, ConnectionClosed):
        while True:
            await browser.send(await client.receive_text())


async def _to_client(browser: ClientConnection, client: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect, ConnectionClosed, RuntimeError):
        async for message in browser:
            await client.send_text(message if isinstance(message, str) else message.decode())
