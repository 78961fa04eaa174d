"""The tables of the ledger: rows, and nothing else; domain values are in `tabkeeper.ledger.types`.

Each family of tables has a module; importing this package makes all of them known to `metadata`.
"""

from tabkeeper.ledger.models import (
    alerts,
    board,
    budgets,
    entries,
    meta,
    prices,
    profiles,
    proxies,
    reconciling,
    reports,
    rollups,
    runs,
    sessions,
    tokens,
)
from tabkeeper.ledger.models.base import Table, metadata

__all__ = [
    "Table",
    "alerts",
    "board",
    "budgets",
    "entries",
    "meta",
    "metadata",
    "prices",
    "profiles",
    "proxies",
    "reconciling",
    "reports",
    "rollups",
    "runs",
    "sessions",
    "tokens",
]
