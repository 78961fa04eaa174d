"""Profiles in a real Chromium: who succeeded at a site comes back as the same visitor; nobody else does."""

from pathlib import Path

import pytest

from tabkeeper.config import ProviderSettings, parse_config
from tabkeeper.errors import ConfigError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.local import LocalProvider
from tabkeeper.vault import new_key

from .site import site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PLANT = """async (value) => {
    document.cookie = `id=${value}; max-age=9999`;
    localStorage.setItem('id', value);
    await new Promise((done, failed) => {
        const opening = indexedDB.open('shop', 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore('things');
        opening.onerror = () => failed(opening.error);
        opening.onsuccess = () => {
            const change = opening.result.transaction('things', 'readwrite');
            change.objectStore('things').put(value, 'id');
            change.oncomplete = () => { opening.result.close(); done(); };
        };
    });
}"""
LOOK = """async () => {
    const stored = await new Promise((done) => {
        const opening = indexedDB.open('shop', 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore('things');
        opening.onsuccess = () => {
            const read = opening.result.transaction('things').objectStore('things').get('id');
            read.onsuccess = () => { opening.result.close(); done(read.result ?? ''); };
        };
    });
    const cookie = document.cookie.match(/id=([^;]*)/);
    return [cookie ? cookie[1] : '', localStorage.getItem('id') ?? '', stored,
            navigator.userAgent, `${innerWidth}x${innerHeight}`];
}"""


def pool_on(url: str, folder: Path, *keys: str, **settings) -> SessionPool:
    config = parse_config(
        {"ledger": {"url": url}, "platforms": {"web": {}}, "security": {"keys": list(keys)}, **settings}
    )
    provider = LocalProvider("local", ProviderSettings(kind="local"), state_dir=folder / "state")
    return SessionPool(config, providers={"local": provider})


async def test_a_success_is_remembered_across_pools_and_only_for_its_own_tenant(sqlite_url, tmp_path):
    key = new_key()

    async def look(pool: SessionPool, tenant: str, **wanted):
        async with pool.get_session("web", tenant=tenant, **wanted) as lease:
            page = await lease.new_page()
            await page.goto(address)
            return await page.evaluate(LOOK)

    async with site() as address:
        async with pool_on(sqlite_url, tmp_path, key) as pool:
            async with pool.get_session("web", tenant="acme", profile="shop.example") as lease:
                context = await lease.context(user_agent="Visitor/1", viewport={"width": 640, "height": 480})
                page = await context.new_page()
                await page.goto(address)
                await page.evaluate(PLANT, "first")
            first = ["first", "first", "first", "Visitor/1", "640x480"]
            assert await look(pool, "acme", profile="shop.example") == first
            others = [
                {"tenant": "acme"},
                {"tenant": "zorg", "profile": "shop.example"},
                {"tenant": "acme", "profile": "other.example"},
            ]
            for other in others:
                assert (await look(pool, **other))[:3] == ["", "", ""]
            with pytest.raises(ZeroDivisionError):
                async with pool.get_session("web", tenant="acme", profile="Shop.example.") as lease:
                    page = await lease.new_page()
                    await page.goto(address)
                    await page.evaluate(PLANT, "spoilt")
                    1 / 0
            figures = pool.stats().profiles
            assert (figures.total, figures.healthy) == (3, 3)
            assert figures.reuse_rate == 2 / 5
        async with pool_on(sqlite_url, tmp_path, key) as pool:
            assert await look(pool, "acme", profile="shop.example") == first
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("books*"))
    assert b"Visitor/1" not in raw


async def test_without_a_key_a_profile_is_refused_before_anything_is_leased(sqlite_url, tmp_path):
    async with pool_on(sqlite_url, tmp_path) as pool:
        with pytest.raises(ConfigError, match="tabkeeper db new-key"):
            await pool.get_session("web", profile="shop.example")
        with pytest.raises(ValueError, match="without https://"):
            await pool.get_session("web", profile="https://shop.example")
        assert pool.stats().sessions == 0


async def test_two_leases_of_one_profile_at_once_the_first_writes(sqlite_url, tmp_path):
    async with site() as address, pool_on(sqlite_url, tmp_path, new_key()) as pool:
        async with pool.get_session("web", profile="shop.example") as one:
            page = await one.new_page()
            await page.goto(address)
            await page.evaluate(PLANT, "one")
            async with pool.get_session("web", profile="shop.example") as two:
                page = await two.new_page()
                await page.goto(address)
                await page.evaluate(PLANT, "two")
        async with pool.get_session("web", profile="shop.example") as lease:
            page = await lease.new_page()
            await page.goto(address)
            assert (await page.evaluate(LOOK))[:3] == ["one", "one", "one"]
