"""`tabkeeper run` killed at any moment, again and again, ends with what an undisturbed run ends with; Ctrl-C drains."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Violation

from .loopback import Tree

pytestmark = [
    pytest.mark.browser,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
]
PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
KILLS, PAGES = (50, 500) if PROOF else (3, 30)
HERE = Path(__file__).parent
CONFIG = """
[ledger]
url = "sqlite:///books.db"
[providers.local]
kind = "local"
[providers.local.rates]
per_hour = "0.06"
[platforms.web]
"""


@contextmanager
def crawling(folder: Path, tree: Tree, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A run as a user would start it."""
    (folder / "tabkeeper.toml").write_text(CONFIG)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TABKEEPER_")}
    if "TABKEEPER_CHROMIUM" in os.environ:
        environment["TABKEEPER_CHROMIUM"] = os.environ["TABKEEPER_CHROMIUM"]
    command = [sys.executable, "-m", "tabkeeper", "run", f"{HERE}/visitor.py:parse", "--sites", tree.start]
    options = ["--instance-limit", "4", "--name", "tree", "--out", "items.jsonl", "--max-cost", "5", "--json"]
    with subprocess.Popen(
        [*command, *options, *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def done(folder: Path) -> int:
    """Pages that are done, according to the ledger; none while there is none."""
    if not (folder / "books.db").exists():
        return 0
    with closing(sqlite3.connect(folder / "books.db", timeout=30)) as database:
        try:
            return database.execute("SELECT COUNT(*) FROM run_page WHERE state = 'done'").fetchone()[0]
        except sqlite3.OperationalError:  # its schema is being made
            return 0


def wait_until_done(process: subprocess.Popen[str], folder: Path, pages: int) -> None:
    while done(folder) < pages:
        if process.poll() is not None:
            raise AssertionError(f"it ended by itself: {process.communicate()}")
        time.sleep(0.01)


async def violations(folder: Path) -> list[Violation]:
    ledger = await Ledger.open(
        parse_config({"ledger": {"url": f"sqlite:///{folder}/books.db"}}), observe=True
    )
    try:
        return await ledger.verify()
    finally:
        await ledger.aclose()


def items(folder: Path) -> list[str]:
    lines = (folder / "items.jsonl").read_text().splitlines()
    return sorted(json.loads(line)["title"] for line in lines)


@pytest.mark.proof
@pytest.mark.timeout(3000 if PROOF else 300)
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(tmp_path):
    chance = random.Random(11)
    with Tree(PAGES) as tree:
        resume: tuple[str, ...] = ()
        for number in range(KILLS):
            with crawling(tmp_path, tree, *resume) as process:
                # Most die at work, some before they come to it.
                more = chance.choice([0, 1, 2, 3, PAGES // KILLS - 3])
                if number == 0 or more:
                    wait_until_done(process, tmp_path, min(done(tmp_path) + max(1, more), PAGES - 1))
                time.sleep(chance.uniform(0.0, 0.4))
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            resume = ("--resume",)
        with crawling(tmp_path, tree, *resume) as process:
            said, errors = process.communicate()
            assert process.returncode == 0, errors
        expected = tree.items()
        assert sum(tree.seen.values()) >= PAGES
    summary = json.loads(said)
    assert summary["committed"]
    assert (summary["pages"], summary["items"], summary["failed"]) == (PAGES, PAGES, 0)
    assert items(tmp_path) == expected
    assert asyncio.run(violations(tmp_path)) == []


@pytest.mark.timeout(300)
def test_ctrl_c_lets_visits_end_and_the_rest_is_done_by_resuming(tmp_path):
    with Tree(14) as tree:
        with crawling(tmp_path, tree) as process:
            wait_until_done(process, tmp_path, 3)
            process.send_signal(signal.SIGINT)
            said, errors = process.communicate()
        assert process.returncode == 130, errors
        stopped = json.loads(said)
        assert stopped["drained"]
        assert not stopped["committed"]
        assert items(tmp_path) == sorted(set(items(tmp_path)))
        assert len(items(tmp_path)) == stopped["pages"] == sum(tree.seen.values()), "what was begun was ended"
        with crawling(tmp_path, tree, "--resume") as process:
            said, errors = process.communicate()
            assert process.returncode == 0, errors
        assert items(tmp_path) == tree.items()
        assert set(tree.seen.values()) == {1}
