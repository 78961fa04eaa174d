"""Secrets in addresses: the one place that decides what of a URL may be shown to people or written to a log."""

from __future__ import annotations

from urllib.parse import urlsplit


def redact(url: str) -> str:
    """Return scheme, host and port of `url`; user, path and query often hold keys and become an ellipsis.

    >>> redact("wss://user:key@browsers.example:8443/token/abc?apiKey=secret")
    'wss://browsers.example:8443/…'
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an address that cannot be read)"
    host = parts.hostname or "?"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme or '?'}://{host}{port}/…"
