"""The owner's end of the lifeline: starts the watchdog process and tells it which process groups exist.

It is written for the worst moment: a dead watchdog is replaced, and no word to it ever blocks the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

from tabkeeper.providers import watchdog

_log = logging.getLogger(__name__)


class Lifeline:
    """One watchdog process for one run directory."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._groups: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the watchdog, once it runs."""
        return None if self._process is None else self._process.pid

    def ensure(self) -> None:
        """Start the watchdog, or a new one if it died.

        Raises:
            OSError: the machine cannot start processes.
        """
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is not None:
            _log.warning("the watchdog process ended by itself; starting a new one")
            self._drop()
        me = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603
            [
                sys.executable,
                "-I",
                "-S",
                watchdog.__file__,
                str(self._run_dir),
                str(me),
                watchdog.birth(me) or "",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal must not reach it
            cwd="/",
            bufsize=0,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        for pid, born in self._groups.items():
            self._tell(f"watch {pid} {born}")

    def watch(self, pid: int) -> None:
        """Let the group led by `pid` die with this process."""
        born = watchdog.birth(pid)
        if born is not None:  # else it is over already
            self._groups[pid] = born
            self._tell(f"watch {pid} {born}")

    def forget(self, pid: int) -> None:
        """The group led by `pid` is gone."""
        if self._groups.pop(pid, None) is not None:
            self._tell(f"forget {pid}")

    async def end(self, *, clean: bool) -> None:
        """End the watchdog; unless all is `clean`, it first kills what is left. Takes a few seconds at most."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            if clean:
                process.stdin.write(b"bye\n")
            process.stdin.close()
        if not await asyncio.to_thread(_wait, process, 12.0):
            process.kill()
            await asyncio.to_thread(process.wait)

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except (
            OSError
        ):  # it died, or was stopped so long that the pipe is full; `ensure` tells the next one all
            self._process.kill()
            self._process.wait()

    def _drop(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
