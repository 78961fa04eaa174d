"""How commands open the ledger: to read it without leaving a trace, or to work on it as a process of their own.

Neither creates a database where there is none; that is left to pools and to `tabkeeper db upgrade`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from tabkeeper.config import PoolConfig
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger import schema
from tabkeeper.ledger.engines import is_away, is_memory, parse_url, read_engine
from tabkeeper.ledger.ledger import Ledger


def shown(config: PoolConfig) -> str:
    """Return the ledger's address for people, without its password."""
    url = parse_url(config.ledger.url)
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def sqlite_file(url: URL) -> Path | None:
    """Return the file of an SQLite ledger; None for one in memory and for PostgreSQL."""
    if url.get_backend_name() != "sqlite" or is_memory(url) or url.database is None:
        return None
    return Path(url.database)


def must_exist(config: PoolConfig) -> None:
    """Refuse to go on where opening the database would create it.

    Raises:
        LedgerUnavailableError: there is no such file.
    """
    file = sqlite_file(parse_url(config.ledger.url))
    if file is not None and not file.exists():
        raise LedgerUnavailableError(
            f"there is no ledger at {file} yet; the first pool creates it, and so does `tabkeeper db upgrade`"
        )


def revision(engine: Engine) -> str | None:
    """Return the schema's revision, None if there is no schema yet.

    Raises:
        LedgerUnavailableError: the database cannot be reached.
    """
    try:
        with engine.connect() as connection:
            return schema.revision(connection)
    except Exception as error:
        if is_away(error):
            address = engine.url.render_as_string(hide_password=True)
            raise LedgerUnavailableError(
                f"the ledger at {address} cannot be used: {schema.reason(error)}"
            ) from error
        raise


@contextmanager
def reading(config: PoolConfig) -> Iterator[Engine]:
    """Give a read-only engine on a ledger whose schema is the expected one.

    Raises:
        LedgerUnavailableError, SchemaVersionError: it cannot be read.
    """
    must_exist(config)
    engine = read_engine(config.ledger.url)
    try:
        schema.ensure(engine, auto_upgrade=False)
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def working(config: PoolConfig) -> AsyncIterator[Ledger]:
    """Open the ledger for commands that look at it or tidy it up.

    They own no sessions, so they register no process; and they leave schema, prices and budgets as they are, since
    the configuration at hand need not be the one that the pools run with.

    Raises:
        LedgerUnavailableError, SchemaVersionError: it cannot be used.
    """
    must_exist(config)
    as_it_is = config.ledger.model_copy(update={"auto_upgrade": False})
    ledger = await Ledger.open(config.model_copy(update={"ledger": as_it_is}), observe=True)
    try:
        yield ledger
    finally:
        await ledger.aclose()
