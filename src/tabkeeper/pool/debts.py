"""Sessions that left the pool though nobody knows that they are over: one attempt to end and settle one of them.

Such a session keeps its row and its hold. It is ended at the provider that made it and settled by what it used. If its
provider knows no such session, running or over, it was never created and costs nothing. Only when nobody can tell, and
the provider's own timeout has passed, is it settled by estimate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from tabkeeper.clock import Clock, Instant
from tabkeeper.errors import IdempotencyConflictError, LedgerError, ProviderNotFoundError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Orphan, Quality, SessionUsage
from tabkeeper.providers.base import Provider

log = logging.getLogger(__name__)

ALERT_AFTER = 300.0
"""Seconds after which a release that is still not confirmed becomes an alert."""


SHOWN_AFTER = 300.0
"""Seconds after which a session that was created shows: a create goes on for three minutes at most, and lists lag less
than two. No provider promises a figure."""
LOOKS = 3
"""Times that nothing has to be found before it counts as never created: a single answer may be wrong."""
REMEMBERED = timedelta(days=1)
"""Providers remember sessions that are over for longer than this."""


class _NeverCreatedError(Exception):
    """It is certain that there is nothing to end and nothing to pay."""


@dataclass(slots=True, eq=False)
class Debt:
    """One session to be ended and settled."""

    session_id: str
    provider: str
    provider_session_id: str | None
    """None: it may not even exist."""
    expires_at: datetime
    """Its provider has ended it by then, whatever happens."""
    reason: str
    since: Instant
    sent_at: Instant | None = None
    """When this process sent the create call; None if another did."""
    was_over: bool = False
    """It had ended before it was found."""
    unseen: int = 0
    """How often its provider had no session with its label."""
    attempts: int = 0
    next_at: Instant = 0.0

    @classmethod
    def of(cls, orphan: Orphan, now: Instant) -> Debt:
        """Return what a dead process left."""
        return cls(
            session_id=orphan.session_id,
            provider=orphan.provider,
            provider_session_id=orphan.provider_session_id,
            expires_at=orphan.expires_at,
            reason="owner died",
            since=now,
            next_at=now,
        )


async def pay(debt: Debt, provider: Provider, ledger: Ledger, clock: Clock, *, patience: float) -> bool:
    """Try once to end and settle a session; True if that is done, False if it is to be tried again."""
    expired = clock.now() >= debt.expires_at
    try:
        async with asyncio.timeout(patience):
            usage = await _end(debt, provider, ledger, clock)
    except _NeverCreatedError as never:
        return await _void(debt, ledger, f"not created: {never}")
    except LedgerError as error:
        log.warning("session %s is not settled yet: %s", debt.session_id, error)
        return False
    except Exception as error:  # noqa: BLE001 - whatever it was, the session may still cost money
        log.warning("session %s is not ended at %r yet: %r", debt.session_id, debt.provider, error)
        seconds = clock.monotonic() - debt.since
        await owe(ledger, debt.session_id, debt.provider, reason=debt.reason, error=error, seconds=seconds)
        over = expired and (provider.capabilities.own_timeout or debt.provider_session_id is None)
        if not over or _may_be_proven(debt, provider, clock):
            return False
        usage = None
    if usage is None and debt.provider_session_id is None:
        if provider.capabilities.free_until_connected:
            return await _void(debt, ledger, "its address was never told, so it cost nothing")
        if _never_showed(debt, provider, clock):
            return await _void(debt, ledger, "not created: its provider has no such session")
        if not expired or _may_be_proven(debt, provider, clock):
            return False  # it may show yet
    return await _settle(debt, usage, ledger, expired=expired)


def _never_showed(debt: Debt, provider: Provider, clock: Clock) -> bool:
    """Whether it is certain by now that nothing was created: its provider knows what is over, too, and not this."""
    return (
        debt.provider_session_id is None
        and provider.capabilities.finds_ended
        and debt.unseen >= LOOKS
        and clock.monotonic() >= debt.since + SHOWN_AFTER
        and clock.now() < debt.expires_at + REMEMBERED
    )


def _may_be_proven(debt: Debt, provider: Provider, clock: Clock) -> bool:
    """Whether a little more patience may save the price of a session that never was."""
    return (
        debt.provider_session_id is None
        and provider.capabilities.finds_ended
        and clock.monotonic() < debt.since + 2 * SHOWN_AFTER
        and clock.now() < debt.expires_at + REMEMBERED
    )


async def _end(debt: Debt, provider: Provider, ledger: Ledger, clock: Clock) -> SessionUsage | None:
    """End it until its provider confirms; what it used, or None if that has to be estimated."""
    if debt.provider_session_id is None:
        try:
            found = await provider.find(debt.session_id)
        except ProviderNotFoundError as never:
            raise _NeverCreatedError(str(never)) from never
        if found is None:
            debt.unseen += 1
            return None
        log.warning("session %s, whose creation got no answer, was created; it is ended", debt.session_id)
        debt.provider_session_id = found.provider_session_id
        debt.was_over = not found.running
        await ledger.activate(debt.session_id, provider_session_id=found.provider_session_id)
    with contextlib.suppress(ProviderNotFoundError):  # over
        await provider.close(debt.provider_session_id)
    if not debt.was_over:
        return None if debt.sent_at is None else SessionUsage(seconds=clock.monotonic() - debt.sent_at)
    try:
        told = await provider.usage(debt.provider_session_id)
    except ProviderNotFoundError:
        return None
    if told is None or told.seconds is None:
        return None
    return SessionUsage(seconds=told.seconds, proxy_bytes=told.proxy_bytes or 0, quality=Quality.PROVIDER)


async def _void(debt: Debt, ledger: Ledger, reason: str) -> bool:
    try:
        await ledger.void(debt.session_id, reason=reason)
    except IdempotencyConflictError as error:
        log.warning("%s", error)
    except LedgerError as error:
        log.warning("the hold of session %s is still open: %s", debt.session_id, error)
        return False
    return True


async def _settle(debt: Debt, usage: SessionUsage | None, ledger: Ledger, *, expired: bool) -> bool:
    reason = debt.reason
    if usage is None and expired:
        reason += "; nobody told of its end, and its time is over"
    try:
        if usage is None:
            cost = (await ledger.settle_orphan(debt.session_id, reason=reason)).cost
        else:
            cost = (await ledger.settle(debt.session_id, usage, reason=reason, state="lost")).cost
        await ledger.released(debt.session_id)
    except IdempotencyConflictError as error:
        log.warning("%s", error)
        return True
    except LedgerError as error:
        log.warning("session %s is over, but not settled yet: %s", debt.session_id, error)
        return False
    log.warning("session %s is ended (%s) and counted with %s", debt.session_id, reason, cost)
    return True


async def owe(
    ledger: Ledger, session_id: str, provider: str, *, reason: str, error: Exception, seconds: float
) -> None:
    """Put an unconfirmed release on record, for the next start and for `tabkeeper status`; tell if it stays."""
    try:
        await ledger.release_later(session_id, reason=reason, error=repr(error)[:500])
        if seconds >= ALERT_AFTER:
            ledger.alerts.tell(
                "release",
                f"release|{session_id}",
                f"session {session_id} is not confirmed closed at provider {provider!r} after "
                f"{seconds / 60:.0f} min: {error!r}"[:500],
                session_id=session_id,
            )
    except LedgerError as failed:
        log.warning("the unconfirmed end of session %s could not be noted: %s", session_id, failed)
