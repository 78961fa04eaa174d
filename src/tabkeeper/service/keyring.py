"""Finds callers by their tokens: those of the configuration, and those that the ledger keeps for all processes.

What the ledger keeps is read at most once a second however many ask, so a token that was revoked anywhere lets nobody
in a second later; one that is not known is always looked up anew, so a new token works at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import cast

from tabkeeper.clock import Clock, Instant
from tabkeeper.config import Scope, ServiceSettings
from tabkeeper.errors import LedgerError, PoolClosedError
from tabkeeper.ledger.tokens import StoredToken
from tabkeeper.service.problems import ProblemError
from tabkeeper.service.tokens import Caller, hash_token

log = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
"""What was read of the ledger is gone by for so long; then it is read again."""
_PATIENCE = 2.0
"""Seconds for the database to answer."""


class Keyring:
    """Callers by token. While the database is away, tokens of the ledger that are known go on being good.

    Args:
        settings: with the tokens of the configuration.
        clock: where time comes from.
        read: gives the ledger's tokens that were not revoked.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        clock: Clock,
        read: Callable[[], Awaitable[Sequence[StoredToken]]],
    ) -> None:
        self._clock = clock
        self._read = read
        self._fixed: dict[str, Caller] = {}
        self._stored: dict[str, tuple[Caller, datetime | None]] = {}
        self._good: dict[str, datetime | None] = {}
        self._read_at: Instant | None = None
        self._failed_at: Instant | None = None
        self._reading = asyncio.Lock()
        if settings.token is not None:
            self._fixed[hash_token(settings.token.get_secret_value())] = Caller(name="main")
        for one in settings.tokens:
            hashed = one.hash or hash_token(one.token.get_secret_value() if one.token else "")
            self._fixed[hashed] = Caller(name=one.name, scopes=frozenset(one.scopes), tenants=one.tenants)

    async def is_empty(self) -> bool:
        """Whether nobody has a token."""
        if self._fixed:
            return False
        await self._look(self._clock.monotonic())
        return not self._good

    async def find(self, token: str) -> Caller | None:
        """Return whose token it is. What time this takes tells of hashes at most, and those lead nowhere.

        Raises:
            ProblemError: it may be one of the ledger's, and the database is away.
        """
        hashed = hash_token(token)
        if (caller := self._fixed.get(hashed)) is not None:
            return caller
        asked = self._clock.monotonic()
        looked = await self._look(asked - FRESH_SECONDS)
        if hashed not in self._stored:
            looked = await self._look(asked)
        if hashed not in self._stored:
            if not looked:
                raise ProblemError("unavailable", "tokens cannot be looked up now", retry_after=2)
            return None
        caller, expires = self._stored[hashed]
        return caller if expires is None or self._clock.now() < expires else None

    async def is_good(self, caller: Caller) -> bool:
        """Whether somebody who was let in would be let in again: their token was not revoked and is not too old."""
        if not caller.stored:
            return True
        await self._look(self._clock.monotonic() - FRESH_SECONDS)
        if caller.stored not in self._good:
            return False
        expires = self._good[caller.stored]
        return expires is None or self._clock.now() < expires

    async def _look(self, since: Instant) -> bool:
        """Have what was read of the ledger at `since` or later; False if the database did not tell."""
        if self._read_at is not None and self._read_at >= since:
            return True
        async with self._reading:
            began = self._clock.monotonic()
            if self._read_at is not None and self._read_at >= since:
                return True  # somebody read while this waited
            if self._failed_at is not None and began - self._failed_at < FRESH_SECONDS:
                return False
            try:
                async with asyncio.timeout(_PATIENCE):
                    found = await self._read()
            except (LedgerError, PoolClosedError, TimeoutError) as error:
                log.warning("tokens of the ledger cannot be looked up: %s", type(error).__name__)
                self._failed_at = self._clock.monotonic()
                return False
            self._good = {one.id: one.expires_at for one in found}
            self._stored = {one.hash: (_caller(one), one.expires_at) for one in found}
            self._read_at = began
            return True


def _caller(one: StoredToken) -> Caller:
    scopes = cast("frozenset[Scope]", frozenset(one.scopes))
    return Caller(name=one.name, scopes=scopes, tenants=one.tenants, stored=one.id)
