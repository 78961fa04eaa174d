"""A process of a shared pool that works through tasks: leases, holds a little, releases, and says so line by line."""

import asyncio
import json
import sys
from random import Random

from tabkeeper.config import parse_config
from tabkeeper.errors import BudgetExceededError, LeaseLostError, TabkeeperError
from tabkeeper.pool import fleet
from tabkeeper.pool.pool import SessionPool


def say(*words: object) -> None:
    print(*words, flush=True)


async def task(pool: SessionPool, number: int, chance: Random, tenants: list[str], hold: float) -> None:
    tenant = chance.choice(tenants)
    try:
        lease = await pool.get_session(
            "web", tenant=tenant, priority=chance.randrange(3), timeout=120, tags={"task": str(number)}
        )
    except BudgetExceededError:
        say("refused", number)
        return
    except TabkeeperError as error:
        say("failed", number, repr(error))
        return
    say("leased", number, lease.session_id, lease.token[1])
    await asyncio.sleep(chance.uniform(0.3, 1.0) * hold)
    try:
        _ = lease.granted_at
        pool._leases.reach.running_of(lease._holding)
    except LeaseLostError:
        say("lost", number)
    await lease.release()
    say("released", number, lease.session_id, lease.token[1])


async def told() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def main(order: dict) -> None:
    chance = Random(order["seed"])
    if order["code"]:
        fleet.code_of_decisions = lambda: order["code"]
    async with SessionPool(parse_config(order["config"])) as pool:
        say("open", pool._board.home)
        if order["waits"]:
            await told()
        slots = asyncio.Semaphore(order["at_once"])

        if order["until_told"]:
            stop = asyncio.ensure_future(told())

            async def go_on(first: int) -> None:
                number = first
                while not stop.done():
                    await task(pool, number, chance, order["tenants"], order["hold"])
                    number += order["at_once"]

            await asyncio.gather(*(go_on(first) for first in range(order["at_once"])), stop)
            await pool.close(grace=0)
            say("closed")
            return

        async def one(number: int) -> None:
            async with slots:
                await task(pool, number, chance, order["tenants"], order["hold"])

        async with asyncio.TaskGroup() as group:
            for number in range(order["tasks"]):
                group.create_task(one(number))
        say("done")
        if order["stay"]:
            await told()
        await pool.close(grace=0)
    say("closed")


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
