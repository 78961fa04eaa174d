"""Sticky sessions: one key, one proxy, from threads and tasks, through failures and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import MissingKeyError, NoProxyError
from tabkeeper.proxies.model import proxy_from_url
from tabkeeper.proxies.pool import ProxyPool
from tabkeeper.proxies.sticky import StickyProxies


def _proxies(count: int = 10) -> list:
    return [proxy_from_url(f"http://10.0.0.{i}:8080", id=f"p{i:02}") for i in range(count)]


def _sticky(clock=None, count: int = 10, **more) -> StickyProxies:
    clock = clock or VirtualClock()
    return StickyProxies(ProxyPool(_proxies(count), clock=clock), clock=clock, **more)


def test_a_thousand_requests_of_one_key_get_one_proxy() -> None:
    sticky = _sticky()
    assert len({sticky.get("user-42").id for _ in range(1000)}) == 1
    assert sticky.stats().requests == 1000
    assert sticky.stats().created == 1


def _from_threads(sticky: StickyProxies) -> dict[str, set[str]]:
    """100 keys, 50 requests each, all of them mixed over 10 threads."""
    keys = [f"key-{i}" for i in range(100)]
    seen: dict[str, set[str]] = {key: set() for key in keys}
    start = threading.Barrier(10)

    def work(number: int) -> None:
        start.wait()
        for turn in range(5):  # each thread asks for every key, so they meet
            for i in range(100):
                key = keys[(i + turn * number) % 100]
                seen[key].add(sticky.get(key).id)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(work, range(10)))
    return seen


def test_a_hundred_keys_from_ten_threads_stick_each_to_its_own() -> None:
    sticky = _sticky(fallback="round_robin")
    seen = _from_threads(sticky)
    assert {len(found) for found in seen.values()} == {1}
    stats = sticky.stats()
    assert (stats.created, stats.requests, stats.failovers) == (100, 5000, 0)
    assert {sticky.pool.standing(p.id).in_use for p in sticky.pool.all()} == {10}


class _Unlocked(StickyProxies):
    """The control: the same code without its locks, where a thread may be held up between look and note."""

    def __init__(self) -> None:
        super().__init__(ProxyPool(_proxies()), fallback="round_robin")
        self._lock = contextlib.nullcontext()
        inner = self.pool.keep_or_choose
        self.pool._lock = contextlib.nullcontext()

        def slow(current, *args, **more):
            found = inner(current, *args, **more)
            if current is None:
                time.sleep(0.0005)
            return found

        self.pool.keep_or_choose = slow  # type: ignore[method-assign]


def test_without_its_lock_keys_change_their_proxies() -> None:
    seen = _from_threads(_Unlocked())
    assert max(len(found) for found in seen.values()) > 1


async def test_a_hundred_keys_from_a_hundred_tasks_stick_each_to_its_own() -> None:
    sticky = _sticky(fallback="round_robin")
    seen: dict[str, set[str]] = {f"key-{i}": set() for i in range(100)}

    async def work(number: int) -> None:
        for turn in range(50):
            key = f"key-{(number + turn) % 100}"
            seen[key].add(sticky.get(key).id)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(work(number))
    assert {len(found) for found in seen.values()} == {1}
    assert sticky.stats().requests == 5000


def test_a_call_takes_less_than_a_millisecond(tmp_path) -> None:
    with StickyProxies.open(f"sqlite:///{tmp_path}/p.db", _proxies()) as sticky:
        for i in range(100):
            sticky.get(f"key-{i}")
        gc.collect()
        rounds = []
        for _ in range(3):  # the best of three: what else the machine does is not the point
            took = []
            for i in range(5000):
                began = time.perf_counter()
                sticky.get(f"key-{i % 200}")
                took.append(time.perf_counter() - began)
            rounds.append(sorted(took)[int(len(took) * 0.99)])
    assert min(rounds) < 0.001


def test_its_time_runs_out_after_an_hour_unless_it_is_touched() -> None:
    clock = VirtualClock()
    sticky = _sticky(clock, fallback="round_robin")
    first = sticky.get("k").id
    clock.advance(3599)
    assert sticky.get("k").id == first
    clock.advance(2)
    assert sticky.get("k").id != first
    second = sticky.get("k").id
    clock.advance(3000)
    assert sticky.touch("k")
    clock.advance(3000)
    assert sticky.get("k").id == second
    assert sticky.stats().expired == 1
    assert sticky.stats().longest_lifetime == 3600
    assert not sticky.touch("unheard of")


def test_a_jump_of_the_wall_clock_ends_no_binding() -> None:
    clock = VirtualClock()
    sticky = _sticky(clock, fallback="round_robin")
    first = sticky.get("k").id
    clock.jump(86400)
    assert sticky.get("k").id == first


def test_it_fails_over_when_its_proxy_is_no_longer_healthy() -> None:
    sticky = _sticky(count=3)
    first = sticky.get("k")
    sticky.failed("k", "timeout")
    assert sticky.get("k") == first  # once may be chance
    sticky.failed("k", "timeout")
    second = sticky.get("k")  # degraded: rejected
    assert second != first
    assert sticky.get("k") == second
    assert sticky.stats().failovers == 1
    assert sticky.list()[0].failovers == 1
    for _ in range(10):
        sticky.failed("k", "dead")
    assert sticky.get("k") not in {first, second}


def test_it_fails_over_when_its_proxy_is_in_the_callers_list() -> None:
    sticky = _sticky(count=2)
    first = sticky.get("k")
    second = sticky.get("k", failed=[first.id])
    assert second != first
    assert sticky.get("k") == second
    with pytest.raises(NoProxyError, match="failed ones"):
        sticky.get("k", failed=[first.id, second.id])
    assert sticky.get("k") == second  # an error changes nothing


def test_a_degraded_proxy_is_kept_while_there_is_no_better_one() -> None:
    sticky = _sticky(count=1)
    first = sticky.get("k")
    sticky.failed("k")
    sticky.failed("k")
    assert sticky.get("k") == first
    sticky.failed("k")
    with pytest.raises(NoProxyError, match="unhealthy for"):
        sticky.get("k")


@pytest.mark.parametrize("strategy", ["sticky", "cheapest", "round_robin", "random"])
def test_how_it_fails_over_is_a_choice(strategy) -> None:
    sticky = _sticky(fallback=strategy)
    first = sticky.get("k")
    assert sticky.get("k", failed=[first.id]) != first


@pytest.mark.parametrize("key", [None, ""])
@pytest.mark.parametrize("call", ["get", "touch", "close", "failed", "succeeded"])
def test_a_missing_key_is_an_error_that_says_so(key, call) -> None:
    with pytest.raises(MissingKeyError, match="needs a key"):
        getattr(_sticky(), call)(key)
    with pytest.raises(TypeError, match="text"):
        _sticky().get(42)


def test_close_list_and_clear() -> None:
    clock = VirtualClock()
    sticky = _sticky(clock)
    for key in "cab":
        sticky.get(key)
    assert [one.key for one in sticky.list()] == ["a", "b", "c"]
    assert sticky.close("a")
    assert not sticky.close("a")
    assert sticky.clear() == 2
    assert sticky.list() == []
    sticky.get("d")
    clock.advance(4000)
    assert sticky.clean() == 1
    stats = sticky.stats()
    assert (stats.created, stats.closed, stats.expired, stats.active) == (4, 3, 1, 0)
    assert all(sticky.pool.standing(p.id).in_use == 0 for p in sticky.pool.all())


def test_bindings_survive_a_restart(ledger_url) -> None:
    url = ledger_url
    with StickyProxies.open(url, _proxies(), fallback="random") as sticky:
        before = {f"k{i}": sticky.get(f"k{i}").id for i in range(50)}
        sticky.close("k0")
        sticky.failed("k1", "refused")
    with StickyProxies.open(url, _proxies(), fallback="random") as again:
        assert {key: again.get(key).id for key in before if key != "k0"} == {
            key: proxy for key, proxy in before.items() if key != "k0"
        }
        assert again.stats().created == 0
        assert again.pool.standing(before["k1"]).failed == 1
        moved = again.get("k2", failed=[before["k2"]]).id
    with StickyProxies.open(url, _proxies(), fallback="random") as third:
        assert third.get("k2").id == moved


_KILLED = """
import os, signal, sys, time
from tabkeeper.proxies.sticky import StickyProxies
sticky = StickyProxies.open(sys.argv[1], [f"http://10.0.0.{i}:80" for i in range(10)], fallback="random")
print(sticky.get("k").id, flush=True)
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.kill
def test_a_binding_survives_the_death_of_its_process(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/p.db"
    done = subprocess.run([sys.executable, "-c", _KILLED, url], capture_output=True, text=True, check=False)
    with StickyProxies.open(url, [f"http://10.0.0.{i}:80" for i in range(10)], fallback="random") as sticky:
        assert sticky.get("k").id == done.stdout.strip()
        assert sticky.stats().created == 0
