"""Running commands, in this process or as a user would, beside a ledger that holds something worth losing."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tabkeeper.cli.app import run

CONFIG = """
[ledger]
url = "sqlite:///books.db"
auto_upgrade = true

[[budgets]]
name = "daily"
limit = "5.00"

[providers.local]
kind = "local"

[providers.local.rates]
per_session = "0.01"
per_hour = "0.60"
increment = "10m"

[platforms.web]
"""

OWNER = """
import asyncio, sys
from tabkeeper.config import load_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest

async def main():
    ledger = await Ledger.open(load_config("tabkeeper.toml"))
    for name in ("s-one", "s-two"):
        ask = HoldRequest(session_id=name, platform="web", provider="local", tenant="acme", max_seconds=1200)
        await ledger.hold(ask)
    await ledger.activate("s-one", provider_session_id="p-one")
    await ledger.owners.heartbeat({"sessions": 2, "max_sessions": 10, "leased": 1, "queued": 3, "max_queued": 1000,
                            "platforms": {"web": {"queued": 3}}})
    print("ready", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without settings from outside."""
    for name in list(os.environ):
        if name == "TABKEEPER_CONFIG" or (name.startswith("TABKEEPER_") and "__" in name):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tabkeeper(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Run a command in this process."""

    def call(*arguments: str) -> Told:
        capsys.readouterr()
        code = run(list(arguments))
        out, err = capsys.readouterr()
        return Told(code, out, err)

    return call


@pytest.fixture
def shell(folder: Path) -> Callable[..., Told]:
    """Run a command as a process of its own, as a user does."""

    def call(*arguments: str, env: Mapping[str, str] | None = None) -> Told:
        done = subprocess.run(
            [sys.executable, "-m", "tabkeeper", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **(env or {})},
        )
        return Told(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has two sessions open; it lives until the test ends or kills it."""
    (folder / "tabkeeper.toml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill as `kill -9` does, and wait until nothing is left of it."""
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="session")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which a killed process left two sessions open."""
    where = tmp_path_factory.mktemp("books")
    (where / "tabkeeper.toml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(
        command, cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        kill(process)
    with sqlite3.connect(where / "books.db") as connection:  # one file is easier to copy than three
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return where / "books.db"


@pytest.fixture
def left_behind(folder: Path, books: Path) -> Path:
    """A copy of `books` in the working directory, with its configuration."""
    (folder / "tabkeeper.toml").write_text(CONFIG, encoding="utf-8")
    return Path(shutil.copy(books, folder / "books.db"))


def contents(database: Path) -> list[str]:
    """Everything in a ledger, as text."""
    connection = sqlite3.connect(database)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()
