"""A worker to be killed: opens the ledger, cleans up after the dead, then leases, pays and compares with what
the provider says as fast as it can.

Started once, it forks a fresh worker for each line on its input, so that two hundred kills do not cost two
hundred imports. What the ledger acknowledged is noted in a file before anything else is done.
"""

import asyncio
import itertools
import os
import random
import signal
import sys
from datetime import UTC, datetime, timedelta

from tabkeeper.errors import BudgetExceededError
from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.ledger import Ledger

from .builders import ask, config, lease, used

BUDGETS = [
    {"name": "daily", "limit": "1000.00", "thresholds": [0.001, 0.01]},
    {"name": "tight", "limit": "0.60", "platform": "maps"},
]


def billed(session_id):
    """What the provider says of a session, whoever asks: less than was booked for `maps`, whose budget is tight."""
    return Figures(seconds_us=60_000_000 if session_id.split("-")[1] == "0" else 180_000_000)


async def due(ledger, **more):
    """Sessions to compare."""
    since = datetime.now(UTC) - timedelta(hours=1)
    return await ledger.reconciliation.due("bb", since=since, settled_for=timedelta(0), **more)


async def work(url, notes):
    def note(line):
        os.write(notes, (line + "\n").encode())

    ledger = await Ledger.open(config(url, budgets=BUDGETS))
    for orphan in await ledger.owners.orphans():
        await ledger.settle_orphan(orphan.session_id, reason="owner was killed")
    note("ready")

    async def lease_and_pay(me):
        for i in itertools.count():
            session_id = f"{os.getpid()}-{me}-{i}"
            try:
                await ledger.hold(ask(session_id, platform="maps" if me == 0 else "web"))
            except BudgetExceededError:
                await asyncio.sleep(0.001)
                continue
            note(f"held {session_id}")
            await ledger.activate(session_id, provider_session_id="p")
            for number in range(1, random.randint(1, 4)):
                ledger.record_lease(lease(session_id, number, number, number + 1))
            if random.random() < 0.2:
                await ledger.void(session_id, reason="refused")
                note(f"voided {session_id}")
            else:
                await ledger.settle(session_id, used(random.randint(1, 90)), reason="idle")
                note(f"settled {session_id}")

    async def reconcile():
        while True:
            for one in await due(ledger, most=10):
                await ledger.reconciliation.compare(one.session_id, billed(one.session_id))
                note(f"compared {one.session_id}")
            await asyncio.sleep(0.001)

    await asyncio.gather(*(lease_and_pay(me) for me in range(6)), reconcile())


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        url, path = line.split()
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(work(url, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)))
            finally:
                os._exit(3)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
