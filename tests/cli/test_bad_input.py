"""The table of bad input: each gives one clear line on standard error and exit code 2, and loses nothing."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .conftest import CONFIG, Told, contents

NO_BROWSER = {
    "TABKEEPER_CHROMIUM": "",
    "PATH": "/nonexistent",
    "HOME": "/nonexistent",
    "XDG_CACHE_HOME": "/nonexistent",
}


@dataclass(frozen=True, slots=True)
class Bad:
    """One row: what is added to a good configuration, the command, and what the line must say."""

    says: list[str]
    toml: str = ""
    command: str = "status"
    env: Mapping[str, str] = field(default_factory=dict)
    replace: tuple[str, str] = ("", "")
    real: bool = False
    """As a process of its own; the others call what that process calls, which takes a tenth of the time."""


def url(address: str, command: str, *says: str) -> Bad:
    return Bad([*says], command=command, replace=("sqlite:///books.db", address))


TABLE = {
    "unknown key": Bad(["unknown key 'platforms.web.max_session'", "'max_sessions'"], "max_session = 3", real=True),
    "unknown section": Bad(["unknown key 'pools'", "did you mean 'pool'?"], "[pools]\nx = 1"),
    "bad zone": Bad(["budgets.0.timezone", "did you mean", "'America/New_York'"],
                    replace=('limit = "5.00"', 'limit = "5.00"\ntimezone = "America/NewYork"')),
    "unset variable": Bad(["providers.far.url", "DATABASE_KEY is not set"],
                          '[providers.far]\nkind = "cdp"\nurl = "env:DATABASE_KEY"'),
    "unknown provider of a platform": Bad(["platforms.mail.providers", "no provider 'lokal'", "'local'"],
                                          '[platforms.mail]\nproviders = ["lokal"]'),
    "unknown platform of a budget": Bad(["budgets.0.platform", "no platform 'wep'", "'web'"],
                                        replace=('limit = "5.00"', 'limit = "5.00"\nplatform = "wep"')),
    "unknown provider of a budget": Bad(["budgets.0.provider", "no provider 'far'"],
                                        replace=('limit = "5.00"', 'limit = "5.00"\nprovider = "far"')),
    "zero budget": Bad(["budgets.0", "zero refuses everything"], replace=("5.00", "0.00")),
    "zero sessions": Bad(["platforms.web.max_sessions", "greater than or equal to 1"], "max_sessions = 0"),
    "zero queue": Bad(["pool.max_queued", "greater than or equal to 1"], "[pool]\nmax_queued = 0"),
    "negative range of priorities": Bad(["priorities", "[-5, 5]"], "[pool]\npriorities = [5, -5]"),
    "money as a decimal number": Bad(["budgets.0.limit", '"5.5"'], replace=('"5.00"', "5.5")),
    "bad duration": Bad(["pool.session_ttl", "'ten minutes'", "'10m'"], '[pool]\nsession_ttl = "ten minutes"'),
    "no TOML": Bad(["not valid TOML"], "[pool"),
    "override of an unknown key": Bad(["pool.max_session"], env={"TABKEEPER_POOL__MAX_SESSION": "3"}),
    "missing file": Bad(["there is no file nowhere.toml", "tabkeeper init"], command="status -c nowhere.toml"),
    "missing file by variable": Bad(["there is no file gone.toml"], env={"TABKEEPER_CONFIG": "gone.toml"}),
    "doctor with a mistake": Bad(["unknown key"], "max_session = 3", command="doctor"),
    "no such database": url("mysql://root@localhost/x", "status", "ledger.url", "postgresql://"),
    "no address": url("books.db", "status", "ledger.url", "sqlite:///tabkeeper.db"),
    "unreachable database": url("postgresql://x:secret@127.0.0.1:1/x", "status", "127.0.0.1:1"),
    "unreachable database, verify": url("postgresql://x:secret@127.0.0.1:1/x", "verify", "127.0.0.1:1"),
    "unreachable database, upgrade": url("postgresql://x:secret@127.0.0.1:1/x", "db upgrade", "127.0.0.1:1"),
    "read-only disk": url("sqlite:////proc/sys/books.db", "db upgrade", "/proc/sys/books.db", "unable to open"),
    "file as a folder": url("sqlite:///tabkeeper.toml/books.db", "db upgrade", "unable to open"),
    "folder as a file": url("sqlite:////tmp", "verify", "/tmp"),
    "no database yet": url("sqlite:///other.db", "status", "no ledger at other.db yet", "tabkeeper db upgrade"),
    "not a database": url("sqlite:///tabkeeper.toml", "status", "not a database"),
    "report of no day": Bad(["2026-13-01"], command="report day --date 2026-13-01"),
    "session that is not known": Bad(["knows no session 's-nine'"], command="sessions close s-nine"),
    "file that exists": Bad(["tabkeeper.toml exists already", "--force"], command="init"),
    "place that cannot be written": Bad(["/proc/sys/x.toml cannot be written"], command="init /proc/sys/x.toml"),
    "unknown option": Bad(["No such option: --jsn"], command="status --jsn"),
    "unknown command": Bad(["No such command 'stats'"], command="stats"),
    "missing argument": Bad(["Missing argument"], command="sessions close"),
    "missing browser": Bad(["needs Chromium", "playwright install chromium"], command="demo", env=NO_BROWSER,
                           real=True),
    "browser that is none": Bad(["TABKEEPER_CHROMIUM", "/nonexistent/chrome"], command="demo",
                                env={"TABKEEPER_CHROMIUM": "/nonexistent/chrome"}, real=True),
}  # fmt: skip


@pytest.mark.parametrize("bad", TABLE.values(), ids=TABLE)
def test_bad_input_gives_one_line_and_exit_code_2_and_nothing_is_lost(
    bad: Bad,
    left_behind: Path,
    shell: Callable[..., Told],
    tabkeeper: Callable[..., Told],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = CONFIG.replace(*bad.replace) if bad.replace[0] else CONFIG
    Path("tabkeeper.toml").write_text(config + bad.toml, encoding="utf-8")
    before, files = contents(left_behind), sorted(Path().iterdir())

    for name, value in bad.env.items():
        monkeypatch.setenv(name, value)
    told = (shell if bad.real else tabkeeper)(*bad.command.split())

    assert told.code == 2, told
    assert told.err.startswith("tabkeeper: "), told
    assert told.err.count("\n") == 1, told
    for words in bad.says:
        assert words in told.err
    assert "secret" not in told.err
    assert contents(left_behind) == before
    assert sorted(file for file in Path().iterdir() if file.suffix not in {".db-wal", ".db-shm"}) == files


def test_a_ledger_of_a_newer_version_is_refused_by_every_command(
    left_behind: Path, tabkeeper: Callable[..., Told]
) -> None:
    with sqlite3.connect(left_behind) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9001'")
        connection.execute("UPDATE ledger_meta SET value = '9000' WHERE key = 'good_from'")
    connection.close()
    before = contents(left_behind)
    for command in ("status", "verify", "cleanup", "db upgrade", "db check", "report day"):
        told = tabkeeper(*command.split())
        assert (told.code, told.err.count("\n")) == (2, 1), told
        assert "9001" in told.err
        assert "pip install -U tabkeeper" in told.err
    assert contents(left_behind) == before


def test_a_file_system_that_turned_read_only_stops_every_command_and_keeps_the_ledger(
    left_behind: Path, tabkeeper: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Path("disk").absolute()
    disk.mkdir()
    if (
        subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False
        ).returncode
        != 0
    ):
        pytest.skip("only root may mount a file system")
    try:
        ledger = Path(shutil.copy(left_behind, disk / "books.db"))
        before = ledger.read_bytes()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True, check=True)
        monkeypatch.setenv("TABKEEPER_LEDGER__URL", f"sqlite:///{ledger}")
        for command in ("status", "verify", "cleanup", "db upgrade", "report day"):
            told = tabkeeper(*command.split())
            assert (told.code, told.err.count("\n")) == (2, 1), told
            assert str(ledger) in told.err
        assert ledger.read_bytes() == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)
