"""Opens databases: one way to write, one way to read, on SQLite and on PostgreSQL.

Also knows which errors mean "the database is away" and which "try once more"; it knows no table.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from tabkeeper.errors import ConfigError

_SQLITE_WAIT_MS = 5000
_PG_LOCK_MS = 5000
_PG_STATEMENT_MS = 15000
WATCHED_SERVER = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=8000"
)
"""How the server learns within seconds that a client's machine is gone, and lets go of what that had locked."""
WATCHED_LINE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
}
"""How a connection learns within seconds that its line was cut, where the system would wait for hours."""

# PostgreSQL: connection lost (08), no resources such as disk (53), shut down (57P), broken (58, XX), read-only.
_AWAY_STATES = ("08", "53", "57P", "58", "XX", "25006", "28", "3D")
# Deadlock, serialisation, lock, statement and idle timeouts: nothing is wrong, somebody was in the way or too slow.
_RETRY_STATES = ("40P01", "40001", "55P03", "57014", "25P03")
_RETRY_WORDS = ("database is locked", "database table is locked", "database is busy")
_AWAY_WORDS = (
    "disk is full",
    "readonly database",
    "unable to open",
    "disk i/o error",
    "disk image is malformed",
    "not a database",
    "out of memory",
)


def parse_url(url: str) -> URL:
    """Read a ledger's address; PostgreSQL always goes through psycopg 3.

    Raises:
        ConfigError: it is no address of SQLite or PostgreSQL.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except Exception:  # noqa: BLE001 - SQLAlchemy and its plugins raise all kinds for a wrong address
        raise ConfigError(
            "ledger.url is not a database address; write sqlite:///tabkeeper.db or postgresql://user@host/db"
        ) from None
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+pysqlite")
    raise ConfigError(
        f"ledger.url: {backend} is not supported; use sqlite:///file or postgresql://user@host/db"
    )


def is_memory(url: URL) -> bool:
    """Tell whether the database is SQLite in memory, which only its one connection can see."""
    return url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}


def write_engine(url: str) -> Engine:
    """Open for writing: SQLite in WAL with full syncs and immediate transactions, one connection at a time."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        return _postgres(
            parsed,
            f"-c lock_timeout={_PG_LOCK_MS} -c statement_timeout={_PG_STATEMENT_MS}",
            f"SET LOCAL lock_timeout = {_PG_LOCK_MS}; SET LOCAL statement_timeout = {_PG_STATEMENT_MS}",
        )
    engine = _sqlite(parsed)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN would come too late and be deferred; ours is explicit (see _begin).
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_SQLITE_WAIT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A deferred transaction that reads before it writes fails at once when another process wrote between.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def read_engine(url: str) -> Engine:
    """Open for reading only; never takes the writers' lock."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        snapshot = "-c default_transaction_isolation=repeatable\\ read"
        return _postgres(
            parsed,
            f"-c default_transaction_read_only=on {snapshot}",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            kept=True,
        )
    engine = _sqlite(parsed)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_SQLITE_WAIT_MS}")
        cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # All queries of one connection see one state of the books.
        connection.exec_driver_sql("BEGIN")

    return engine


def is_away(error: BaseException) -> bool:
    """Tell whether an error means that the database cannot be reached or written now."""
    if isinstance(error, OSError) or getattr(error, "connection_invalidated", False):
        return True
    cause = _driver_error(error)
    if cause is None:
        return False
    state = _sqlstate(cause)
    if state is not None:
        return state.startswith(_AWAY_STATES)
    # psycopg reports a refused or lost connection as an operational error without a state.
    if type(cause).__module__.startswith("psycopg"):
        return type(cause).__name__ in {"OperationalError", "InterfaceError", "ConnectionTimeout"}
    return any(word in str(cause).lower() for word in _AWAY_WORDS)


def is_worth_retrying(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed if tried again at once."""
    cause = _driver_error(error)
    if cause is None:
        return False
    state = _sqlstate(cause)
    if state is not None:
        return state in _RETRY_STATES or state.startswith("57P")
    if getattr(error, "connection_invalidated", False):
        return True
    # A connection that breaks in the middle tells it bare; one that cannot be made comes wrapped.
    if cause is error and type(cause).__module__.startswith("psycopg"):
        return type(cause).__name__ in {"OperationalError", "InterfaceError"}
    return any(word in str(cause).lower() for word in _RETRY_WORDS)


def _driver_error(error: BaseException) -> BaseException | None:
    """Return the driver's own error, bare or inside SQLAlchemy's."""
    if isinstance(error, DBAPIError):
        return error.orig
    return error if type(error).__module__.partition(".")[0] in {"sqlite3", "psycopg"} else None


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def refuses_options(error: BaseException) -> bool:
    """Tell whether a pooler refused a connection because of settings that begin with it."""
    return "unsupported startup parameter" in str(error)


def _postgres(url: URL, options: str, each: str, *, kept: bool = False) -> Engine:
    """Open a PostgreSQL.

    Args:
        url: its address, with the driver.
        options: settings of a connection.
        each: statements that say the same for one transaction. Behind a pooler (PgBouncer in transaction mode) each
            transaction may meet another session of the server, so nothing else would hold.
        kept: whether two connections are kept open, for readers.
    """
    arguments = {
        "connect_timeout": 5,
        "options": f"{options} {WATCHED_SERVER}",
        "application_name": "tabkeeper",
        **WATCHED_LINE,
    }
    try:
        if kept:
            engine = create_engine(url, connect_args=arguments, pool_pre_ping=True, pool_size=2)
        else:
            engine = create_engine(url, connect_args=arguments, poolclass=NullPool)
    except ModuleNotFoundError:
        raise ConfigError(
            "a ledger on PostgreSQL needs its driver: pip install 'tabkeeper[postgres]'"
        ) from None

    @event.listens_for(engine, "do_connect")
    def _connect(dialect: Any, _record: Any, args: Any, named: dict[str, Any]) -> Any:
        try:
            return dialect.connect(*args, **named)
        except dialect.loaded_dbapi.OperationalError as error:
            if not refuses_options(error):
                raise
        return dialect.connect(*args, **{name: value for name, value in named.items() if name != "options"})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, record: Any) -> None:
        # A pooler answers for many sessions of the server, and tells no one's number.
        (number,) = connection.execute("SELECT pg_backend_pid()").fetchone()
        connection.rollback()
        record.info["pooled"] = pooled = number != connection.info.backend_pid
        if pooled:
            connection.prepare_threshold = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        if connection.info.get("pooled"):
            connection.connection.dbapi_connection.execute(each)

    return engine


def _sqlite(url: URL) -> Engine:
    if is_memory(url):
        return create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    return create_engine(url, poolclass=NullPool, connect_args={"check_same_thread": False})
