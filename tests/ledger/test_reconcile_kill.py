"""Processes killed while they reconcile: every session is compared or still due, adjusted once, and the books sound."""

import os
import random
import signal
import time

import pytest

from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.ledger import Ledger

from .builders import ask, config, lease, query, used
from .killed_reconciling import BUDGETS, MINUTE, SESSIONS, minutes
from .test_kill import Workers

KILLS = 100 if os.environ.get("TABKEEPER_PROOF") == "1" else 6  # on each of the two databases


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_kill_9_in_the_middle_of_a_reconciliation(ledger_url, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    ledger = await Ledger.open(config(ledger_url, budgets=BUDGETS))
    for number in range(SESSIONS):
        await ledger.hold(ask(f"s{number}"))
        ledger.record_lease(lease(f"s{number}", 1, 0, 50, tenant="acme"))
        await ledger.activate(f"s{number}", provider_session_id=f"p{number}")
        await ledger.settle(f"s{number}", used(60), reason="idle")
    await ledger.aclose()

    notes, chance = tmp_path / "notes", random.Random(7)
    notes.mkdir()
    workers = Workers(ledger_url, notes, "tests.ledger.killed_reconciling")
    alive = [workers.start(), workers.start()]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.15))
        os.kill(alive.pop(chance.randrange(2)), signal.SIGKILL)
        alive.append(workers.start())
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    workers.close()

    ledger = await Ledger.open(config(ledger_url, budgets=BUDGETS))
    assert await ledger.verify() == []
    assert query(ledger_url, "SELECT COUNT(*) FROM entry WHERE kind = 'adjust'")[0][0] > SESSIONS
    for number in range(SESSIONS):
        found = await ledger.reconciliation.compare(
            f"s{number}", Figures(seconds_us=minutes(number) * MINUTE)
        )
        assert found.theirs.nanos == minutes(number) * 10_000_000
    assert await ledger.verify() == []
    await ledger.aclose()
    total = sum(minutes(number) for number in range(SESSIONS)) * 10_000_000
    assert query(ledger_url, "SELECT spent_n, held_n FROM budget_window") == [(total, 0), (total, 0)]
