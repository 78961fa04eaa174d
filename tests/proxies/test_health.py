"""From outcomes to health: what opens the breaker, what closes it, what a probe is needed for."""

from __future__ import annotations

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import NoProxyError, ProxyError
from tabkeeper.proxies.health import Health, HealthRules, Track
from tabkeeper.proxies.model import parse_address, proxy_from_url
from tabkeeper.proxies.pool import ProxyPool, Wanted

RULES = HealthRules(pause=30, longest_pause=100)


def _pool(clock: VirtualClock, names: str = "ab") -> ProxyPool:
    return ProxyPool([proxy_from_url(f"http://{n}:80", id=n) for n in names], rules=RULES, clock=clock)


def test_failures_in_a_row_lead_from_unknown_to_dead_and_one_success_back() -> None:
    track = Track(RULES)
    seen = [track.health]
    for _ in range(10):
        track.bad("no", 0.0)
        seen.append(track.health)
    assert [str(one) for one in seen] == ["unknown", "healthy", "degraded", *["unhealthy"] * 7, "dead"]
    track.ok(0.2)
    assert track.health is Health.HEALTHY


def test_one_in_three_that_fails_makes_it_degraded() -> None:
    track = Track(RULES)
    for _ in range(4):
        track.ok()
        track.ok()
        track.bad("no", 0.0)
    track.ok()
    assert track.health is Health.DEGRADED
    for _ in range(20):
        track.ok()
    assert track.health is Health.HEALTHY


def test_an_unhealthy_proxy_is_tried_once_after_its_pause_and_comes_back() -> None:
    clock = VirtualClock()
    pool = _pool(clock)
    for _ in range(3):
        pool.report("a", ok=False, error="refused")
    assert {pool.choose().id for _ in range(6)} == {"b"}
    clock.advance(40)
    seen = [pool.choose().id for _ in range(6)]
    assert seen.count("a") == 1
    pool.report("a", ok=True)
    assert {pool.choose().id for _ in range(4)} == {"a", "b"}


def test_pauses_double_up_to_the_longest() -> None:
    clock = VirtualClock()
    pool = _pool(clock, "a")
    pauses = []
    for _ in range(9):
        pool.report("a", ok=False, error="refused")
        pauses.append(pool.standing("a").paused_for)
    assert pauses[0] == 0
    assert 22 <= pauses[2] <= 38
    assert 45 <= pauses[3] <= 75
    assert max(pauses) <= 125


def test_without_a_usable_proxy_the_error_names_each_and_why() -> None:
    pool = _pool(VirtualClock(), "abc")
    for _ in range(3):
        pool.report("a", ok=False, error="connection refused")
    for _ in range(10):
        pool.report("b", ok=False, error="timeout")
    with pytest.raises(
        NoProxyError, match=r"a is unhealthy for .* s more .connection refused.; b is dead until a"
    ):
        pool.choose(wanted=Wanted(failed=["c"]))
    with pytest.raises(NoProxyError, match="there are no proxies: add"):
        ProxyPool().choose()
    with pytest.raises(ProxyError, match="no proxy 'x'"):
        pool.get("x")


def test_a_degraded_one_is_better_than_none() -> None:
    pool = _pool(VirtualClock(), "a")
    pool.report("a", ok=False)
    pool.report("a", ok=False)
    assert pool.health("a") is Health.DEGRADED
    assert pool.choose().id == "a"


@pytest.mark.parametrize(
    "url", ["ftp://a:1", "a:80", "http://", "http://a:b", "http://a:1/path", "", "http://me:hush@a:1/?q"]
)
def test_a_wrong_address_is_refused_without_repeating_it(url) -> None:
    with pytest.raises(ValueError) as caught:
        parse_address(url)
    assert "hush" not in str(caught.value)


def test_nothing_shows_a_password() -> None:
    proxy = proxy_from_url("socks5://me%40x:hush%2F%3A@proxy.example:1080")
    assert (proxy.username, proxy.password) == ("me@x", "hush/:")
    assert "hush" not in f"{proxy!r} {proxy} {proxy.id} {proxy.server}"
    assert proxy.url == "socks5://me%40x:hush%2F%3A@proxy.example:1080"
