"""A crawl of the demo's site: two sessions, a cap on its cost, items as JSON Lines. As a command: docs/runs.md."""

import asyncio
import json
import tempfile
from pathlib import Path

from tabkeeper import LedgerSettings, Money, PlatformSettings, PoolConfig, ProviderSettings, RateSettings
from tabkeeper.demo.site import Site
from tabkeeper.sites.command import Order, carry_out


async def parse(page, target):  # noqa: ANN001, ANN201
    for address in await page.locator("a").evaluate_all("links => links.map(link => link.href)"):
        yield address  # visited next, once, if it is of a site of this run
    if "/shop/" in target.url:
        yield {"name": await page.title(), "price": await page.locator(".price").inner_text()}


async def main(folder: Path) -> None:
    rates = RateSettings(per_session="0.01", per_hour="0.12")
    config = PoolConfig(
        ledger=LedgerSettings(url=f"sqlite:///{folder}/tabkeeper.db"),
        providers={"local": ProviderSettings(kind="local", rates=rates)},
        platforms={"web": PlatformSettings()},
    )
    with Site() as site:
        order = Order(
            name="demo",
            parse=parse,
            sites=[site.url],
            instance_limit=2,
            max_cost=Money.parse("0.50"),
            out=folder / "items.jsonl",
        )
        summary = await carry_out(config, order)
    print(f"{summary.standing.done} pages, {summary.standing.items} items, {summary.standing.failed} failed")
    for line in sorted(order.out.read_text().splitlines())[:3]:
        print(json.loads(line))
    print(f"{summary.cost} in all, {summary.cost_per_page} a page; committed: {summary.committed}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
