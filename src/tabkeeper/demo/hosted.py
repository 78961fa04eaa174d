"""Two hosted providers without an account: stand-ins of Kernel and Steel on this machine, and what goes wrong at them.

What they say they ran is written down by them, not by the pool, so the demo can hold one against the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig, ProviderSettings
from tabkeeper.ledger.comparing import Tolerance
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.pool.reconciling import LOOK_BACK, Reconciled, Reconciler
from tabkeeper.providers import make_provider
from tabkeeper.providers.emulator import KINDS, Emulator, Limits, serving

NAMES = ("kernel", "steel")
OUTAGE_AFTER = 2
"""Kernel is full (status 429, to come back in 4 s) once it has created so many sessions ..."""
OUTAGE_ANSWERS = 3
"""... so many times."""
LOST_ANSWER = 2
"""Steel creates this session, and drops the connection instead of an answer."""
OVERBILLED_SECONDS = 75
"""Steel's bill for its first session is this much longer than the session was."""


@dataclass(slots=True)
class Hosted:
    """The two, while they are served."""

    emulators: Mapping[str, Emulator]
    refused: int = 0
    """Create calls that Kernel answered with 429."""
    lost: int = 0
    """Create calls whose answer never came."""

    @property
    def urls(self) -> dict[str, str]:
        """Base addresses of their APIs."""
        return {name: emulator.url for name, emulator in self.emulators.items()}

    @property
    def left(self) -> list[str]:
        """Sessions that still run, and cost money, at either."""
        return [f"{name} {one.id}" for name, emulator in self.emulators.items() for one in emulator.running]

    def created(self) -> dict[str, int]:
        """How many sessions each has ever made: each of them would be on its bill."""
        return {name: len(emulator.sessions) for name, emulator in self.emulators.items()}

    def bill_more(self) -> None:
        """Let Steel bill its first session for longer than anybody saw it run."""
        steel = self.emulators["steel"]
        first = next(iter(steel.sessions.values()), None)
        if first is not None and first.phase.over:
            steel.bills_more(first.id, seconds=OVERBILLED_SECONDS)

    async def misbehave(self) -> None:
        """Let things go wrong, at moments that do not depend on the machine's speed. Runs until cancelled."""
        kernel, steel = self.emulators["kernel"], self.emulators["steel"]
        outage = drop = None
        while True:
            if outage is None and len(kernel.sessions) >= OUTAGE_AFTER:
                outage = kernel.misbehave(
                    "create", "status", status=429, retry_after="4", times=OUTAGE_ANSWERS
                )
            if drop is None and len(steel.sessions) >= LOST_ANSWER - 1:
                drop = steel.misbehave("create", "drop")
            self.refused = outage.done if outage else 0
            self.lost = drop.done if drop else 0
            await asyncio.sleep(0.02)


async def reconcile(config: PoolConfig, ledger: Ledger) -> Reconciled:
    """Compare what the hosted providers bill with the ledger, as `tabkeeper reconcile` does."""
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        providers = {name: make_provider(name, config.providers[name]) for name in NAMES}
        for one in providers.values():
            stack.push_async_callback(one.aclose)
        tolerance = config.ledger.reconcile_tolerance
        reconciler = Reconciler(
            providers=providers,
            ledger=ledger,
            clock=clock,
            tolerance=Tolerance(absolute=tolerance.absolute, relative=tolerance.relative),
            patience=config.pool.close_timeout.total_seconds(),
        )
        return await reconciler.reconcile(since=clock.now() - LOOK_BACK)


@contextlib.asynccontextmanager
async def hosted(marker: str) -> AsyncIterator[Hosted]:
    """Serve both while the block runs; their browsers carry `marker` on their command lines.

    Raises:
        ConfigError: there is no browser on this machine.
    """
    browser = ProviderSettings(kind="local", args=(f"--{marker}",))
    limits = Limits(concurrent=5, creates_per_minute=100)
    async with contextlib.AsyncExitStack() as stack:
        yield Hosted(
            {
                name: await stack.enter_async_context(serving(KINDS[name](limits, browser=browser)))
                for name in NAMES
            }
        )
