"""Secrets: the one place that decides what of a URL, or of a provider's words, people and logs may see."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

_SECRET_HOST = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
"""A host named by a random id is itself the key to what it serves."""
_ADDRESS = re.compile(r"\b(?:wss?|https?)://[^\s\"'<>]+", re.IGNORECASE)


def redact(url: str) -> str:
    """Return scheme, host and port of `url`; what may be a key (user, path, query, a random host) is an ellipsis.

    >>> redact("wss://user:key@browsers.example:8443/token/abc?apiKey=secret")
    'wss://browsers.example:8443/…'
    >>> redact("https://0e8b9d08-28ad-4104-860b-bf7d9be7f898.cdp2.browsers.example")
    'https://….cdp2.browsers.example/…'
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an address that cannot be read)"
    host = parts.hostname or "?"
    host = f"[{host}]" if ":" in host else _SECRET_HOST.sub("…", host)
    return f"{parts.scheme or '?'}://{host}{port}/…"


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` of a stranger without `secrets`, and with its addresses redacted, so that it may be shown.

    >>> scrub("no key k1 at https://api.example/v1?key=k1 (k1)", ["k1"])
    'no key … at https://api.example/… (…)'
    """
    text = _ADDRESS.sub(lambda found: redact(found[0]), text)
    for secret in secrets:
        for form in (secret, quote(secret, safe="")):
            if form:
                text = text.replace(form, "…")
    return text
