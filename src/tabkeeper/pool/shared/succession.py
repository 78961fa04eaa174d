"""How processes that decide by other rules follow one another: who comes later stands by until the others have left.

All processes of a board decide alike, so they have one version and one configuration. A process that differs says that
it is there and lets its callers queue. The last of those that run the board leaves it the sessions that idle there
(docs/decisions/0019).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterable
from typing import Any

from tabkeeper.clock import FleetClock
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.boardlog import BoardLog, MemberLine
from tabkeeper.ledger.processes import Identity
from tabkeeper.pool.model import Session
from tabkeeper.pool.shared.entries import Event
from tabkeeper.pool.shared.watcher import Watcher

log = logging.getLogger(__name__)

_PAUSE = 0.5
"""Seconds between two looks whether the others have left."""


class Succession:
    """One process's turn to run a board.

    Args:
        who: this process.
        planner: what it decides by, in two parts: its code, and its rules and prices.
        heartbeat: seconds without a sign of life after which a process is taken for dead.
        waits: whether it stands by while others run the board, or raises.
    """

    def __init__(
        self, clock: FleetClock, line: BoardLog, *, who: Identity, planner: str, heartbeat: float, waits: bool
    ) -> None:
        self._clock = clock
        self._log = line
        self._who = who
        self._planner = planner
        self._waits = waits
        self._watcher = Watcher(heartbeat)
        self.pause = min(_PAUSE, heartbeat / 4)
        self.why = ""
        """Why this process stands by; empty if it does not."""
        self.nobody = -2 - secrets.randbelow(2**30)
        """What this process is on the board while it is no member: no other one's number, and no member's."""

    async def is_ours(self) -> bool:
        """Say whether nobody runs the board by other rules; if somebody does, stand by.

        Raises:
            ConfigError: somebody does, and this process is not to wait.
        """
        first: dict[int, int] = {}
        while others := await self.look():
            first = {one.home: first.get(one.home, one.beats) for one in others}
            if self._waits:
                return False
            if any(one.beats != first[one.home] for one in others):
                raise ConfigError(_why(others, self._planner))
            await asyncio.sleep(self.pause)
        return True

    async def look(self) -> list[MemberLine]:
        """Strike off those that are dead; return the others that decide by other rules."""
        strangers = {one.home: one for one in await self._log.roll() if one.planner != self._planner}
        gone = self._watcher.look(
            {home: one.beats for home, one in strangers.items()},
            {
                home: (one.host if one.pid else "", one.pid, one.pid_started_at)
                for home, one in strangers.items()
            },
            self._who.host,
            self._clock.raw(),
        )
        if gone:
            await self._log.depart([home for home, _ in gone])
        dead = {home for home, _ in gone}
        others = [one for home, one in strangers.items() if home not in dead]
        if others:
            await self._stand_by(others)
        else:
            self.why = ""
        return others

    async def _stand_by(self, others: list[MemberLine]) -> None:
        if not self._waits:
            return
        why = _why(others, self._planner)
        if why != self.why:
            log.warning("this process stands by, and its callers queue: %s", why)
        self.why = why
        await self._log.announce(self._who.id, self._who.host, self._planner)

    async def over(self) -> None:
        """This process takes part now, or never will."""
        self.why = ""
        await self._log.withdraw(self._who.id)


def _why(others: list[MemberLine], planner: str) -> str:
    what = (
        "version of Tabkeeper"
        if others[0].planner.partition(":")[0] != planner.partition(":")[0]
        else "configuration (limits, platforms, providers or prices)"
    )
    hosts = ", ".join(sorted({one.host.partition("/")[0] for one in others}))
    return (
        f"{len(others)} running process{'es' if len(others) > 1 else ''} of this shared pool (on {hosts}) "
        f"ha{'ve' if len(others) > 1 else 's'} another {what}; end those, or give all the same, or let this one be a "
        "pool of its own: with pool.name, or pool.shared = false"
    )


def facts_of(session: Session) -> str:
    """Write down what whoever takes an idle session over has to know."""
    return json.dumps(
        {
            "id": session.id,
            "lane": list(session.lane),
            "provider": session.provider,
            "tenant": session.tenant,
            "created_at": session.created_at,
            "fresh_until": _or_none(session.fresh_until),
            "dies_at": _or_none(session.dies_at),
            "uses": session.uses,
        }
    )


def adoptions(bequests: Iterable[str]) -> list[Event]:
    """Return the events by which a board takes up what was left to it."""
    found: list[dict[str, Any]] = [json.loads(one) for one in bequests]
    return [["adopt", one] for one in found]


def _or_none(at: float) -> float | None:
    return None if at == float("inf") else at
