"""Start with the cheap browser, go on to the dear one when the site keeps it out. Both are local Chromium here."""

import asyncio
import tempfile

from tabkeeper import SessionPool
from tabkeeper.config import parse_config

CONFIG = {
    "providers": {
        "plain": {"kind": "local"},
        "stealthy": {"kind": "local", "rates": {"per_session": "0.01"}},
    },
    "platforms": {
        "shop": {"providers": ["stealthy", "plain"], "routing": "escalate", "escalate_after": 2},
        "news": {"providers": ["stealthy", "plain"], "routing": "cheapest"},
    },
}


async def visit(pool: SessionPool, platform: str) -> None:
    lease = await pool.get_session(platform)
    page = await lease.new_page()
    kept_out = platform == "shop" and lease.provider == "plain"
    await page.goto(f"data:text/html,<title>{'Access denied' if kept_out else 'Welcome'}</title>")
    title = await page.title()
    if title == "Access denied":
        await lease.release(success=False, reason="blocked")
    else:
        await lease.release()
    print(f"{platform} at {lease.provider}: {title}")


async def main(folder: str) -> None:
    pool = SessionPool(parse_config({**CONFIG, "ledger": {"url": f"sqlite:///{folder}/tabkeeper.db"}}))
    async with pool:
        for platform in ("news", "shop", "shop", "shop"):
            await visit(pool, platform)
        for name, route in pool.stats().routes.items():
            print(f"{name} asks {' > '.join(route.order)}; a lease costs about {route.costs}")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
