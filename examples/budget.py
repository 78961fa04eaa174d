"""A hard budget refuses what it could not pay for. Here local Chromium gets a price: 2 cents for each session."""

import asyncio
import tempfile
from decimal import Decimal

from tabkeeper import (
    BudgetExceededError,
    BudgetSettings,
    LedgerSettings,
    Money,
    PlatformSettings,
    PoolConfig,
    ProviderSettings,
    RateSettings,
    SessionPool,
)


async def main(folder: str) -> None:
    config = PoolConfig(
        providers={"local": ProviderSettings(kind="local", rates=RateSettings(per_session=Decimal("0.02")))},
        platforms={"web": PlatformSettings(max_uses=1)},  # every lease needs a session of its own
        budgets=(BudgetSettings(name="daily", limit=Money.parse("0.05")),),
        ledger=LedgerSettings(url=f"sqlite:///{folder}/tabkeeper.db"),
    )
    pool = SessionPool(config)
    async with pool:
        for number in range(1, 4):
            try:
                async with pool.get_session("web") as session:
                    page = await session.new_page()
                    await page.goto("data:text/html,<title>paid for</title>")
                    print(f"session {number}: {await page.title()}, {session.cost}")
            except BudgetExceededError as error:
                print(f"session {number}: refused. {error}")
    print(f"cost of the day: {await pool.ledger.daily_cost()}")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
