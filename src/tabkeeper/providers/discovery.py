"""Where the WebSocket of a browser is whose address speaks HTTP, as that of some providers does."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

_LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})


class NoBrowserError(Exception):
    """The address cannot be reached, or does not answer as a browser does. The message holds no address."""


async def websocket_of(address: str, *, seconds: float) -> str:
    """Return the WebSocket address of a browser; a WebSocket address is one already.

    Raises:
        NoBrowserError: it is not told.
    """
    at = urlsplit(address)
    if at.scheme not in {"http", "https"}:
        return address
    at = at._replace(path=f"{at.path.rstrip('/')}/json/version/")
    try:
        async with httpx.AsyncClient(timeout=seconds, trust_env=at.hostname not in _LOCAL) as client:
            answer = (await client.get(at.geturl())).raise_for_status()
        return str(answer.json()["webSocketDebuggerUrl"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise NoBrowserError(type(error).__name__) from None
