"""An adapter before its emulator: started for a test, and at its end nothing may be left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from tabkeeper.clock import VirtualClock
from tabkeeper.providers.base import Provider
from tabkeeper.providers.emulator import Emulator

P = TypeVar("P", bound=Provider)


async def moment(_: float) -> None:
    """Sleep, but not for as long as was asked."""
    await asyncio.sleep(0.001)


def passing(clock: VirtualClock) -> Callable[[float], Awaitable[None]]:
    """Return a sleep that lets as much time pass on `clock`, and none of ours."""

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    return sleep


@asynccontextmanager
async def started(
    provider: P, emulator: Emulator, losses: Callable[[str, str], None] = lambda *_: None
) -> AsyncIterator[P]:
    await provider.start(losses)
    try:
        yield provider
    finally:
        emulator.behave()
        await provider.aclose()
