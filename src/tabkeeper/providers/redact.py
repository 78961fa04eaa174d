"""Secrets: the one place that decides what of a URL, or of a provider's words, people and logs may see."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

_ADDRESS = re.compile(r"\b(?:wss?|https?)://[^\s\"'<>]+", re.IGNORECASE)


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
