"""What it means that a session was not created: for its provider, its platform and whoever asked for it.

The board is told, and the request refused if it has no other hope.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random

from tabkeeper.errors import (
    NoPriceError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    SessionCreationError,
    TabkeeperError,
)
from tabkeeper.pool.board import Board
from tabkeeper.pool.counts import Counts
from tabkeeper.pool.model import PlatformRules, Request, Session, State
from tabkeeper.pool.sessions import Running, Sessions
from tabkeeper.pool.sweeper import Sweeper
from tabkeeper.providers.breaker import Kind, Setback

log = logging.getLogger(__name__)

LASTING = (NoPriceError, ProviderAuthError, ProviderPaymentError, ProviderRequestError)
"""Errors that the same call will meet again."""
BUSY = (ProviderCapacityError, ProviderRateLimitError)
"""Errors that say nothing against the provider or the request: wait and come again."""


class Failures:
    """Tells the board of one pool, and those who asked, what was not created and why."""

    def __init__(
        self,
        *,
        board: Board,
        sessions: Sessions,
        sweeper: Sweeper,
        counts: Counts,
        rng: Random,
        refuse: Callable[[Request, TabkeeperError], None],
    ) -> None:
        self._board = board
        self._sessions = sessions
        self._sweeper = sweeper
        self._counts = counts
        self._rng = rng
        self.refuse = refuse
        """End a request with an error."""

    def at_provider(self, running: Running, error: ProviderError) -> None:
        """A provider was asked and made none; what was held for it is given back already, or kept for the sweeper."""
        session = running.session
        self._counts.creations_failed += 1
        self._counts.creation_results[session.provider, "failed"] += 1
        self._sessions.running.pop(session.id, None)
        log.warning("session %s (platform %r) was not created: %s", session.id, session.lane.platform, error)
        if isinstance(error, ProviderCapacityError) and not any(
            one.session.provider == session.provider for one in self._sessions.running.values()
        ):
            work = self._sweeper.look_into_refusal(session.provider)
            self._sessions.spawn(work, f"look into {session.provider}")
        self.tell(session, error)

    def tell(self, session: Session, error: TabkeeperError) -> None:
        """Tell the board what it means; refuse the request if it has had its attempts or has no other hope."""
        rules = self._rules_of(session)
        lasting = isinstance(error, LASTING)
        setback = Setback(
            kind=_kind(error),
            base=rules.retry_base,
            longest=rules.retry_max,
            retry_after=error.retry_after if isinstance(error, ProviderError) else None,
            jitter=self._rng.uniform(0.75, 1.25),
        )
        self._board.failed(
            session,
            blame=str(error),
            setback=setback,
            counts=not isinstance(error, BUSY),
            hope="providers" if lasting else "attempts",
            then=lambda request: self.refuse(request, _no_session(session, request, error)),
        )

    def for_all(self, session: Session, blame: str, error: TabkeeperError) -> None:
        """No provider is to blame, and none could help."""
        self._board.failed(
            session,
            blame=blame,
            setback=None,
            counts=False,
            hope="never",
            then=lambda request: self.refuse(request, error),
        )

    def gone(self, running: Running) -> None:
        """Free the place of a session that was ended before it was created."""
        self._sessions.running.pop(running.session.id, None)
        running.creating = None
        if running.session.state is not State.CLOSED:
            self._board.closed(running.session)

    def _rules_of(self, session: Session) -> PlatformRules:
        return self._board.view.rules.platforms[session.lane.platform]


def _kind(error: TabkeeperError) -> Kind:
    if isinstance(error, ProviderCapacityError):
        return "capacity"
    if isinstance(error, ProviderRateLimitError):
        return "rate"
    return "lasting" if isinstance(error, LASTING) else "failure"


def _no_session(session: Session, request: Request, error: TabkeeperError) -> SessionCreationError:
    refusal = SessionCreationError(
        f"no session for platform {session.lane.platform!r} after {request.failures} "
        f"attempt{'s' if request.failures != 1 else ''}; last: {error}"
    )
    refusal.__cause__ = error
    return refusal
