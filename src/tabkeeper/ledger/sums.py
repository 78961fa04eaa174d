"""Adds up settled cost over time, from hourly sums, with single entries only at broken edges."""

from __future__ import annotations

from sqlalchemy import Connection, text

from tabkeeper.ledger.instants import HOUR_US
from tabkeeper.money import Money


def spent(connection: Connection, start: int, end: int) -> Money:
    """Return the cost of sessions held from `start` (included) to `end` (not), in microseconds since 1970.

    Zones that are not whole hours from UTC begin their days within an hour; those edges come from the journal.
    """
    first, last = -(-start // HOUR_US) * HOUR_US, end // HOUR_US * HOUR_US
    if first > last:
        return _from_entries(connection, start, end)
    row = connection.execute(
        text(
            "SELECT CAST(COALESCE(SUM(cost_n), 0) AS BIGINT) FROM rollup_hour "
            "WHERE hour_at >= :first AND hour_at < :last"
        ),
        {"first": first, "last": last},
    ).scalar_one()
    return Money(int(row)) + _from_entries(connection, start, first) + _from_entries(connection, last, end)


def _from_entries(connection: Connection, start: int, end: int) -> Money:
    if start >= end:
        return Money(0)
    row = connection.execute(
        text(
            "SELECT CAST(COALESCE(SUM(amount_n), 0) AS BIGINT) FROM entry "
            "WHERE effective_at >= :start AND effective_at < :end"
        ),
        {"start": start, "end": end},
    ).scalar_one()
    return Money(int(row))
