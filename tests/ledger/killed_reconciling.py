"""A worker to be killed: compares sessions with a provider whose opinion changes from round to round."""

import os
import random

from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.ledger import Ledger

from .builders import config
from .killed import main

SESSIONS = 60
MINUTE = 60_000_000
BUDGETS = [{"name": "daily", "limit": "1.00"}, {"name": "web", "limit": "9.00", "platform": "web"}]


def minutes(number):
    return 1 + number % 5


async def reconcile(url, notes):
    ledger = await Ledger.open(config(url, budgets=BUDGETS))
    os.write(notes, b"ready\n")
    for opinion in range(10**6):
        for number in random.sample(range(SESSIONS), SESSIONS):
            said = minutes(number) + opinion % 2
            await ledger.reconciliation.compare(f"s{number}", Figures(seconds_us=said * MINUTE))


if __name__ == "__main__":
    main(reconcile)
