"""A gateway in a process of its own: every session it leases is the one browser whose address it is given."""

from __future__ import annotations

import asyncio
import sys
from random import Random

from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.base import RemoteSession, SessionSpec
from tabkeeper.service import create_app
from tabkeeper.service.server import serving
from tabkeeper.testing import FakeProvider


class OneBrowser(FakeProvider):
    """Its sessions are connections to one browser, as if each had its own."""

    def __init__(self, url: str) -> None:
        super().__init__("local", SystemClock(), rng=Random(1), latency=(0, 0))
        self._url = url

    async def create(self, spec: SessionSpec) -> RemoteSession:
        made = await super().create(spec)
        return RemoteSession(
            provider_session_id=made.provider_session_id, connect_url=self._url, label=made.label
        )


async def main(url: str) -> None:
    """Serve until the standard input ends."""
    settings = parse_config(
        {
            "pool": {"max_sessions": 2000, "shutdown_grace": 0},
            "ledger": {"url": "sqlite://"},
            "platforms": {"web": {"lease_timeout": "1h"}},
            "service": {"port": 0},
        }
    )
    pool = SessionPool(settings, providers={"local": OneBrowser(url)}, jobs=False)
    async with serving(create_app(pool, open_=True), settings.service) as address:
        print(address, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
