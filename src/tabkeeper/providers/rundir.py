"""Where local browsers keep their data, and whose it is: one directory per run, which names its owner.

From these directories a later start finds browsers whose owner and watchdog were both killed. It starts nothing.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tabkeeper.providers.base import Leftover
from tabkeeper.providers.watchdog import birth, end_browsers, remove_tree

_log = logging.getLogger(__name__)
_RUN = re.compile(rb"--user-data-dir=(\S+?/run-[0-9]+-[0-9a-f]{8})/")
_DRAFT_SECONDS = 3600.0


def default_state_dir() -> Path:
    """Return the directory for throw-away browser data: it need not survive a reboot, the browsers do not either."""
    return Path(tempfile.gettempdir()).resolve() / f"tabkeeper-{os.getuid()}"


def prepare(state_dir: Path) -> None:
    """Make `state_dir` and see that it belongs to this user alone.

    Raises:
        OSError: it cannot be made, or somebody else could put things there.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = state_dir.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(
            f"{state_dir} is not a directory of this user; remove it, or set another TMPDIR"
        )
    if found.st_mode & 0o077:
        state_dir.chmod(0o700)
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise PermissionError(f"{state_dir} is not writable")


class RunDir:
    """The directory of one provider in one run of its owner; it holds a lock as long as the owner lives."""

    def __init__(self, state_dir: Path) -> None:
        """Make the directory.

        Raises:
            OSError: as for `prepare`, or the disk is full.
        """
        prepare(state_dir)
        me = os.getpid()
        name = f"run-{me}-{secrets.token_hex(4)}"
        # Built under another name: whoever scans in this moment must not take it for an abandoned one.
        draft = state_dir / f".{name}"
        draft.mkdir(mode=0o700)
        owner = {"pid": me, "birth": birth(me), "place": _place()}
        (draft / "owner.json").write_text(json.dumps(owner), encoding="utf-8")
        self._lock = os.open(draft / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = draft.rename(state_dir / name)

    def browser_dir(self) -> Path:
        """Make the directory of one more browser."""
        path = self.path / secrets.token_hex(3)
        path.mkdir(mode=0o700)
        return path

    def remove(self) -> bool:
        """Remove it with all that is in it; True if nothing is left."""
        remove_tree(str(self.path))
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        return not self.path.exists()


def reap_abandoned(state_dir: Path) -> int:
    """Kill the browsers of all runs whose owner is dead, remove their directories; return how many runs."""
    count = 0
    for run in state_dir.glob("run-*-*"):
        if not _owner_alive(run):
            _log.info("removing what an earlier run left in %s", run)
            end_browsers(str(run), {})
            count += 1
    for draft in state_dir.glob(".run-*-*"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:
                remove_tree(str(draft))
    return count


def reap_process(leftover: Leftover) -> bool:
    """Kill the browser that `leftover` names, unless its pid belongs to something else or its owner lives.

    The command line must name a run directory of ours, so a namesake cannot be hit even when the clock was set.
    """
    if leftover.pid is None or leftover.pid_started is None:
        return False
    try:
        process = psutil.Process(leftover.pid)
        line = b"\0".join(part.encode() for part in process.cmdline())
        started = process.create_time()
    except psutil.Error:
        return False
    run = _RUN.search(line)
    # psutil derives this from the wall clock, which may be set by a little while a browser runs.
    if run is None or abs(started - leftover.pid_started) > 2.0:
        return False
    path = Path(os.fsdecode(run[1]))
    if _owner_alive(path):
        return False
    born = birth(leftover.pid)
    return end_browsers(str(path), {leftover.pid: born} if born is not None else {})


def _owner_alive(run: Path) -> bool:
    try:
        owner = json.loads((run / "owner.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if owner["place"] == _place():
        return owner["birth"] is not None and birth(owner["pid"]) == owner["birth"]
    # Another container with the same directory: its process ids mean nothing here, but a lock is seen everywhere.
    try:
        lock = os.open(run / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _place() -> str:
    """Name the boot and the process namespace in which a pid means what it means here."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return f"boot {psutil.boot_time():.0f}"
