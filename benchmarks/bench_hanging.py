"""Leases from one provider while another hangs, beside the same leases without it: on real sockets, in turns.

A provider is an emulator's API in a process of its own; the one that hangs accepts connections and never answers. Each
side is a process with a pool; they work in turns, so that a slow moment of the machine hits them all. One side is
there twice: how far those two are apart is what this machine cannot tell. Beside the time that passes, the time is
taken that the loop's thread works while a lease is waited for: what else the machine does hardly moves it. The last
side is the control: something that takes the loop for a moment in each of its turns, which the figures must show.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.common import micros, percentile
from tabkeeper.config import parse_config
from tabkeeper.errors import TabkeeperError
from tabkeeper.pool.pool import SessionPool

SIDES = {"normal": "", "normal, again": "", "beside one that hangs": "hangs", "control": "taken"}
ROUNDS, WARM, COLD = 40, 300, 4
TAKEN_SECONDS = 0.0001
"""For so long the control takes each turn of the loop."""
KINDS = ("warm", "warm, worked", "cold")
WAITING, HANGING = 10, 3
"""Requests that wait for the provider that hangs, and creations that hang there."""


def config(folder: str, good: str, bad: str) -> Any:
    """Return a pool with two providers, and a platform at each of them."""

    def account(url: str, most: int) -> dict[str, Any]:
        return {"kind": "steel", "api_key": "k", "base_url": url, "rates": {}, "max_sessions": most}

    return parse_config(
        {
            "pool": {
                "max_sessions": 20,
                # Longer than the benchmark: once one is given up, the provider is tried with fewer.
                "create_timeout": "1h",
                "session_ttl": "2h",
                "close_timeout": "2s",
                "queue_timeout": "1h",
            },
            "ledger": {"url": f"sqlite:///{folder}/ledger.db"},
            "providers": {"good": account(good, 10), "bad": account(bad, HANGING)},
            "platforms": {
                "warm": {"providers": ["good"]},
                "cold": {"providers": ["good"], "max_uses": 1},
                "mail": {"providers": ["bad"]},
            },
        }
    )


async def one_side(good: str, bad: str, mode: str) -> None:
    """Work when a line comes in, and answer with how long each lease took."""
    logging.disable()
    hangs = mode == "hangs"
    with tempfile.TemporaryDirectory() as folder:
        pool = SessionPool(config(folder, good, bad))
        await pool.open()

        async def wait() -> None:
            while True:
                with contextlib.suppress(TabkeeperError):
                    await (await pool.get_session("mail")).release()

        async def take() -> None:
            while True:
                until = time.thread_time() + TAKEN_SECONDS
                while time.thread_time() < until:
                    pass
                await asyncio.sleep(0)

        async def leases(platform: str, number: int) -> tuple[list[float], list[float]]:
            took, worked = [], []
            for _ in range(number):
                began, cpu = time.perf_counter(), time.thread_time()
                lease = await pool.get_session(platform)
                took.append(time.perf_counter() - began)
                worked.append(time.thread_time() - cpu)
                await lease.release()
            return took, worked

        await leases("warm", 50)
        waiting = [asyncio.create_task(wait()) for _ in range(WAITING * hangs)]
        await asyncio.sleep(1)
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            while pool.stats().platforms["mail"].creating != HANGING * hangs:
                await asyncio.sleep(0.1)  # some gave up just now, and are about to be tried again
            taking = asyncio.create_task(take()) if mode == "taken" else None
            warm, worked = await leases("warm", WARM)
            cold, _ = await leases("cold", COLD)
            if taking is not None:
                taking.cancel()
            print(json.dumps({"warm": warm, "warm, worked": worked, "cold": cold}), flush=True)
        for task in waiting:
            task.cancel()
        await asyncio.wait([asyncio.create_task(pool.close())], timeout=5)


@contextlib.asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run something in a process of its own, as long as it is needed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=2**24,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def measure() -> dict[str, Any]:
    """Let the sides work in turns."""
    connections: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    bad = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    taken: dict[str, dict[str, list[list[float]]]] = {side: {kind: [] for kind in KINDS} for side in SIDES}
    async with contextlib.AsyncExitStack() as stack:
        provider = await stack.enter_async_context(started("-m", "benchmarks.bench_hanging", "--provider"))
        good = await _line(provider)
        sides = {}
        for side, mode in SIDES.items():
            asked = ["-m", "benchmarks.bench_hanging", "--good", good, "--bad", bad, "--mode", mode]
            sides[side] = await stack.enter_async_context(started(*asked))
            assert await _line(sides[side]) == "ready"
        for number in range(ROUNDS):
            # Who goes first changes, too.
            for side in list(SIDES)[number % len(SIDES) :] + list(SIDES)[: number % len(SIDES)]:
                worker = sides[side].stdin
                assert worker is not None
                worker.write(b"go\n")
                for kind, seconds in json.loads(await _line(sides[side])).items():
                    taken[side][kind].append(seconds)
    for connection in connections:
        connection.close()
    silent.close()
    return {kind: _figures({side: found[kind] for side, found in taken.items()}) for kind in KINDS}


def _figures(taken: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Percentiles of each side, and each by those of the first: the median of the rounds, and of all in one."""
    found: dict[str, Any] = {
        side: micros([s for one in rounds for s in one]) for side, rounds in taken.items()
    }
    normal, *others = taken
    for side in others:
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            ratios = [
                percentile(theirs, share) / percentile(ours, share)
                for theirs, ours in zip(taken[side], taken[normal], strict=True)
            ]
            found[side][f"{name}_by_normal"] = round(percentile(ratios, 0.5), 3)
            whole = [percentile([s for one in taken[which] for s in one], share) for which in (side, normal)]
            found[side][f"all_{name}_by_normal"] = round(whole[0] / whole[1], 3)
    return found


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def _provide() -> None:
    from tabkeeper.providers.emulator import Limits, SteelEmulator, serving

    limits = Limits(concurrent=1000, creates_per_minute=10**6, connect_seconds=1e9)
    async with serving(SteelEmulator(limits)) as emulator:
        print(emulator.url, flush=True)
        await asyncio.Future()


def run() -> dict[str, Any]:
    """Measure."""
    return asyncio.run(measure())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--provider", action="store_true")
    parser.add_argument("--good")
    parser.add_argument("--bad")
    parser.add_argument("--mode", default="")
    asked = parser.parse_args()
    asyncio.run(_provide() if asked.provider else one_side(asked.good, asked.bad, asked.mode))
