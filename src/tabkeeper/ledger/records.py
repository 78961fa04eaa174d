"""What is on record of sessions and leases, for those who decide by the past. It only reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tabkeeper.clock import Clock
from tabkeeper.ledger import histories, registry, usage
from tabkeeper.ledger.alerting import Reads
from tabkeeper.ledger.expected import Habits
from tabkeeper.ledger.instants import micros
from tabkeeper.ledger.types import OpenSession, Recorded

_LONGEST = timedelta(days=2)
"""No provider lets a session run for longer."""


class Records:
    """The ledger's records; get it as ``ledger.records``. All of it raises `LedgerUnavailableError` if it is away."""

    def __init__(self, read: Reads, clock: Clock) -> None:
        self._read = read
        self._clock = clock

    async def recorded(self, labels: Sequence[str], provider_ids: Sequence[str]) -> list[Recorded]:
        """Return what is on record of sessions with these ids, or, if not old, with these ids at their provider."""
        since = micros(self._clock.now() - _LONGEST)
        return await self._read(lambda c: registry.recorded(c, labels, provider_ids, since))

    async def open_sessions(self, provider: str, *, before: datetime | None = None) -> list[OpenSession]:
        """Return what runs at a provider by our books, whichever process owns it; with `before`, what ran by then."""
        at = None if before is None else micros(before)
        return await self._read(lambda c: registry.open_sessions(c, provider, at))

    async def habits(self, platform: str) -> Habits:
        """Learn from the usage log how long a platform's leases and sessions last."""
        return await self._read(lambda c: usage.habits(c, platform))

    async def latest_leases(self, since: datetime) -> list[usage.UsedLease]:
        """Return the newest leases (bounded) granted since an instant, the oldest of them first."""
        return await self._read(lambda c: usage.latest_leases(c, since))

    async def latest_creations(self, since: datetime) -> list[usage.Readied]:
        """Return how long the newest sessions (bounded) took to become ready, the oldest of them first."""
        return await self._read(lambda c: usage.latest_creations(c, since))

    async def history(self, session_id: str) -> histories.SessionHistory | None:
        """Return what is known of a session, running or ended; None if it was never held for."""
        return await self._read(lambda c: histories.history(c, session_id))

    async def allowances_used(self) -> dict[tuple[str, str, str], int]:
        """Return what was used of this month's allowances (UTC), by provider, plan and kind."""
        now = self._clock.now()
        return await self._read(lambda c: usage.allowances_used(c, now))
