"""What a provider billed the whole account, against all that was booked: booked once, told, and only where it is ours.

Ledger, adapter and the emulator's application are the real ones; time is moved by hand, and there is no wire.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

import httpx
import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.ledger.comparing import Tolerance
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.money import ZERO, Money
from tabkeeper.pool.reconciling import Reconciler
from tabkeeper.providers import make_provider
from tabkeeper.providers.emulator import KINDS, Limits, Phase

DAY = 86_400


class Account:
    """An emulated account, a ledger, and what compares the two."""

    def __init__(self, kind, url, clock, *, exclusive=True, budgets=(), rates=None):
        self.clock = clock
        self.emulator = KINDS[kind](Limits(concurrent=100, creates_per_minute=1000), clock=clock)
        provider = {
            "kind": kind,
            "api_key": "k",
            "base_url": "http://far.invalid",
            "exclusive": exclusive,
            "rates": rates or {"per_hour": "0.09", "increment": "1m", "minimum": "1m"},
        }
        self.config = parse_config(
            {
                "ledger": {"url": url},
                "providers": {"far": provider},
                "platforms": {"web": {"providers": ["far"]}},
                "budgets": list(budgets),
            }
        )
        wire = httpx.ASGITransport(app=self.emulator.app())
        adapter = type(make_provider("far", self.config.providers["far"]))
        self.adapter = adapter("far", self.config.providers["far"], transport=wire, clock=clock)

    def admit(self):
        """A session of anybody's at the provider, without a browser."""
        request = {"session": {}, "userMetadata": {}}
        return self.emulator.admit(request, seconds=3600, keep_alive=True, connect_seconds=1e9)

    async def uses(self, seconds, name=None):
        """A session in its whole life; without a name the ledger never hears of it."""
        if name:
            ask = HoldRequest(session_id=name, platform="web", provider="far", tenant="t", max_seconds=3600)
            await self.ledger.hold(ask)
        one = self.admit()
        if name:
            await self.ledger.activate(name, provider_session_id=one.id)
        self.clock.advance(seconds)
        self.emulator.end(one, Phase.COMPLETED, "released")
        if name:
            await self.ledger.settle(name, SessionUsage(seconds=seconds), reason="done")

    async def reconciled(self, **more):
        (found,) = (await self.reconciler.reconcile(**more)).providers
        assert await self.ledger.verify() == []
        return found

    async def until_tomorrow(self, hours=0.0):
        left = DAY - self.clock.now().timestamp() % DAY
        self.clock.advance(left + hours * 3600)

    async def adjusted(self):
        await self.ledger.flush()
        with self.ledger.reader.connect() as db:
            rows = db.exec_driver_sql(
                "SELECT e.amount_n, e.quality, s.platform FROM entry e JOIN session s ON s.id = e.session_id "
                "WHERE e.kind = 'adjust' ORDER BY e.id"
            )
            return [(Money(int(row[0])), row[1], row[2]) for row in rows]


@contextlib.asynccontextmanager
async def account(kind, url, **more):
    clock = VirtualClock()
    clock.advance(3600)  # what was used that day before the ledger began is not its own
    held = Account(kind, url, clock, **more)
    await held.adapter.start(lambda *_: None)
    held.ledger = await Ledger.open(held.config, clock=clock)
    try:
        held.reconciler = Reconciler(
            providers={"far": held.adapter},
            ledger=held.ledger,
            clock=clock,
            tolerance=Tolerance(absolute=Money.parse("0.001"), relative=0.02),
            patience=10,
            exclusive={name for name, one in held.config.providers.items() if one.exclusive},
        )
        yield held
    finally:
        await held.ledger.aclose()
        await held.adapter.aclose()
        await held.emulator.catch_up()


# Anchor takes $0.09 an hour by the started minute.
TEN_MINUTES = Money.parse("0.015")
UNKNOWN = "(unattributed)"


async def test_what_a_day_cost_beyond_our_sessions_is_booked_in_that_day_once_and_told(ledger_url):
    daily = {"name": "daily", "limit": "2.00", "period": "day", "timezone": "America/New_York"}
    async with account("anchor", ledger_url, budgets=[daily]) as far:
        await far.ledger.hold(
            HoldRequest(session_id="first", platform="web", provider="far", tenant="t", max_seconds=60)
        )
        await far.ledger.void("first", reason="only to have prices")
        await far.until_tomorrow(hours=12)
        that_day = far.clock.now()
        await far.uses(120, "ours")
        await far.uses(600)
        early = await far.reconciled()
        assert early.periods == (), "the day is not over"
        ours = early.theirs
        await far.until_tomorrow(hours=2)
        seen = await far.reconciled(dry_run=True)
        assert [(one.booked, one.adjusted) for one in seen.periods] == [(TEN_MINUTES, True)]
        assert [row for row in await far.adjusted() if row[2] == UNKNOWN] == [], "only looked"
        found = await far.reconciled()
        (period,) = found.periods
        assert (period.start.date(), period.end - period.start) == (that_day.date(), timedelta(days=1))
        assert (period.ours, period.theirs, period.booked) == (ours, ours + TEN_MINUTES, TEN_MINUTES)
        assert found.past
        assert "booked as unattributed" in str(await far.reconciler.reconcile())
        again = await far.reconciled()
        assert [one.adjusted for one in again.periods] == [False]
        assert [row for row in await far.adjusted() if row[2] == UNKNOWN] == [
            (TEN_MINUTES, "provider", UNKNOWN)
        ]
        with far.ledger.reader.connect() as db:
            windows = db.exec_driver_sql("SELECT label, spent_n FROM budget_window WHERE spent_n > 0").all()
        assert [(label, Money(int(spent))) for label, spent in windows] == [
            (f"{that_day:%Y-%m-%d}", ours + TEN_MINUTES)
        ], "in the window of that day, not of the look"
        told = [event for event, _ in await far.ledger.alerts.recent(20) if event.kind == "reconciliation"]
        assert len([one for one in told if "in all" in one.detail]) == 1
        (capture,) = await far.ledger.reconciliation.captured(
            start=that_day - timedelta(days=1), end=far.clock.now()
        )
        assert (capture.sessions, capture.compared, capture.theirs) == (1, 1, ours + TEN_MINUTES)
        assert capture.rate < 1


async def test_a_day_that_a_provider_bills_later_still_is_adjusted_again_and_less_is_only_told(sqlite_url):
    async with account("anchor", sqlite_url) as far:
        await far.uses(60, "first")
        await far.until_tomorrow()
        await far.uses(120, "ours")
        await far.uses(600)
        stranger = list(far.emulator.sessions.values())[-1]
        mine = list(far.emulator.sessions.values())[-2]
        await far.until_tomorrow(hours=2)
        assert (await far.reconciled()).periods[0].booked == TEN_MINUTES
        far.emulator.bills_more(stranger.id, seconds=-300)
        assert (await far.reconciled()).periods[0].booked == TEN_MINUTES - Money.parse("0.0075")
        assert [row[0] for row in await far.adjusted() if row[2] == UNKNOWN] == [
            TEN_MINUTES,
            -Money.parse("0.0075"),
        ]
        # Its total is less than the sum of what it bills: nobody can say which session that is.
        del far.emulator.sessions[stranger.id]
        mine.lasted += 6000
        await far.reconciled()
        mine.lasted -= 6000
        far.emulator.sessions.pop(mine.id)
        (one,) = (await far.reconciled()).periods
        assert one.booked == ZERO
        assert one.theirs < one.ours


async def test_a_day_waits_until_all_its_sessions_are_over_and_compared(sqlite_url):
    async with account("anchor", sqlite_url) as far:
        await far.uses(60, "first")
        await far.until_tomorrow(hours=23.9)
        ask = HoldRequest(session_id="long", platform="web", provider="far", tenant="t", max_seconds=7200)
        await far.ledger.hold(ask)
        one = far.admit()
        await far.ledger.activate("long", provider_session_id=one.id)
        await far.until_tomorrow(hours=1.5)
        assert (await far.reconciled()).periods == ()
        await far.ledger.settle("long", SessionUsage(seconds=5760), reason="done")
        assert [one.booked for one in (await far.reconciled()).periods] == [ZERO]


@pytest.mark.parametrize("kind", ["anchor", "browserbase"])
async def test_the_totals_of_an_account_that_others_use_are_nobodys_business(kind, sqlite_url):
    async with account(kind, sqlite_url, exclusive=False) as far:
        for _ in range(3):
            await far.uses(60, f"s{far.clock.now().timestamp()}")
            await far.uses(600)
            await far.until_tomorrow(hours=2)
            assert (await far.reconciled()).periods == ()
        assert not [row for row in await far.adjusted() if row[2] == UNKNOWN]
        assert not [
            path for _, path, _, _ in far.emulator.requests if "history" in path or path.endswith("/usage")
        ]


async def test_a_running_total_is_compared_between_two_quiet_readings(ledger_url):
    """$0.01 a minute; five of the month's six free minutes are left when ten were used that nobody knows of."""
    rates = {"per_hour": "0.60", "increment": "1m", "minimum": "1m", "included_hours": "0.1"}
    async with account("browserbase", ledger_url, rates=rates) as far:
        await far.uses(600)
        far.clock.advance(300)
        await far.reconciled()
        assert (await far.reconciled()).periods == (), "what was used before the first reading is not ours"
        await far.uses(600)
        await far.uses(60, "ours")
        assert (await far.reconciled()).periods == (), "something of ours ended just now"
        far.clock.advance(300)
        (one,) = (await far.reconciled()).periods
        assert (one.ours, one.booked) == (ZERO, Money.parse("0.05"))
        assert [row[2] for row in await far.adjusted() if row[0]] == [UNKNOWN]
        assert (await far.reconciled()).periods == (), "nothing new"
        await far.uses(120, "again")
        far.clock.advance(300)
        (one,) = (await far.reconciled()).periods
        assert (one.ours, one.theirs, one.booked) == (Money.parse("0.02"), Money.parse("0.02"), ZERO)
        # A new month: its total begins at nothing.
        far.emulator.sessions.clear()
        await far.uses(60, "later")
        far.clock.advance(300)
        assert (await far.reconciled()).periods == ()
        await far.uses(60)
        far.clock.advance(300)
        (one,) = (await far.reconciled()).periods
        assert one.booked == Money.parse("0.01")
