"""Real processes killed at any moment: no acknowledged hold is lost, no budget passed, the books stay sound."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tabkeeper.ledger.ledger import Ledger

from .builders import config, query
from .killed import BUDGETS, billed, due

KILLS = 100 if os.environ.get("TABKEEPER_PROOF") == "1" else 4  # on each of the two databases
ROOT = Path(__file__).parents[2]


class Workers:
    """Starts workers by way of one parent that forks them, and kills them."""

    def __init__(self, url, folder):
        self._url, self._folder = url, folder
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.ledger.killed"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started = 0

    def start(self):
        notes = self._folder / f"notes-{self.started}"
        self.started += 1
        self._parent.stdin.write(f"{self._url} {notes}\n")
        self._parent.stdin.flush()
        pid = int(self._parent.stdout.readline())
        for _ in range(1000):
            if notes.exists() and "ready" in notes.read_text():
                return pid
            time.sleep(0.01)
        raise AssertionError("the worker never opened the ledger")

    def notes(self, word):
        lines = [line for path in self._folder.glob("notes-*") for line in path.read_text().split("\n")[:-1]]
        return {line.split()[1] for line in lines if line.startswith(word)}

    def close(self):
        self._parent.stdin.close()
        self._parent.wait(10)
        self._parent.stdout.close()


@pytest.fixture
def workers(ledger_url, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    workers = Workers(ledger_url, folder)
    yield workers
    workers.close()


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_kill_9_at_any_moment_loses_no_hold_and_breaks_no_rule(
    ledger_url, workers, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    chance = random.Random(7)
    alive = [workers.start(), workers.start()]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(alive.pop(chance.randrange(2)), signal.SIGKILL)
        alive.append(workers.start())
    for pid in alive:
        os.kill(pid, signal.SIGKILL)

    ledger = await Ledger.open(config(ledger_url, budgets=BUDGETS))
    # The kernel needs a moment to take the last two away.
    for _ in range(100):
        if not any(Path(f"/proc/{pid}/cmdline").exists() for pid in alive):
            break
        time.sleep(0.02)
    assert await ledger.verify() == []
    for orphan in await ledger.owners.orphans():
        await ledger.settle_orphan(orphan.session_id, reason="owner was killed")
    assert await ledger.verify() == []
    assert await ledger.owners.orphans() == []
    for one in await due(ledger, most=100_000):
        await ledger.reconciliation.compare(one.session_id, billed(one.session_id))
    again = [
        await ledger.reconciliation.compare(one.session_id, billed(one.session_id))
        for one in await due(ledger, most=200, again=True)
    ]
    assert again, "nothing was compared"
    assert not any(one.adjusted for one in again), "what was adjusted is adjusted once"
    assert await ledger.verify() == []
    await ledger.aclose()

    known = dict(query(ledger_url, "SELECT h.session_id, h.state FROM hold h"))
    held, settled, voided = (workers.notes(word) for word in ("held", "settled", "voided"))
    assert len(held) > KILLS
    assert held - known.keys() == set(), "a hold was acknowledged and is gone"
    assert {known[s] for s in settled} == {"settled"}
    assert {known[s] for s in voided} <= {"voided"}
    assert "open" not in known.values()
    estimated = {row[0] for row in query(ledger_url, "SELECT id FROM session WHERE quality = 'estimate'")}
    assert not estimated & (settled | voided)
    compared = {
        row[0] for row in query(ledger_url, "SELECT session_id FROM recon_item WHERE state = 'compared'")
    }
    assert workers.notes("compared") - compared == set(), "a comparison was acknowledged and is gone"
    twice = "SELECT session_id FROM entry WHERE kind = 'adjust' GROUP BY session_id HAVING COUNT(*) > 1"
    assert query(ledger_url, twice) == []
    over = "SELECT COUNT(*) FROM budget_window WHERE held_n <> 0 OR spent_n > limit_n"
    assert query(ledger_url, over) == [(0,)]
