"""Cleaning up after owners that died: end what still runs, settle what it cost, forget nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.errors import LedgerError, ProviderError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Orphan
from tabkeeper.pool.debts import Debt, pay
from tabkeeper.providers.base import Leftover, Provider

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds for one attempt to end a session at a hosted provider."""


async def recover(
    ledger: Ledger,
    providers: Mapping[str, Provider],
    *,
    clock: Clock | None = None,
    take: Callable[[Debt], None] | None = None,
    skip: Callable[[str], bool] = lambda _: False,
) -> list[Orphan]:
    """End and settle the sessions of dead processes; returns those that are done.

    A session of a provider that is not configured here is left to a process that has it. With `take`, sessions that
    may outlive their owner at a provider are made this process's own and handed over; else each is tried once. Those
    to `skip`, by their ids, are another's business.
    """
    clock = clock or SystemClock()
    done: list[Orphan] = []
    by_provider: dict[str, list[Orphan]] = {}
    for orphan in await ledger.owners.orphans():
        if not skip(orphan.session_id):
            by_provider.setdefault(orphan.provider, []).append(orphan)
    for name, orphans in by_provider.items():
        provider = providers.get(name)
        if provider is None:
            log.warning(
                "%d sessions of provider %r have no owner, and it is not configured here; they stay on record: "
                "configure it under this name again and they are ended",
                len(orphans),
                name,
            )
        elif provider.capabilities.host_bound:
            done += await _reap(ledger, provider, orphans)
        else:
            for orphan in orphans:
                debt = Debt.of(orphan, clock.monotonic())
                if take is None:
                    if await pay(debt, provider, ledger, clock, patience=PATIENCE):
                        done.append(orphan)
                elif await ledger.owners.claim(orphan):
                    take(debt)
    return done


async def _reap(ledger: Ledger, provider: Provider, orphans: list[Orphan]) -> list[Orphan]:
    """Settle sessions that ended with their owner, after making sure of it."""
    done: list[Orphan] = []
    leftovers = [
        Leftover(
            session_id=orphan.session_id,
            provider_session_id=orphan.provider_session_id,
            pid=orphan.pid,
            pid_started=orphan.pid_started,
        )
        for orphan in orphans
    ]
    try:
        await provider.reap(leftovers)
    except ProviderError as error:
        log.warning("%d sessions without owner could not be ended: %s", len(orphans), error)
        return done
    for orphan in orphans:
        try:
            cost = (await ledger.settle_orphan(orphan.session_id, reason="owner died")).cost
        except LedgerError as error:
            log.warning("session %s without owner could not be settled: %s", orphan.session_id, error)
            continue
        log.warning("session %s had lost its owner; it is ended and counted with %s", orphan.session_id, cost)
        done.append(orphan)
    return done
