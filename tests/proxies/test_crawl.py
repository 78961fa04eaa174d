"""A run behind real proxies, one of which refuses: what fails through it is visited through the other."""

from __future__ import annotations

import pytest

from tabkeeper.config import parse_config
from tabkeeper.sites.command import Order, carry_out

from .servers import RealProxy, site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]


async def test_a_page_that_fails_through_one_proxy_is_visited_through_another(tmp_path) -> None:
    refusing = RealProxy(tmp_path, "refusing").start(refuse=r"{127\.0\.0\.1}")
    serving = RealProxy(tmp_path, "serving").start()
    through = []

    async def parse(page, target):
        through.append(target.proxy)
        return {"title": await page.title()}

    try:
        async with site() as port:
            config = parse_config(
                {
                    "ledger": {"url": f"sqlite:///{tmp_path}/books.db"},
                    "proxies": [{"id": one.name, "url": one.url()} for one in (refusing, serving)],
                    "platforms": {"web": {"proxies": ["*"]}},
                }
            )
            pages = [f"http://127.0.0.1:{port}/{k}" for k in range(4)]
            order = Order(
                name="through", parse=parse, sites=pages, instance_limit=2, out=tmp_path / "items.jsonl"
            )
            summary = await carry_out(config, order)
            assert summary.committed, summary.standing.failures
            assert summary.standing.items == 4
            assert set(through) == {"serving"}
            assert serving.saw(port) >= 1
            assert summary.progress.total.retries >= 1, "the refusing proxy was never tried"
    finally:
        refusing.stop()
        serving.stop()
