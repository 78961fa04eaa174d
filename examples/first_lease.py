"""Lease a session, open a page, read it, see the cost. Local Chromium is free, so the cost is $0.00."""

import asyncio
import tempfile

from tabkeeper import LedgerSettings, PlatformSettings, PoolConfig, SessionPool

PAGE = "data:text/html,<title>Hello from a leased browser</title>"


async def main(folder: str) -> None:
    config = PoolConfig(
        platforms={"web": PlatformSettings()},
        ledger=LedgerSettings(url=f"sqlite:///{folder}/tabkeeper.db"),
    )
    pool = SessionPool(config)
    async with pool:
        async with pool.get_session("web") as session:
            page = await session.new_page()
            await page.goto(PAGE)
            print(await page.title())
        async with pool.get_session("web") as session:
            print(f"second lease: {'a new session' if session.is_new else 'the same session, reused'}")
    print(f"cost of the day: {await pool.ledger.daily_cost()}")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
