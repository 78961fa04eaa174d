"""Whether a process that was once noted down still lives. It knows this machine only, and says so by its realm.

Process ids are used again, so a process is known by its id and its start. The start counts from the machine's boot
where the system tells that: a wall clock that is set anew must not make a living process look dead.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

_TOLERANCE_US = 1_500_000
"""How far two readings of a start may lie apart where it is read off the wall clock."""


def realm() -> str:
    """Name where process ids mean what they mean here: the machine, its boot, and the container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return f"{socket.gethostname()}/{psutil.boot_time():.0f}"
    return f"{socket.gethostname()}/{boot}/{namespace}"


def started_at(pid: int) -> int | None:
    """Return when a process was started, in microseconds, or None if there is no such process.

    Counted from boot on Linux, from the epoch elsewhere; only good for comparison with another reading.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE and not _has_threads(pid):
            return None
        return _since_boot(pid) or round(process.create_time() * 1_000_000)
    except psutil.Error:
        return None


def lives(pid: int, started: int) -> bool:
    """Say whether the process with this id and start (as `started_at` told it) still runs, in this realm."""
    now = started_at(pid)
    return now is not None and abs(now - started) <= _TOLERANCE_US


def _has_threads(pid: int) -> bool:
    """Whether a process whose first thread has ended has others: until they have, its connections are open."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def _since_boot(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything; the start is the 20th field after it. Source: proc(5).
    ticks = int(stat.rpartition(")")[2].split()[19])
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")
