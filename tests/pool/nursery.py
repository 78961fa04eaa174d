"""Starts processes in a fraction of the time: one that has imported all they need forks itself for each of them.

They are processes like any others: they have a number of their own, and can be frozen and killed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

_LONGEST = 1 << 16


class Nursery:
    """The process that forks."""

    def __init__(self) -> None:
        self._line, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(there.fileno())],
                pass_fds=[there.fileno()],
                env={**os.environ, "TABKEEPER_LOG": "warning"},
            )

    def start(self, order: str, files: Sequence[int]) -> int:
        """Start a process with these for standard input, output and errors; return its id."""
        assert len(order.encode()) < _LONGEST
        socket.send_fds(self._line, [order.encode()], files)
        return int(self._line.recv(_LONGEST))

    def close(self) -> None:
        """End it; its children go on."""
        self._process.kill()
        self._process.wait()
        self._line.close()


def _child(order: str, files: Sequence[int]) -> None:
    import asyncio
    import json

    from fleet_worker import main  # pyright: ignore[reportImplicitRelativeImport]

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        asyncio.run(main(json.loads(order)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve(line: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone at once
    line.settimeout(5)
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            order, files, _, _ = socket.recv_fds(line, _LONGEST, 3)
        except TimeoutError:
            continue
        child = os.fork()
        if not child:
            line.close()
            _child(order.decode(), files)
        for file in files:
            os.close(file)
        line.send(str(child).encode())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import fleet_worker  # noqa: F401 - so that no child has to

    import tabkeeper.providers.browserbase  # noqa: F401

    _serve(socket.socket(fileno=int(sys.argv[1])))
