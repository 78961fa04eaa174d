"""What an emulated account holds: its sessions and their timers, limits, browsers and what it would be billed.

It knows no HTTP. Time comes from a clock that a test can hold: whatever is due happens at the latest when the next
request comes in, or when `catch_up` is called.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from tabkeeper.clock import Clock, Instant, SystemClock
from tabkeeper.config import ProviderSettings
from tabkeeper.providers.base import SessionSpec
from tabkeeper.providers.emulator.faults import Fault
from tabkeeper.providers.emulator.sessions import EmulatedSession, Phase
from tabkeeper.providers.local import LocalProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an account may do, and how long its sessions last."""

    concurrent: int = 25
    creates_per_minute: int = 25
    min_seconds: float = 60
    max_seconds: float = 21600
    default_seconds: float = 300
    connect_seconds: float = 300
    """A session to which nobody connects is ended after this."""
    boot_seconds: float = 0.0
    """A new session is pending for this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What the account would be billed so far; running sessions count up to now."""

    sessions: int
    seconds: float
    minutes: int
    """Started minutes, at least one per session."""
    proxy_bytes: int


class Refused(Exception):  # noqa: N818 - an answer, not a mistake
    """An error that the API answers with."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


class Account(ABC):
    """One account at an emulated provider; see `Emulator`.

    Args:
        limits: of the account.
        clock: where time comes from.
        browser: settings of the local browsers behind it.
    """

    starts_on_connect: ClassVar[bool] = False
    """A session has no browser, and costs nothing, before somebody connects."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        clock: Clock | None = None,
        browser: ProviderSettings | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.sessions: dict[str, EmulatedSession] = {}
        """Every session ever created, by id, in order."""
        self.out_of_money = False
        self._clock = clock or SystemClock()
        self._created: deque[Instant] = deque()
        self._browser = (browser or ProviderSettings(kind="local")).model_copy(
            update={"isolation": "process"}
        )
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._browsers: LocalProvider
        self._launching: dict[str, asyncio.Task[str]] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None

    # -- what a vendor's emulator says ---------------------------------------------------------------------------

    @abstractmethod
    def refusal(self, fault: Fault) -> Refused:
        """Return what the provider says with an ordered status."""

    @abstractmethod
    def too_many(self, running: int) -> Refused:
        """Say that the limit of concurrent sessions is reached."""

    @abstractmethod
    def too_fast(self, seconds: float) -> Refused:
        """Say that sessions are created too fast; one more is admitted in `seconds`."""

    def no_money(self) -> Refused:
        """Say that the account may spend no more."""
        return self.refusal(Fault(on="create", do="status", status=402))

    def billed_seconds(self, session: EmulatedSession) -> float:
        """Return how much of a session's life is billed; up to now, if it runs."""
        return self._lasted(session)

    # -- sessions ------------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[EmulatedSession]:
        """Sessions that are not over."""
        return [one for one in self.sessions.values() if not one.phase.over]

    def admit(
        self,
        request: Mapping[str, Any],
        *,
        seconds: float,
        keep_alive: bool,
        session_id: str | None = None,
        connect_seconds: float | None = None,
        idle: bool = False,
        idle_seconds: float = math.inf,
    ) -> EmulatedSession:
        """Create a session, within the account's limits.

        Args:
            request: what was asked for.
            seconds: after which it ends; with `idle`, that it may be without a connection.
            keep_alive: it outlives its connection.
            session_id: chosen by the client.
            connect_seconds: in which somebody must connect, if not as in the limits.
            idle: see `seconds`.
            idle_seconds: beside `seconds`, that it may be without a connection.

        Raises:
            Refused: they are reached, or the money is out.
        """
        now = self._clock.monotonic()
        while self._created and self._created[0] <= now - 60:
            self._created.popleft()
        if self.out_of_money:
            raise self.no_money()
        if len(self.running) >= self.limits.concurrent:
            raise self.too_many(len(self.running))
        if len(self._created) >= self.limits.creates_per_minute:
            raise self.too_fast(self._created[0] + 60 - now)
        self._created.append(now)
        wall = self._clock.now()
        session = EmulatedSession(
            request=request,
            created_at=wall,
            updated_at=wall,
            began=now,
            seconds=seconds,
            ready_at=now + self.limits.boot_seconds,
            connect_by=now + (self.limits.connect_seconds if connect_seconds is None else connect_seconds),
            keep_alive=keep_alive,
            idle=idle,
            idle_seconds=idle_seconds,
        )
        if session_id is not None:
            session.id = session_id
        self.sessions[session.id] = session
        self._ended[session.id] = asyncio.Event()
        self._advance()
        return session

    def end(self, session: EmulatedSession, phase: Phase, why: str, *, at: Instant | None = None) -> None:
        """End a session; its browser follows."""
        if session.phase.over:
            return
        now = self._clock.monotonic()
        at = now if at is None else at
        session.phase = phase
        session.why = why
        session.lasted = at - session.began
        session.ended_at = session.updated_at = self._clock.now() - timedelta(seconds=now - at)
        self._ended[session.id].set()
        task = asyncio.create_task(self._end_browser(session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def lose(self, session_id: str, *, quietly: bool = False) -> None:
        """Kill a session's browser; the provider notices, or `quietly` goes on to say that it runs."""
        session = self.sessions[session_id]
        if quietly:
            session.haunted = True
            await self._end_browser(session)
        else:
            self.end(session, Phase.FAILED, "lost")
            await self.catch_up()

    def bills_more(self, session_id: str, *, seconds: float = 0.0, proxy_bytes: int = 0) -> None:
        """Bill a session that is over for more than it used, or for less, as if it had lasted that much longer.

        Raises:
            ValueError: it still runs, or would be billed for less than nothing.
        """
        session = self.sessions[session_id]
        if session.lasted is None or session.ended_at is None:
            raise ValueError(f"session {session_id} still runs; end it first")
        if session.lasted + seconds < 0 or session.proxy_bytes + proxy_bytes < 0:
            raise ValueError(f"session {session_id} cannot be billed for less than nothing")
        session.lasted += seconds
        session.surplus += seconds
        session.ended_at += timedelta(seconds=seconds)
        session.proxy_bytes += proxy_bytes

    def bill(self) -> Bill:
        """Add up what the account would be billed."""
        self._advance()
        billed = [one for one in self.sessions.values() if one.connected or not self.starts_on_connect]
        lengths = [self.billed_seconds(one) for one in billed]
        return Bill(
            sessions=len(lengths),
            seconds=sum(lengths),
            minutes=sum(max(1, math.ceil(seconds / 60)) for seconds in lengths),
            proxy_bytes=sum(one.proxy_bytes for one in self.sessions.values()),
        )

    def _lasted(self, session: EmulatedSession) -> float:
        return session.lasted if session.lasted is not None else self._clock.monotonic() - session.began

    async def catch_up(self) -> None:
        """Let everything happen that is due; returns when browsers of ended sessions are gone."""
        self._advance()
        if self._closing:
            await asyncio.wait(set(self._closing))

    def _advance(self) -> None:
        now = self._clock.monotonic()
        for session in self.running:
            if session.phase is Phase.PENDING and session.ready_at <= now:
                session.phase = Phase.RUNNING
            if session.expires <= now:
                self.end(session, Phase.TIMED_OUT, "timeout", at=session.expires)
            elif session.forsaken <= now:
                self.end(session, Phase.TIMED_OUT, "idle", at=session.forsaken)
            elif not session.connected and session.connect_by <= now:
                self.end(session, Phase.TIMED_OUT, "nobody connected", at=session.connect_by)

    async def _tick(self) -> None:
        while True:
            due = min((one.next_change() for one in self.running), default=float("inf"))
            await asyncio.sleep(min(max(due - self._clock.monotonic(), 0.005), 0.1))
            self._advance()

    # -- browsers ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make ready for sessions.

        Raises:
            ConfigError: there is no browser on this machine.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="tk-emu-", ignore_cleanup_errors=True)
        self._browsers = LocalProvider("emulator", self._browser, state_dir=Path(self._folder.name))
        try:
            await self._browsers.start(self._browser_died)
        except BaseException:
            self._folder.cleanup()
            raise
        self._ticking = asyncio.create_task(self._tick())

    async def aclose(self) -> None:
        """End all sessions and browsers."""
        if self._ticking is not None:
            self._ticking.cancel()
        for session in self.running:
            self.end(session, Phase.COMPLETED, "the emulator ends")
        for launching in self._launching.values():
            launching.cancel()
        await self.catch_up()
        await self._browsers.aclose()
        if self._folder is not None:
            self._folder.cleanup()

    async def browser_of(self, session: EmulatedSession) -> str:
        """Return the address of a session's own browser, started when it is first wanted."""
        launching = self._launching.get(session.id)
        if launching is None:
            launching = self._launching[session.id] = asyncio.create_task(self._launch(session))
        return await asyncio.shield(launching)

    async def _launch(self, session: EmulatedSession) -> str:
        spec = SessionSpec(session_id=session.id, platform="emulator", max_seconds=session.seconds)
        return (await self._browsers.create(spec)).connect_url

    async def _end_browser(self, session: EmulatedSession) -> None:
        launching = self._launching.get(session.id)
        if launching is not None:
            launching.cancel()
            await asyncio.wait({launching})
            await self._browsers.close(session.id)

    def _browser_died(self, session_id: str, reason: str) -> None:
        session = self.sessions[session_id]
        if not session.haunted:
            self.end(session, Phase.FAILED, reason)
