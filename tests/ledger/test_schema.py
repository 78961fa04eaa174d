"""Migrations: shipped, equal to the models, safe to run at once, and clear about what they cannot do."""

import ast
import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tabkeeper.errors import ConfigError, SchemaVersionError
from tabkeeper.ledger import engines, schema
from tabkeeper.ledger.engines import write_engine
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.models import metadata

from .builders import ask, config, opened, query, tamper, used


@pytest.fixture
def engine(ledger_url):
    engine = write_engine(ledger_url)
    yield engine
    engine.dispose()


def test_migrations_and_models_agree_after_up_down_and_up_again(engine):
    assert schema.differences(engine) == []
    schema.downgrade(engine)
    assert len(schema.differences(engine)) > 10
    schema.upgrade(engine)
    assert schema.differences(engine) == []


def test_the_code_expects_the_newest_migration():
    assert schema.script_head() == schema.HEAD == schema.KNOWN[-1]


def test_no_column_is_a_float_or_a_database_decimal():
    types = {str(column.type) for table in metadata.tables.values() for column in table.columns}
    assert types <= {"BIGINT", "TEXT"}


async def test_a_database_of_a_newer_version_says_upgrade_the_package(ledger_url):
    tamper(
        ledger_url,
        "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE ledger_meta SET value = '9998' WHERE key = 'good_from'",
    )
    with pytest.raises(SchemaVersionError, match="upgrade the package"):
        await Ledger.open(config(ledger_url))


async def test_a_newer_schema_that_has_only_added_to_this_one_is_used(ledger_url):
    tamper(ledger_url, "UPDATE alembic_version SET version_num = '9999'")
    async with opened(ledger_url, auto_upgrade=False):
        pass


@pytest.mark.postgres
@pytest.mark.parametrize(
    "busy", ["SELECT pg_advisory_xact_lock(7214600511027)", "LOCK TABLE hold IN ACCESS SHARE MODE"]
)
async def test_an_upgrade_waits_for_another_one_and_for_those_who_use_its_tables(
    postgres_url, busy, monkeypatch
):
    monkeypatch.setattr(engines, "_PG_LOCK_MS", 50)
    monkeypatch.setattr(schema, "_TABLE_WAIT_MS", 50)
    monkeypatch.setattr(schema, "_PAUSE_S", 0.1)
    engine = write_engine(postgres_url)
    schema.downgrade(engine, "0011")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with engine.begin() as connection:
        connection.execute(text(busy))
        upgrade = asyncio.ensure_future(asyncio.to_thread(schema.upgrade, engine))
        while query(postgres_url, waits) == [(0,)]:
            assert not upgrade.done()
            await asyncio.sleep(0.01)
        assert not upgrade.done()
    await upgrade
    assert schema.differences(engine) == []
    engine.dispose()


ADDS = {"create_table", "create_index", "add_column", "batch_alter_table", "execute", "f"}


def takes_away(script):
    """What a revision does that the code of the one before may not survive."""
    (upgrade,) = (
        node for node in script.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"
    )
    for call in ast.walk(upgrade):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        new_column = [
            one for one in ast.walk(call) if call.func.attr == "add_column" and isinstance(one, ast.keyword)
        ]
        if getattr(call.func.value, "id", "") in {"op", "table"} and call.func.attr not in ADDS:
            yield call.func.attr
        elif call.func.attr == "add_column" and not any(
            one.arg == "server_default" or (one.arg == "nullable" and ast.unparse(one.value) == "True")
            for one in new_column
        ):
            yield "a column without a default"


def test_revisions_only_add_or_say_whose_code_they_end():
    """So that processes of the version before go on while a fleet is upgraded, and can be started again."""
    folder = Path(schema.__file__).parents[1] / "alembic" / "versions"
    for path in sorted(folder.glob("[0-9]*.py")):
        if path.name >= "0014":
            source = path.read_text(encoding="utf-8")
            assert "good_from" in source or not list(takes_away(ast.parse(source))), path.name
    for line in ('op.drop_table("t")', 'op.add_column("t", sa.Column("c", sa.Text(), nullable=False))'):
        assert list(takes_away(ast.parse(f"def upgrade():\n    {line}\n")))


async def test_an_older_or_empty_database_says_db_upgrade_where_upgrading_is_off(ledger_url, engine):
    schema.downgrade(engine)
    with pytest.raises(SchemaVersionError, match="tabkeeper db upgrade"):
        await Ledger.open(config(ledger_url, auto_upgrade=False))
    async with opened(ledger_url):
        pass


async def test_many_first_opens_at_once_make_one_schema(ledger_url, engine):
    schema.downgrade(engine)
    ledgers = await asyncio.gather(*(Ledger.open(config(ledger_url)) for _ in range(8)))
    for ledger in ledgers:
        await ledger.aclose()
    assert query(ledger_url, "SELECT COUNT(*) FROM process WHERE ended_at IS NOT NULL") == [(8,)]


def test_many_processes_open_a_new_file_at_once(tmp_path):
    code = (
        "import asyncio\n"
        "from tabkeeper.config import parse_config\n"
        "from tabkeeper.ledger.ledger import Ledger\n"
        "async def main():\n"
        f"    ledger = await Ledger.open(parse_config({{'ledger': {{'url': 'sqlite:///{tmp_path}/new.db'}}}}))\n"
        "    await ledger.aclose()\n"
        "asyncio.run(main())\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    ended = [(process.communicate(timeout=150), process.returncode) for process in running]
    assert [(errors.decode(), code) for (_, errors), code in ended] == [("", 0)] * 3
    assert query(f"sqlite:///{tmp_path}/new.db", "SELECT COUNT(*) FROM process") == [(3,)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET amount_n = 9",
        "DELETE FROM entry",
        "UPDATE entry_line SET amount_n = 9",
        "DELETE FROM entry_line",
        "UPDATE posting SET d_spent_n = 9",
        "DELETE FROM posting",
    ],
)
async def test_the_journal_is_append_only(ledger_url, change):
    async with opened(ledger_url, budgets=[{"name": "daily", "limit": "1.00"}]) as ledger:
        await ledger.hold(ask())
        await ledger.settle("s", used(), reason="idle")
        with pytest.raises(DBAPIError, match="append-only"):
            tamper(ledger_url, change)


def test_the_check_of_the_lint_gate_is_clean_and_can_fail(sqlite_url):
    assert schema._main(["check", sqlite_url]) == 0
    assert schema._main([]) == 2
    tamper(sqlite_url, "DROP INDEX ix_lease_session_id")
    command = [sys.executable, "-m", "tabkeeper.ledger.schema", "check", sqlite_url]
    failed = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "ix_lease_session_id" in failed.stderr


@pytest.mark.parametrize("url", ["mysql://h/d", "nonsense", "http://example.org"])
async def test_an_address_of_something_else_is_a_config_error(url):
    with pytest.raises(ConfigError, match=r"ledger\.url"):
        await Ledger.open(config(url))
