"""The command line as a whole: help, exit codes, where the configuration is found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from tabkeeper import __version__
from tabkeeper.cli import app as cli
from tabkeeper.cli.options import config_path
from tabkeeper.errors import (
    BudgetExceededError,
    ConfigError,
    LedgerUnavailableError,
    ProviderAuthError,
    SchemaVersionError,
    TabkeeperError,
)
from tabkeeper.money import Money

from .conftest import Told


def commands() -> list[list[str]]:
    """Every command and group."""
    found: list[list[str]] = [[]]
    for name, command in get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        found.append([name])
        found += [[name, child] for child in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(
    command: list[str], tabkeeper: Callable[..., Told]
) -> None:
    told = tabkeeper(*command, "--help")
    assert (told.code, told.err) == (0, "")
    assert "Usage: tabkeeper" in told.out
    groups = {"sessions", "report", "budget", "rates", "db"}
    if command and command[-1] not in groups:
        assert f"tabkeeper {' '.join(command)}" in told.out.replace("Usage: ", "", 1), "no example"


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_flags_stand_alone_in_help(command: list[str], tabkeeper: Callable[..., Told]) -> None:
    assert "<bool>" not in tabkeeper(*command, "--help").out


@pytest.mark.parametrize(
    "group", [c for c in commands() if c in [[], ["report"], ["budget"], ["rates"], ["db"]]]
)
def test_a_group_without_its_command_prints_its_help_and_nothing_else(
    group: list[str], tabkeeper: Callable[..., Told]
) -> None:
    told = tabkeeper(*group)
    assert (told.code, told.err) == (2, "")
    assert f"Usage: {' '.join(['tabkeeper', *group])}" in told.out


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("stats", "tabkeeper --help"),
        ("report dya", "tabkeeper report --help"),
        ("report day --jsn", "tabkeeper report day --help"),
        ("report day --date soon", "tabkeeper report day --help"),
        ("db check --jsn", "tabkeeper db check --help"),
        ("sessions close", "tabkeeper sessions close --help"),
    ],
)
def test_a_mistake_in_a_command_names_the_help_of_that_command(
    line: str, path: str, tabkeeper: Callable[..., Told]
) -> None:
    told = tabkeeper(*line.split())
    assert (told.code, told.out) == (2, "")
    assert told.err.endswith(f"; see {path}\n")
    assert told.err.count("\n") == 1


def test_the_expected_commands_are_there() -> None:
    names = {tuple(command) for command in commands()}
    assert names >= {
        ("init",), ("doctor",), ("demo",), ("status",), ("verify",), ("cleanup",),
        ("db", "upgrade"), ("db", "check"), ("db", "current"),
        ("sessions", "list"), ("sessions", "close"), ("report", "day"), ("report", "month"),
    }  # fmt: skip


def test_the_version_is_told(tabkeeper: Callable[..., Told]) -> None:
    assert tabkeeper("--version") == Told(0, f"tabkeeper {__version__}\n", "")


def _over_budget() -> BudgetExceededError:
    zero = Money(0)
    return BudgetExceededError(
        budget="daily",
        limit=zero,
        spent=zero,
        held=zero,
        needed=Money(1),
        resets_at=None,
        subject="a session",
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("two\nlines"), 2),
        (LedgerUnavailableError("away"), 2),
        (SchemaVersionError("old"), 2),
        (TabkeeperError("wrong"), 1),
        (_over_budget(), 1),
        (ProviderAuthError("far", "no key"), 1),
        (KeyboardInterrupt(), 130),
        (typer.Exit(3), 3),
    ],
)
def test_every_error_becomes_one_line_and_its_exit_code(
    error: BaseException, code: int, tabkeeper: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = typer.Typer()

    @broken.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", broken)
    told = tabkeeper()
    assert told.code == code
    assert told.out == ""
    assert told.err.count("\n") == (1 if isinstance(error, TabkeeperError) else 0)
    assert "Traceback" not in told.err


def test_a_reader_that_goes_away_is_no_traceback(folder: Path) -> None:
    command = f"{sys.executable} -m tabkeeper doctor --no-start --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def test_the_configuration_is_found_by_option_then_variable_then_folder(folder: Path) -> None:
    assert config_path(None, {}) is None
    (folder / "tabkeeper.toml").touch()
    assert config_path(None, {}) == Path("tabkeeper.toml")
    assert config_path(None, {"TABKEEPER_CONFIG": ""}) == Path("tabkeeper.toml")
    assert config_path(None, {"TABKEEPER_CONFIG": "b.toml"}) == Path("b.toml")
    assert config_path(Path("a.toml"), {"TABKEEPER_CONFIG": "b.toml"}) == Path("a.toml")
