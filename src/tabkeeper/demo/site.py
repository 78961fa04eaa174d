"""A small website on 127.0.0.1 for browsers to work on: a shop, a newspaper, a portal with a form.

Everything is made from a seed, so that a task can know what it must find there; nothing leaves this machine.
"""

from __future__ import annotations

import struct
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

ITEMS = 8
ARTICLES = 6
_WORDS = (
    *("harbour", "lantern", "orchard", "granite", "meadow", "copper", "violin", "kettle", "saddle", "marble"),
    *("anchor", "willow", "timber", "velvet", "pepper", "compass", "barrel", "feather", "glacier", "ribbon"),
)
_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 46rem; margin: 2rem auto; color: #223; }
nav a { margin-right: 1rem } img { width: 160px; height: 100px; display: block }
li { margin: .6rem 0 } .price { font-weight: bold }
"""


def item_name(number: int) -> str:
    """Name of the shop's item."""
    return " ".join(Random(number).sample(_WORDS, 2))  # noqa: S311


def item_price(number: int) -> str:
    """Price of the shop's item as it stands on its page."""
    return f"{7 + number * 13 % 50}.{number * 37 % 100:02d}"


def headline(number: int) -> str:
    """Headline of the newspaper's article."""
    first, second, third = Random(100 + number).sample(_WORDS, 3)  # noqa: S311
    return f"{first.title()} and {second} found near the {third}"


def receipt(name: str) -> str:
    """What the portal answers when `name` registers."""
    return f"R-{zlib.crc32(name.encode()) % 100_000:05d}"


def picture(number: int) -> bytes:
    """Make a PNG of about 12 kB."""
    chance = Random(number)  # noqa: S311
    width, height = 160, 100
    base = [chance.randrange(64, 192) for _ in range(3)]
    raw = bytearray()
    for _ in range(height):
        raw.append(0)
        for _ in range(width):
            raw += bytes(channel + chance.randrange(8) for channel in base)

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(raw))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def page(path: str) -> str | None:
    """Make the page at `path`, or None if there is none."""
    match path.strip("/").split("/"):
        case [""]:
            return _html("Demo site", "<p>A shop, a newspaper and a portal.</p>")
        case ["shop"]:
            rows = "".join(
                f'<li><img src="/picture/{n}.png" alt=""><a href="/shop/{n}">{item_name(n)}</a></li>'
                for n in range(1, ITEMS + 1)
            )
            return _html("Shop", f"<ul>{rows}</ul>")
        case ["shop", number] if number.isdigit() and 1 <= int(number) <= ITEMS:
            n = int(number)
            text = f'<img src="/picture/{n}.png" alt=""><p class="price">{item_price(n)}</p>'
            return _html(item_name(n), text)
        case ["news"]:
            rows = "".join(f'<li><a href="/news/{n}">{headline(n)}</a></li>' for n in range(1, ARTICLES + 1))
            return _html("News", f"<ul>{rows}</ul>")
        case ["news", number] if number.isdigit() and 1 <= int(number) <= ARTICLES:
            n = int(number)
            chance = Random(200 + n)  # noqa: S311
            text = "".join(f"<p>{' '.join(chance.choices(_WORDS, k=60)).capitalize()}.</p>" for _ in range(4))
            return _html(headline(n), f'<img src="/picture/{20 + n}.png" alt="">{text}')
        case ["portal"]:
            form = (
                '<form method="post"><label>Name <input name="name"></label> <button>Register</button></form>'
            )
            return _html("Portal", form)
        case _:
            return None


def _html(title: str, body: str) -> str:
    links = "".join(f'<a href="/{name}">{name}</a>' for name in ("shop", "news", "portal"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<link rel="stylesheet" href="/style.css"><link rel="icon" href="data:,"></head>'
        f"<body><nav>{links}</nav><h1>{title}</h1>{body}</body></html>"
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/style.css":
            self._answer(200, "text/css", _STYLE.encode())
        elif path.startswith("/picture/") and path.removeprefix("/picture/").removesuffix(".png").isdigit():
            number = int(path.removeprefix("/picture/").removesuffix(".png"))
            self._answer(200, "image/png", picture(number % 100))
        else:
            self._html(page(path))

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        fields = parse_qs(self.rfile.read(min(size, 10_000)).decode(errors="replace"))
        name = fields.get("name", [""])[0]
        if urlsplit(self.path).path != "/portal" or not name.isalnum():
            self._html(None)
            return
        self._html(_html("Welcome", f'<p>Hello, {name}.</p><p id="receipt">{receipt(name)}</p>'))

    def _html(self, text: str | None) -> None:
        if text is None:
            self._answer(404, "text/html; charset=utf-8", _html("Not found", "").encode())
        else:
            self._answer(200, "text/html; charset=utf-8", text.encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class named it
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes its connection is no news."""


class Site:
    """The website while it is entered; `url` is its address, without a slash at the end.

    >>> with Site() as site:
    ...     site.url.startswith("http://127.0.0.1:")
    True
    """

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
