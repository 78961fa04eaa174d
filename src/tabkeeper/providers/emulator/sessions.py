"""A session of an emulator: its states and instants, and what it would be billed. Plain data, no network."""

from __future__ import annotations

import math
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from tabkeeper.clock import Instant


class Phase(Enum):
    """Where a session is in its life; providers have other words for these."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    TIMED_OUT = "timed out"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self not in {Phase.PENDING, Phase.RUNNING}


@dataclass(slots=True, kw_only=True, eq=False)
class EmulatedSession:
    """One session as the emulated provider knows it."""

    request: Mapping[str, Any]
    """The body that created it."""
    created_at: datetime
    updated_at: datetime
    began: Instant
    seconds: float
    """After this long the provider ends it; with `idle`, after this long without a connection."""
    ready_at: Instant
    connect_by: Instant
    """Without a connection by then the provider ends it."""
    keep_alive: bool
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    """Opens its browser."""
    phase: Phase = Phase.PENDING
    ended_at: datetime | None = None
    lasted: float | None = None
    """Seconds from begin to end."""
    surplus: float = 0.0
    """Seconds in `lasted` that are billed though they never were."""
    why: str = ""
    connections: int = 0
    connected: bool = False
    """Whether anybody ever connected."""
    idle: bool = False
    idle_seconds: float = math.inf
    """Beside `seconds`: after this long without a connection the provider ends it, too."""
    spells: list[list[Instant]] = field(default_factory=list)
    """Begin and end of every connection; one that lasts ends at infinity."""
    proxy_bytes: int = 0
    haunted: bool = False
    """The browser is gone, but the provider has not noticed."""

    @property
    def expires(self) -> Instant:
        """When the provider ends it."""
        alone = max((end for _, end in self.spells), default=self.began) if self.idle else self.began
        return alone + self.seconds

    @property
    def forsaken(self) -> Instant:
        """When the provider ends it because nobody is connected."""
        return max((end for _, end in self.spells), default=self.began) + self.idle_seconds

    def next_change(self) -> Instant:
        """Return the next instant at which time alone changes it."""
        if self.phase.over:
            return float("inf")
        due = [self.expires, self.forsaken]
        if self.phase is Phase.PENDING:
            due.append(self.ready_at)
        if not self.connected:
            due.append(self.connect_by)
        return min(due)
