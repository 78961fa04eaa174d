"""Instants as the database keeps them: whole microseconds since 1970, UTC. Nothing else.

Aware datetimes go in and come out; lengths of time convert the same way.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
_MICROSECOND = timedelta(microseconds=1)


def micros(instant: datetime) -> int:
    """Microseconds since 1970 of an aware instant."""
    return (instant - EPOCH) // _MICROSECOND


def moment(at: int) -> datetime:
    """The instant, in UTC, of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=at)


def length_us(seconds: float) -> int:
    """Whole microseconds of a length in seconds."""
    return round(seconds * 1_000_000)
