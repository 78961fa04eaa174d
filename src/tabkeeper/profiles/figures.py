"""How many profiles there are, and how good: plain counting."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from tabkeeper.profiles.state import Profile
from tabkeeper.profiles.trust import Grade


class ProfileStats(BaseModel):
    """Profiles that can be restored, and how often leases found one; `reuse_rate` counts from the pool's start."""

    model_config = ConfigDict(frozen=True)

    total: int = 0
    healthy: int = 0
    degraded: int = 0
    average_age_minutes: float = 0.0
    average_uses: float = 0.0
    reuse_rate: float = 0.0
    """Share of leases that asked for a profile and found one to restore, 0..1."""


def figures(
    graded: Sequence[tuple[Profile, Grade]], now: datetime, visits: int, restored: int
) -> ProfileStats:
    """Count profiles; those whose time is up but whom nobody has retired yet count no more."""
    living = [profile for profile, grade in graded if grade is not Grade.RETIRED]
    grades = [grade for _, grade in graded]
    number = len(living)
    ages = sum(((now - profile.created_at) for profile in living), timedelta(0))
    return ProfileStats(
        total=number,
        healthy=grades.count(Grade.HEALTHY),
        degraded=grades.count(Grade.DEGRADED),
        average_age_minutes=ages / timedelta(minutes=1) / number if number else 0.0,
        average_uses=sum(profile.uses for profile in living) / number if number else 0.0,
        reuse_rate=restored / visits if visits else 0.0,
    )
