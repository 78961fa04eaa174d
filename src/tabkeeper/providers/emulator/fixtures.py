"""A pytest fixture of emulators; put ``pytest_plugins = ["tabkeeper.providers.emulator.fixtures"]`` in conftest.py.

async def test_mine(emulate):
    emulator = await emulate("browserbase", Limits(concurrent=2))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio

from tabkeeper.providers.emulator import KINDS, Emulator, Limits, serving

Emulate = Callable[..., Awaitable[Emulator]]


@pytest_asyncio.fixture
async def emulate() -> AsyncIterator[Emulate]:
    """Serve emulators on free ports of this machine until the test is over."""
    async with AsyncExitStack() as stack:

        async def start(kind: str, limits: Limits | None = None, **more: Any) -> Emulator:
            return await stack.enter_async_context(serving(KINDS[kind](limits, **more)))

        yield start
