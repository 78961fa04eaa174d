"""Fault o: the database goes away, fills up or turns read-only. No new paid session; nothing that ran is lost."""

import asyncio
import json
import os
import time

import pytest
from sqlalchemy import event, text

from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger.engines import read_engine, write_engine
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.money import Money

from .builders import ask, config, lease, moved, opened, query, tamper, used

DAILY = {"name": "daily", "limit": "5.00"}


@pytest.fixture(autouse=True)
def _state(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Cable:
    """The connection to the database; pulled, every statement and every new connection fails."""

    def __init__(self, ledger):
        self.pulled = False
        engine = ledger._engine
        event.listen(engine, "begin", self._check)
        event.listen(engine, "do_connect", self._check)

    def _check(self, *_):
        if self.pulled:
            raise ConnectionError("the cable is out")


async def test_fault_o_no_new_session_while_the_database_is_away_and_usage_is_booked_when_it_is_back(
    ledger_url,
):
    async with opened(ledger_url, budgets=[DAILY]) as ledger:
        cable = Cable(ledger)
        for name in ("a", "b", "c"):
            await ledger.hold(ask(name))
        cable.pulled = True
        with pytest.raises(LedgerUnavailableError, match="the cable is out"):
            await ledger.hold(ask("new"))
        ledger.record_lease(lease("a", end=60))
        ledger.record_state(moved("a"))
        settlement = await ledger.settle("a", used(120), reason="idle")
        assert settlement.provisional
        assert settlement.cost == Money.parse("0.02")
        await ledger.void("b", reason="never started")
        await ledger.activate("c", provider_session_id="theirs")
        await ledger.owners.heartbeat()
        await ledger.flush()
        assert query(ledger_url, "SELECT COUNT(*) FROM hold WHERE state = 'open'") == [(3,)]
        cable.pulled = False
        await _until(lambda: query(ledger_url, "SELECT COUNT(*) FROM hold WHERE state = 'open'") == [(1,)])
        await ledger.hold(ask("new"))
        assert query(ledger_url, "SELECT cost_n, idle_n, uses FROM session WHERE id = 'a'") == [
            (20_000_000, 10_000_000, 1)
        ]
        assert query(ledger_url, "SELECT provider_session_id FROM session WHERE id = 'c'") == [("theirs",)]
        await ledger.settle_orphan("c", reason="over")


async def test_fault_o_what_a_process_could_not_write_is_written_at_the_next_start(ledger_url, tmp_path):
    first = await Ledger.open(config(ledger_url, budgets=[DAILY]))
    cable = Cable(first)
    await first.hold(ask("a"))
    cable.pulled = True
    first.record_lease(lease("a", end=60))
    await first.settle("a", used(120), reason="idle")
    await first.aclose()
    kept = [json.loads(line)["op"] for path in tmp_path.rglob("*.spool.jsonl") for line in _lines(path)]
    assert kept == ["lease", "settle"]
    async with opened(ledger_url, budgets=[DAILY]):
        assert query(ledger_url, "SELECT cost_n, uses FROM session") == [(20_000_000, 1)]
    assert list(tmp_path.rglob("*.spool.jsonl")) == []


async def test_a_spool_that_ends_in_half_a_line_loses_only_that_line(ledger_url, tmp_path):
    first = await Ledger.open(config(ledger_url))
    await first.hold(ask("a"))
    Cable(first).pulled = True
    await first.settle("a", used(120), reason="idle")
    await first.aclose()
    assert query(ledger_url, "SELECT state FROM hold") == [("open",)]
    (path,) = tmp_path.rglob("*.spool.jsonl")
    with path.open("a") as file:
        file.write('{"op":"settle","session')
    async with opened(ledger_url):
        assert query(ledger_url, "SELECT cost_n FROM session") == [(20_000_000,)]


async def test_fault_o_a_hold_whose_commit_got_lost_does_not_stand(ledger_url):
    async with opened(ledger_url, budgets=[DAILY]) as ledger:
        lost = {"left": 10}

        def lose_answer(_connection):
            if lost["left"]:
                lost["left"] -= 1
                raise ConnectionError("the answer to COMMIT got lost")

        event.listen(ledger._engine, "commit", lose_answer)
        with pytest.raises(LedgerUnavailableError):
            await ledger.hold(ask("a"))
        lost["left"] = 0
        await _until(lambda: query(ledger_url, "SELECT COUNT(*) FROM hold WHERE state = 'open'") == [(0,)])


async def test_fault_o_a_full_disk_refuses_new_sessions_and_keeps_what_ran(sqlite_url, tmp_path):
    ledger = await Ledger.open(config(sqlite_url, budgets=[DAILY]))
    await ledger.hold(ask("runs"))
    (pages,) = query(sqlite_url, "PRAGMA page_count")[0]
    await ledger._writer.call(lambda tx: tx.row(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(LedgerUnavailableError, match="disk is full"):
        for i in range(1000):
            await ledger.hold(ask(f"s{i}", max_seconds=1, platform="p" * 500))
    for number in range(1, 200):
        ledger.record_lease(lease("runs", number, number, number + 1, place="x" * 500))
    assert (await ledger.settle("runs", used(300), reason="idle")).cost == Money.parse("0.05")
    await ledger.aclose()
    async with opened(sqlite_url, budgets=[DAILY]):
        assert query(sqlite_url, "SELECT cost_n, uses FROM session WHERE id = 'runs'") == [(50_000_000, 199)]


async def test_fault_o_when_nothing_can_be_written_anywhere_memory_keeps_it(sqlite_url, monkeypatch):
    async with opened(sqlite_url, budgets=[DAILY]) as ledger:
        cable = Cable(ledger)
        await ledger.hold(ask("a"))
        cable.pulled = True

        def full(*_args, **_rest):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(ledger._writer._spool, "_open", full)
        await ledger.settle("a", used(60), reason="idle")
        cable.pulled = False
        await _until(lambda: query(sqlite_url, "SELECT state FROM hold") == [("settled",)])


async def test_fault_o_a_read_only_database_is_one_clear_error(sqlite_url, tmp_path):
    # Root may write anything, so the file itself is made unwritable: opened through a read-only URL.
    path = sqlite_url.removeprefix("sqlite:///")
    with pytest.raises(LedgerUnavailableError, match="readonly database"):
        await Ledger.open(config(f"sqlite:///file:{path}?mode=ro&uri=true"))
    missing = f"sqlite:///{tmp_path}/no/such/folder/books.db"
    with pytest.raises(LedgerUnavailableError, match="unable to open"):
        await Ledger.open(config(missing))


@pytest.mark.postgres
async def test_fault_o_an_unreachable_server_is_one_clear_error(tmp_path):
    with pytest.raises(LedgerUnavailableError) as error:
        await Ledger.open(config(f"postgresql://nobody:secret@/books?host={tmp_path}"))
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.postgres
async def test_connections_cut_by_the_server_are_made_anew(postgres_url):
    async with opened(postgres_url, budgets=[DAILY]) as ledger:
        await ledger.hold(ask("a"))
        tamper(postgres_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
               "AND datname = current_database()")  # fmt: skip
        await ledger.hold(ask("b"))
        assert not (await ledger.settle("a", used(60), reason="idle")).provisional
        ledger.reader.dispose()


@pytest.mark.postgres
async def test_who_reads_after_the_end_leaves_no_connection_open(postgres_url):
    async with opened(postgres_url) as ledger:
        pass
    assert await ledger.verify() == []
    assert ledger.reader.pool.checkedin() == 0


async def test_the_usage_log_never_blocks_its_caller_while_another_process_has_the_lock(sqlite_url):
    """A lease is recorded in microseconds though the database is locked; held up, not lost."""
    async with opened(sqlite_url) as ledger:
        await ledger.hold(ask("a"))
        with _locked(sqlite_url):
            loop = asyncio.get_running_loop()
            start = loop.time()
            for number in range(1, 1001):
                ledger.record_lease(lease("a", number, number, number + 1))
            assert loop.time() - start < 0.5
        await ledger.settle("a", used(60), reason="idle")
        assert query(sqlite_url, "SELECT COUNT(*) FROM lease") == [(1000,)]


def _locked(url):
    import contextlib
    import sqlite3

    @contextlib.contextmanager
    def hold():
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
        connection.close()

    return hold()


def _lines(path):
    return path.read_text().splitlines()


async def _until(condition):
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.025)
    raise AssertionError("never came true")


def test_the_state_folder_is_the_users(monkeypatch):
    from tabkeeper.ledger.engines import parse_url
    from tabkeeper.ledger.spool import places_for

    monkeypatch.delenv("XDG_STATE_HOME")
    (place,) = places_for(parse_url("postgresql://h/d"))
    assert str(place) == os.path.expanduser("~/.local/state/tabkeeper")


@pytest.mark.postgres
def test_who_is_frozen_after_any_statement_of_a_transaction_keeps_nobody_waiting(postgres_url):
    """PostgreSQL ends a transaction in which nothing happens, also after one statement for many rows."""
    engine, other = write_engine(postgres_url), read_engine(postgres_url)
    with engine.connect() as frozen:
        tx = Transaction(frozen)
        tx.row("SELECT set_config('idle_in_transaction_session_timeout', '50ms', true)")
        tx.many("UPDATE process SET host = :host WHERE id = :id", [{"host": "h", "id": "x"}] * 2)
        until = time.monotonic() + 60
        others = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        while time.monotonic() < until:
            with other.connect() as connection:
                if connection.execute(others).scalar() == 1:
                    break
            time.sleep(0.02)
        else:
            pytest.fail("the transaction goes on")
        frozen.invalidate()
    engine.dispose()
    other.dispose()
