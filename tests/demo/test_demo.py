"""The demo as a user starts it: a program, real browsers, few tasks, and an exit code that can be believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import url2pathname

import psutil
import pytest
from tests.conftest import PROOF

from tabkeeper.cli.app import run
from tabkeeper.money import Money
from tabkeeper.reports.render_parts import str_money

TASKS = 15 if PROOF else 8

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(170)]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tabkeeper", "demo", *arguments],
        env=os.environ | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def browsers_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(f"tabkeeper-demo={folder.name}" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_short_demo_holds_what_it_promises_and_tells_it_as_json(tmp_path: Path):
    folder = tmp_path / "kept-by-json"
    ended = demo("--tasks", str(TASKS), "--seed", "7", "--keep", str(folder), "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(ended.stdout)
    assert told["ok"]
    assert told["seed"] == 7
    assert sum(sum(told[how].values()) for how in ("done", "refused", "failed")) == told["tasks"] == TASKS
    assert sum(told["done"].values()) > 0
    assert float(told["budget"]["peak"]) <= float(told["budget"]["limit"])
    assert told["order"]["violations"] == []
    assert told["report"]["totals"]["leases"] == sum(told["done"].values())
    assert {check["name"] for check in told["checks"]} >= {
        "every task counted",
        "the budget was never passed",
        "the queue kept its order",
        "books add up",
        "no paid session forgotten",
        "bills were reconciled",
        "nothing left running",
    }
    assert all(bill["created"] == bill["known"] for bill in told["hosted"]["bills"])
    assert sum(bill["created"] for bill in told["hosted"]["bills"]) > 0
    assert not browsers_of(folder)
    assert f"The report as a page: {(folder / 'report.html').as_uri()}" in ended.stderr
    assert str_money(Money.parse(told["report"]["totals"]["cost"])) in (folder / "report.html").read_text()


def test_a_folder_that_holds_something_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "tabkeeper.toml").write_text("[platforms.web]")
    assert run(["demo", "--keep", str(tmp_path)]) == 2
    assert "give --keep another folder" in capsys.readouterr().err
    assert (tmp_path / "tabkeeper.toml").read_text() == "[platforms.web]"


def test_own_pages_and_plain_lines_where_there_is_no_terminal():
    page = "data:text/html,<title>mine</title><p>my own page"
    ended = demo("--tasks", "4", "--url", page)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 page of yours" in ended.stdout
    assert "Seed 2019" in ended.stdout
    assert "Cost of" in ended.stdout
    assert "All of it held" in ended.stdout
    assert "\x1b[" not in ended.stdout
    # Not kept, but for the page.
    left = Path(url2pathname(ended.stdout.rpartition("The report as a page: file://")[2].strip()))
    assert "<h1>Cost of" in left.read_text(encoding="utf-8")
    left.unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "example.com"], "is no address of a page"),
        (["--tasks", "0"], "--tasks"),
        (["--tasks", "999"], "--tasks"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["demo", *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
