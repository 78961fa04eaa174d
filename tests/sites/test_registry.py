"""The registry of sites: read from anywhere, blocks of one site only, for a while, kept over restarts."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tabkeeper.cli.app import run
from tabkeeper.clock import VirtualClock
from tabkeeper.config import SiteSettings, load_config, parse_config
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.proxies.model import Proxy, ProxyKind
from tabkeeper.sites.registry import SiteRegistry

DATA = {
    "shop.example": {
        "start": ["https://shop.example/a", "https://shop.example/b"],
        "max_sessions": 3,
        "proxy_strategy": "sticky",
        "proxy_types": ["residential", "datacenter"],
        "cool_down": "10m",
        "trust": {"healthy": 80},
    },
    "news.example": {},
}


def proxy(name: str, kind: str = "datacenter") -> Proxy:
    return Proxy(id=name, scheme="http", host=name, port=80, kind=ProxyKind(kind))


DC, HOME, PHONE = proxy("dc"), proxy("home", "residential"), proxy("phone", "mobile")


def toml() -> str:
    text = ""
    for domain, settings in DATA.items():
        text += f'[sites."{domain}"]\n'
        text += "".join(f"{k} = {json.dumps(v)}\n" for k, v in settings.items() if k != "trust")
        if "trust" in settings:
            text += f'[sites."{domain}".trust]\nhealthy = 80\n'
    return text


def test_it_is_the_same_from_toml_json_python_and_the_configuration(tmp_path) -> None:
    (tmp_path / "sites.toml").write_text(toml())
    (tmp_path / "sites.json").write_text(json.dumps(DATA))
    (tmp_path / "nested.json").write_text(json.dumps({"sites": DATA}))
    made = SiteRegistry(DATA)
    for other in (
        SiteRegistry.from_file(tmp_path / "sites.toml"),
        SiteRegistry.from_file(tmp_path / "sites.json"),
        SiteRegistry.from_file(tmp_path / "nested.json"),
        SiteRegistry.from_config(load_config(tmp_path / "sites.toml", {})),
    ):
        assert other.all() == made.all()
    shop = made.get("Shop.Example")
    assert shop.start == ("https://shop.example/a", "https://shop.example/b")
    assert made.get("news.example").start == ("https://news.example/",)
    assert made.of("https://www.shop.example/x") == shop
    assert made.of("https://other.example/") is None
    config = parse_config({"sites": DATA, "profiles": {"degraded": 30}})
    assert made.trust("shop.example", config).healthy == 80
    assert made.trust("shop.example", config).degraded == 30
    assert made.trust("news.example", config).healthy == 70


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ({"https://shop.example": {}}, "not a site's domain"),
        ({"shop.example": {"start": ["shop"]}}, "is no address"),
        ({"shop.example": {"cooldown": "1m"}}, "cooldown"),
        ({"shop.example": {"max_sessions": 0}}, "max_sessions"),
    ],
)
def test_a_mistake_says_where(sites, said, tmp_path) -> None:
    (tmp_path / "sites.json").write_text(json.dumps(sites))
    with pytest.raises(ConfigError, match=said):
        SiteRegistry(sites)
    with pytest.raises(ConfigError, match=said):
        SiteRegistry.from_file(tmp_path / "sites.json")
    with pytest.raises(ConfigError, match=r"did you mean 'shop.example'"):
        SiteRegistry(DATA).get("shop.exmaple")


def test_trust_that_is_said_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="keep one of them"):
        parse_config({"sites": DATA, "profiles": {"sites": {"shop.example": {"healthy": 60}}}})


def test_only_datacenter_proxies_are_blocked_for_that_site_and_until_the_cool_down_is_over() -> None:
    clock = VirtualClock()
    sites = SiteRegistry(DATA, clock=clock)
    everyone = [DC, HOME, PHONE]
    assert sites.avoid("news.example", everyone) == frozenset()
    assert sites.avoid("shop.example", everyone) == {"phone"}  # a type that it does not allow
    assert sites.block("shop.example", DC, "403:\n  go away")
    assert not sites.block("shop.example", HOME, "403")
    assert sites.avoid("shop.example", everyone) == {"dc", "phone"}
    assert sites.avoid("news.example", everyone) == frozenset()
    (block,) = sites.blocked("shop.example")
    assert (block.proxy, block.message, block.until - block.blocked_at) == (
        "dc",
        "403: go away",
        timedelta(minutes=10),
    )
    clock.advance(599)
    assert "dc" in sites.avoid("shop.example", everyone)
    clock.advance(2)
    assert sites.avoid("shop.example", everyone) == {"phone"}
    assert sites.blocked() == []


def test_which_types_are_blocked_is_a_setting() -> None:
    sites = SiteRegistry({"a.example": SiteSettings(block_types=("residential",))})
    assert sites.block("a.example", HOME)
    assert not sites.block("a.example", DC)
    assert sites.unblock("a.example", "home")
    assert not sites.unblock("a.example", "home")
    with pytest.raises(ConfigError, match="no site"):
        sites.block("b.example", DC)


async def test_blocks_are_kept_shared_and_forgotten(sqlite_url, tmp_path, monkeypatch) -> None:
    clock = VirtualClock()
    config = parse_config({"ledger": {"url": sqlite_url}, "sites": DATA})
    ledger = await Ledger.open(config)
    try:
        one = SiteRegistry.from_config(config, clock=clock)
        one.block("shop.example", DC, "refused")
        await one.sync(ledger)
        two = SiteRegistry.from_config(config, clock=clock)
        await two.sync(ledger)
        assert two.blocked() == one.blocked()
        two.unblock("shop.example", "dc")
        await two.sync(ledger)
        await one.sync(ledger)
        assert one.blocked() == []
        one.block("news.example", DC, "refused")
        await one.sync(ledger)
        clock.advance(1801)
        await one.sync(ledger)
        rows = await ledger.transact(lambda tx: tx.rows("SELECT site FROM site_block"))
        assert rows == []
    finally:
        await ledger.aclose()


def test_the_list_shows_limits_and_blocks(tmp_path, sqlite_url, monkeypatch, capsys) -> None:
    import asyncio

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tabkeeper.toml").write_text(f'[ledger]\nurl = "{sqlite_url}"\n' + toml())

    async def fill() -> None:
        config = load_config("tabkeeper.toml")
        ledger = await Ledger.open(config)
        registry = SiteRegistry.from_config(config)
        registry.block("shop.example", DC, "captcha")
        await registry.sync(ledger)
        await ledger.aclose()

    asyncio.run(fill())
    assert run(["sites", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["site"] for one in found] == ["news.example", "shop.example"]
    assert found[1]["blocked"][0]["message"] == "captcha"
    assert run(["sites", "list"]) == 0
    assert "dc until" in capsys.readouterr().out
