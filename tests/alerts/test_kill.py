"""Eight processes cross the same thresholds and are killed at random: one event for each crossing, each delivered."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tabkeeper.ledger.engines import parse_url
from tabkeeper.ledger.ledger import Ledger

from .crossing import config
from .receiver import receiving

KILLS = 200 if os.environ.get("TABKEEPER_PROOF") == "1" else 12
EXPECTED = {
    f"{metric}|{share}" for metric in ("spent", "committed") for share in (100000, 300000, 500000, 900000)
}


@pytest.mark.kill
def test_one_event_each_and_each_is_delivered(ledger_url, record_property):
    chance = random.Random(KILLS)
    asyncio.run(_create(ledger_url))
    with receiving() as ops:
        nursery = subprocess.Popen(
            [sys.executable, "-m", "alerts.crossing"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def start():
            nursery.stdin.write(f"{ledger_url} {ops.url}\n")
            nursery.stdin.flush()
            return int(nursery.stdout.readline())

        workers = [start() for _ in range(8)]
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.0, 0.04))
                victim = chance.randrange(len(workers))
                os.kill(workers[victim], signal.SIGKILL)
                workers[victim] = start()
            deadline = time.monotonic() + 30
            while len(set(ops.keys) & _events(ledger_url)) < len(EXPECTED) + 1:
                assert time.monotonic() < deadline, (ops.keys, _events(ledger_url))
                time.sleep(0.05)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            nursery.stdin.close()
            nursery.wait(10)
            nursery.stdout.close()
    events = _events(ledger_url)
    crossings = [key.split("|", 2)[2] for key in events if key.startswith("threshold")]
    assert sorted(crossings) == sorted(EXPECTED)
    assert set(ops.keys) == events
    asyncio.run(_sound(ledger_url))
    record_property("processes", len(workers))
    record_property("kills", KILLS)
    record_property("crossings", len(crossings))
    record_property("events", len(events))
    record_property("deliveries", len(ops.keys))


def _events(url):
    engine = create_engine(parse_url(url), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return {row[0] for row in connection.execute(text("SELECT dedupe_key FROM alert_event"))}
    finally:
        engine.dispose()


async def _create(url):
    await (await Ledger.open(config(url, "http://127.0.0.1:1/"))).aclose()


async def _sound(url):
    ledger = await Ledger.open(config(url, "http://127.0.0.1:1/"))
    assert await ledger.verify() == []
    await ledger.aclose()
