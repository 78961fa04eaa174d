"""For tests and "what if" questions: the real pool and the real ledger in virtual time, with a fake provider.

`run_virtual` runs a coroutine on an event loop that moves a clock instead of sleeping, so a day takes a second and
a deadlock is an error. `FakeProvider` meters its sessions by itself, so its bill can be held against the ledger's.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from tabkeeper.clock import Clock, Instant, VirtualClock
from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderError,
    ProviderNotFoundError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import (
    Capabilities,
    Check,
    Leftover,
    LostCallback,
    ProviderUsage,
    RemoteSession,
    SessionSpec,
)

__all__ = ["DeadlockError", "FakeProvider", "FakeSession", "Faults", "VirtualLoop", "run_virtual"]

T = TypeVar("T")


class DeadlockError(AssertionError):
    """Everything waits and no timer is set: in real life this program would hang."""


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that, instead of sleeping until the next timer, moves the clock there."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            raise DeadlockError("nothing to run and no timer set: some await never ends")
        self._clock.advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is a `VirtualClock`. Threads are not waited for: keep work on the loop."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_JumpingSelector(clock))
        self._virtual = clock

    def time(self) -> float:
        """The virtual clock's seconds."""
        return self._virtual.monotonic()


def run_virtual(
    main: Callable[[VirtualClock], Coroutine[Any, Any, T]], clock: VirtualClock | None = None
) -> T:
    """Run ``main(clock)`` in virtual time and return its result.

    >>> async def nap(clock):
    ...     await asyncio.sleep(3600)
    ...     return clock.monotonic()
    >>> run_virtual(nap)
    3600.0
    """
    clock = clock or VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main(clock))


@dataclass(slots=True, eq=False)
class FakeSession:
    """A session as the fake provider knows it, with its own meter."""

    id: str
    label: str
    started_at: Instant
    ended_at: Instant | None = None


@dataclass(slots=True, eq=False)
class Faults:
    """What goes wrong at a fake provider, as chances per call (0..1), and scripted faults that come first."""

    create_fails: float = 0.0
    create_hangs: float = 0.0
    create_unanswered: float = 0.0
    """Created, but the answer is lost."""
    close_fails: float = 0.0
    script: list[str] = field(default_factory=list)
    """Faults of the next creates, in order: "fail", "hang", "unanswered" or "ok"."""


class FakeProvider:
    """A provider of sessions that do nothing but count. Implements `tabkeeper.providers.base.Provider`.

    Args:
        name: its name in the configuration.
        clock: the simulation's clock, or the system's.
        rng: chance for latencies and faults.
        latency: least and most seconds that a create takes.
        close_latency: the same for a close.
        faults: what goes wrong.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        rng: Random | None = None,
        latency: tuple[float, float] = (1.0, 1.0),
        close_latency: tuple[float, float] = (0.0, 0.0),
        faults: Faults | None = None,
    ) -> None:
        self.name = name
        self.capabilities = Capabilities(list_by_label=True, usage=True, host_bound=True)
        self.sessions: dict[str, FakeSession] = {}
        self.calls: list[tuple[Instant, str, str]] = []
        """(instant, verb, label or id) of every call, for assertions."""
        self.peak = 0
        """Most sessions open at once."""
        self.faults = faults or Faults()
        self._clock = clock
        self._rng = rng or Random(0)  # noqa: S311 - a simulation's chance
        self._latency = latency
        self._close_latency = close_latency
        self._on_lost: LostCallback | None = None
        self._count = 0

    @property
    def open(self) -> list[FakeSession]:
        """Sessions that have not ended."""
        return [session for session in self.sessions.values() if session.ended_at is None]

    def metered_seconds(self) -> float:
        """Seconds of all ended sessions by the provider's own meter."""
        return sum(s.ended_at - s.started_at for s in self.sessions.values() if s.ended_at is not None)

    def kill(self, label: str) -> None:
        """Let the session with this label die under its user."""
        session = next(s for s in self.open if s.label == label)
        session.ended_at = self._clock.monotonic()
        if self._on_lost is not None:
            self._on_lost(label, "browser died")

    async def start(self, on_lost: LostCallback) -> None:
        """See `Provider.start`."""
        self._on_lost = on_lost

    def _next_fault(self) -> str:
        if self.faults.script:
            return self.faults.script.pop(0)
        faults = self.faults
        chances = {
            "fail": faults.create_fails,
            "hang": faults.create_hangs,
            "unanswered": faults.create_unanswered,
        }
        draw = self._rng.random()
        for fault, chance in chances.items():
            if draw < chance:
                return fault
            draw -= chance
        return "ok"

    async def create(self, spec: SessionSpec) -> RemoteSession:
        """See `Provider.create`."""
        self.calls.append((self._clock.monotonic(), "create", spec.session_id))
        fault = self._next_fault()
        await asyncio.sleep(self._rng.uniform(*self._latency))
        if fault == "fail":
            raise ProviderUnavailableError(self.name, "made to fail")
        if fault == "hang":
            await asyncio.sleep(10**6)
        self._count += 1
        session = FakeSession(f"{self.name}-{self._count}", spec.session_id, self._clock.monotonic())
        self.sessions[session.id] = session
        self.peak = max(self.peak, len(self.open))
        if fault == "unanswered":
            raise OutcomeUnknownError(self.name, "made to lose the answer")
        return self._remote(session)

    def _remote(self, session: FakeSession) -> RemoteSession:
        return RemoteSession(
            provider_session_id=session.id,
            connect_url=f"ws://fake.invalid/{session.id}",
            label=session.label,
            running=session.ended_at is None,
        )

    def alive(self, provider_session_id: str) -> bool:
        """See `Provider.alive`."""
        session = self.sessions.get(provider_session_id)
        return session is not None and session.ended_at is None

    async def get(self, provider_session_id: str) -> RemoteSession:
        """See `Provider.get`."""
        if provider_session_id not in self.sessions:
            raise ProviderNotFoundError(self.name, f"no session {provider_session_id}")
        return self._remote(self.sessions[provider_session_id])

    async def list(self, label_prefix: str = "") -> Sequence[RemoteSession]:
        """See `Provider.list`."""
        return [self._remote(session) for session in self.open if session.label.startswith(label_prefix)]

    async def running(self) -> Sequence[RemoteSession]:
        """See `Provider.running`."""
        return await self.list()

    async def find(self, label: str) -> RemoteSession | None:
        """See `Provider.find`."""
        found = next((session for session in self.open if session.label == label), None)
        return None if found is None else self._remote(found)

    async def close(self, provider_session_id: str) -> None:
        """See `Provider.close`."""
        self.calls.append((self._clock.monotonic(), "close", provider_session_id))
        await asyncio.sleep(self._rng.uniform(*self._close_latency))
        if self._rng.random() < self.faults.close_fails:
            raise ProviderError(self.name, "made to fail")
        session = self.sessions.get(provider_session_id)
        if session is not None and session.ended_at is None:
            session.ended_at = self._clock.monotonic()

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:
        """See `Provider.usage`."""
        session = self.sessions.get(provider_session_id)
        if session is None or session.ended_at is None:
            return None
        return ProviderUsage(seconds=session.ended_at - session.started_at)

    async def reap(self, leftovers: Sequence[Leftover]) -> None:
        """See `Provider.reap`."""
        labels = {leftover.session_id for leftover in leftovers}
        for session in self.open:
            if session.label in labels:
                session.ended_at = self._clock.monotonic()

    async def check(self) -> Sequence[Check]:
        """See `Provider.check`."""
        return [Check(name="fake", ok=True, detail="always well")]

    async def aclose(self) -> None:
        """See `Provider.aclose`."""
        for session in self.open:
            session.ended_at = self._clock.monotonic()
