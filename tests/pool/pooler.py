"""A real PgBouncer in transaction mode before a real PostgreSQL; tests that need it skip where it is not installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

_CONFIG = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
pool_mode = transaction
auth_type = any
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
max_client_conn = 200
default_pool_size = {size}
logfile = {folder}/log
pidfile = {folder}/pid
{more}
"""


def program() -> str:
    """Return PgBouncer's path, or skip the test."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    return found


@contextlib.contextmanager
def pooled(url: str, *, size: int = 3, more: str = "") -> Iterator[str]:
    """Run a PgBouncer; yield the address that leads through it. `size` is how many sessions of the server it uses."""
    server = make_url(url)
    # Not below pytest's folders, which only their owner may enter: it does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="tk-pgb-"))
    folder.chmod(0o777)
    try:
        config = folder / "ini"
        config.write_text(
            _CONFIG.format(
                host=server.query.get("host", server.host),
                port=server.port or 5432,
                user=server.username or "postgres",
                folder=folder,
                size=size,
                more=more,
            )
        )
        # It runs no more than the server does as root; only the server's own user may enter where its socket is.
        drop = ["-u", Path(str(server.query["host"])).owner()] if os.geteuid() == 0 else []
        process = subprocess.Popen([program(), "-q", *drop, str(config)], stderr=subprocess.PIPE)
        try:
            until = time.monotonic() + 60
            while not (folder / ".s.PGSQL.6432").exists():
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < until
                time.sleep(0.02)
            through = server.set(host=None, port=6432, query={"host": str(folder)})
            yield through.render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.communicate()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
