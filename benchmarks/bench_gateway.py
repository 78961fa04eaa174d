"""The CDP gateway beside a direct connection to the same browser; the gateway has its own process.

Both connections are open all the time and take turns, page by page, so what else the machine does hits both. A page
with a navigation and a screenshot; megabytes in one answer each; small commands one by one; and many clients that are
connected and say nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
from playwright.async_api import Playwright, async_playwright
from websockets.asyncio.client import ClientConnection, connect

from tabkeeper.config import ProviderSettings
from tabkeeper.providers.base import SessionSpec
from tabkeeper.providers.local import LocalProvider

PAGES, WARM = 200, 10
BULK_BYTES, BULK_TIMES, BULK_ROUNDS = 2**20, 10, 30
SMALL_TIMES, SMALL_ROUNDS = 50, 40
IDLE = 500
RESAMPLES = 2000

PAGE = (
    b"<!doctype html><title>page</title><style>div{height:90px;background:linear-gradient(red,blue)}</style>"
    + (b"<div>some words</div>" * 200)
)


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    """Serve one page."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}\r\nConnection: close"
            writer.write(f"{head}\r\n\r\n".encode() + PAGE)
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@asynccontextmanager
async def browser() -> AsyncIterator[str]:
    """Run one Chromium and give its address."""
    with tempfile.TemporaryDirectory() as folder:
        provider = LocalProvider(
            "local", ProviderSettings(kind="local", isolation="process"), state_dir=Path(folder)
        )
        await provider.start(lambda *_: None)
        try:
            made = await provider.create(SessionSpec(session_id="s1", platform="web", max_seconds=3600))
            yield made.connect_url
        finally:
            await provider.aclose()


@asynccontextmanager
async def gateway(url: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    """Run a gateway before that browser; gives its WebSocket address and its process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.gateway_server",
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    address = (await process.stdout.readline()).decode().strip()
    try:
        yield f"{address.replace('http', 'ws', 1)}/cdp", psutil.Process(process.pid)
    finally:
        process.stdin.close()
        await process.wait()


async def in_turns(rounds: int, one: Callable[[str], Awaitable[float]]) -> dict[str, list[float]]:
    """What each side took, round by round; who begins changes."""
    took: dict[str, list[float]] = {"direct": [], "gateway": []}
    for turn in range(rounds):
        for name in sorted(took, reverse=bool(turn % 2)):
            took[name].append(await one(name))
    return took


def compared(took: dict[str, list[float]]) -> dict[str, Any]:
    """The median of the rounds' ratios, with the interval in which resampling finds it 95 times out of 100."""
    ratios = [gateway / direct for gateway, direct in zip(took["gateway"], took["direct"], strict=True)]
    chance = Random(1)
    again = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_95": [round(again[int(RESAMPLES * share)], 3) for share in (0.025, 0.975)],
        "ratio_of_medians": round(statistics.median(took["gateway"]) / statistics.median(took["direct"]), 3),
        "n": len(ratios),
    }


def processor_time() -> float:
    """Seconds that this process and all that it started have worked."""
    ours, total = psutil.Process(), 0.0
    for one in (ours, *ours.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            spent = one.cpu_times()
            total += spent.user + spent.system
    return total


async def pages(
    playwright: Playwright, paths: dict[str, str], url: str, process: psutil.Process
) -> dict[str, Any]:
    """Navigations with a screenshot."""
    connections = {name: await playwright.chromium.connect_over_cdp(path) for name, path in paths.items()}
    opened = {name: await (await one.new_context()).new_page() for name, one in connections.items()}

    worked = {"direct": 0.0, "gateway": 0.0}

    async def one(name: str) -> float:
        before = processor_time()
        began = time.perf_counter()
        await opened[name].goto(url)
        await opened[name].screenshot()
        took = time.perf_counter() - began
        worked[name] += processor_time() - before
        return took

    await in_turns(WARM, one)
    worked = dict.fromkeys(worked, 0.0)
    before = process.cpu_times()
    took = await in_turns(PAGES, one)
    after = process.cpu_times()
    for connection in connections.values():
        await connection.close()
    used = after.user + after.system - before.user - before.system
    return {
        **{f"{name}_ms": round(statistics.median(values) * 1000, 2) for name, values in took.items()},
        **compared(took),
        # What all processes work for a page says more than time does where a machine is busy with other things.
        "processor_ms": {name: round(seconds / PAGES * 1000, 1) for name, seconds in worked.items()},
        "processor_ratio": round(worked["gateway"] / worked["direct"], 3),
        "gateway_process_ms": round(used / PAGES * 1000, 2),
    }


async def ask(socket: ClientConnection, number: int, method: str, session: str = "", **params: Any) -> Any:
    command = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
    await socket.send(json.dumps(command))
    while True:
        raw = await socket.recv(decode=False)
        if raw.startswith(b'{"id":%d,' % number):
            assert b'"error"' not in raw[:64], raw[:300]
            return raw


@asynccontextmanager
async def raw_page(address: str) -> AsyncIterator[tuple[ClientConnection, str]]:
    """A page in a context of its own, spoken to without any library."""
    async with connect(address, max_size=None, compression=None, proxy=None) as socket:
        context = json.loads(await ask(socket, 1, "Target.createBrowserContext"))["result"][
            "browserContextId"
        ]
        target = json.loads(
            await ask(socket, 2, "Target.createTarget", url="about:blank", browserContextId=context)
        )
        attached = json.loads(
            await ask(socket, 3, "Target.attachToTarget", targetId=target["result"]["targetId"], flatten=True)
        )
        yield socket, attached["result"]["sessionId"]
        await ask(socket, 4, "Target.disposeBrowserContext", browserContextId=context)


async def raw(paths: dict[str, str]) -> dict[str, Any]:
    """Large answers, and small commands, without a library's own work."""
    async with raw_page(paths["direct"]) as direct, raw_page(paths["gateway"]) as through:
        ends = {"direct": direct, "gateway": through}

        async def evaluate(name: str, expression: str, times: int) -> float:
            socket, session = ends[name]
            began = time.perf_counter()
            for number in range(times):
                await ask(socket, 100 + number, "Runtime.evaluate", session, expression=expression)
            return (time.perf_counter() - began) / times

        large = await in_turns(
            BULK_ROUNDS, lambda name: evaluate(name, f"'x'.repeat({BULK_BYTES})", BULK_TIMES)
        )
        small = await in_turns(SMALL_ROUNDS, lambda name: evaluate(name, "1", SMALL_TIMES))
    speed = {name: [BULK_BYTES / one for one in values] for name, values in large.items()}
    return {
        "bulk": {
            **{f"{name}_mb_per_s": round(statistics.median(v) / 1e6, 1) for name, v in speed.items()},
            **compared(speed),
        },
        "small command": {
            **{f"{name}_us": round(statistics.median(values) * 1e6) for name, values in small.items()},
            **compared(small),
        },
    }


async def idle(address: str, process: psutil.Process) -> dict[str, Any]:
    """Memory of the gateway for each of many clients that say nothing, all of whom are then still served."""
    before, opened = process.memory_info().rss, []
    try:
        for _ in range(IDLE):
            opened.append(await connect(address, max_size=None, compression=None, proxy=None))
        await asyncio.sleep(2)
        held = process.memory_info().rss - before
        processor = process.cpu_times()
        await asyncio.sleep(10)
        later = process.cpu_times()
        answered = [len(await ask(one, 1, "Browser.getVersion")) > 0 for one in opened]
        return {
            "connections": len(opened),
            "answered": sum(answered),
            "kib_each": round(held / len(opened) / 1024, 1),
            "cpu_percent": round((later.user + later.system - processor.user - processor.system) * 10, 2),
        }
    finally:
        await asyncio.gather(*(one.close() for one in opened))


async def measure() -> dict[str, Any]:
    """All of it."""
    load = psutil.getloadavg()[0]
    async with (
        site() as url,
        browser() as direct,
        gateway(direct) as (through, process),
        async_playwright() as play,
    ):
        paths = {"direct": direct, "gateway": through}
        return {
            "navigation and screenshot": await pages(play, paths, url, process),
            **await raw(paths),
            "idle": await idle(through, process),
            "load average": {"before": round(load, 1), "after": round(psutil.getloadavg()[0], 1)},
        }


def run() -> dict[str, Any]:
    """Measure; see the module."""
    return asyncio.run(measure())
