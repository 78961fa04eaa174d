"""Five requests wait for one session: the highest priority is served first, equals in order of arrival."""

import asyncio
import tempfile

from tabkeeper import LedgerSettings, PlatformSettings, PoolConfig, PoolSettings, SessionPool


async def work(pool: SessionPool, name: str, priority: int) -> None:
    async with pool.get_session("web", priority=priority) as session:
        page = await session.new_page()
        await page.goto(f"data:text/html,<title>{name}</title>")
        print(f"{await page.title():8} priority {priority}, waited {session.waited.total_seconds():.2f} s")


async def main(folder: str) -> None:
    config = PoolConfig(
        pool=PoolSettings(max_sessions=1),
        platforms={"web": PlatformSettings()},
        ledger=LedgerSettings(url=f"sqlite:///{folder}/tabkeeper.db"),
    )
    async with SessionPool(config) as pool, asyncio.TaskGroup() as group:
        wishes = {"first": 0, "second": 0, "urgent": 9, "soon": 5, "last": -5}
        for name, priority in wishes.items():
            group.create_task(work(pool, name, priority))


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
