"""What this process has told and the log does not hold yet, and who waits until it does.

Everything told while an entry is on its way goes into the next one: many callers share a commit.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tabkeeper.ledger.boardlog import new_nonce
from tabkeeper.pool.shared.entries import Event


@dataclass(slots=True)
class Batch:
    """What is being told."""

    nonce: str
    events: list[Event]
    last: int
    """The number of the last thing told in it."""
    expect: int | None = None
    """For an entry that only asks for a plan: needed only while the log ends here."""


class Outbox:
    """See the module; all of it on the event loop."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        """Set when there is something to do for whoever tells."""
        self.batch: Batch | None = None
        self._events: list[Event] = []
        self._tick: int | None = None
        self._told = self._done = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been told since the last batch was taken."""
        return not self._events and self._tick is None

    def tell(self, event: Event) -> None:
        """Tell this after all that was told before."""
        self._events.append(event)
        self._told += 1
        self.wake.set()

    def want_plan(self, seq: int) -> None:
        """Ask for a plan with nothing new to tell, if nobody has told anything since entry `seq`."""
        self._tick = seq
        self.wake.set()

    def next_batch(self, seq: int) -> Batch | None:
        """Return what is to be told now, `seq` being the last entry known; None if nothing is."""
        if self.batch is None:
            events, self._events = self._events, []
            expect = None if events else self._tick
            self._tick = None
            if not events and expect != seq:
                return None  # somebody has planned since
            self.batch = Batch(new_nonce(), events, self._told, expect)
        return self.batch

    def landed(self, nonce: str) -> None:
        """An entry has been applied: if it is the batch, that is told."""
        if self.batch is not None and nonce == self.batch.nonce:
            self._done = self.batch.last
            self.batch = None

    def drop_batch(self) -> None:
        """What the batch tells is not needed."""
        self.batch = None

    def again(self) -> None:
        """Give up on a batch that could not be told, but not on what it tells."""
        if self.batch is not None:
            self._events[:0] = self.batch.events
            self.batch = None

    def clear(self) -> None:
        """Tell nothing of what has not been told: nobody listens to it any more."""
        self._events.clear()
        self.batch = None

    def all_done(self) -> None:
        """Nobody needs to wait for anything that was told."""
        self._done = self._told
        self.settle()

    async def settled(self) -> None:
        """Return when all that was told has been applied."""
        if self._done < self._told:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((self._told, future))
            await future

    def settle(self) -> None:
        """Let those go on whose words have been applied."""
        while self._waiting and self._waiting[0][0] <= self._done:
            _let_go(self._waiting.pop(0)[1])

    def stop(self) -> None:
        """Let everybody go on: nothing more will be told."""
        for _, future in self._waiting:
            _let_go(future)
        self._waiting.clear()


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
