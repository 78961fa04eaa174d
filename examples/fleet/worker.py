"""One of several workers that share a pool: each takes the next free session, whoever made it."""

import asyncio

from tabkeeper import SessionPool


async def main() -> None:
    async with SessionPool.from_file("tabkeeper.toml") as pool:
        while True:
            async with pool.get_session("web") as session:
                page = await session.new_page()
                await page.goto("https://example.com")
                print(session.session_id, await page.title(), flush=True)
            await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
