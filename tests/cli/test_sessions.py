"""`status`, `sessions`, `cleanup` and `verify`, with sessions of processes that live and that were killed."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from .conftest import CONFIG, OWNER, Told, contents, kill

Tabkeeper = Callable[..., Told]
WORST = "0.21"
"""A fee of $0.01 and twice ten minutes at $0.60 an hour. The first ten are as long as any run of the tests."""


def data(told: Told) -> Any:
    """What a command said as JSON."""
    assert told.err == "", told
    return json.loads(told.out)


def test_status_shows_sessions_queue_and_budget_of_a_living_process(
    owner: subprocess.Popen[str], tabkeeper: Tabkeeper
) -> None:
    status = data(tabkeeper("status", "--json"))
    (process,) = status["processes"]
    assert (process["pid"], process["alive"]) == (owner.pid, True)
    assert process["snapshot"]["queued"] == 3
    assert {s["id"]: s["state"] for s in status["sessions"]}.keys() == {"s-one", "s-two"}
    assert [s["held"] for s in status["sessions"]] == [WORST, WORST]
    (budget,) = status["budgets"]
    assert (budget["name"], budget["limit"], budget["held"], budget["left"]) == (
        "daily",
        "5.00",
        "0.42",
        "4.58",
    )

    assert budget["resets_at"].endswith("T00:00:00Z")
    assert [budget] == data(tabkeeper("budget", "list", "--json")), "one description of a budget, everywhere"
    for instant in (status["at"], process["heartbeat_at"], status["sessions"][0]["created_at"]):
        assert instant.endswith("Z")
        assert datetime.fromisoformat(instant).tzinfo is UTC

    shown = tabkeeper("status").out
    assert "As of each process's last heartbeat" in shown
    assert "refused" in shown
    assert "Refused" in tabkeeper("budget", "list").out
    for words in (f"{owner.pid}@", "3/1000", "web 3", "2/10", "$0.42", "$4.58", "daily"):
        assert words in shown


def test_a_living_owner_keeps_its_sessions(owner: subprocess.Popen[str], tabkeeper: Tabkeeper) -> None:
    before = data(tabkeeper("sessions", "list", "--json"))
    assert tabkeeper("cleanup").out == "0 sessions cleaned up\n"
    told = tabkeeper("sessions", "close", "s-one")
    assert told.code == 1
    assert f"belongs to process {owner.pid}" in told.err
    assert "pool.close_session('s-one')" in told.err
    assert data(tabkeeper("sessions", "list", "--json")) == before
    assert owner.poll() is None


def test_cleanup_settles_what_a_killed_owner_left_and_gives_the_rest_of_its_holds_back(
    owner: subprocess.Popen[str], tabkeeper: Tabkeeper
) -> None:
    kill(owner)
    assert data(tabkeeper("status", "--json"))["processes"][0]["alive"] is False

    done = data(tabkeeper("cleanup", "--json"))
    assert [(line["session"], line["cost"]) for line in done] == [("s-one", "0.11"), ("s-two", "0.11")]

    status = data(tabkeeper("status", "--json"))
    assert (status["sessions"], status["processes"]) == ([], [])
    (budget,) = status["budgets"]
    assert (budget["held"], budget["spent"]) == ("0.00", "0.22")  # each the fee and ten minutes begun
    closed = data(tabkeeper("sessions", "list", "--closed", "5", "--json"))
    assert {line["id"]: line["cost"] for line in closed} == {"s-one": "0.11", "s-two": "0.11"}
    assert tabkeeper("verify").out == "sqlite:///books.db: every invariant holds\n"


def test_cleanup_again_finds_nothing_and_changes_nothing(left_behind: Path, tabkeeper: Tabkeeper) -> None:
    assert tabkeeper("cleanup").out.splitlines() == [
        "ended s-one (web at local); it cost $0.11 by estimate",
        "ended s-two (web at local); it cost $0.11 by estimate",
        "2 sessions cleaned up",
    ]
    after = contents(left_behind)
    assert tabkeeper("cleanup").out == "0 sessions cleaned up\n"
    assert contents(left_behind) == after


def test_cleanup_tells_each_session_once_and_nothing_on_standard_error(
    left_behind: Path, tabkeeper: Tabkeeper, shell: Tabkeeper
) -> None:
    assert tabkeeper("sessions", "close", "s-two").code == 0
    told = shell("cleanup")
    assert (told.code, told.err) == (0, "")
    assert told.out.count("s-one") == 1
    assert told.out.endswith("\n1 session cleaned up\n")


def test_one_session_of_a_dead_owner_can_be_closed(left_behind: Path, tabkeeper: Tabkeeper) -> None:
    told = tabkeeper("sessions", "close", "s-one")
    assert (told.code, told.out) == (0, "session s-one is ended and settled\n")
    assert [line["id"] for line in data(tabkeeper("sessions", "list", "--json"))] == ["s-two"]
    again = tabkeeper("sessions", "close", "s-one")
    assert again.code == 0
    assert "ended already" in again.out
    assert tabkeeper("verify").code == 0


def test_looking_leaves_no_trace(left_behind: Path, tabkeeper: Tabkeeper) -> None:
    before = contents(left_behind)
    for command in ("status", "sessions list", "verify", "db current", "db check", "doctor --no-start"):
        assert tabkeeper(*command.split()).code == 0, command
    assert contents(left_behind) == before


def test_tidying_with_another_configuration_leaves_the_budgets_alone(
    left_behind: Path, tabkeeper: Tabkeeper
) -> None:
    """A shell rarely has the pool's own configuration at hand; that must not take a budget away."""
    Path("tabkeeper.toml").write_text('[ledger]\nurl = "sqlite:///books.db"', encoding="utf-8")
    assert tabkeeper("verify").code == 0
    assert "2 sessions cleaned up" in tabkeeper("cleanup").out
    Path("tabkeeper.toml").write_text(CONFIG, encoding="utf-8")
    (budget,) = data(tabkeeper("status", "--json"))["budgets"]
    assert (budget["name"], budget["limit"], budget["spent"]) == ("daily", "5.00", "0.22")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE budget_window SET held_n = held_n + 1",
        "UPDATE hold SET amount_n = amount_n + 1 WHERE session_id = 's-one'",
    ],
)
def test_verify_finds_damage_and_names_the_invariant(
    damage: str, left_behind: Path, tabkeeper: Tabkeeper
) -> None:
    with sqlite3.connect(left_behind) as connection:
        for trigger in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger[0]}")
        connection.execute(damage)
    connection.close()
    told = tabkeeper("verify")
    assert told.code == 1
    assert told.err == ""
    violations = data(tabkeeper("verify", "--json"))["violations"]
    assert violations
    assert all(
        violation["name"] and violation["meaning"] and violation["rows"] > 0 for violation in violations
    )
    assert violations[0]["name"] in told.out


def test_a_pool_that_never_ran_has_nothing_to_show(folder: Path, tabkeeper: Tabkeeper) -> None:
    assert tabkeeper("db", "upgrade").code == 0
    shown = tabkeeper("status").out
    for words in ("no pool is open", "no session is open", "no budget is set"):
        assert words in shown
    assert tabkeeper("sessions", "list").out == "no sessions\n"


@pytest.mark.postgres
def test_all_of_it_works_on_postgres(
    postgres_url: str, folder: Path, tabkeeper: Tabkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABKEEPER_LEDGER__URL", postgres_url)
    (folder / "tabkeeper.toml").write_text(CONFIG, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(data(tabkeeper("status", "--json"))["sessions"]) == 2
        assert tabkeeper("cleanup").out == "0 sessions cleaned up\n"
        kill(process)
    assert "2 sessions cleaned up" in tabkeeper("cleanup").out
    for command in (
        "verify",
        "db current",
        "db check",
        "doctor --no-start",
        "status",
        "sessions list --closed 9",
    ):
        told = tabkeeper(*command.split())
        assert (told.code, told.err) == (0, ""), told
    assert data(tabkeeper("status", "--json"))["budgets"][0]["spent"] == "0.22"
    assert list(folder.iterdir()) == [folder / "tabkeeper.toml"]
