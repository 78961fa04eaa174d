"""Reads of the database that do not hold up the event loop, and that are over before the connections are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Engine

from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger import schema
from tabkeeper.ledger.engines import is_away

T = TypeVar("T")


class Reading:
    """The reads of one ledger.

    Args:
        engine: read-only.
        inline: read on the calling thread.
    """

    def __init__(self, engine: Engine, *, inline: bool) -> None:
        self.engine = engine
        self._inline = inline
        self._closed = False
        self._running: set[asyncio.Future[Any]] = set()

    async def read(self, query: Callable[[Any], T]) -> T:
        """Return what `query` finds by a connection.

        Raises:
            LedgerUnavailableError: the database is away.
        """

        def run() -> T:
            try:
                with self.engine.connect() as connection:
                    return query(connection)
            except Exception as error:
                if is_away(error):
                    raise LedgerUnavailableError(
                        f"the ledger's database is away: {schema.reason(error)}"
                    ) from error
                raise

        return run() if self._inline else await self.in_thread(run)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Read in a thread. It cannot be cancelled, so `aclose` waits for it, whoever has left meanwhile."""
        reading = asyncio.ensure_future(asyncio.to_thread(work))
        self._running.add(reading)
        reading.add_done_callback(self._has_read)
        return await asyncio.shield(reading)

    async def aclose(self) -> None:
        """Wait for what is being read, and let go of the connections."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)
        self.engine.dispose()

    def _has_read(self, reading: asyncio.Future[Any]) -> None:
        self._running.discard(reading)
        if self._closed and not self._running:
            # Who reads after the end opened a connection that nobody else would close.
            self.engine.dispose()
