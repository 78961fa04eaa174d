"""How much memory a browser on this machine uses, its child processes included."""

from __future__ import annotations

import contextlib

import psutil


def tree_bytes(pid: int, started: float | None) -> int | None:
    """Return the bytes of a process and its descendants; None if it is not there (any more).

    Memory that processes share is divided among them where the system can say so (PSS); else it is not counted
    (USS): Chromium's processes share most of their code, and adding it up once for each would tell several times
    too much.

    Args:
        pid: of the browser.
        started: seconds since the epoch at which it began, to tell it from a later namesake.
    """
    try:
        root = psutil.Process(pid)
        if started is not None and abs(root.create_time() - started) > 1.0:
            return None
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return None
    total = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            used = process.memory_full_info()
            total += getattr(used, "pss", 0) or used.uss
    return total
