"""Brings a database to the schema that this version expects, or says clearly why it cannot be used.

Revisions are Alembic's and ship in the package; nothing here knows what the tables are for.
Run ``python -m tabkeeper.ledger.schema check URL`` to compare a database with the models.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from tabkeeper.errors import LedgerUnavailableError, SchemaVersionError
from tabkeeper.ledger.engines import is_away, is_worth_retrying, read_engine, write_engine

HEAD = "0014"
"""The revision that this code reads and writes."""

KNOWN = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
)
"""Every revision that this code can upgrade from, oldest first."""

_PG_LOCK = 7_214_600_511_027
"""Any number of our own: PostgreSQL's advisory lock that makes upgrades wait for one another."""


_TABLE_WAIT_MS = 1000
_ATTEMPTS = 20
_PAUSE_S = 1.0


def revision(connection: Connection) -> str | None:
    """Return the schema's revision, or None if there is no schema yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def good_from(connection: Connection) -> str:
    """Return the oldest revision whose code can use this schema; a word past all numbers if nothing is said.

    Revisions add (tables, columns with a default, indexes), so code of an earlier one goes on beside them. One that has
    to take something away says so by a newer mark, in a release after the last code that needs it.
    """
    if not inspect(connection).has_table("ledger_meta"):
        return "nothing"
    found = connection.execute(text("SELECT value FROM ledger_meta WHERE key = 'good_from'")).scalar()
    return "nothing" if found is None else str(found)


def ensure(engine: Engine, *, auto_upgrade: bool) -> None:
    """Make sure that the database has the expected schema; many processes may do so at once.

    Raises:
        SchemaVersionError: it has another one and may not, or cannot, be upgraded.
        LedgerUnavailableError: the database cannot be reached or written.
    """
    with _reachable(engine), engine.connect() as connection:
        found = revision(connection)
    if found == HEAD:
        return
    if found is not None and found not in KNOWN:
        with _reachable(engine), engine.connect() as connection:
            if good_from(connection) <= HEAD:
                return  # a newer version has added to it, and taken nothing away that this one needs
        raise SchemaVersionError(
            f"the ledger's schema is revision {found}, newer than this version of Tabkeeper knows ({HEAD}); "
            "upgrade the package (pip install -U tabkeeper)"
        )
    if not auto_upgrade:
        state = "has no schema yet" if found is None else f"has schema {found}, older than {HEAD}"
        raise SchemaVersionError(f"the ledger {state}; run `tabkeeper db upgrade`")
    upgrade(engine)


def upgrade(engine: Engine, to: str = "head") -> None:
    """Create the schema or bring it to revision `to`, in one transaction.

    Raises:
        LedgerUnavailableError: the database cannot be reached or written.
    """
    with _reachable(engine):
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with _locked(engine) as connection:
                    _alembic(connection, "upgrade", to)
            except DBAPIError as error:
                # Somebody uses a table that is to change; to wait longer would hold up all who come after us.
                if not is_worth_retrying(error):
                    raise
                if attempt == _ATTEMPTS:
                    raise LedgerUnavailableError(
                        f"the ledger cannot be upgraded while others use its tables: {reason(error)}"
                    ) from error
                time.sleep(_PAUSE_S)
            else:
                return


def downgrade(engine: Engine, to: str = "base") -> None:
    """Take the schema back to revision `to`; ``base`` drops everything, journal included."""
    with _reachable(engine), _locked(engine) as connection:
        _alembic(connection, "downgrade", to)


def differences(engine: Engine) -> list[str]:
    """Compare the database with the models; an empty list means that migrations and models agree."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from tabkeeper.ledger.models import metadata

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return [repr(difference) for difference in compare_metadata(context, metadata)]


def script_head() -> str | None:
    """Return the newest revision among the shipped scripts (a test holds it equal to `HEAD`)."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "tabkeeper:alembic")
    return ScriptDirectory.from_config(config).get_current_head()


def _alembic(connection: Connection, verb: str, to: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "tabkeeper:alembic")
    config.attributes["connection"] = connection
    {"upgrade": command.upgrade, "downgrade": command.downgrade}[verb](config, to)


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that no other upgrade can share; SQLite's writer transactions are that already."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # However long another one's upgrade takes, and each statement of ours; but no table is waited for long.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PG_LOCK})
            connection.execute(text(f"SET LOCAL lock_timeout = {_TABLE_WAIT_MS}"))
        yield connection


@contextmanager
def _reachable(engine: Engine) -> Iterator[None]:
    try:
        yield
    except SchemaVersionError:
        raise
    except Exception as error:
        if is_away(error):
            raise LedgerUnavailableError(
                f"the ledger at {engine.url.render_as_string(hide_password=True)} cannot be used: {reason(error)}"
            ) from error
        raise


def reason(error: BaseException) -> str:
    """Return the database's own words about an error, in one line."""
    inner = getattr(error, "orig", None) or error
    return " ".join(str(inner).split()) or type(inner).__name__


def _main(arguments: list[str]) -> int:
    match arguments:
        case ["check", url]:
            engine = read_engine(url)
            found = differences(engine)
        case ["upgrade", url]:
            engine = write_engine(url)
            upgrade(engine)
            found = []
        case _:
            sys.stderr.write("usage: python -m tabkeeper.ledger.schema check|upgrade URL\n")
            return 2
    engine.dispose()
    for difference in found:
        sys.stderr.write(f"models and migrations differ: {difference}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
