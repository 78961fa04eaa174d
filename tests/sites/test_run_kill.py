"""`tabkeeper run` killed at any moment, again and again, ends as an undisturbed one does; Ctrl-C lets visits end."""

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

from tabkeeper.cli.app import run
from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Violation
from tabkeeper.sites.finds import Finds
from tabkeeper.sites.runs import Gain, Run, Runs

from .forgetful import forgetful
from .loopback import Tree

pytestmark = [
    pytest.mark.browser,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
]
PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
KILLS, PAGES = (50, 500) if PROOF else (1, 10)
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


def asked_for(tree: Tree, *more: str, visitor: str = "visitor") -> list[str]:
    options = ["--instance-limit", "4" if PROOF else "2", "--name", "tree", "--max-cost", "5", "--json"]
    run = ["run", f"{HERE}/{visitor}.py:parse", "--sites", tree.start, "--out", "items.jsonl"]
    return [*run, *options, *more]


@contextmanager
def crawling(
    folder: Path, tree: Tree, *more: str, visitor: str = "visitor", **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """A run as a user would start it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TABKEEPER_")}
    if "TABKEEPER_CHROMIUM" in os.environ:
        environment["TABKEEPER_CHROMIUM"] = os.environ["TABKEEPER_CHROMIUM"]
    command = [sys.executable, "-m", "tabkeeper", *asked_for(tree, *more, visitor=visitor)]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment | variables,
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


@pytest.fixture
def here(tmp_path, sqlite_url, monkeypatch):
    """A folder with a configuration and a fresh ledger, in which commands are carried out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tabkeeper.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.proof
@pytest.mark.timeout(3000 if PROOF else 300)
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(here, capsys, record_property):
    chance = random.Random(11)
    with Tree(PAGES) as tree:
        resume: tuple[str, ...] = ()
        for number in range(KILLS):
            with crawling(here, tree, *resume) as process:
                # Most die at work, some before they come to it.
                more = chance.choice([0, 1, 2, 3, PAGES // KILLS - 3])
                if number == 0 or more:
                    wait_until_done(process, here, min(done(here) + max(1, more), PAGES - 1))
                time.sleep(chance.uniform(0.0, 0.4))
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            resume = ("--resume",)
        assert run(asked_for(tree, *resume)) == 0
        expected = tree.items()
        assert sum(tree.seen.values()) >= PAGES
        record_property("kills", KILLS)
        record_property("pages", PAGES)
        record_property("asked_for_twice", sum(tree.seen.values()) - PAGES)
    summary = json.loads(capsys.readouterr().out)
    assert summary["committed"]
    assert (summary["pages"], summary["items"], summary["failed"]) == (PAGES, PAGES, 0)
    assert items(here) == expected
    assert asyncio.run(violations(here)) == []


@pytest.mark.skipif(not PROOF, reason="the control at full length; its short form is below")
@pytest.mark.timeout(3000)
def test_the_control_that_writes_in_two_steps_loses_items_when_it_is_killed(here, capsys, record_property):
    kills, pages = 5, 60
    with Tree(pages) as tree:
        for number in range(kills):
            resume = ("--resume",) if number else ()
            with crawling(here, tree, *resume, visitor="forgetful", FORGETFUL="1") as process:
                wait_until_done(process, here, done(here) + 3)
                (here / "dies").touch()
                assert process.wait() == -signal.SIGKILL
        assert run(asked_for(tree, "--resume")) == 0
        expected = tree.items()
    summary = json.loads(capsys.readouterr().out)
    assert (summary["committed"], summary["pages"]) == (True, pages)
    lost = len(expected) - len(items(here))
    record_property("lost", lost)
    assert lost >= kills, "the control remembers all by now: it is none"


async def test_what_is_written_in_two_steps_is_lost_between_them(here, monkeypatch):
    class Died(BaseException):
        pass

    def die():
        raise Died

    config = parse_config({"ledger": {"url": f"sqlite:///{here}/books.db"}})
    one = Run(id="r1", name="two steps", sites=("a.example",))
    found = []
    for careless in (True, False):
        ledger = await Ledger.open(config)
        runs = Runs(ledger)
        if careless:
            pages = await runs.start(one, [(f"https://a.example/{n}", "a.example") for n in range(3)])
            with monkeypatch.context() as patch, pytest.raises(Died):
                patch.setattr(Runs, "update", forgetful(die))
                await runs.update(one, pages[0], Gain(items=['"0"']))
        else:
            _, pages = await runs.resume("two steps")
            for page in pages:
                await runs.update(one, page, Gain(items=[f'"{page.url[-1]}"']))
            found = [item.body for item in await Finds(ledger).items(one, 0)]
            await runs.commit(one)
        await ledger.aclose()
    assert found == ['"1"', '"2"'], "the control remembers all by now: it is none"


@pytest.mark.timeout(300)
def test_ctrl_c_lets_visits_end_and_leaves_a_run_that_can_be_resumed(here, capsys):
    with Tree(14) as tree:
        tree.asked = lambda page: os.kill(os.getpid(), signal.SIGINT) if page == 3 else None
        assert run(asked_for(tree)) == 130
        asked = sum(tree.seen.values())
    stopped = json.loads(capsys.readouterr().out)
    assert stopped["drained"]
    assert not stopped["committed"]
    assert "thing 3" in items(here), "the visit that ran was ended"
    assert items(here) == sorted(set(items(here)))
    assert len(items(here)) == stopped["pages"] == asked < 14, (
        "what was begun was ended, and no more was begun"
    )
    assert stopped["pending"] > 0
