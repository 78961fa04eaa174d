"""Chromium through real proxies: the proxy's own log shows who went where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Error as PlaywrightError

from tabkeeper.cli.app import run
from tabkeeper.config import ProviderSettings, parse_config
from tabkeeper.errors import ConfigError, MissingKeyError, NoProxyError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.local import LocalProvider
from tabkeeper.proxies.health import Health
from tabkeeper.proxies.model import proxy_from_url
from tabkeeper.proxies.probe import probe

from .servers import RealProxy, site

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser"), pytest.mark.timeout(120)]

Start = Callable[..., RealProxy]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    """Start a proxy; all end with the test."""
    running: list[RealProxy] = []

    def make(name: str, **more) -> RealProxy:
        running.append(RealProxy(tmp_path, name, **more).start())
        return running[-1]

    yield make
    for proxy in running:
        proxy.stop()


def pool_with(
    folder: Path,
    proxies: dict[str, str],
    *,
    isolation: str = "context",
    only: tuple[str, ...] = ("*",),
    **platform,
) -> SessionPool:
    config = parse_config(
        {
            "ledger": {"url": f"sqlite:///{folder}/books.db"},
            "providers": {"local": {"kind": "local", "isolation": isolation}},
            "proxies": [{"id": name, "url": url} for name, url in proxies.items()],
            "platforms": {"web": {"proxies": list(only), **platform}, "bare": {}},
        }
    )
    settings = ProviderSettings(kind="local", isolation=isolation)
    return SessionPool(config, providers={"local": LocalProvider("local", settings, state_dir=folder / "s")})


async def title(lease, port: int, host: str = "127.0.0.1") -> str:
    page = await lease.new_page()
    await page.goto(f"http://{host}:{port}/")
    return await page.title()


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_lease_goes_through_its_proxy_and_no_other_way(start, tmp_path, scheme) -> None:
    one = start("one")
    async with site() as port, pool_with(tmp_path, {"one": one.url(scheme)}) as pool:
        async with pool.get_session("web") as lease:
            assert lease.proxy is not None
            assert lease.proxy.id == "one"
            assert await title(lease, port) == "shop"
        seen = one.saw(port)
        assert seen >= 1
        async with pool.get_session("bare") as lease:
            assert lease.proxy is None
            assert await title(lease, port) == "shop"
        assert one.saw(port) == seen
        assert pool.proxies.health("one") is Health.HEALTHY


async def test_a_proxy_that_asks_for_a_password_gets_it_and_nobody_else_sees_it(
    start, tmp_path, caplog
) -> None:
    one = start("one", login="ada:hush")
    caplog.set_level("DEBUG", "tabkeeper")
    async with site() as port, pool_with(tmp_path, {"one": one.url()}, isolation="process") as pool:
        # First, since this proxy remembers for a while whom it has let in.
        wrong = proxy_from_url(one.url().replace("hush", "hash"), id="one")
        assert not (await probe(wrong, f"http://127.0.0.1:{port}/")).ok
        assert (await probe(pool.proxies.get("one"), f"http://127.0.0.1:{port}/")).ok
        async with pool.get_session("web") as lease:
            assert await title(lease, port) == "shop"
            assert "hush" not in repr(lease.proxy)
            # A context of the caller's own goes through the proxy, too: nobody's address gets out.
            own = await (await lease.browser()).new_context()
            page = await own.new_page()
            seen = one.saw(port)
            await page.goto(f"http://127.0.0.1:{port}/")
            assert one.saw(port) > seen
    assert "hush" not in caplog.text


async def test_a_key_keeps_its_proxy_and_reuses_only_a_session_that_goes_through_it(start, tmp_path) -> None:
    proxies = {name: start(name) for name in ("one", "two")}
    urls = {name: proxy.url() for name, proxy in proxies.items()}
    async with site() as port:
        async with pool_with(tmp_path, urls) as pool:
            seen = {}
            for key in ("ada", "ben", "ada", "ben", "ada"):
                async with pool.get_session("web", sticky=key) as lease:
                    seen.setdefault(key, []).append((lease.session_id, lease.proxy.id, lease.is_new))
                    await title(lease, port)
            assert {len({proxy for _, proxy, _ in found}) for found in seen.values()} == {1}
            assert {len({session for session, _, _ in found}) for found in seen.values()} == {1}
            assert seen["ada"][0][1] != seen["ben"][0][1]
            assert [new for _, _, new in seen["ada"]] == [True, False, False]
            first = proxies[seen["ada"][0][1]]
            assert first.saw(port) >= 3
            assert pool.stats().reused == 3
        async with pool_with(tmp_path, urls) as again:
            async with again.get_session("web", sticky="ada") as lease:
                assert lease.proxy.id == first.name
            assert again.sticky.stats().created == 0


async def test_a_key_whose_proxy_dies_fails_over_and_its_idle_session_is_not_used_again(
    start, tmp_path
) -> None:
    proxies = {name: start(name) for name in ("one", "two")}
    async with site() as port, pool_with(tmp_path, {n: p.url() for n, p in proxies.items()}) as pool:
        async with pool.get_session("web", sticky="ada") as lease:
            first = lease.proxy.id
            await title(lease, port)
        proxies[first].stop()
        for _ in range(2):
            with pytest.raises(PlaywrightError, match="ERR_PROXY_CONNECTION_FAILED"):
                async with pool.get_session("web", sticky="ada") as lease:
                    assert lease.proxy.id == first
                    await title(lease, port)
        assert pool.proxies.health(first) is Health.DEGRADED
        async with pool.get_session("web", sticky="ada") as lease:
            assert lease.proxy.id != first
            assert await title(lease, port) == "shop"
        assert pool.sticky.stats().failovers == 1


async def test_an_identity_keeps_its_proxy_by_itself(start, tmp_path) -> None:
    proxies = {name: start(name) for name in ("one", "two")}
    async with site() as port, pool_with(tmp_path, {n: p.url() for n, p in proxies.items()}) as pool:
        seen = []
        for _ in range(2):
            async with pool.get_session("web", identity="ada") as lease:
                seen.append(lease.proxy.id)
                await title(lease, port)
                kept = lease.session_id
            await pool.close_session(kept)
        assert len(set(seen)) == 1
        for _ in range(3):
            pool.proxies.report(seen[0], ok=False, error="banned")
        async with pool.get_session("web", identity="ada") as lease:
            assert lease.proxy.id != seen[0]


async def test_a_session_whose_proxy_has_failed_is_closed_instead_of_reused(start, tmp_path) -> None:
    proxies = {name: start(name) for name in ("one", "two")}
    async with pool_with(tmp_path, {n: p.url() for n, p in proxies.items()}) as pool:
        async with pool.get_session("web") as lease:
            first, session = lease.proxy.id, lease.session_id
        async with pool.get_session("web") as lease:
            assert lease.session_id == session
        third = start("three").url()
        pool.proxies.add(proxy_from_url(third, id="three"))
        for _ in range(3):  # the turn would be another's, but the session is there
            async with pool.get_session("web", failed_proxies=["one"]) as lease:
                kept = lease.session_id
            async with pool.get_session("web", failed_proxies=["one"]) as lease:
                assert lease.session_id == kept
        for _ in range(3):
            pool.proxies.report(first, ok=False, error="banned")
        async with pool.get_session("web") as lease:
            assert lease.session_id != session
            assert lease.proxy.id != first


async def test_what_people_do_to_proxies_reaches_a_pool_that_runs(start, tmp_path, monkeypatch) -> None:
    one, two = start("one"), start("two")
    async with site() as port, pool_with(tmp_path, {"one": one.url()}) as pool:
        for _ in range(10):
            pool.proxies.report("one", ok=False, error="banned")
        await pool._jobs.run("proxies")
        assert pool.proxies.health("one") is Health.DEAD
        (tmp_path / "tabkeeper.toml").write_text(
            f'[ledger]\nurl = "sqlite:///{tmp_path}/books.db"\n[[proxies]]\nid = "one"\nurl = "{one.url()}"\n'
        )
        monkeypatch.setenv("TABKEEPER_CONFIG", str(tmp_path / "tabkeeper.toml"))
        for command in (["add", "two", two.url()], ["probe", "--url", f"http://127.0.0.1:{port}/"]):
            assert await asyncio.to_thread(run, ["proxies", *command]) == 0
        await pool._jobs.run("proxies")
        assert pool.proxies.health("one") is Health.HEALTHY
        assert pool.proxies.health("two") is Health.HEALTHY
        assert await asyncio.to_thread(run, ["proxies", "retire", "two"]) == 0
        await pool._jobs.run("proxies")
        assert [proxy.id for proxy in pool.proxies.all()] == ["one"]


async def test_what_a_caller_has_had_enough_of_is_not_used(start, tmp_path) -> None:
    one = start("one")
    async with pool_with(tmp_path, {"one": one.url(), "two": "http://127.0.0.1:9"}) as pool:
        async with pool.get_session("web", failed_proxies=["two"]) as lease:
            assert lease.proxy.id == "one"
            session = lease.session_id
        async with pool.get_session("web", failed_proxies=["two"]) as lease:
            assert lease.session_id == session
        with pytest.raises(NoProxyError, match="list of failed ones"):
            await pool.get_session("web", failed_proxies=["one", "two"])


async def test_without_a_usable_proxy_nothing_is_paid_for_and_the_error_says_why(tmp_path) -> None:
    async with pool_with(tmp_path, {"one": "http://127.0.0.1:9"}) as pool:
        for _ in range(3):
            pool.proxies.report("one", ok=False, error="refused")
        with pytest.raises(NoProxyError, match=r"one is unhealthy for .* .refused."):
            await pool.get_session("web", timeout=5)
        assert pool.stats().creations == 0


async def test_mistakes_say_what_to_do(tmp_path) -> None:
    async with pool_with(tmp_path, {"one": "http://a:1"}, proxy_strategy="sticky") as pool:
        with pytest.raises(MissingKeyError, match="every request needs a key"):
            await pool.get_session("web")
        with pytest.raises(MissingKeyError, match="needs a key"):
            await pool.get_session("web", sticky="")
        with pytest.raises(ConfigError, match="platform 'bare' has no proxies"):
            await pool.get_session("bare", sticky="ada")
        with pytest.raises(ValueError, match="keeps its own proxy"):
            await pool.get_session("web", sticky="ada", identity="ada")
    with pytest.raises(ConfigError, match="SOCKS5 proxy with user name and password, which Chromium"):
        await pool_with(tmp_path, {"one": "socks5://me:pw@a:1"}, only=("one",)).open()
    with pytest.raises(ConfigError, match="there is no proxy 'three'"):
        await pool_with(tmp_path, {"one": "http://a:1"}, only=("three",)).open()
