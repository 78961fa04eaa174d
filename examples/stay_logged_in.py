"""Stay logged in: the tenant's next lease begins with what a successful one left in its browser, kept encrypted."""

import asyncio
import tempfile

from pydantic import SecretStr

from tabkeeper import LedgerSettings, PlatformSettings, PoolConfig, SecuritySettings, SessionPool
from tabkeeper.vault import new_key


async def visit(pool: SessionPool, tenant: str) -> str:
    """Say whom the site takes us for, and log in as Ada if it is nobody."""
    async with pool.get_session("web", tenant=tenant, profile="shop.example") as session:
        context = await session.context()
        known = [cookie["value"] for cookie in await context.cookies("https://shop.example")]
        if not known:
            login = {"name": "user", "value": "ada", "url": "https://shop.example"}
            await context.add_cookies([login])  # what a login page would do
        return known[0] if known else "nobody"


async def main(folder: str) -> None:
    config = PoolConfig(
        platforms={"web": PlatformSettings()},
        ledger=LedgerSettings(url=f"sqlite:///{folder}/tabkeeper.db"),
        security=SecuritySettings(keys=(SecretStr(new_key()),)),  # in a file: keys = ["env:TABKEEPER_KEY"]
    )
    async with SessionPool(config) as pool:
        print(f"first visit: {await visit(pool, 'acme')}")
        print(f"second visit: {await visit(pool, 'acme')}")
        print(f"another tenant: {await visit(pool, 'globex')}")
        profiles = pool.stats().profiles
        print(f"profiles: {profiles.total}, healthy: {profiles.healthy}")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
