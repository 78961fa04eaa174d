"""Cleaning up after owners that died: end what still runs, settle what it cost, forget nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tabkeeper.errors import LedgerError, ProviderError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Orphan
from tabkeeper.providers.base import Leftover, Provider

log = logging.getLogger(__name__)


async def recover(ledger: Ledger, providers: Mapping[str, Provider]) -> list[Orphan]:
    """End and settle the sessions of dead processes; returns those that are done.

    A session of a provider that is not configured here is left to a process that has it.
    """
    done: list[Orphan] = []
    by_provider: dict[str, list[Orphan]] = {}
    for orphan in await ledger.orphans():
        by_provider.setdefault(orphan.provider, []).append(orphan)
    for name, orphans in by_provider.items():
        provider = providers.get(name)
        if provider is None:
            log.warning(
                "%d sessions of provider %r have no owner, and it is not configured", len(orphans), name
            )
            continue
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
            continue
        for orphan in orphans:
            try:
                cost = (await ledger.settle_orphan(orphan.session_id, reason="owner died")).cost
            except LedgerError as error:
                log.warning("session %s without owner could not be settled: %s", orphan.session_id, error)
                continue
            log.warning(
                "session %s had lost its owner; it is ended and counted with %s", orphan.session_id, cost
            )
            done.append(orphan)
    return done
