"""What a user can set of the health of sessions: ``[health]``."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from tabkeeper.config.values import AnyDuration, Duration, Settings


class HealthSettings(Settings):
    """When a session is well, when it is checked and kept alive, and when it is replaced."""

    every: Duration = Field(timedelta(seconds=60), description="Time between two checks of every session.")
    timeout: Duration = Field(
        timedelta(seconds=10), description="A healthy browser answers within this time."
    )
    memory_mb: int = Field(
        500,
        ge=1,
        description="Most memory of a session in MB, its browser's processes together; local ones only.",
    )
    stale_after: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of session_ttl since the last use after which it is checked before a lease.",
    )
    recovery: float = Field(
        0.3, ge=0, le=1, description="What a passed check gives back of the score, up to 1."
    )
    unhealthy_below: float = Field(
        0.5, ge=0, le=1, description="With a lower score a session must recover before anybody gets it."
    )
    slow_factor: float = Field(
        3.0,
        gt=1,
        description="Navigations that take this many times the session's own first ones: it is replaced.",
    )
    slow_floor: AnyDuration = Field(
        timedelta(seconds=2), description="Navigations faster than this are never too slow."
    )
    memory_factor: float = Field(
        2.0,
        gt=1,
        description="Idle memory this many times that of the session's own first check: it is replaced.",
    )
    memory_floor_mb: int = Field(200, ge=0, description="Less memory than this is never too much.")
    refresh_every: Duration = Field(
        timedelta(seconds=60), description="Time between two looks for sessions to keep alive."
    )
    refresh_after: Duration = Field(
        timedelta(minutes=5), description="A session neither used nor refreshed for this long is kept alive."
    )
