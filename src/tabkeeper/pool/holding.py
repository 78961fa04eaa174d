"""The pool's own record of one lease, from its grant to its row in the usage log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from playwright.async_api import BrowserContext, Page

from tabkeeper.clock import Instant
from tabkeeper.ledger.rates import RateCard
from tabkeeper.pool.model import Session
from tabkeeper.profiles.state import BrowserState, ProfileKey
from tabkeeper.profiles.store import Visit
from tabkeeper.proxies.model import Proxy


@dataclass(slots=True, eq=False)
class Holding:
    """The pool's record of one lease."""

    id: str
    session: Session
    use: int
    tenant: str
    priority: int
    tags: Mapping[str, str]
    place: str
    requested_at: Instant
    granted_at: Instant
    is_first: bool
    """Nobody has had the session before."""
    is_new: bool
    """Its holder has not: nobody has, or they came back for another one."""
    start_age: float
    """The session's age when the lease began, in seconds."""
    card: RateCard
    use_timeout: float
    block: tuple[str, ...]
    bytes_before: int
    over: str = ""
    """Empty while the lease runs, then how it ended: "ok", "failed", "reclaimed", "evicted", "lost"."""
    error: str | None = None
    end_age: float | None = None
    """The session's age when the lease ended, in seconds."""
    received: int | None = None
    """Bytes that the session received during the lease, once it is over."""
    context: BrowserContext | None = None
    proxy: Proxy | None = None
    """What the session goes through."""
    profile: ProfileKey | None = None
    """Which saved state the lease begins with, and saves if it succeeds."""
    visit: Visit | None = None
    """That profile, once it is lent."""
    state: BrowserState | None = None
    """What is to be saved of it."""
    carrier: Holding | None = None
    """The pool's one lease that several of an identity share, if this is a share in it."""
    shares: list[Holding] = field(default_factory=list)
    """All that shared, or share, this one."""
    pages: list[Page] = field(default_factory=list)
    """Opened through the lease."""
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    scopes: set[asyncio.Timeout] = field(default_factory=set)
    watchers: list[Callable[[], object]] = field(default_factory=list)
    """Called once when the lease is over."""

    def end(self, outcome: str, error: str | None) -> None:
        """Note how the lease ended, and tell those who watch it."""
        self.over = outcome
        if error is not None:
            self.error = error
        watchers, self.watchers = self.watchers, []
        for tell in watchers:
            tell()
