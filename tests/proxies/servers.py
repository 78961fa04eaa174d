"""Real proxies and a real site on this machine. What went through a proxy is read from its own log."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RealProxy:
    """One pproxy process that speaks HTTP and SOCKS5 on one port."""

    def __init__(self, folder: Path, name: str, *, login: str = "") -> None:
        self.name = name
        self.port = free_port()
        self._login = login
        self._file = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, scheme: str = "http") -> str:
        who = f"{self._login}@" if self._login else ""
        return f"{scheme}://{who}127.0.0.1:{self.port}"

    def start(self, *, refuse: str = "") -> RealProxy:
        """Serve; a host that matches `refuse` is refused."""
        scheme = "http" if self._login else "http+socks5"
        where = f"{scheme}://127.0.0.1:{self.port}/" + (f"#{self._login}" if self._login else "")
        more = ["-b", refuse] if refuse else []
        with self._file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-W", "ignore", "-m", "pproxy", "-l", where, "-v", *more],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise AssertionError(f"the proxy did not come up: {self.log()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def log(self) -> str:
        return self._file.read_text(errors="replace") if self._file.exists() else ""

    def saw(self, port: int) -> int:
        """How many connections to a port of this machine it made."""
        return sum(line.rstrip().endswith(f":{port}") for line in self.log().splitlines() if "->" in line)


@asynccontextmanager
async def site() -> AsyncIterator[int]:
    """Serve a page; gives its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 19\r\nConnection: close\r\n\r\n"
                b"<title>shop</title>"
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
