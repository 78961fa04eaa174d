"""A page on this machine that scripts may do anything on: with cookies, storage and a service worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

WORKER = b"self.addEventListener('fetch', () => {});"


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    """Serve it; gives its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        except asyncio.IncompleteReadError:
            writer.close()
            return
        kind, body = (
            (b"text/javascript", WORKER) if path == b"/worker.js" else (b"text/html", b"<title>shop</title>")
        )
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (kind, len(body), body)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
