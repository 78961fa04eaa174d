"""As of when a report is told: every fact up to one entry of the journal, and none after it.

Entries are only ever appended, so what was known at one of them can be told again, to the byte, at any later time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from tabkeeper.errors import ConfigError
from tabkeeper.ledger.instants import DAY_US, micros, moment

EVERYTHING = 2**63 - 1
"""A number that no entry reaches."""


@dataclass(frozen=True, slots=True)
class AsOf:
    """The last entry that counts, and the present as it was then."""

    entry: int
    now: datetime


def as_of_entry(conn: Connection, entry: int) -> AsOf | None:
    """Return the moment of an entry; None if there is none with this number."""
    at = conn.execute(text("SELECT recorded_at FROM entry WHERE id = :id"), {"id": entry}).scalar()
    return None if at is None else AsOf(entry, moment(int(at)))


def as_of_instant(conn: Connection, instant: datetime) -> AsOf:
    """Return what was known at an instant: all entries before the first that was recorded after it."""
    at = micros(instant)
    floor, last, step = 0, int(conn.execute(_LAST).scalar_one()), 1024
    # Entries are recorded nearly in order; one that waited for a database that was away may be a little early.
    while last - step > 0:
        early = conn.execute(_RECORDED, {"id": last - step}).one_or_none()
        if early is None or early.recorded_at < at - DAY_US:
            floor = last - step if early is None else int(early.id)
            break
        step *= 2
    first_after = conn.execute(_FIRST_AFTER, {"floor": floor, "at": at}).scalar()
    return AsOf(last if first_after is None else int(first_after) - 1, instant)


def as_of_text(conn: Connection, given: str, now: datetime) -> AsOf:
    """Read what a person wrote: the number of an entry, or an instant, in UTC unless it says otherwise.

    Raises:
        ConfigError: there is no such entry, or it is no instant of the past.
    """
    if given.isascii() and given.isdecimal():
        number = int(given)
        found = as_of_entry(conn, number) if number <= EVERYTHING else None
        if found is None:
            raise ConfigError(f"there is no entry {given}; a report's last line names the latest it saw")
        return found
    try:
        instant = datetime.fromisoformat(given)
        instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{given!r} is neither the number of an entry nor an instant such as 2026-11-21T08:00"
        ) from None
    if instant > now:
        raise ConfigError(f"{given} has not been yet")
    if instant.year < _EARLIEST_YEAR:
        raise ConfigError(f"{given} is before there were ledgers")
    return as_of_instant(conn, instant)


_EARLIEST_YEAR = 2000
_LAST = text("SELECT COALESCE(MAX(id), 0) FROM entry")
_RECORDED = text("SELECT id, recorded_at FROM entry WHERE id <= :id ORDER BY id DESC LIMIT 1")
_FIRST_AFTER = text("SELECT id FROM entry WHERE id > :floor AND recorded_at > :at ORDER BY id LIMIT 1")
