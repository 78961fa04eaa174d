"""One Chromium process: started, watched, ended with its whole process group. It knows no sessions.

The process is spawned in one synchronous step, so no cancellation can fall between its start and its being known.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from tabkeeper.providers.chromium import last_words
from tabkeeper.providers.precedence import without_precedence
from tabkeeper.providers.watchdog import browsers_in

_log = logging.getLogger(__name__)
_ENDPOINT = re.compile(rb"DevTools listening on (ws://\S+)\s")
_TAIL_BYTES = 8192
_TERM_SECONDS = 3.0
_KILL_SECONDS = 3.0


class LaunchError(Exception):
    """The browser did not come up; the message has the end of what it said."""


class NotExecutableError(LaunchError):
    """The program cannot be run at all, so trying again is no use."""


class Browser:
    """A running Chromium; made by `spawn`, usable after `ready`, gone after `stop`."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: int, folder: Path) -> None:
        self.folder = folder
        """Everything it writes; `stop` leaves removing it to the caller."""
        self.pid = process.pid
        self.endpoint = ""
        self.on_exit: Callable[[Browser], None] | None = None
        """Called once, from the loop, when the process ends."""
        self._process = process
        self._stderr = stderr
        self._said = b""
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        try:
            self.started = psutil.Process(self.pid).create_time()
        except psutil.Error:  # over already; `ready` tells why
            self.started = 0.0
        self._loop.add_reader(stderr, self._read)
        self._pidfd = -1
        self._watch()

    @classmethod
    def spawn(cls, executable: Path, flags: Sequence[str], folder: Path, env: Mapping[str, str]) -> Browser:
        """Start the process with its data in `folder`; never waits.

        Raises:
            LaunchError: the program cannot be started.
        """
        data, temp = folder / "data", folder / "tmp"
        data.mkdir(mode=0o700)
        temp.mkdir(mode=0o700)
        env = dict(env)
        # Chromium leaves a directory with a socket in TMPDIR when it is killed; the path of a socket must be short.
        if len(str(temp)) <= 60:
            env["TMPDIR"] = str(temp)
        reader, writer = os.pipe2(os.O_CLOEXEC) if sys.platform == "linux" else os.pipe()
        try:
            process = without_precedence(
                lambda: subprocess.Popen(  # noqa: S603
                    [str(executable), *flags, f"--user-data-dir={data}"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=writer,
                    cwd=data,
                    env=env,
                    start_new_session=True,
                )
            )
        except OSError as error:
            os.close(reader)
            if error.errno in {errno.ENOEXEC, errno.EACCES, errno.ENOENT}:
                raise NotExecutableError(
                    f"{executable} is no program that can be run: {error.strerror}"
                ) from None
            raise LaunchError(f"{executable} cannot be started: {error}") from None
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        return cls(process, reader, folder)

    @property
    def running(self) -> bool:
        """Ask the kernel, in about a microsecond."""
        return self._process.poll() is None

    @property
    def obituary(self) -> str:
        """How the process ended, and its last words."""
        code = self._process.returncode
        if code is None:
            how = "still runs"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"exited with status {code}"
        return f"Chromium (pid {self.pid}) {how}; its last words: {last_words(self._said.decode(errors='replace'))}"

    async def ready(self, seconds: float) -> None:
        """Wait until it accepts connections.

        Raises:
            LaunchError: it ended first, or took longer than `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.endpoint and not self._ended.is_set():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise LaunchError(f"Chromium was not ready within {seconds:g} s; {self.obituary}") from None
        if self._ended.is_set():
            advice = ""
            if b"No usable sandbox" in self._said:
                advice = "; allow user namespaces on this machine, or set sandbox = false"
            raise LaunchError(self.obituary + advice)

    def kill(self) -> None:
        """Send SIGKILL to the whole group, now."""
        if self.running:  # the group cannot be another's: its leader is our own child and not yet waited for
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> bool:
        """End the group: SIGTERM, then SIGKILL, each within a bound; True if nothing of it is left."""
        if self.running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _TERM_SECONDS)
        self.kill()
        gone = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                await self._ended.wait()
                await self._group_gone()
                await self._strays_gone()
                gone = True
        self._close_fds()
        return gone

    async def _group_gone(self) -> None:
        """Kill the children until none is left; the number of the group stays ours as long as one is."""
        pause = 0.002
        while True:
            with contextlib.suppress(ChildProcessError):
                # In a container this process may be init: then it inherits the browser's children.
                while os.waitpid(-self.pid, os.WNOHANG)[0]:  # noqa: ASYNC222 (WNOHANG: it does not wait)
                    pass
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # macOS says the second of a group of zombies
                return
            if pause > 0.05 and await asyncio.to_thread(_only_zombies, self.pid):
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.1)

    async def _strays_gone(self) -> None:
        """Kill what left the group: while it starts, Chromium forks copies of itself into groups of their own."""
        while strays := await asyncio.to_thread(browsers_in, str(self.folder)):
            for pid in strays:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.005)

    def _watch(self) -> None:
        if sys.platform == "linux":
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:  # an old kernel, or a container that forbids it
                self._pidfd = -1
            else:
                self._loop.add_reader(self._pidfd, self._exited)
                return
        threading.Thread(target=self._wait, name=f"chromium-{self.pid}", daemon=True).start()

    def _wait(self) -> None:
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._exited)

    def _exited(self) -> None:
        if self._process.poll() is None or self._ended.is_set():
            return
        self._read()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
        self._ended.set()
        self._news.set()
        if self.on_exit is not None:
            self.on_exit(self)

    def _read(self) -> None:
        if self._stderr < 0:
            return
        try:
            data = os.read(self._stderr, 65536)
        except BlockingIOError:
            return
        if not data:
            self._close_stderr()
            return
        self._said += data
        if not self.endpoint and (found := _ENDPOINT.search(self._said)):
            self.endpoint = found[1].decode()
            self._news.set()
        self._said = self._said[-_TAIL_BYTES:]

    def _close_stderr(self) -> None:
        if self._stderr >= 0:
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = -1

    def _close_fds(self) -> None:
        self._close_stderr()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def _only_zombies(group: int) -> bool:
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(OSError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return False
    return True
