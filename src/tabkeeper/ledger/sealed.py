"""Every column that holds something sealed, so that a change of keys forgets none; what it means is not known here."""

from __future__ import annotations

from collections.abc import Callable

from tabkeeper.ledger.transaction import Transaction

PLACES = (("session", "connect_sealed"), ("profile", "sealed"), ("proxy", "credentials_sealed"))
"""(table, column); each table's key is ``id``."""


def reseal(tx: Transaction, change: Callable[[str], str]) -> int:
    """Replace everything sealed by what `change` makes of it, all or nothing; return how many there were."""
    done = 0
    for table, column in PLACES:
        rows = tx.rows(f"SELECT id, {column} AS old FROM {table} WHERE {column} IS NOT NULL")  # noqa: S608 - ours
        for row in rows:
            done += tx.run(
                f"UPDATE {table} SET {column} = :new WHERE id = :id",  # noqa: S608 - ours
                new=change(row.old),
                id=row.id,
            )
    return done
