"""A webhook's other end, on this machine: remembers what it was sent, and refuses as often as it is told to."""

import contextlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    url: str
    took: list[dict] = field(default_factory=list)
    """Headers (in small letters) and body of each message it answered well."""
    refuse: list[tuple[int, dict]] = field(default_factory=list)
    """Statuses and headers of the answers to come that are errors."""

    @property
    def keys(self):
        return [message["headers"]["idempotency-key"] for message in self.took]


@contextlib.contextmanager
def receiving():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers = receiver.refuse.pop(0) if receiver.refuse else (200, {})
            if status == 200:
                receiver.took.append(
                    {
                        "headers": {name.lower(): value for name, value in self.headers.items()},
                        "raw": body,
                        "body": json.loads(body),
                    }
                )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
