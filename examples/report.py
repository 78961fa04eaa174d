"""Two tenants use sessions that have a price; the day's report says who owes what. See also: tabkeeper report day."""

import asyncio
import tempfile

from tabkeeper import PoolConfig, SessionPool
from tabkeeper.config import parse_config

CONFIG = {
    "platforms": {"shop": {"max_uses": 2}, "news": {}},
    "providers": {"local": {"kind": "local", "rates": {"per_session": "0.01", "per_hour": "0.12"}}},
    "budgets": [{"name": "daily", "limit": "5.00"}],
}


async def main(config: PoolConfig) -> None:
    pool = SessionPool(config)
    async with pool:
        for platform, tenant in (("shop", "acme"), ("shop", "globex"), ("shop", "acme"), ("news", "acme")):
            async with pool.get_session(platform, tenant=tenant) as session:
                page = await session.new_page()
                await page.goto("data:text/html,<title>a page</title>")
    report = await pool.ledger.report()
    print(f"{report.label}: {report.totals.cost} for {report.totals.sessions} sessions")
    print(f"leases that reused a session: {report.totals.reused} of {report.totals.leases}")
    for group in (*report.platforms, *report.tenants):
        print(f"  {group.name:7} {group.cost}")
    for budget in report.budgets:
        print(f"budget {budget.name}: {budget.spent} of {budget.limit} spent ({budget.used:.1%})")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(parse_config(CONFIG | {"ledger": {"url": f"sqlite:///{folder}/tabkeeper.db"}})))
