"""HTTP to one service for any number of calls that wait: over several clients, each with few connections.

The library looks through all connections of a client whenever one begins or ends, so a thousand in one would have the
processor do nothing else for half a minute.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

_CALLS = 32
"""Calls at a time over one client."""


class Lines:
    """Clients of one service, as many as its calls need.

    Args:
        url: the service's address.
        headers: sent with every call.
        seconds: how long an answer may take.
    """

    def __init__(self, url: str, headers: Mapping[str, str], seconds: float) -> None:
        self.base_url = url
        self.headers = dict(headers)
        self._seconds = seconds
        self._trust = httpx.create_ssl_context()
        self._busy: dict[httpx.AsyncClient, int] = {}

    async def request(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Call the service.

        Raises:
            httpx.RequestError: it cannot be reached, or its answer cannot be read.
        """
        line = next((one for one, calls in self._busy.items() if calls < _CALLS), None)
        if line is None:
            line = httpx.AsyncClient(
                timeout=self._seconds, limits=httpx.Limits(max_connections=None), verify=self._trust
            )
        self._busy[line] = self._busy.get(line, 0) + 1
        try:
            return await line.request(method, f"{self.base_url}{path}", json=body, headers=self.headers)
        finally:
            if line in self._busy:
                self._busy[line] -= 1

    async def aclose(self) -> None:
        """Let all connections go."""
        lines, self._busy = list(self._busy), {}
        for line in lines:
            await line.aclose()
