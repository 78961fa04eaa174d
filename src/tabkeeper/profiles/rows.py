"""The statements behind `store`: rows of ``profile`` and ``profile_writer`` in and out. They decide nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tabkeeper.profiles.state import Profile, ProfileKey

COLUMNS = (
    "id, tenant, site, proxy, created_at, saved_at, succeeded_at, failures, uses, retired_at, retired_why"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MINE = "tenant = :tenant AND site = :site AND proxy = :proxy"


class Statements(Protocol):
    """One open transaction: SQL with ``:names``, understood by both databases."""

    def run(self, sql: str, /, **values: Any) -> int:
        """Run a statement and return how many rows it changed."""

    def row(self, sql: str, /, **values: Any) -> Any | None:
        """Return the first row, or None."""

    def rows(self, sql: str, /, **values: Any) -> list[Any]:
        """Return all rows."""


def claim(tx: Statements, key: ProfileKey, holder: str, until: int, now: int) -> bool:
    """Take the right to write, unless another lease has it and its time is not up."""
    tx.run(
        "INSERT INTO profile_writer (tenant, site, proxy, holder, expires_at) "
        "VALUES (:tenant, :site, :proxy, :holder, :until) ON CONFLICT (tenant, site, proxy) DO UPDATE "
        "SET holder = excluded.holder, expires_at = excluded.expires_at WHERE profile_writer.expires_at <= :now",
        holder=holder,
        until=until,
        now=now,
        **key._asdict(),
    )
    query = f"SELECT holder FROM profile_writer WHERE {_MINE}"  # noqa: S608 - ours
    row = tx.row(query, **key._asdict())
    return row is not None and row.holder == holder


def give_up(tx: Statements, key: ProfileKey, holder: str) -> bool:
    """End the right to write; False if the lease does not have it (any more)."""
    query = f"DELETE FROM profile_writer WHERE {_MINE} AND holder = :holder"  # noqa: S608 - ours
    return tx.run(query, holder=holder, **key._asdict()) == 1


def retire(tx: Statements, key: ProfileKey, why: str, now: int) -> bool:
    """Retire what is live and forget its state; False if nothing is."""
    query = (
        "UPDATE profile SET retired_at = :now, retired_why = :why, sealed = NULL "  # noqa: S608 - ours
        f"WHERE {_MINE} AND retired_at IS NULL"
    )
    return tx.run(query, now=now, why=why, **key._asdict()) == 1


def live_row(tx: Statements, key: ProfileKey, more: str = "") -> Any | None:
    """Return the row that is not retired, if there is one."""
    query = f"SELECT {COLUMNS}{more} FROM profile WHERE {_MINE} AND retired_at IS NULL"  # noqa: S608 - ours
    return tx.row(query, **key._asdict())


def to_profile(row: Any) -> Profile:
    """Read a row of `COLUMNS`."""
    return Profile(
        id=row.id,
        key=ProfileKey(row.tenant, row.site, row.proxy),
        created_at=moment(row.created_at),
        saved_at=moment(row.saved_at),
        succeeded_at=None if row.succeeded_at is None else moment(row.succeeded_at),
        failures=row.failures,
        uses=row.uses,
        retired_at=None if row.retired_at is None else moment(row.retired_at),
        retired_why=row.retired_why,
    )


def micros(at: datetime) -> int:
    """An instant as the database has it."""
    return (at - _EPOCH) // _MICROSECOND


def micros_of(length: timedelta) -> int:
    """A length of time as the database has it."""
    return length // _MICROSECOND


def moment(at: int) -> datetime:
    """The reverse of `micros`."""
    return _EPOCH + at * _MICROSECOND
