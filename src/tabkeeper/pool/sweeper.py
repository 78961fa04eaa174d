"""Ends, and accounts for, what may still cost money though no pool uses it.

Three sources: creations whose outcome is unknown, sessions of dead processes, and sessions at a provider that carry
our label but that the ledger takes to be over. It remembers nothing that the ledger does not know, so the next process
goes on where this one stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import timedelta
from itertools import zip_longest
from random import Random

from tabkeeper.clock import Clock
from tabkeeper.errors import LedgerError, ProviderError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Recorded
from tabkeeper.pool.debts import Debt, pay
from tabkeeper.pool.recovery import recover
from tabkeeper.providers.base import Provider, RemoteSession

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between two attempts for one session; they double."""
_AT_ONCE = 8
"""Attempts under way at the same time, so that one provider that hangs keeps no other waiting."""


class Sweeper:
    """The sweeper of one pool.

    Args:
        providers, ledger, clock, rng: the pool's.
        patience: seconds for one call.
        ours: whether a session, by our id, is in the hands of this pool, in whichever process.
        money_freed: called when a hold was settled.
        exclusive: seconds after its creation at which a session without a label must be known to the ledger, by the
            name of each provider whose account nobody else uses.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        rng: Random,
        patience: float,
        ours: Callable[[str], bool],
        money_freed: Callable[[], None],
        exclusive: Mapping[str, float] | None = None,
    ) -> None:
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._patience = patience
        self._ours = ours
        self._money_freed = money_freed
        self._exclusive = exclusive or {}
        self._task: asyncio.Task[None] | None = None
        self._poked = asyncio.Event()
        self._tried = asyncio.Event()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.debts: dict[str, Debt] = {}
        """What is still to be ended and settled, by our session id."""

    def watch(self, debt: Debt) -> None:
        """Take care of a session from now on."""
        self.debts[debt.session_id] = debt
        self._poked.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="tabkeeper sweeper")

    async def round(self, *, strays: bool = True) -> None:
        """Take up what dead processes left, and end what providers run without an owner: at start and on schedule."""
        await self.take_over()
        if not strays:
            return
        for name, provider in self._providers.items():
            if not provider.capabilities.host_bound:
                await self._end_strays(name, provider)

    async def take_over(self) -> None:
        """Take up the sessions of dead processes.

        Raises:
            LedgerError: the ledger could not be read.
        """
        if await recover(self._ledger, self._providers, clock=self._clock, take=self.watch, skip=self._ours):
            self._money_freed()

    async def look_into_refusal(self, name: str) -> None:
        """A provider is full though this pool has nothing there: say so if it lists nothing of ours either."""
        try:
            async with asyncio.timeout(self._patience):
                provider = self._providers[name]
                if provider.capabilities.host_bound or await provider.running():
                    return
            await self._ledger.drift.note(
                "refuses",
                name,
                f"provider {name!r} lists no session of ours, yet refuses new ones as too many; somebody else "
                "uses the account, or it still counts sessions that are over",
            )
        except (ProviderError, LedgerError, TimeoutError) as error:
            log.debug("why %r refuses sessions is not known: %r", name, error)

    async def all_tried(self) -> None:
        """Return when each session on the list was tried at least once."""
        while any(not debt.attempts for debt in self.debts.values()):
            self._tried.clear()
            await self._tried.wait()

    async def aclose(self) -> None:
        """Try each session a last time; the rest is for the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await asyncio.gather(*(self._try(debt) for debt in list(self.debts.values())))

    # -- debts ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while self.debts:
            self._poked.clear()
            now = self._clock.monotonic()
            due = [debt for debt in self.debts.values() if debt.next_at <= now]
            if due:
                await asyncio.gather(*(self._try(debt) for debt in due))
                continue
            pause = min(debt.next_at for debt in self.debts.values()) - now
            try:
                async with asyncio.timeout(pause):
                    await self._poked.wait()
            except TimeoutError:
                continue

    async def _try(self, debt: Debt) -> None:
        try:
            async with self._slots:
                provider = self._providers[debt.provider]
                done = await pay(debt, provider, self._ledger, self._clock, patience=self._patience)
        except Exception:
            log.exception("session %s could not be swept", debt.session_id)
            done = False
        debt.attempts += 1
        if done:
            self.debts.pop(debt.session_id, None)
            self._money_freed()
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(debt.attempts, 30)) * self._rng.uniform(0.75, 1)
        debt.next_at = self._clock.monotonic() + pause
        self._tried.set()

    # -- strays --------------------------------------------------------------------------------------------------

    async def _end_strays(self, name: str, provider: Provider) -> None:
        try:
            async with asyncio.timeout(self._patience):
                listed = await provider.running()
            rows = await self._ledger.records.recorded(
                [one.label for one in listed if one.label is not None],
                [one.provider_session_id for one in listed if one.label is None],
            )
        except (ProviderError, LedgerError, TimeoutError) as error:
            log.warning("no look for sessions without owner at %r: %r", name, error)
            return
        known = {row.session_id: row for row in rows}
        known_there = {row.provider_session_id: row for row in rows}
        for one in listed:
            row = known.get(one.label) if one.label is not None else known_there.get(one.provider_session_id)
            if self._is_stray(one, row):
                await self._end_stray(name, provider, one, row)
        if name in self._exclusive:
            await self._end_unlabelled(name, provider, listed, known_there.keys())

    async def _end_unlabelled(
        self, name: str, provider: Provider, listed: Iterable[RemoteSession], known: Container[str | None]
    ) -> None:
        """End what only a lost create of ours can have made, since nobody else uses the account."""
        old = self._clock.now() - timedelta(seconds=self._exclusive[name])
        unknown = [
            one
            for one in listed
            if one.label is None
            and one.provider_session_id not in known
            and one.created_at is not None
            and one.created_at <= old
            and not provider.alive(one.provider_session_id)
        ]
        owed = sorted(
            (d for d in self.debts.values() if d.provider == name and d.provider_session_id is None),
            key=lambda debt: debt.since,
        )
        # Which of them is whose cannot be told, and does not matter: each is ended, each hold is settled once.
        for one, debt in zip_longest(unknown, owed):
            if one is None:
                return
            if debt is None:
                await self._end_stray(name, provider, one, None)
                continue
            debt.provider_session_id = one.provider_session_id
            await self._ledger.activate(debt.session_id, provider_session_id=one.provider_session_id)
            await self._try(debt)

    def _is_stray(self, one: RemoteSession, row: Recorded | None) -> bool:
        """Whether a session has no owner and is certainly ours: other pools, and other ledgers, may use the account."""
        if one.label is not None and self._ours(one.label):
            return False
        if row is not None:
            return row.ended
        # The row is written before a session is created, so ours without a row was lost with a backup.
        return one.label is not None and one.label.startswith(label_prefix(self._ledger.installation))

    async def _end_stray(
        self, name: str, provider: Provider, one: RemoteSession, row: Recorded | None
    ) -> None:
        why = "the ledger has no row of it" if row is None else f"it had ended here ({row.why})"
        try:
            async with asyncio.timeout(self._patience):
                # Lists may lag.
                if not (await provider.get(one.provider_session_id)).running:
                    return
            # Told before it is ended: that may fail, or be done without an answer.
            shown = one.label or one.provider_session_id
            detail = f"session {shown} ran at provider {name!r} though {why}; it is being ended"
            log.warning("%s", detail)
            await self._ledger.drift.note(
                "stray",
                name,
                detail,
                session_id=None if row is None else row.session_id,
                provider_session_id=one.provider_session_id,
            )
            async with asyncio.timeout(self._patience):
                await provider.close(one.provider_session_id)
        except (ProviderError, LedgerError, TimeoutError) as error:
            log.warning("session %s at %r has no owner: %r", one.provider_session_id, name, error)


def label_prefix(installation: str) -> str:
    """Return how ids of sessions of a ledger begin."""
    return f"s{installation}"
