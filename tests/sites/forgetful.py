"""The control of the kills: the same visits, but what a page gave is written after, not with, that it is done."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tabkeeper.sites.runs import Gain, Run, RunPage, Runs, own

sys.path.insert(0, str(Path(__file__).parent))
try:
    from visitor import parse
finally:
    sys.path.pop(0)

__all__ = ["forgetful", "parse"]

_in_one = Runs.update


def forgetful(die: Callable[[], None]) -> Callable[..., object]:
    """Make an `update` in two transactions, with something that may go wrong between them."""

    async def update(self: Runs, run: Run, page: RunPage, gain: Gain) -> list[RunPage]:
        new = await _in_one(self, run, page, replace(gain, items=()))
        die()

        def work(tx):
            last = own(tx, run, self.database.process_id, len(gain.items))
            for n, body in enumerate(gain.items, start=last - len(gain.items) + 1):
                tx.run(
                    "INSERT INTO run_item (run_id, n, page, body) VALUES (:run, :n, :page, :body)",
                    run=run.id,
                    n=n,
                    page=page.n,
                    body=body,
                )

        await self.database.transact(work)
        return new

    return update


def _killed_if_told() -> None:
    if Path("dies").exists():
        Path("dies").unlink()
        os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get("FORGETFUL"):
    Runs.update = forgetful(_killed_if_told)
