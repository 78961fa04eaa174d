"""After the demo: its ledger and a pool at work, as the dashboard shows them, until somebody has seen enough."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable
from pathlib import Path

from playwright.async_api import Error as PlaywrightError

from tabkeeper.config import PoolConfig, ServiceSettings, parse_config
from tabkeeper.demo.hosted import NAMES, hosted
from tabkeeper.demo.run import marker_of
from tabkeeper.demo.site import Site
from tabkeeper.errors import TabkeeperError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.service import create_app
from tabkeeper.service.server import serving
from tabkeeper.service.tokens import hash_token, new_token

_VISIT_EVERY = 3.0
"""Seconds between two visits at the platform that costs nothing, so that there is something to see."""


async def serve(folder: Path, *, port: int, tell: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve the dashboard of the demo that was run in `folder` until `stop`; `tell` gets its address, token included.

    Raises:
        OSError: the port is taken.
    """
    token = new_token()
    settings = ServiceSettings.model_validate(
        {
            "port": port,
            "tokens": [{"name": "demo", "hash": hash_token(token), "scopes": ["read", "lease", "manage"]}],
        }
    )
    async with hosted(marker_of(folder)) as providers:
        pool = SessionPool(_config(folder, providers.urls))
        with Site() as site:
            async with serving(create_app(pool, settings), settings) as url:
                visiting = asyncio.create_task(_visit(pool, site.url), name="demo visits")
                tell(f"{url}/#token={token}")
                try:
                    await stop.wait()
                finally:
                    visiting.cancel()
                    await asyncio.wait([visiting])


def _config(folder: Path, urls: dict[str, str]) -> PoolConfig:
    data = tomllib.loads((folder / "tabkeeper.toml").read_text(encoding="utf-8"))
    for name in NAMES:  # the stand-ins listen elsewhere this time
        data["providers"][name]["base_url"] = urls[name]
    return parse_config(data, "the demo's configuration")


async def _visit(pool: SessionPool, url: str) -> None:
    while True:
        try:
            async with pool.get_session("news", place="a visit of the demo") as lease:
                page = await lease.new_page()
                await page.goto(url)
                await asyncio.sleep(_VISIT_EVERY / 2)
        except (TabkeeperError, PlaywrightError):
            await asyncio.sleep(_VISIT_EVERY)  # the dashboard shows what is wrong
        await asyncio.sleep(_VISIT_EVERY / 2)
