"""Carrying out what the plan decided: each action goes to the part of the pool that does it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import assert_never

from tabkeeper.clock import Clock
from tabkeeper.errors import PoolError, QueueTimeoutError
from tabkeeper.pool.board import Board
from tabkeeper.pool.checkup import Checkup
from tabkeeper.pool.creation import Creation
from tabkeeper.pool.leasing import Leases
from tabkeeper.pool.model import (
    EVICTED_IN_USE,
    Action,
    Check,
    Close,
    Create,
    GiveUpPlace,
    Grant,
    Reclaim,
    Refuse,
    ReportLeak,
)
from tabkeeper.pool.sessions import Sessions

log = logging.getLogger(__name__)


class Carrying:
    """Does what it is told; it chooses nothing."""

    def __init__(
        self,
        *,
        board: Board,
        leases: Leases,
        creation: Creation,
        sessions: Sessions,
        checkup: Checkup,
        clock: Clock,
    ) -> None:
        self._board = board
        self._leases = leases
        self._creation = creation
        self._sessions = sessions
        self._checkup = checkup
        self._clock = clock

    def carry_out(self, actions: Iterable[Action]) -> None:
        """Do what the plan decided, action by action."""
        for action in actions:
            try:
                self._do(action)
            except Exception as error:
                # The view has changed already, so one action that fails must not take the others with it.
                log.exception("%r could not be carried out", action)
                self._make_good(action, error)

    def _do(self, action: Action) -> None:
        match action:
            case Grant(request, session, use):
                self._leases.grant(request, session, use)
            case Create(session):
                self._leases.counts.saw_sessions(len(self._board.view.sessions))
                self._leases.counts.prewarmed += session.ahead is not None
                self._creation.create(session)
            case Close(session):
                taken = session.reason == EVICTED_IN_USE
                self._leases.end_holding(session, "evicted" if taken else "lost", session.reason)
                self._sessions.close(session)
            case Check(session):
                self._checkup.check(session)
            case Reclaim(session, _):
                self._leases.counts.reclaimed += 1
                self._leases.end_holding(session, "reclaimed", "its time was up")
            case ReportLeak(session, _):
                self._leases.report_leak(session)
            case Refuse(request, position, blocked_by):
                waited = self._clock.monotonic() - request.arrived_at
                platform = request.lane.platform
                self._leases.refuse(request, QueueTimeoutError(platform, waited, position, blocked_by))
            case GiveUpPlace(session):
                log.warning(
                    "session %s is not confirmed closed at %r; its place is free, the release goes on",
                    session.id,
                    session.provider,
                )
            case _:
                assert_never(action)

    def _make_good(self, action: Action, error: Exception) -> None:
        match action:
            case Grant(request, session, _):
                refusal = PoolError(f"session {session.id} could not be leased: {error!r}")
                refusal.__cause__ = error
                self._leases.refuse(request, refusal)
                self._board.end(session, "could not be leased")
            case Create(session):
                self._board.closed(session)
            case Close(session):
                self._sessions.close(session)
            case Check(session):
                self._board.checked(session, ok=False)
