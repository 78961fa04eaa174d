"""Twenty tasks share three sessions: the limit holds, and most leases reuse a session."""

import asyncio
import tempfile

from tabkeeper import LedgerSettings, PlatformSettings, PoolConfig, PoolSettings, SessionPool


async def title_of(pool: SessionPool, number: int) -> str:
    async with pool.get_session("web", timeout=60) as session:
        page = await session.new_page()
        await page.goto(f"data:text/html,<title>page {number}</title>")
        return await page.title()


async def main(folder: str) -> None:
    config = PoolConfig(
        pool=PoolSettings(max_sessions=3),
        platforms={"web": PlatformSettings()},
        ledger=LedgerSettings(url=f"sqlite:///{folder}/tabkeeper.db"),
    )
    async with SessionPool(config) as pool:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(title_of(pool, number)) for number in range(1, 21)]
        stats = pool.stats()
    print(f"{len({task.result() for task in tasks})} pages read")
    print(f"sessions at once: {stats.peak_sessions} of {stats.max_sessions}")
    print(f"leases: {stats.leases}, of which {stats.reused} reused a session ({stats.reuse_rate:.0%})")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
