"""Alerts through the pool: a threshold, a leak, a forecast; told to the hook, and once."""

import asyncio
from datetime import UTC, datetime
from random import Random

from tabkeeper import SessionPool
from tabkeeper.clock import VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.pool.watch import tell_oversteps
from tabkeeper.reports.books import Books
from tabkeeper.testing import FakeProvider, Faults, run_virtual

BUDGET = {"name": "daily", "limit": "1.00", "thresholds": [0.1]}
PRICED = {"kind": "local", "rates": {"per_session": "0.20"}}


class Heard(list):
    """A hook on the event loop: threads cannot wait in virtual time."""

    async def __call__(self, alert):
        self.append(alert)


def make(clock, *, url="sqlite://", faults=None, **more):
    config = parse_config(
        {
            "ledger": {"url": url},
            "providers": {"local": PRICED},
            "platforms": {"web": {"create_attempts": 1, "retry_base": "1s", "retry_max": "1s"}},
            "budgets": [BUDGET],
            **more,
        }
    )
    provider = FakeProvider("local", clock, rng=Random(1), faults=faults)
    return SessionPool(config, providers={"local": provider}, clock=clock, rng=Random(1), inline_ledger=True)


def test_hooks_hear_of_a_threshold_when_it_is_reached_and_once():
    async def story(clock):
        told = Heard()
        pool = make(clock)
        pool.on_alert(told)

        @pool.on_alert
        async def other(alert):
            told.append(alert)

        async with pool:
            async with pool.get_session("web"):
                pass
            await pool._jobs.deliver()
            assert [(a.kind, a.share, a.amount.text()) for a in told] == [("threshold", 0.1, "0.20")] * 2
            assert "daily" in told[0].text
        # The end of the session reaches it a second time, now as spent; closing the pool delivers that.
        assert [a.text for a in told[2:]] == ["budget 'daily' has reached 10 %: $0.20 of $1.00 is spent"] * 2

    run_virtual(story)


def test_a_lease_that_is_not_released_is_told_with_the_place_that_took_it():
    async def story(clock):
        told = Heard()
        async with make(clock) as pool:
            pool.on_alert(told)
            lease = await pool.get_session("web")
            await asyncio.sleep(150)
            await pool._jobs.deliver()
            (leak,) = [a for a in told if a.kind == "leak"]
            assert "test_pool.py" in leak.text
            await lease.release()

    run_virtual(story)


def test_failing_creations_and_long_waits_are_told_by_the_minutes_look():
    async def story(clock):
        told = Heard()
        async with make(clock, faults=Faults(create_fails=1.0), alerts={"least_creations": 3}) as pool:
            pool.on_alert(told)
            for _ in range(4):
                await asyncio.gather(pool.get_session("web", timeout=40), return_exceptions=True)
                await asyncio.sleep(2)
            await pool._jobs.look()
            await pool._jobs.look()
            await pool._jobs.deliver()
            assert [a.kind for a in told if a.kind == "creation_failures"] == ["creation_failures"]
            stats = pool.stats()
            assert stats.creations == stats.creations_failed >= 3
            assert pool.samples()[-1].creations_failed == stats.creations_failed

    run_virtual(story)


async def test_a_budget_that_will_not_last_is_told_once_in_its_window(tmp_path):
    clock = VirtualClock(datetime(2026, 3, 1, 0, 30, tzinfo=UTC))
    budgets = [BUDGET, {"name": "web", "limit": "9.00", "platform": "web"}]
    config = parse_config(
        {
            "ledger": {"url": f"sqlite:///{tmp_path}/l.db"},
            "providers": {"local": PRICED},
            "platforms": {"web": {}},
            "budgets": budgets,
        }
    )
    ledger = await Ledger.open(config, clock=clock, inline=True)
    number = 0
    while clock.now() < datetime(2026, 3, 10, 3, tzinfo=UTC):  # five in the hour after midnight, ever since
        number += 1
        ask = HoldRequest(
            session_id=f"s{number}", platform="web", provider="local", tenant="t", max_seconds=60
        )
        if clock.now().hour % 5 == 0:
            await ledger.hold(ask)
            await ledger.settle(f"s{number}", SessionUsage(seconds=1), reason="idle")
        clock.advance(3600)
    books = Books(ledger, clock=clock)
    assert [(o.budget, o.expected.text()) for o in await books.oversteps()] == []
    await ledger.apply_budgets(parse_config({"budgets": [{**BUDGET, "limit": "0.90"}]}).budgets)
    await ledger.hold(
        HoldRequest(session_id="x", platform="web", provider="local", tenant="t", max_seconds=60)
    )
    (found,) = await books.oversteps()
    assert (found.budget, found.expected.text(), found.limit.text()) == ("daily", "1.00", "0.90")
    await tell_oversteps(books, ledger.alerts)
    clock.advance(60)
    await tell_oversteps(books, ledger.alerts)
    forecasts = [event for event, _ in await ledger.alerts.recent(99) if event.kind == "forecast"]
    assert len(forecasts) == 1
    assert "expected to end 2026-03-10 at $1.00, over its limit of $0.90" in forecasts[0].detail
    await ledger.aclose()
