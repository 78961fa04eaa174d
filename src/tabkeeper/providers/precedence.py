"""Starts a browser without the right to go before everybody else on the machine.

Chromium asks for a higher priority (nice -8) for the threads that draw. Nobody but root is given it, and what root's
browsers draw on then keeps the pool, the gateway and the programs that drive them waiting for a processor.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_PR_CAPBSET_DROP = 24
"""prctl(2)."""
_CAP_SYS_NICE = 23
"""capabilities(7)."""
_Made = TypeVar("_Made")


def without_precedence(start: Callable[[], _Made]) -> _Made:
    """Call what starts a process, which then cannot raise its own priority; what `start` raises is raised here.

    On Linux the right is given up by a thread that lives for this call only, for a thread cannot have it back, and a
    program has the rights of the thread that starts it. Who has no such right loses nothing.
    """
    if sys.platform != "linux":
        return start()
    with ThreadPoolExecutor(1, "tabkeeper browser start", initializer=_give_up) as thread:
        return thread.submit(start).result()


def _give_up() -> None:
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_NICE, 0, 0, 0)
