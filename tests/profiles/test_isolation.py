"""Whoever has a browser next finds nothing of those before: looked for by tenants who plant all that can be planted."""

from pathlib import Path

import pytest

from tabkeeper.config import ProviderSettings, parse_config
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.local import LocalProvider

from .site import site


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("isolation", ["context", "process"])
async def test_an_identity_stays_logged_in_from_lease_to_lease_and_nobody_else_is(isolation, tmp_path: Path):
    config = parse_config({"ledger": {"url": f"sqlite:///{tmp_path}/books.db"}, "platforms": {"web": {}}})
    settings = ProviderSettings(kind="local", isolation=isolation)
    provider = LocalProvider("local", settings, state_dir=tmp_path / "state")
    async with site() as address, SessionPool(config, providers={"local": provider}) as pool:

        async def visit(login: str = "", **wanted) -> str:
            async with pool.get_session("web", **wanted) as lease:
                page = await lease.new_page()
                await page.goto(address)
                if login:
                    await page.evaluate("(who) => { document.cookie = `who=${who}` }", login)
                context = await lease.context()
                assert len(context.pages) == 1, "pages of earlier leases are closed"
                return await page.evaluate("document.cookie")

        assert await visit("ada", identity="ada") == "who=ada"
        assert await visit(identity="ada") == "who=ada"
        assert await visit(identity="ada", tenant="zorg") == ""
        assert await visit(identity="bob") == ""
        assert await visit() == ""
        assert await visit(identity="ada") == "who=ada"
        async with pool.get_session("web", identity="ada") as lease:
            with pytest.raises(ValueError, match="open already"):
                await lease.context(user_agent="x")
