"""A line to PostgreSQL that can be cut: nothing comes through, and nobody is told, as when a network fails."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url

_SOCKET = ".s.PGSQL.5432"


class Wire:
    """Carries bytes between clients and a server, unless it is cut."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._whole = asyncio.Event()
        self._whole.set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Let nothing through from now on; connections stay open."""
        self._whole.clear()

    def mend(self, *, broken: bool = False) -> None:
        """Let through what waits; or let the connections of before break, as routers do that have forgotten them."""
        if broken:
            self.drop()
        self._whole.set()

    def drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead a client to the server."""
        far_reader, far_writer = await asyncio.open_unix_connection(self._server)
        self._writers += [writer, far_writer]
        for one, other in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(one, other))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def aclose(self) -> None:
        self.drop()
        for task in list(self._carrying):
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """Lay a line to a server that listens in a folder; also return the address at this end of the line."""
    address = make_url(url)
    made = Wire(f"{address.query['host']}/{_SOCKET}")
    with tempfile.TemporaryDirectory(prefix="tk-wire-") as folder:
        server = await asyncio.start_unix_server(made.join, Path(folder) / _SOCKET)
        try:
            here = address.update_query_dict({"host": folder})
            yield made, here.render_as_string(hide_password=False)
        finally:
            server.close()
            await made.aclose()
