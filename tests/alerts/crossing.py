"""A process that spends until a budget is gone, and delivers alerts meanwhile; to be killed at any moment."""

import asyncio
import os
import random
import signal
import sys
from datetime import UTC, datetime

from tabkeeper.alerts.dispatch import Dispatcher
from tabkeeper.alerts.webhook import Webhook
from tabkeeper.config import parse_config
from tabkeeper.errors import BudgetExceededError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def config(url, hook):
    rates = {"per_hour": "0.60", "increment": "1m", "minimum": "1m"}
    return parse_config(
        {
            "ledger": {"url": url},
            "providers": {"bb": {"kind": "cdp", "url": "ws://unused.invalid", "rates": rates}},
            "platforms": {"web": {"providers": ["bb"]}},
            "budgets": [
                {"name": "all", "limit": "0.60", "period": "total", "thresholds": [0.1, 0.3, 0.5, 0.9]}
            ],
            "alerts": {"retry_base": "50ms", "webhooks": [{"name": "ops", "url": hook}]},
        }
    )


async def spend(url, hook):
    settings = config(url, hook)
    ledger = await Ledger.open(settings)
    webhooks = [Webhook(one) for one in settings.alerts.webhooks]
    # Claims of the killed must run out within the test.
    dispatcher = Dispatcher(
        ledger.alerts, settings.alerts, webhooks, since=BEGAN, rng=random.Random(), claim_seconds=0.5
    )

    async def buy(number):
        session_id = f"{os.getpid()}-{number}"
        try:
            await ledger.hold(
                HoldRequest(session_id=session_id, platform="web", provider="bb", tenant="t", max_seconds=60)
            )
        except BudgetExceededError:
            return
        await ledger.settle(session_id, SessionUsage(seconds=60), reason="idle")

    number = 0
    while True:
        await asyncio.gather(buy(number), dispatcher.run())
        number += 1
        await asyncio.sleep(random.uniform(0, 0.02))


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        url, hook = line.split()
        pid = os.fork()
        if pid == 0:
            os.close(0)
            asyncio.run(spend(url, hook))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
