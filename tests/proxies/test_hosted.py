"""What hosted providers are told of a session's proxy, each in its own words."""

from __future__ import annotations

import pytest

from tabkeeper.config import ProviderSettings, parse_config
from tabkeeper.errors import ConfigError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import ProxySpec, SessionSpec

PROXY = ProxySpec(
    server="http://10.0.0.1:80", username="ada", password="hush", url="http://ada:hush@10.0.0.1:80"
)
LOGIN = {"username": "ada", "password": "hush"}
ANCHOR = {"type": "custom", "server": "http://10.0.0.1:80", **LOGIN, "active": True}
HYPER = {
    "useProxy": True,
    "proxyServer": PROXY.server,
    "proxyServerUsername": "ada",
    "proxyServerPassword": "hush",
}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("browserbase", {"proxies": [{"type": "external", "server": PROXY.server, **LOGIN}]}),
        ("steel", {"proxyUrl": "http://ada:hush@10.0.0.1:80"}),
        ("anchor", {"proxy": ANCHOR}),
        ("hyperbrowser", HYPER),
    ],
)
def test_each_is_told_in_its_own_words(kind, told) -> None:
    provider = make_provider("far", ProviderSettings(kind=kind, api_key="k", proxies=True))
    spec = SessionSpec(session_id="s", platform="web", max_seconds=300, proxy=PROXY)
    assert "hush" not in repr(spec)
    extra = ("sid",) if kind == "steel" else ()
    body = provider._body(spec, *extra)
    body = body.get("session", body)
    assert {key: body.get(key) for key in told} == told
    assert "useProxy" not in body or kind == "hyperbrowser"


@pytest.mark.parametrize("kind", ["kernel", "browserless", "cdp"])
async def test_one_that_cannot_have_a_proxy_is_refused_at_start(kind, tmp_path) -> None:
    more = {"url": "ws://127.0.0.1:9"} if kind == "cdp" else {"api_key": "k"}
    config = parse_config(
        {
            "ledger": {"url": f"sqlite:///{tmp_path}/b.db"},
            "providers": {"far": {"kind": kind, "rates": {"per_hour": "0.1"}, **more}},
            "proxies": [{"id": "one", "url": "http://a:1"}],
            "platforms": {"web": {"providers": ["far"], "proxies": ["*"]}},
        }
    )
    with pytest.raises(ConfigError, match="'far' cannot be given a proxy of your own"):
        await SessionPool(config).open()
