"""A real proxy that begins to refuse one site: blocked there only, left by its keys, back after the cool-down."""

from __future__ import annotations

import pytest
from playwright.async_api import Error as PlaywrightError

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProviderSettings, parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.local import LocalProvider
from tabkeeper.sites.registry import SiteRegistry

from .servers import RealProxy, site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser"), pytest.mark.timeout(120)]


async def test_a_proxy_that_refuses_a_site_is_blocked_there_only_and_comes_back(tmp_path) -> None:
    proxies = {name: RealProxy(tmp_path, name).start() for name in ("one", "two")}
    config = parse_config(
        {
            "ledger": {"url": f"sqlite:///{tmp_path}/books.db"},
            "proxies": [{"id": name, "url": one.url()} for name, one in proxies.items()],
            "platforms": {"web": {"proxies": ["*"]}},
            "sites": {"localhost": {"cool_down": "10m"}, "127.0.0.1": {}},
        }
    )
    clock = VirtualClock()
    sites = SiteRegistry.from_config(config, clock=clock)
    local = LocalProvider("local", ProviderSettings(kind="local"), state_dir=tmp_path / "s")

    async def visit(pool: SessionPool, key: str, domain: str, port: int) -> str:
        """Visit as a scraper does: what a site refuses is blocked for it."""
        avoid = sites.avoid(domain, pool.proxies.all())
        async with pool.get_session("web", sticky=key, failed_proxies=avoid) as lease:
            page = await lease.new_page()
            try:
                await page.goto(f"http://{domain}:{port}/")
            except PlaywrightError as error:
                return "" if sites.block(domain, lease.proxy, str(error)) else "not blocked"
            return lease.proxy.id

    try:
        async with site() as port, SessionPool(config, providers={"local": local}) as pool:
            first = await visit(pool, "ada", "localhost", port)
            assert await visit(pool, "ada", "localhost", port) == first
            refusing = proxies[first]
            refusing.stop()
            refusing.start(refuse="{localhost}")

            assert await visit(pool, "ada", "localhost", port) == ""
            (block,) = sites.blocked()
            assert (block.site, block.proxy) == ("localhost", first)
            assert "net::ERR" in block.message
            await sites.sync(pool.database)
            assert sites.blocked() == [block]

            second = await visit(pool, "ada", "localhost", port)
            assert second not in {"", first}
            assert pool.sticky.stats().failovers == 1
            assert await visit(pool, "ada", "localhost", port) == second

            # The other site has nothing against it: a key that it suits goes through it, as its own log shows.
            before = refusing.saw(port)
            assert await visit(pool, "ben", "127.0.0.1", port) == first
            assert refusing.saw(port) > before

            refusing.stop()
            refusing.start()
            assert first in sites.avoid("localhost", pool.proxies.all())
            clock.advance(601)
            assert not sites.avoid("localhost", pool.proxies.all())
            assert await visit(pool, "ben", "localhost", port) == first
    finally:
        for proxy in proxies.values():
            proxy.stop()
