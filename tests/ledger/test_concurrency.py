"""Many at once against one hard limit: exact with the ledger, overspent by the obvious way of doing it."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from tabkeeper.errors import BudgetExceededError
from tabkeeper.ledger.ledger import Ledger

from .builders import ask, config, lease, opened, query, used

LIMIT = {"name": "daily", "limit": "1.00"}


async def test_thirty_two_writers_reach_a_hard_limit_and_never_pass_it(ledger_url):
    """Each of 32 workers, over 4 ledgers with a writer each, holds until it is refused."""
    ledgers = [await Ledger.open(config(ledger_url, budgets=[LIMIT])) for _ in range(4)]

    async def worker(number):
        held = 0
        while True:
            try:
                await ledgers[number % 4].hold(ask(f"{number}-{held}", max_seconds=60))
            except BudgetExceededError:
                return held
            held += 1

    held = await asyncio.gather(*(worker(number) for number in range(32)))
    assert sum(held) == 100
    assert query(ledger_url, "SELECT held_n, spent_n, denied FROM budget_window") == [(1_000_000_000, 0, 32)]
    assert await ledgers[0].verify() == []
    for ledger in ledgers:
        await ledger.aclose()


def test_control_checking_before_adding_overspends(tmp_path):
    """The same limit, 32 threads, a SELECT and then an UPDATE: this must fail, or the test above sees nothing."""
    path = tmp_path / "naive.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE budget (spent INTEGER)")
        connection.execute("INSERT INTO budget VALUES (0)")

    def worker(_):
        own = sqlite3.connect(path, timeout=30, isolation_level=None)
        while True:
            (spent,) = own.execute("SELECT spent FROM budget").fetchone()
            if spent + 10 > 1000:
                return own.close()
            own.execute("UPDATE budget SET spent = spent + 10")

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(worker, range(32)))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT spent FROM budget").fetchone()[0] > 1000


async def test_fault_j_a_hundred_requests_against_a_budget_for_three(ledger_url):
    async with opened(ledger_url, budgets=[{"name": "daily", "limit": "0.30"}]) as ledger:
        answers = await asyncio.gather(
            *(ledger.hold(ask(f"s{i}")) for i in range(100)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, BudgetExceededError)]
        assert len(refused) == 97
        assert all(str(error).startswith('Budget "daily" has $0.00 left of $0.30') for error in refused)
        assert query(ledger_url, "SELECT COUNT(*), SUM(held_n) FROM budget_window") == [(1, 300_000_000)]
        assert query(ledger_url, "SELECT COUNT(*) FROM alert_event WHERE kind = 'denied'") == [(1,)]


async def test_one_bad_item_does_not_spoil_its_batch(ledger_url):
    async with opened(ledger_url) as ledger:
        await ledger.hold(ask("good"))
        answers = await asyncio.gather(
            ledger.settle("unknown", used(), reason="?"),
            ledger.settle("good", used(), reason="idle"),
            ledger.hold(ask("next")),
            return_exceptions=True,
        )
        assert [type(answer).__name__ for answer in answers] == ["LedgerError", "Settlement", "Hold"]


async def test_a_bad_row_of_the_usage_log_is_set_aside_and_the_others_stay(ledger_url, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with opened(ledger_url) as ledger:
        await ledger.hold(ask())
        ledger.record_lease(lease(number=1, end=10))
        ledger.record_lease(lease(number=2, start=10, end=20, outcome=None))
        ledger.record_lease(lease(number=3, start=20, end=30))
        await ledger.settle("s", used(), reason="idle")
        assert query(ledger_url, "SELECT use_number FROM lease ORDER BY 1") == [(1,), (3,)]
    assert len(list(tmp_path.rglob("*.rejected"))) == 1


async def test_leases_recorded_before_a_settlement_are_in_it(ledger_url):
    async with opened(ledger_url) as ledger:
        await ledger.hold(ask(max_seconds=6000))
        for number in range(1, 501):
            ledger.record_lease(lease(number=number, start=number, end=number + 1))
        await ledger.settle("s", used(600), reason="idle")
        assert query(ledger_url, "SELECT uses FROM session") == [(500,)]
        assert query(ledger_url, "SELECT COUNT(*), SUM(leases) FROM rollup_hour") == [(1, 500)]


async def test_a_hold_that_nobody_waits_for_any_more_is_given_back(ledger_url):
    async with opened(ledger_url, budgets=[LIMIT]) as ledger:
        waiting = asyncio.create_task(ledger.hold(ask()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await ledger.flush()
        assert query(ledger_url, "SELECT SUM(held_n) FROM budget_window") in ([(0,)], [(None,)])
