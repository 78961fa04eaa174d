"""A run behind real proxies, one that refuses and one that the site keeps out: the third one does it all."""

from __future__ import annotations

import pytest

from tabkeeper.config import parse_config
from tabkeeper.errors import BlockedError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.sites.command import Order, carry_out
from tabkeeper.sites.registry import SiteRegistry

from .servers import RealProxy, site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]


async def test_a_page_that_fails_through_one_proxy_is_visited_through_another(tmp_path) -> None:
    proxies = [RealProxy(tmp_path, name) for name in ("refusing", "marked", "serving")]
    refusing, marked, serving = proxies
    through = []

    async def parse(page, target):
        if target.proxy == "marked":
            raise BlockedError("are you human?")
        through.append(target.proxy)
        return {"title": await page.title()}

    try:
        refusing.start(refuse=r"{127\.0\.0\.1}")
        marked.start()
        serving.start()
        async with site() as port:
            config = parse_config(
                {
                    "ledger": {"url": f"sqlite:///{tmp_path}/books.db"},
                    "proxies": [{"id": one.name, "url": one.url()} for one in proxies],
                    "platforms": {"web": {"proxies": ["*"]}},
                }
            )
            pages = [f"http://127.0.0.1:{port}/{k}" for k in range(6)]
            order = Order(
                name="through", parse=parse, sites=pages, instance_limit=3, out=tmp_path / "items.jsonl"
            )
            summary = await carry_out(config, order)
            assert summary.committed, summary.standing.failures
            assert summary.standing.items == 6
            assert set(through) == {"serving"}
            assert serving.saw(port) >= 1
            assert summary.progress.total.retries >= 2, "each of the others was tried"
            assert marked.saw(port) == 1, "and left alone from then on"
            sites = SiteRegistry({"127.0.0.1": {}})
            async with SessionPool(config) as pool:
                await sites.sync(pool.database)
            assert [(one.proxy, one.message) for one in sites.blocked()] == [("marked", "are you human?")]
    finally:
        for one in proxies:
            one.stop()
