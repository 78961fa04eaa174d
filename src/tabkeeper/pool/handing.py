"""Sessions that change hands between the processes of a shared pool: taken up from the ledger's rows, or let go.

Which session goes to whom the board has decided; here it is connected to, or left alone from now on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from tabkeeper.clock import Clock
from tabkeeper.errors import ConfigError, LedgerError, LedgerUnavailableError, SealedError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import TakenOver
from tabkeeper.pool.board import Board
from tabkeeper.pool.debts import Debt
from tabkeeper.pool.model import Session, State
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.pool.shared.teller import Hooks
from tabkeeper.pool.sweeper import Sweeper
from tabkeeper.providers.base import Provider, RemoteSession, Shareable
from tabkeeper.vault import Vault

log = logging.getLogger(__name__)

_AGAIN = 0.5
"""Seconds between two attempts to reach the ledger."""
_LOOK = 0.2
"""Seconds between two looks whether a session of a dead process has ended."""


class Handing:
    """Takes and gives the sessions of one process."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        ledger: Ledger,
        clock: Clock,
        board: Board,
        sessions: Sessions,
        sweeper: Sweeper,
        vault: Vault,
        reach: Callable[[Running], None],
    ) -> None:
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._board = board
        self._sessions = sessions
        self._sweeper = sweeper
        self._vault = vault
        self._reach = reach
        self._end_holding: Callable[[Session, str, str], None] = lambda *_: None

    def attach(self, hooks: Hooks, end_holding: Callable[[Session, str, str], None]) -> None:
        """Do from now on what a shared board says of sessions that move."""
        self._end_holding = end_holding
        hooks.gave, hooks.got, hooks.fenced = self.gave, self.got, self.lost_all
        self._sessions.end_unknown = self.end_unknown

    # ── taking ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, session: Session) -> bool:
        """Make a session that another process created one of ours; False if it cannot be reached from here."""
        provider = self._providers.get(session.provider)
        if session.id in self._sessions.running:
            return True
        try:
            row = await self._row_of(session)
            if row is None or row.provider_session_id is None or row.connect_sealed is None:
                log.warning("session %s has no address on record, so it cannot be taken over", session.id)
                return False
            if not isinstance(provider, Shareable):
                return False
            url = self._vault.open(row.connect_sealed)
        except (LedgerError, SealedError, ConfigError) as error:
            log.warning("session %s cannot be taken over: %s", session.id, error)
            return False
        if session.home != self._board.home or session.state is State.CLOSED:
            return False
        remote = RemoteSession(provider_session_id=row.provider_session_id, connect_url=url, label=session.id)
        provider.take_over(remote)
        running = Running(session, self._instant(row))
        running.hold, running.remote, running.sent = row.hold, remote, True
        running.leases = session.uses - (session.state is State.LEASED)
        running.last_used = self._clock.monotonic()
        self._reach(running)
        self._sessions.running[session.id] = running
        return True

    async def _row_of(self, session: Session) -> TakenOver | None:
        """Make a session's row ours, however long the database is away: until then it is nobody's to end."""
        while True:
            try:
                return await self._ledger.take_over(session.id)
            except LedgerUnavailableError as error:
                log.warning("session %s is taken over once the database is back: %s", session.id, error)
                await asyncio.sleep(_AGAIN)

    def _instant(self, row: TakenOver) -> float:
        return self._clock.monotonic() - max(0.0, (self._clock.now() - row.created_at).total_seconds())

    def got(self, session: Session) -> None:
        """A session of a process that is gone is ours now. What is to be done about it, the board says by itself."""
        if session.state is State.IDLE:
            self._sessions.spawn(self._take_idle(session), f"take {session.id}")

    async def _take_idle(self, session: Session) -> None:
        if not await self.take(session) and session.home == self._board.home:
            self._board.lost(session, "it could not be taken over")

    def end_unknown(self, session: Session) -> None:
        """End a session of a process that is gone, of which nothing but its row is known here."""
        self._sessions.spawn(self._end_unknown(session), f"end {session.id}")

    async def _end_unknown(self, session: Session) -> None:
        row = await self._row_of(session)
        if row is not None:
            debt = Debt(
                session_id=session.id,
                provider=session.provider,
                provider_session_id=row.provider_session_id,
                expires_at=row.hold.expires_at,
                reason=session.reason or "its process is gone",
                since=self._clock.monotonic(),
                sent_at=None if row.provider_session_id is None else self._instant(row),
            )
            self._sweeper.watch(debt)
            while session.id in self._sweeper.debts and session.state is not State.CLOSED:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)
        self._board.closed(session)

    # ── giving ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def gave(self, session: Session) -> None:
        """A session is another process's now: do nothing with it any more, and end nothing of it."""
        running = self._sessions.running.get(session.id)
        if running is None:
            return
        self._end_holding(session, "lost", "another process has its session now")
        if running.creating is not None:
            running.creating.cancel()  # what it brings about is ended, and it has a row
            return
        if session.lane.home is not None and running.remote is not None:
            self._sessions.spawn(self._sessions.end(running), f"close {session.id}")
            return
        del self._sessions.running[session.id]
        if running.relay is not None:
            running.relay.close()
        provider = self._providers[session.provider]
        if running.remote is not None and isinstance(provider, Shareable):
            provider.let_go(running.remote.provider_session_id)
        if running.browser is not None:
            self._sessions.spawn(self._sessions.leave(running.browser, session), f"leave {session.id}")

    def lost_all(self) -> None:
        """This process was taken for dead: what it had is others', or over."""
        for running in list(self._sessions.running.values()):
            self.gave(running.session)
