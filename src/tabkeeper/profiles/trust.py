"""How far a profile is trusted: a pure function of its age, its failures, its uses and its last success.

The formula, its defaults and a worked example are in docs/profiles.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from tabkeeper.config import TrustSettings

_MINUTE = timedelta(minutes=1)
_NONE = timedelta(0)


class Grade(StrEnum):
    """What a trust means for the profile's future."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Still restored, but on its way out."""
    RETIRED = "retired"
    """Never restored again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What speaks for and against a profile at one moment."""

    age: timedelta
    """Since it was first saved."""
    failures: int = 0
    """In a row, up to now."""
    uses: int = 0
    since_success: timedelta | None = None
    """None if it never succeeded."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A trust, what it means, and why if it means the end."""

    score: float
    grade: Grade
    why: str = ""


def score(record: Record, rules: TrustSettings) -> float:
    """Return the trust in a profile, 0 to 100."""
    points = rules.start
    points -= rules.age_penalty * (max(record.age - rules.fresh_for, _NONE) / _MINUTE)
    points -= rules.failure_penalty * record.failures
    points -= rules.use_penalty * max(record.uses - rules.free_uses, 0)
    if record.since_success is not None and record.since_success <= rules.recent:
        points += rules.recent_bonus
    return min(100.0, max(0.0, points))


def judge(record: Record, rules: TrustSettings) -> Verdict:
    """Grade a profile: by its trust, unless a hard limit ends it whatever its trust."""
    points = score(record, rules)
    why = ""
    if record.age >= rules.max_age:
        why = "too old"
    elif record.failures >= rules.max_failures:
        why = f"{record.failures} failures in a row"
    elif record.failures and record.uses >= rules.worn_uses:
        why = f"it failed after {record.uses} uses"
    elif points < rules.degraded:
        why = f"its trust fell to {points:g}"
    if why:
        return Verdict(points, Grade.RETIRED, why)
    return Verdict(points, Grade.HEALTHY if points >= rules.healthy else Grade.DEGRADED)
