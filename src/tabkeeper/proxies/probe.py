"""The active probe: one request through a proxy, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from tabkeeper.clock import SystemClock
from tabkeeper.proxies.model import Proxy
from tabkeeper.proxies.pool import ProxyPool

_AT_ONCE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one probe found."""

    proxy: str
    ok: bool
    latency: float | None
    """Seconds until the answer; None if there was none."""
    error: str = ""


async def probe(proxy: Proxy, url: str, *, timeout: float = 10.0) -> Probe:
    """Ask for `url` through a proxy; anything but an answer below status 400 within `timeout` seconds is a failure."""
    clock = SystemClock()
    began = clock.monotonic()
    try:
        async with asyncio.timeout(timeout):
            async with httpx.AsyncClient(proxy=proxy.url, timeout=timeout, trust_env=False) as client:
                answer = await client.get(url)
    except TimeoutError:
        return Probe(proxy=proxy.id, ok=False, latency=None, error=f"no answer within {timeout:g} s")
    except (httpx.HTTPError, OSError) as error:
        return Probe(proxy=proxy.id, ok=False, latency=None, error=_told(proxy, error))
    latency = clock.monotonic() - began
    if answer.status_code >= 400:
        why = f"the answer was {answer.status_code} {answer.reason_phrase}".rstrip()
        return Probe(proxy=proxy.id, ok=False, latency=latency, error=why)
    return Probe(proxy=proxy.id, ok=True, latency=latency)


async def probe_all(
    pool: ProxyPool, url: str, *, timeout: float = 10.0, only: Iterable[str] | None = None
) -> list[Probe]:
    """Probe proxies side by side, note in the pool what was found, and return it by id.

    Raises:
        ProxyError: `only` names one that there is not.
    """
    proxies = pool.all() if only is None else [pool.get(one) for one in only]
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(proxy: Proxy) -> Probe:
        async with slots:
            found = await probe(proxy, url, timeout=timeout)
        pool.report(found.proxy, ok=found.ok, latency=found.latency, error=found.error)
        return found

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(proxy)) for proxy in proxies]
    return [task.result() for task in tasks]


def _told(proxy: Proxy, error: Exception) -> str:
    said = " ".join(str(error).split())
    for secret in (proxy.password, proxy.username):
        if secret:
            said = said.replace(secret, "***")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
