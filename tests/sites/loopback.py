"""A site on this machine whose pages link to each other like a tree, and that misbehaves when it is told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Tree:
    """Pages /0 to /N-1; page k links to 2k+1 and 2k+2, to itself and to another site, and has one item."""

    def __init__(self, pages: int, *, host: str = "127.0.0.1") -> None:
        self.pages = pages
        self.host = host
        self.seen: Counter[int] = Counter()
        """How often each page was asked for."""
        self.answers: dict[int, list[int]] = {}
        """By page: statuses that are answered first, one after the other; the last one stays if it is negative."""
        self.asked: Callable[[int], None] = lambda _: None
        """Called with each page that is asked for, before it is answered."""

    @property
    def start(self) -> str:
        return f"http://{self.host}:{self._server.server_port}/0"

    def items(self) -> list[str]:
        return sorted(f"thing {k}" for k in range(self.pages))

    def answer(self, path: str) -> tuple[int, str]:
        k = int(path.strip("/")) if path.strip("/").isdigit() else -1
        if not 0 <= k < self.pages:
            return 404, "nothing"
        self.seen[k] += 1
        self.asked(k)
        wanted = self.answers.get(k)
        if wanted:
            status = wanted[0] if wanted[0] < 0 else wanted.pop(0)
            if abs(status) != 200:
                return abs(status), "no"
        links = "".join(f'<a href="/{n}#top">{n}</a>' for n in (2 * k + 1, 2 * k + 2, k) if n < self.pages)
        return 200, f'<title>thing {k}</title>{links}<a href="https://elsewhere.invalid/">x</a>'

    def __enter__(self) -> Self:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_GET(self) -> None:
                status, text = site.answer(self.path)
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
