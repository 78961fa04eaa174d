"""Sessions created before anybody asks: when that is worth its cost, what the plan does about it, what it comes to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.clock import VirtualClock
from tabkeeper.money import Money
from tabkeeper.pool.ahead import best_window
from tabkeeper.pool.gaps import BINS, EDGES, MIDS
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import Rules, Session, State
from tabkeeper.testing import run_virtual

from .builders import Table, a_card, platform_rules, pool_rules
from .world import world

CENT = 10_000_000.0
METER = Meter(a_card())  # 2 cents a session, and a tenth of a cent for each second


def law(*gaps: float) -> list[float]:
    """Return the law of gaps that are equally likely."""
    chances = [0.0] * BINS
    for gap in gaps:
        chances[next(i for i, edge in enumerate((*EDGES, float("inf"))) if gap <= edge)] += 1 / len(gaps)
    return chances


def window(
    chances: list[float], *, worth: float, empty: float = 0.0, setup: float = 2.0, meter: Meter | None = METER
):
    return best_window(meter, chances, empty=empty, setup=setup, durations=(5.0,), worth=worth)


def test_a_gap_that_is_always_the_same_is_met_by_a_session_that_is_ready_just_before():
    found = window(law(600), worth=20 * CENT)
    assert found is not None
    low, high = max(e for e in EDGES if e < 600), min(e for e in EDGES if e >= 600)
    assert (found.start, found.end) == (low - 2.0, high), "in the bin of that gap"
    assert found.chance == pytest.approx(1)
    middle = (low + high) / 2
    assert found.gain == pytest.approx(20 * CENT - 0.1 * CENT * (middle - low), rel=1e-4), (
        "its worth less the waiting"
    )


def test_it_is_not_worth_it_where_nobody_is_expected_for_long_or_a_ready_session_is_worth_little():
    assert window(law(600), worth=1 * CENT) is None, "the bin is 79 s wide"
    assert window(law(600), worth=0.0) is None
    assert window(law(*(60.0 * n for n in range(1, 60))), worth=4 * CENT) is None, (
        "it would mostly wait in vain"
    )
    assert window(law(600), worth=1 * CENT, meter=None) is not None, "what costs nothing is worth it"
    assert window(law(600), worth=20 * CENT, empty=700.0) is None, "the gap is longer than all that were seen"


@given(
    chances=st.lists(st.integers(0, 9), min_size=BINS, max_size=BINS).filter(any),
    worth=st.floats(0, 50),
    empty=st.sampled_from([0.0, 3.0, 100.0, 5000.0]),
    setup=st.sampled_from([0.0, 2.0, 40.0]),
)
def test_the_gain_is_what_playing_every_gap_through_comes_to(chances, worth, empty, setup):
    """By brute force: each gap with its chance, the session created at the start, closed at the end."""
    law = [n / sum(chances) for n in chances]
    found = window(law, worth=worth * CENT, empty=empty, setup=setup)
    if found is None:
        return
    assert found.start >= empty
    gain = total = 0.0
    for chance, gap, edge in zip(law, MIDS, (*EDGES, float("inf")), strict=True):
        if edge <= empty:
            continue
        total += chance
        ready = found.start + setup
        if gap <= ready:
            continue  # an own creation, or this one while it is under way
        if gap <= found.end:
            gain += chance * (worth * CENT - (METER.bill(setup + gap - ready + 5) - METER.bill(setup + 5)))
        else:
            gain -= chance * METER.bill(setup + found.end - ready)
    assert found.gain == pytest.approx(gain / total, rel=1e-6, abs=1.0)
    assert found.gain > 0


# ── what the plan does ──────────────────────────────────────────────────────────────────────────────────────────────

HOURLY = platform_rules(prewarm=True, cold_start=50 * CENT, keep="never", session_ttl=3600.0)


def regular(rules: Rules, times: int = 8, every: float = 600.0) -> Table:
    """Return a table at which somebody came every so often, and has just left."""
    table = Table(rules)
    for _ in range(times):
        if table.view.sessions:
            (session,) = table.view.sessions.values()
        else:
            table.ask()
            session = table.ready()
        table.settle()
        if session.id not in table.lent:
            table.ask()
        table.pass_time(5)
        table.release(session)
        table.settle()
        table.closed(session)
        table.settle()
        table.pass_time(every - 5)
        ready_ahead(table)
    return table


def ready_ahead(table: Table) -> None:
    if table.creating:
        table.ready()
        table.settle()


def by_value(**changes) -> Rules:
    return pool_rules({"shop": HOURLY, "mail": HOURLY}, eviction="value", **changes)


def created_ahead(table: Table) -> list[Session]:
    return [s for s in table.view.sessions.values() if s.ahead is not None]


def test_after_some_regular_gaps_a_session_is_there_before_the_next_caller():
    table = regular(by_value())
    (session,) = created_ahead(table)
    assert session.state is State.IDLE
    assert session.verdict is not None
    assert session.verdict.rule == "prewarm"
    table.ask()
    assert session.state is State.LEASED


def test_what_was_created_in_vain_is_closed_and_not_created_again_in_the_same_gap():
    table = regular(by_value())
    (session,) = created_ahead(table)
    table.pass_time(3000)
    assert session.reason == "idle"
    assert not table.creating


def test_it_is_off_unless_asked_for():
    rules = pool_rules({"shop": replace(HOURLY, prewarm=False)}, eviction="value")
    assert created_ahead(regular(rules)) == []


def test_a_guess_is_no_prediction():
    assert created_ahead(regular(by_value(), times=3)) == []


def test_nothing_makes_room_for_it_and_nobody_waits_because_of_it():
    table = regular(by_value(max_sessions=1), times=7)
    for session in created_ahead(table):
        table.board.end(session, "wrong")
        table.closed(session)
    table.ask()
    session = table.ready()
    table.settle()
    table.release(session)
    table.settle()
    table.closed(session)
    other = table.ask("mail", lease_seconds=3000)
    blocker = table.ready()
    table.settle()
    assert table.lent[blocker.id][0] is other
    (ahead,) = table.view.ahead.values()
    table.pass_time(ahead.at - table.now + 10)
    assert not table.view.ahead, "its time came, and there was no room"
    assert created_ahead(table) == []


# ── what it comes to ────────────────────────────────────────────────────────────────────────────────────────────────


def played(prewarm: bool, visits: int = 24) -> tuple[list[float], Money, dict[str, Any]]:
    """Visit every twenty minutes, give or take one; return how long each visit waited, the bill, the figures."""
    waits: list[float] = []
    bill: list[Money] = []
    figures: list[dict[str, Any]] = []

    async def story(clock: VirtualClock) -> None:
        async with world(
            clock,
            keep="value",
            prewarm=prewarm,
            cold_start_cost="0.05",
            session_ttl="3h",
            latency=(8.0, 8.0),
            rates={"per_session": "0.01", "per_hour": "0.60"},
            queue_timeout="60s",
        ) as w:
            for visit in range(visits):
                if prewarm and visit == visits - 1:
                    (ready,) = w.pool.stats().open_sessions
                    said = (await w.pool.explain(ready.id)).text
                    assert "created before anybody asked: by then somebody needs it with a chance of" in said
                asked = clock.monotonic()
                async with w.pool.get_session("web"):
                    waits.append(clock.monotonic() - asked)
                    await asyncio.sleep(30)
                await asyncio.sleep(1200 + 60 * ((visit * 7) % 5 - 2) / 2)
            await asyncio.sleep(3 * 3600)
            assert w.pool.stats().sessions == 0
            figures.append(w.pool.stats().prewarm.model_dump())
            assert await w.violations() == []
            bill.append(await w.pool.ledger.daily_cost())

    run_virtual(story)
    return waits, bill[0], figures[0]


def test_regular_visitors_find_a_session_ready_at_a_cost_that_is_worth_it():
    cold, alone, nothing = played(prewarm=False)
    warm, with_it, figures = played(prewarm=True)
    assert nothing == {"created": 0, "used": 0, "in_vain": 0, "wasted": "0.00"}
    spared = sum(wait > 0 for wait in cold) - sum(wait > 0 for wait in warm)
    assert spared >= 12, "of 24 cold starts"
    assert figures["used"] >= spared
    assert figures["created"] == figures["used"] + figures["in_vain"]
    assert figures["in_vain"] >= 1, "the last one, at least: nobody came any more"
    assert Money.parse(figures["wasted"]) > Money(0)
    assert with_it - alone < Money.parse("0.05") * spared, (
        "each spared cold start costs less than it is worth"
    )
    assert with_it > alone, "and it does not come for nothing"
