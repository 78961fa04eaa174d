"""The CDP gateway beside a direct connection to the same browser, in turns; the gateway has its own process.

A page with a navigation and a screenshot; megabytes in one answer each; small commands one by one; and many clients
that are connected and say nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.async_api import Playwright, async_playwright
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.common import micros
from tabkeeper.config import ProviderSettings
from tabkeeper.providers.base import SessionSpec
from tabkeeper.providers.local import LocalProvider

ROUNDS, PAGES = 8, 8
BULK_BYTES, BULK_TIMES, BULK_ROUNDS = 2**20, 60, 5
SMALL = 500
IDLE = 500
SETTLE = 1.0
"""Seconds for the gateway to undo what a client did: here the next one has the same browser."""

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


async def pages(playwright: Playwright, address: str, url: str) -> list[float]:
    """Seconds that each navigation with a screenshot took, over one connection."""
    connection = await playwright.chromium.connect_over_cdp(address)
    page = await (await connection.new_context()).new_page()
    await page.goto(url)
    took = []
    for _ in range(PAGES):
        began = time.perf_counter()
        await page.goto(url)
        await page.screenshot()
        took.append(time.perf_counter() - began)
    await connection.close()
    return took


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


async def bulk(address: str) -> float:
    """Bytes per second of large answers."""
    async with raw_page(address) as (socket, session):
        began = time.perf_counter()
        for i in range(BULK_TIMES):
            await ask(socket, 100 + i, "Runtime.evaluate", session, expression=f"'x'.repeat({BULK_BYTES})")
        return BULK_BYTES * BULK_TIMES / (time.perf_counter() - began)


async def small(address: str) -> list[float]:
    """Seconds for a small command and its answer."""
    async with raw_page(address) as (socket, session):
        took = []
        for i in range(SMALL):
            began = time.perf_counter()
            await ask(socket, 100 + i, "Runtime.evaluate", session, expression="1")
            took.append(time.perf_counter() - began)
        return took


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
    figures: dict[str, Any] = {}
    async with (
        site() as url,
        browser() as direct,
        gateway(direct) as (through, process),
        async_playwright() as play,
    ):
        paths = {"direct": direct, "gateway": through}
        took: dict[str, list[float]] = {name: [] for name in paths}
        speed: dict[str, list[float]] = {name: [] for name in paths}
        quick: dict[str, list[float]] = {name: [] for name in paths}
        await pages(play, direct, url)  # warm
        for turn in range(ROUNDS):
            for name in sorted(paths, reverse=bool(turn % 2)):
                took[name] += await pages(play, paths[name], url)
                await asyncio.sleep(SETTLE)
        for turn in range(BULK_ROUNDS):
            for name in sorted(paths, reverse=bool(turn % 2)):
                speed[name].append(await bulk(paths[name]))
                await asyncio.sleep(SETTLE)
                quick[name] += await small(paths[name])
                await asyncio.sleep(SETTLE)
        medians = {name: statistics.median(values) for name, values in took.items()}
        figures["navigation and screenshot"] = {
            **{f"{name}_ms": round(value * 1000, 2) for name, value in medians.items()},
            "ratio": round(medians["gateway"] / medians["direct"], 3),
            "n": len(took["direct"]),
        }
        best = {name: statistics.median(values) for name, values in speed.items()}
        figures["bulk"] = {
            **{f"{name}_mb_per_s": round(value / 1e6, 1) for name, value in best.items()},
            "ratio": round(best["gateway"] / best["direct"], 3),
        }
        figures["small command"] = {name: micros(values) for name, values in quick.items()}
        figures["idle"] = await idle(through, process)
    return figures


def run() -> dict[str, Any]:
    """Measure; see the module."""
    return asyncio.run(measure())
