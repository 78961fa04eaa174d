"""A small ledger with known contents."""

import itertools
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import BudgetExceededError
from tabkeeper.ledger.ledger import Ledger

from .story import Story, config


@pytest.fixture
async def story():
    """An empty ledger at the start of 2026, with three budgets."""
    budgets = [
        {"name": "daily", "limit": "0.25", "timezone": "America/New_York"},
        {"name": "acme", "limit": "0.1", "tenant": "acme", "period": "month"},
        {"name": "ever", "limit": "100", "period": "total", "mode": "soft"},
    ]
    clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
    ledger = await Ledger.open(config(budgets=budgets), clock=clock)
    yield Story(ledger, clock)
    assert await ledger.verify() == []
    await ledger.aclose()


@pytest.fixture
async def golden(story):
    """Three days around a change of clocks in New York (2026-11-01), over all dimensions, with a session open."""
    when = datetime(2026, 10, 31, 3, 50, tzinfo=UTC)
    kinds = itertools.cycle(
        [
            {"leases": ((0.0, 10.0), (20.0, 80.0))},
            {"provider": "other", "platform": "maps", "seconds": 12.5, "leases": ((1.0, 12.0),)},
            {"provider": "local", "seconds": 300.0, "leases": ((0.0, 250.0), (251.0, 299.0), (299.0, 299.5))},
            {"tenant": "acme", "leases": ((5.0, 20.0),), "outcome": "failed"},
            {"platform": "maps", "leases": (), "seconds": 1.0, "state": "failed"},
            {"lease_tenants": ("acme2", "globex"), "leases": ((0.0, 30.0), (61.0, 90.0)), "tenant": "shared"},
            {"provider": "other", "orphan": True, "leases": ()},
        ]
    )
    for _ in range(150):
        with suppress(BudgetExceededError):
            await story.session(when, **next(kinds))
        when += timedelta(minutes=29, seconds=13)
    when += timedelta(hours=1)
    await story.session(when, settled=False)
    story.at(when + timedelta(minutes=10))
    await story.ledger.flush()
    return story
