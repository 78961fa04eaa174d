"""A process to be killed between asking a provider for a session and writing down its answer."""

import asyncio
import sys

from tabkeeper.config import load_config
from tabkeeper.pool.pool import SessionPool


async def main(path: str) -> None:
    async with SessionPool(load_config(path)) as pool:
        await pool.get_session("web", timeout=60)
        print("leased", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
