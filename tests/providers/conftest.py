"""Real browsers, real owners: what the provider tests share."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import ConfigError
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import Provider, SessionSpec
from tabkeeper.providers.cdp import CdpProvider
from tabkeeper.providers.chromium import environment, find_browser, flags
from tabkeeper.providers.emulator import KINDS, BrowserbaseEmulator, Emulator, serving
from tabkeeper.providers.local import LocalProvider

KEY = "bb_test_key"
LOCAL = ProviderSettings(kind="local")


def spec(session_id: str = "s1") -> SessionSpec:
    return SessionSpec(session_id=session_id, platform="web", max_seconds=60)


def processes_of(folder: Path | str) -> list[psutil.Process]:
    """Everything that runs and names `folder` in its command line, the watchdog included."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        # A brief look between the two questions of psutil may see the end of a process: zombies run no more.
        if (
            str(folder) in line
            and process.info["status"] != psutil.STATUS_ZOMBIE
            and process.pid != os.getpid()
        ):
            found.append(process)
    return found


def browsers_of(folder: Path | str) -> list[psutil.Process]:
    return [p for p in processes_of(folder) if "watchdog.py" not in " ".join(p.info["cmdline"])]


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Look until `condition` holds; blocks the loop on purpose, so that nothing of ours can help."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Losses:
    """An `on_lost` that remembers."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, session_id: str, reason: str) -> None:
        self.told.append((session_id, reason))


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Like the real place: short (sockets live below it) and private; whatever is left there is killed."""
    with tempfile.TemporaryDirectory(prefix="tk-", ignore_cleanup_errors=True) as path:
        yield Path(path).resolve()
        for process in processes_of(path):
            process.kill()


@pytest.fixture(scope="session")
def remote_browser() -> Iterator[str]:
    """A Chromium that is not ours: its http address."""
    try:
        executable = find_browser("local", LOCAL)
    except ConfigError as error:
        pytest.fail(str(error))
    with tempfile.TemporaryDirectory(prefix="tk-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [executable, *flags("local", LOCAL), f"--user-data-dir={folder}"],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment(),
        )
        assert process.stderr is not None
        port = next(m[1] for line in process.stderr if (m := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
        yield f"http://127.0.0.1:{port}"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        eventually(lambda: not processes_of(folder))


@pytest.fixture
def losses() -> Losses:
    return Losses()


def settings(kind: str, **more: Any) -> ProviderSettings:
    """Settings of a hosted provider."""
    return ProviderSettings(kind=kind, api_key=KEY, **more)


def at(emulator: Emulator, **more: Any) -> ProviderSettings:
    """Settings of the adapter for an emulator."""
    return settings(emulator.kind, base_url=emulator.url, **more)


@pytest.fixture
async def emulator(request) -> AsyncIterator[Emulator]:
    """The emulator that a test module names."""
    async with serving(request.module.EMULATOR(keys=[request.module.KEY])) as made:
        yield made
        assert made.running == []


@pytest.fixture
async def browserbase() -> AsyncIterator[BrowserbaseEmulator]:
    async with serving(BrowserbaseEmulator(keys=[KEY])) as emulator:
        yield emulator
        assert emulator.running == []


@pytest.fixture(params=["context", "process", "cdp", *KINDS])
async def provider(request, state_dir: Path, losses: Losses) -> AsyncIterator[Provider]:
    """One of each kind, started."""
    made: Provider
    if request.param in KINDS:
        async with serving(KINDS[request.param](keys=[KEY])) as emulator:
            made = make_provider("far", at(emulator))
            await made.start(losses)
            yield made
            await made.aclose()
            assert emulator.running == []
        return
    if request.param == "cdp":
        url = request.getfixturevalue("remote_browser")
        made = CdpProvider("cdp", ProviderSettings(kind="cdp", url=url))
    else:
        settings = ProviderSettings(kind="local", isolation=request.param)
        made = LocalProvider("local", settings, state_dir=state_dir)
    await made.start(losses)
    yield made
    await made.aclose()


@pytest.fixture(params=["context", "process"])
async def local(request, state_dir: Path, losses: Losses) -> AsyncIterator[LocalProvider]:
    made = LocalProvider(
        "local", ProviderSettings(kind="local", isolation=request.param), state_dir=state_dir
    )
    await made.start(losses)
    yield made
    await made.aclose()


@pytest.fixture
async def shared(state_dir: Path, losses: Losses) -> AsyncIterator[LocalProvider]:
    made = LocalProvider("local", LOCAL, state_dir=state_dir)
    await made.start(losses)
    yield made
    await made.aclose()


@pytest.fixture
def fake_browser(tmp_path: Path) -> Callable[[str], Path]:
    """Write a program that only plays a browser."""

    def write(script: str) -> Path:
        path = tmp_path / "browser"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return path

    return write


@dataclass
class Owner:
    """A child Python process that owns browsers; see owner.py."""

    process: subprocess.Popen[str]
    browser: int
    browser_started: float
    watchdog: int | None
    run_dir: Path
    child: int | None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(10)


@pytest.fixture
def owner(state_dir: Path) -> Iterator[Callable[..., Owner]]:
    started: list[Owner] = []

    def start(mode: str, isolation: str = "context") -> Owner:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("owner.py")), str(state_dir), mode, isolation],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.stdout.close()
            pytest.fail(f"the owner ended with status {process.wait(10)} before it owned anything")
        facts = json.loads(line)
        facts["run_dir"] = Path(facts["run_dir"])
        started.append(Owner(process, **facts))
        return started[-1]

    yield start
    for one in started:
        if one.child is not None and psutil.pid_exists(one.child):
            os.kill(one.child, signal.SIGKILL)
        if one.process.poll() is None:
            one.kill()
        assert one.process.stdout is not None
        one.process.stdout.close()


@pytest.fixture
def tools() -> type[Tools]:
    return Tools


class Tools:
    """The functions above, for test modules (which cannot import each other)."""

    key = KEY
    at = staticmethod(at)
    settings = staticmethod(settings)
    spec = staticmethod(spec)
    processes_of = staticmethod(processes_of)
    browsers_of = staticmethod(browsers_of)
    eventually = staticmethod(eventually)
