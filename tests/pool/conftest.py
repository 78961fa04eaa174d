"""One Chromium behind all emulators of a test run, for stories that are not about browsers.

Half of such a test's time is a browser's start. Here a session is a connection to one that runs already: its contexts
end with the connection, and the emulator cuts that when the session is over or lost.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from tabkeeper.config import ProviderSettings
from tabkeeper.providers.chromium import environment, find_browser, flags
from tabkeeper.providers.emulator import EmulatedSession, Emulator

from .nursery import Nursery


@pytest.fixture(scope="session")
def _running_browser() -> Iterator[str]:
    """Where a Chromium listens that lives as long as the test run."""
    settings = ProviderSettings(kind="local")
    with tempfile.TemporaryDirectory(prefix="tk-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [find_browser("local", settings), *flags("local", settings), f"--user-data-dir={folder}"],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment(),
        )
        assert process.stderr is not None
        try:
            yield next(m[0] for line in process.stderr if (m := re.search(r"ws://\S+", line)))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stderr.close()


@pytest.fixture
def one_browser(_running_browser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulators of this test start no browsers of their own."""

    async def launch(self: Emulator, session: EmulatedSession) -> str:
        return _running_browser

    async def end(self: Emulator, session: EmulatedSession) -> None:
        self._ended[session.id].set()

    monkeypatch.setattr(Emulator, "_launch", launch)
    monkeypatch.setattr(Emulator, "_end_browser", end)


@pytest.fixture
def nothing_left_open() -> Iterator[None]:
    """What a test leaves open fails that test, and not some later, innocent one."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where the processes of stories about fleets come from."""
    made = Nursery()
    yield made
    made.close()
