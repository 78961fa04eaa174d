"""What runs behind a shared board: one task that tells and reads, one that listens, one that answers who is overdue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from tabkeeper.clock import FleetClock
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger.boardlog import AlreadyToldError, BoardLog, Line
from tabkeeper.pool.model import Refuse, Request
from tabkeeper.pool.plan import why_waiting
from tabkeeper.pool.shared.entries import to_text
from tabkeeper.pool.shared.following import Follower
from tabkeeper.pool.shared.membership import SLOW_POLL, Membership
from tabkeeper.pool.shared.outbox import Outbox
from tabkeeper.pool.shared.reloading import Loader
from tabkeeper.pool.shared.replica import Replica
from tabkeeper.pool.shared.teller import Hooks

log = logging.getLogger(__name__)

JUMP = 5.0
"""Seconds by which the database's clock may differ from this process's own idea of it before it is corrected."""
_PULSE = 0.25
"""Seconds between two looks for requests that nobody answers."""
_SILENCE = 1.0
"""Seconds past its deadline after which a request is answered here, should the board not have answered it."""
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between attempts to reach the database; the last is repeated."""


class Loop:
    """The three tasks of a shared board.

    Args:
        ask: tells a request of this process; for those that wait while it has to join anew.
    """

    def __init__(
        self,
        replica: Replica,
        clock: FleetClock,
        line: BoardLog,
        hooks: Hooks,
        *,
        outbox: Outbox,
        follower: Follower,
        loader: Loader,
        membership: Membership,
        ask: Callable[[Request], None],
    ) -> None:
        self._replica = replica
        self._clock = clock
        self._log = line
        self._hooks = hooks
        self._outbox = outbox
        self._follower = follower
        self._loader = loader
        self._membership = membership
        self._ask = ask
        self._failures = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.stopped = False
        self.leaving = False
        """Who was taken for dead does not come back any more."""

    def start(self) -> None:
        """Begin; this process has joined."""
        self.tasks = [
            asyncio.create_task(self._run(), name="tabkeeper board"),
            asyncio.create_task(self._listen(), name="tabkeeper board's ear"),
            asyncio.create_task(self._pulse(), name="tabkeeper board's pulse"),
        ]

    async def aclose(self) -> None:
        """End the tasks."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    # ── telling and reading ────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        while not self.stopped:
            try:
                await self._turn()
                self._failures = 0
            except LedgerUnavailableError as error:
                pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
                if not self._failures:
                    log.warning("the shared board cannot be reached; leases that run go on: %s", error)
                self._failures += 1
                self._membership.lost_sight()
                await asyncio.sleep(pause)
                self._outbox.wake.set()
            except Exception:
                log.exception("the shared board met an error it does not know; its state is loaded anew")
                await asyncio.sleep(_PAUSES[-1])
                self._outbox.again()
                await self._loader.try_reload()

    async def _turn(self) -> None:
        """Tell what is to be told, read what others told, and say now and then that this process lives."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._membership.beat_at - self._clock.raw())):
                await self._outbox.wake.wait()
        self._outbox.wake.clear()
        if not self._membership.joined.is_set():
            if self._membership.is_due:
                await self._try_again()
            return
        if self._failures:
            await self._find_batch()
        if self._outbox.batch is not None or not self._outbox.is_empty:
            await self._append()
        if self._follower.end > self._replica.seq:
            await self._loader.catch_up(self._follower.end)
        if self._follower.is_lost:
            await self._loader.reload()
        if not self._follower.is_member() and not self.leaving:
            await self._try_again()
            if not self._membership.joined.is_set():
                return
        if self._membership.is_due:
            await self._membership.beat()
        await self._loader.save_if_due()
        if not self._outbox.is_empty:
            self._outbox.wake.set()

    async def _try_again(self) -> None:
        """Take part, again or at last; who leaves stands by no longer."""
        if self.leaving or self._follower.draining:
            self._membership.rest()
            return
        for request in await self._membership.rejoin():
            self._ask(request)

    async def _append(self) -> None:
        batch = self._outbox.next_batch(self._replica.seq)
        if batch is None:
            return
        sent = self._clock.raw()
        try:
            line = await self._log.append(
                home=self._replica.home,
                nonce=batch.nonce,
                events=to_text(batch.events),
                seen_seq=self._replica.seq,
                seen_sum=self._replica.sum,
                expect=batch.expect,
                estimate=self._clock.monotonic,
                tolerance=JUMP,
            )
        except AlreadyToldError:
            await self._find_batch()
            # If it is none of those found, it is behind us since this copy was loaded anew.
            self._outbox.landed(batch.nonce)
            self._outbox.settle()
            return
        if line is None:  # a plan that is no longer needed
            self._outbox.drop_batch()
            return
        self._clock.heard(line.at / 1_000_000, sent, self._clock.raw())
        self._follower.take(line)

    async def _find_batch(self) -> None:
        """Learn whether what was being told when the connection broke is in the log: then it is not told again."""
        end, _ = await self._log.beat(self._replica.home)
        await self._loader.catch_up(end)

    # ── listening ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        while not self.stopped:
            await self._membership.joined.wait()
            try:
                async with contextlib.aclosing(self._log.listen(SLOW_POLL)) as news:
                    async for told in news:
                        if not self._membership.joined.is_set():
                            break
                        if isinstance(told, Line):
                            self._follower.hear(told)
                        elif told is not None:
                            self._follower.heard_of(told)
                            self._outbox.wake.set()
            except LedgerUnavailableError as error:
                log.debug("the board's notifications do not arrive: %s", error)
            except Exception:
                log.exception(
                    "the board's notifications met an error that is not known; it is asked now and then"
                )
            await asyncio.sleep(_PAUSES[-1])

    # ── patience ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _pulse(self) -> None:
        while not self.stopped:
            await asyncio.sleep(_PULSE)
            self._refuse_late()

    def _refuse_late(self) -> None:
        """Answer those whose time is up while the database is away, or does not answer: they wait no longer."""
        stands_by = self._membership.stands_by
        until = self._clock.monotonic() - (0.0 if self._failures or stands_by else _SILENCE)
        late = [one for one in self._replica.here.values() if one.deadline <= until]
        for request in late:
            position = 0
            why = stands_by or "the database of the shared pool is away"
            if not stands_by and request.id in self._replica.view.requests:
                why += f"; before, {why_waiting(self._replica.view, request, until)}"
            self._hooks.carry_out([Refuse(request, position, why)])
