"""The lifeline: a tiny process that outlives its owner by a moment and ends the browsers the owner left behind.

It runs as a plain script (``python -I -S watchdog.py RUN_DIR OWNER_PID OWNER_BIRTH``), so it imports nothing but the
standard library; the provider imports the same functions to reap at start. It never starts or looks into a browser.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_LOOKS = 3
"""So many scans in a row must find nothing: a browser may be between fork and exec, where it has no name yet."""


def birth(pid: int) -> str | None:
    """Return what tells `pid` from a later namesake, or None when it does not run (zombies do not run).

    On Linux these are the clock ticks since boot, which no step of the wall clock changes.
    """
    if sys.platform == "linux":
        try:
            # The command name may hold spaces and brackets; what follows the last bracket is plain.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in {b"Z", b"X"} else fields[19].decode()
    shown = subprocess.run(  # noqa: S603
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    return None if len(shown) < 2 or shown[0].startswith("Z") else shown[1].strip()


def browsers_in(run_dir: str) -> list[int]:
    """Return the processes whose command line says that they keep their data below `run_dir`."""
    # A plain search in the whole line: some Chromium children join their arguments with blanks.
    marks = [f"--{flag}={run_dir.rstrip('/')}/".encode() for flag in ("user-data-dir", "database")]
    lines: list[tuple[int, bytes]] = []
    if sys.platform == "linux":
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    lines.append((int(entry.name), Path(entry.path, "cmdline").read_bytes()))
    else:
        shown = subprocess.run(
            ["/bin/ps", "-axww", "-o", "pid=,command="], capture_output=True, check=False
        ).stdout
        for line in shown.splitlines():
            pid, _, command = line.strip().partition(b" ")
            lines.append((int(pid), command))
    return [pid for pid, line in lines if pid != os.getpid() and any(mark in line for mark in marks)]


def end_browsers(run_dir: str, groups: dict[int, str], *, seconds: float = 10.0) -> bool:
    """Kill the process groups (leader -> its birth) and all browsers below `run_dir`; remove the directory.

    Returns:
        False if something still runs or lies there after `seconds`.
    """
    deadline = time.monotonic() + seconds
    quiet = 0
    while quiet < _LOOKS and time.monotonic() < deadline:
        leaders = [pid for pid, born in groups.items() if birth(pid) == born]
        strays = browsers_in(run_dir)
        for pid in leaders:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        for pid in strays:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if leaders or strays else quiet + 1
        time.sleep(0.03)
    remove_tree(run_dir)
    return quiet >= _LOOKS and not Path(run_dir).exists()


def remove_tree(path: str) -> None:
    """Remove a directory for good; a process on its way out may still write there, so try a few times."""
    for _ in range(5):
        shutil.rmtree(path, ignore_errors=True)
        if not Path(path).exists():
            return
        time.sleep(0.05)


def _listen(owner: int, owner_birth: str) -> dict[int, str] | None:
    """Follow the owner's words until it is gone; return its groups, or None if it said goodbye."""
    groups: dict[int, str] = {}
    poll = select.poll()
    poll.register(0, select.POLLIN)
    owner_fd = -1
    if sys.platform == "linux":
        # A child that the owner forked may hold our stdin open, so the end of the owner itself counts too.
        with contextlib.suppress(OSError):
            owner_fd = os.pidfd_open(owner)
            poll.register(owner_fd, select.POLLIN)
        if birth(owner) != owner_birth:
            return groups
    buffer = b""
    while True:
        ready = [fd for fd, _ in poll.poll(None if owner_fd >= 0 else 500)]
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return groups
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                word, *values = line.decode().split(maxsplit=2)
                if word == "bye":
                    return None
                if word == "watch":
                    groups[int(values[0])] = values[1]
                elif word == "forget":
                    groups.pop(int(values[0]), None)
        elif owner_fd in ready or os.getppid() != owner:
            return groups


def main() -> None:
    """Wait for the owner's end, then clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Whoever stops the whole service stops the owner as well; this process leaves after it, never before.
        signal.signal(number, signal.SIG_IGN)
    run_dir, owner, owner_birth = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    groups = _listen(owner, owner_birth)
    if groups is not None:
        end_browsers(run_dir, groups)


if __name__ == "__main__":
    main()
