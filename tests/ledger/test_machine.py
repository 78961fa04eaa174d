"""Any order of holds, leases, ends, repeats, jumps of the clock and changes of limits, against the oracle."""

import asyncio
import itertools
import os
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tabkeeper.clock import VirtualClock
from tabkeeper.errors import BudgetExceededError, IdempotencyConflictError
from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import Quality, SessionUsage

from .builders import PER_MINUTE, ask, config, lease, query
from .oracle import CENT, Budget, Oracle

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
_numbers = itertools.count(1)
_sessions = st.integers(min_value=0)
_lives = st.one_of(
    st.sampled_from([0.0, 59.999, 60.0, 60.001, 3600.0]), st.integers(0, 4000).map(lambda s: s / 2)
)


class Machine(RuleBasedStateMachine):
    url = ""

    def __init__(self):
        super().__init__()
        self.run = asyncio.Runner()
        # Names of our own, because examples share a database (where it is a server's).
        self.tag = f"x{next(_numbers)}-"
        self.clock = VirtualClock(datetime(2026, 1, 30, 22, tzinfo=UTC))
        self.oracle = Oracle(
            [
                Budget(f"{self.tag}all", "day", 60 * CENT, "hard"),
                Budget(f"{self.tag}web", "total", 200 * CENT, "hard", ("platform", "web")),
                Budget(f"{self.tag}acme", "month", 30 * CENT, "soft", ("tenant", "acme")),
            ]
        )
        self.ledger = self._do(Ledger.open(self._config(), clock=self.clock, inline=True))

    def teardown(self):
        self._do(self.ledger.aclose())
        self.run.close()

    def _do(self, coroutine):
        return self.run.run(coroutine)

    def _config(self):
        rates = {
            "bb": PER_MINUTE,
            "fee": {**PER_MINUTE, "per_session": "0.03"},
            "plan": {**PER_MINUTE, "included_hours": "0.5"},
        }
        own = {
            self.tag + name: {"kind": "cdp", "url": "ws://u.invalid", "rates": rate}
            for name, rate in rates.items()
        }
        budgets = [
            {
                "name": b.name,
                "limit": f"{b.limit / CENT / 100:.2f}",
                "period": b.period,
                "mode": b.mode,
                **({b.scope[0]: b.scope[1]} if b.scope else {}),
            }
            for b in self.oracle.budgets.values()
        ]
        return config(self.url, budgets=budgets, **own)

    def _any(self, number, *states):
        found = [s for s in self.oracle.sessions.values() if s.state in states]
        return found[number % len(found)] if found else None

    def _ask(self, session_id, platform, provider, tenant, minutes):
        return ask(
            session_id,
            platform=platform,
            provider=self.tag + provider,
            tenant=tenant,
            max_seconds=minutes * 60,
        )

    @rule(
        platform=st.sampled_from(["web", "maps"]),
        provider=st.sampled_from(["bb", "fee", "plan"]),
        tenant=st.sampled_from(["acme", "default"]),
        minutes=st.integers(1, 25),
    )
    def hold(self, platform, provider, tenant, minutes):
        session_id = f"{self.tag}{next(_numbers)}"
        now = self.clock.now()
        refusing = self.oracle.hold(session_id, platform, provider, tenant, minutes, now)
        request = self._ask(session_id, platform, provider, tenant, minutes)
        if refusing:
            with pytest.raises(BudgetExceededError) as refused:
                self._do(self.ledger.hold(request))
            assert refused.value.budget in refusing
        else:
            hold = self._do(self.ledger.hold(request))
            assert hold.amount.nanos == self.oracle.sessions[session_id].held

    @rule(number=_sessions, other=st.booleans())
    def hold_again(self, number, other):
        session = self._any(number, "open", "settled", "voided")
        if session is None:
            return
        request = self._ask(
            session.id, session.platform, session.provider, session.tenant, session.minutes + other
        )
        if other or session.state != "open":
            with pytest.raises(IdempotencyConflictError):
                self._do(self.ledger.hold(request))
        else:
            assert self._do(self.ledger.hold(request)).amount.nanos == session.held

    @rule(number=_sessions, pause=st.integers(0, 90), length=st.integers(0, 200))
    def lease(self, number, pause, length):
        session = self._any(number, "open")
        if session is None:
            return
        start = (session.leases[-1][1] if session.leases else 0) + pause
        session.leases.append((start, start + length))
        self.ledger.record_lease(lease(session.id, len(session.leases), start, start + length))

    @rule(number=_sessions, seconds=_lives, quality=st.sampled_from([Quality.MEASURED, Quality.PROVIDER]))
    def settle(self, number, seconds, quality):
        session = self._any(number, "open")
        if session is None:
            return
        cost = self.oracle.settle(session, seconds, quality)
        settlement = self._do(
            self.ledger.settle(session.id, SessionUsage(seconds=seconds, quality=quality), reason="r")
        )
        assert settlement.cost.nanos == cost
        if session.provider != "plan":
            shares, idle = self.oracle.shares(session, seconds)
            assert settlement.idle.nanos == idle * CENT
            sql = "SELECT cost_n FROM lease WHERE session_id = :s ORDER BY use_number"
            if self.url != "sqlite://":
                assert query(self.url, sql, s=session.id) == [(share * CENT,) for share in shares]

    @rule(number=_sessions)
    def settle_orphan(self, number):
        session = self._any(number, "open")
        if session is not None:
            seconds = self.oracle.orphan_seconds(session, self.clock.now())
            cost = self.oracle.settle(session, seconds, Quality.ESTIMATE)
            assert self._do(self.ledger.settle_orphan(session.id, reason="r")).cost.nanos == cost

    @rule(number=_sessions, change=st.sampled_from([0, 0, 1]))
    def settle_again(self, number, change):
        session = self._any(number, "settled", "voided")
        if session is None:
            return
        seconds, quality = session.settled or (60.0, Quality.MEASURED)
        again = self.ledger.settle(
            session.id, SessionUsage(seconds=seconds + change, quality=quality), reason="r"
        )
        if session.state == "voided" or (change and quality is not Quality.ESTIMATE):
            with pytest.raises(IdempotencyConflictError):
                self._do(again)
        else:
            assert self._do(again).cost.nanos == session.cost

    @rule(number=_sessions, seconds=_lives)
    def measured_after_an_estimate(self, number, seconds):
        session = self._any(number, "settled")
        if session is None or session.usage[1] is not Quality.ESTIMATE:
            return
        cost = self.oracle.adjust(session, seconds, Quality.MEASURED)
        usage = SessionUsage(seconds=seconds, quality=Quality.MEASURED)
        for _ in range(2):
            assert self._do(self.ledger.settle(session.id, usage, reason="r")).cost.nanos == cost

    @rule(number=_sessions, seconds=_lives, dry_run=st.booleans())
    def provider_says(self, number, seconds, dry_run):
        session = self._any(number, "open", "settled", "voided")
        if session is None:
            return
        figures = Figures(seconds_us=round(seconds * 1_000_000))
        compare = self.ledger.reconciliation.compare
        if session.state != "settled":
            assert self._do(compare(session.id, figures, dry_run=dry_run)) is None
            return
        before, entries = session.cost, self._entries()
        if dry_run:
            self._do(compare(session.id, figures, dry_run=True))
            assert self._entries() == entries
            return
        cost = self.oracle.adjust(session, seconds, Quality.PROVIDER)
        found = self._do(compare(session.id, figures))
        assert (found.ours.nanos, found.theirs.nanos) == (before, cost)
        entries = self._entries()
        assert not self._do(compare(session.id, figures)).adjusted
        assert self._entries() == entries

    def _entries(self):
        with self.ledger.reader.connect() as connection:
            return connection.exec_driver_sql("SELECT COUNT(*) FROM entry").scalar_one()

    @rule(number=_sessions)
    def void(self, number):
        session = self._any(number, "open", "voided", "settled")
        if session is None:
            return
        if session.state == "settled":
            with pytest.raises(IdempotencyConflictError):
                self._do(self.ledger.void(session.id, reason="r"))
            return
        if session.state == "open":
            self.oracle.void(session)
        self._do(self.ledger.void(session.id, reason="r"))

    @rule(seconds=st.sampled_from([1, 60, 1800, 7200, 90_000]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-10_800, -100, 100, 10_800]))
    def clock_jumps(self, seconds):
        self.clock.jump(seconds)

    @rule(number=st.integers(0, 2), cents=st.integers(5, 300), mode=st.sampled_from(["hard", "hard", "soft"]))
    def limit_changes(self, number, cents, mode):
        budget = list(self.oracle.budgets.values())[number]
        budget.change(cents * CENT, mode, self.clock.now())
        self._do(self.ledger.apply_budgets(self._config().budgets))

    @precondition(lambda self: self.url != "sqlite://")
    @rule()
    def restart(self):
        self._do(self.ledger.aclose())
        self.ledger = self._do(Ledger.open(self._config(), clock=self.clock, inline=True))

    @invariant()
    def books_are_sound_and_as_the_oracle_says(self):
        assert self._do(self.ledger.verify()) == []
        with self.ledger.reader.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT b.name, w.start_at, w.held_n, w.spent_n, w.forced_n FROM budget_window w "
                "JOIN budget b ON b.id = w.budget_id"
            ).all()
        found = sorted(tuple(row) for row in rows if row.name.startswith(self.tag))
        assert found == self.oracle.figures()


def _run(url, examples, steps):
    machine = type("OnThisDatabase", (Machine,), {"url": url})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    )


@pytest.mark.slow
def test_any_history_agrees_with_the_oracle_on_sqlite():
    _run("sqlite://", *((1000, 60) if PROOF else (40, 30)))


@pytest.mark.slow
@pytest.mark.postgres
def test_any_history_agrees_with_the_oracle_on_postgres(postgres_url):
    _run(postgres_url, *((150, 50) if PROOF else (4, 30)))


def test_the_machine_would_see_a_budget_that_lets_too_much_in(monkeypatch):
    """Control: with an oracle that is one cent stricter the machine must fail."""
    refuse = Oracle.hold

    def stricter(self, *request):
        saved = {name: budget.limit for name, budget in self.budgets.items()}
        for budget in self.budgets.values():
            budget.limit -= CENT
        try:
            return refuse(self, *request)
        finally:
            for name, limit in saved.items():
                self.budgets[name].limit = limit

    monkeypatch.setattr(Oracle, "hold", stricter)
    machine = type("OnThisDatabase", (Machine,), {"url": "sqlite://"})()
    try:
        with pytest.raises(pytest.fail.Exception):
            for _ in range(3):
                machine.hold(platform="maps", provider="bb", tenant="default", minutes=20)
    finally:
        machine.teardown()
