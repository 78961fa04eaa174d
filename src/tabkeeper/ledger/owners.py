"""Who owns which session: signs of life of processes, and what dead ones have left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tabkeeper.clock import Clock
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger import processes
from tabkeeper.ledger.alerting import Reads
from tabkeeper.ledger.instants import micros
from tabkeeper.ledger.store import Writer
from tabkeeper.ledger.types import Orphan


class Owners:
    """The processes of one ledger; get it as ``ledger.owners``.

    Args:
        writer: writes.
        read: reads.
        clock: where time comes from.
        process_id: our own row in the ``process`` table.
    """

    def __init__(self, writer: Writer, read: Reads, clock: Clock, process_id: str) -> None:
        self._writer = writer
        self._read = read
        self._clock = clock
        self._process_id = process_id

    async def heartbeat(
        self,
        snapshot: Mapping[str, object] | None = None,
        sessions: Sequence[tuple[str, str, int]] = (),
    ) -> None:
        """Tell other processes that this one lives, and what its queue looks like; call it every few seconds.

        Args:
            snapshot: figures of the pool, plain enough for JSON.
            sessions: id, state and number of uses of each open session of this process.
        """
        operation = {
            "op": "heartbeat",
            "process_id": self._process_id,
            "snapshot": None if snapshot is None else json.dumps(snapshot, default=str),
            "sessions": [{"id": id_, "state": state, "uses": uses} for id_, state, uses in sessions],
            "at": micros(self._clock.now()),
        }
        try:
            await self._writer.do(operation, keep=False)
        except LedgerUnavailableError:
            return

    async def orphans(self) -> list[Orphan]:
        """Find sessions that never ended but whose owning process did.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        now = micros(self._clock.now())
        return await self._read(lambda c: processes.orphans(c, self._process_id, now))

    async def claim(self, orphan: Orphan) -> bool:
        """Take over a session of a dead process, so that nobody else does; False if somebody has.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        return bool(
            await self._writer.call(
                lambda tx: processes.claim(tx, orphan.session_id, old=orphan.owner, new=self._process_id)
            )
        )
