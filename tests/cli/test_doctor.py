"""`tabkeeper doctor`: what is well, what is not, and what to do about it. It changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import CONFIG, Told

Tabkeeper = Callable[..., Told]


def checks(told: Told) -> dict[str, tuple[str, str, str]]:
    """Level, detail and advice of each check."""
    return {c["name"]: (c["level"], c["detail"], c["advice"]) for c in json.loads(told.out)["checks"]}


@pytest.mark.browser
def test_on_a_machine_that_is_fit_everything_is_well_and_a_browser_really_starts(
    left_behind: Path, tabkeeper: Tabkeeper
) -> None:
    told = tabkeeper("doctor", "--json")
    assert told.code == 0
    found = checks(told)
    assert not [name for name, (level, _, _) in found.items() if level == "fail"]
    assert found["migrations"][0] == "ok"
    assert "a browser starts in" in found["local: start"][1]
    shown = tabkeeper("doctor", "--no-start").out
    assert "Ready" in shown.splitlines()[-1]


def test_no_database_is_made_by_looking(folder: Path, tabkeeper: Tabkeeper) -> None:
    found = checks(tabkeeper("doctor", "--no-start", "--json"))
    assert found["database"][0] == "ok"
    assert "does not exist yet" in found["database"][1]
    assert list(folder.iterdir()) == []


def test_a_missing_browser_is_a_failure_with_the_command_that_helps(
    folder: Path, tabkeeper: Tabkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABKEEPER_CHROMIUM", "/nonexistent/chrome")
    told = tabkeeper("doctor", "--json")
    assert told.code == 1
    level, detail, advice = checks(told)["local: browser"]
    assert level == "fail"
    assert "/nonexistent/chrome" in detail
    assert "playwright install chromium" in advice
    assert "checks failed" in tabkeeper("doctor").out


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:////proc/sys/books.db", "/proc/sys/books.db"),
        ("sqlite:////nonexistent/books.db", "is not a directory"),
        ("sqlite:////tmp", "is a directory"),
        ("postgresql://x:secret@127.0.0.1:1/x", "127.0.0.1"),
    ],
)
def test_a_database_that_cannot_be_used_is_a_failure(
    url: str, says: str, folder: Path, tabkeeper: Tabkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABKEEPER_LEDGER__URL", url)
    told = tabkeeper("doctor", "--no-start", "--json")
    assert told.code == 1
    level, detail, advice = checks(told)["database"]
    assert (level, says in detail, bool(advice)) == ("fail", True, True), detail
    assert "secret" not in told.out


def test_a_ledger_in_memory_is_warned_of(
    folder: Path, tabkeeper: Tabkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABKEEPER_LEDGER__URL", "sqlite://")
    told = tabkeeper("doctor", "--no-start", "--json")
    assert told.code == 0
    assert checks(told)["database"][0] == "warn"


def test_a_schema_of_a_newer_version_is_a_failure(left_behind: Path, tabkeeper: Tabkeeper) -> None:
    with sqlite3.connect(left_behind) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9001'")
        connection.execute("UPDATE ledger_meta SET value = '9000' WHERE key = 'good_from'")
    connection.close()
    told = tabkeeper("doctor", "--no-start", "--json")
    assert told.code == 1
    assert checks(told)["migrations"][::2] == ("fail", "pip install -U tabkeeper")


def test_an_empty_database_that_may_not_be_upgraded_names_the_command(
    folder: Path, tabkeeper: Tabkeeper
) -> None:
    (folder / "books.db").touch()
    (folder / "tabkeeper.toml").write_text(CONFIG.replace("= true", "= false"), encoding="utf-8")
    told = tabkeeper("doctor", "--no-start", "--json")
    assert told.code == 1
    assert checks(told)["migrations"][::2] == ("fail", "tabkeeper db upgrade")


def test_a_ledger_that_was_used_in_the_future_means_that_the_clock_is_wrong(
    left_behind: Path, tabkeeper: Tabkeeper
) -> None:
    with sqlite3.connect(left_behind) as connection:
        connection.execute("UPDATE process SET heartbeat_at = heartbeat_at + 86400000000")
    connection.close()
    told = tabkeeper("doctor", "--no-start", "--json")
    assert told.code == 1
    level, detail, advice = checks(told)["ledger clock"]
    assert (level, "future" in detail, "NTP" in advice) == ("fail", True, True)


def test_keys_from_the_environment_are_named_and_an_empty_one_is_warned_of(
    folder: Path, tabkeeper: Tabkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEAR_URL", "sqlite:///x.db")
    monkeypatch.setenv("EMPTY", "")
    toml = '[ledger]\nurl = "env:NEAR_URL"\n[providers.local]\nkind = "local"\nargs = ["env:EMPTY"]'
    (folder / "tabkeeper.toml").write_text(toml, encoding="utf-8")
    told = tabkeeper("doctor", "--no-start", "--json")
    keys = [c for c in json.loads(told.out)["checks"] if c["name"] == "keys"]
    assert [(c["level"], c["detail"]) for c in keys] == [
        ("ok", "from the environment, all set: EMPTY, NEAR_URL"),
        ("warn", "set but empty: EMPTY"),
    ]
