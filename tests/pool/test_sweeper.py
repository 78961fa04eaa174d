"""What a pool owes to its provider when things went wrong: sessions found late, sessions of the dead, strays."""

from __future__ import annotations

import asyncio
import logging
import tempfile

import pytest

from tabkeeper.errors import TabkeeperError
from tabkeeper.providers.emulator import Limits, Phase
from tabkeeper.testing import run_virtual

from .far import FAST, Far, separate_processes

KINDS = ("browserbase", "steel")


def story(telling, **settings):
    """Run a story in virtual time; at the end nothing runs at the provider and the books are sound."""

    async def run(clock):
        with tempfile.TemporaryDirectory(dir=FAST) as folder, separate_processes():
            far = Far(clock, folder, **settings)
            await telling(far)
            last = [life for life in far.lives if not life.dead]
            for life in last:
                assert await life.start(life.pool._ledger.verify()) == []
                await life.close()
            assert far.running() == []

    run_virtual(run)


async def lease(life, seconds=0.0, timeout=60):
    async def use():
        async with life.pool.get_session("web", timeout=timeout) as held:
            await asyncio.sleep(seconds)
            return held.session_id

    return await life.start(use())


async def settled(far, within=3000):
    """Wait until no session is open in the books."""
    for _ in range(0, within, 5):
        if not far.rows("SELECT id FROM session WHERE ended_at IS NULL"):
            return
        await asyncio.sleep(5)
    raise AssertionError(far.rows("SELECT id, state FROM session WHERE ended_at IS NULL"))


def test_a_session_that_the_list_shows_late_is_ended_and_paid_for_what_it_used():
    async def telling(far):
        far.emulator.misbehave("create", "drop")
        far.emulator.misbehave("list", "lag", seconds=100, times=1000)
        life = await far.live()
        await lease(life)
        assert far.clock.monotonic() < 30, "nobody waits for what was lost"
        assert len(far.running()) == 2, "the lost one and the one that serves"
        assert [row.state for row in far.rows("SELECT state FROM session WHERE state = 'unknown'")] == [
            "unknown"
        ]
        await asyncio.sleep(200)
        assert life.pool._parts.sweeper.debts == {}
        lost = far.rows("SELECT * FROM session WHERE close_reason = 'creation was not answered'")
        (made,) = [
            one
            for one in far.emulator.sessions.values()
            if one.request["userMetadata"]["session"] == lost[0].id
        ]
        assert lost[0].quality == "measured"
        assert made.lasted - 0.001 <= lost[0].seconds_us / 1e6 < 200

    story(telling)


def test_where_nobody_can_tell_a_lost_creation_is_counted_when_its_time_at_the_provider_is_over():
    async def telling(far):
        far.emulator.misbehave("create", "status", status=504)
        life = await far.live()
        await lease(life)
        (lost,) = far.rows("SELECT * FROM session WHERE state = 'unknown'")
        while far.rows(f"SELECT id FROM session WHERE ended_at IS NULL AND id = '{lost.id}'"):
            await asyncio.sleep(10)
        now = far.clock.now().timestamp() * 1e6
        assert lost.expires_at <= now <= lost.expires_at + 90e6
        (row,) = far.rows(f"SELECT * FROM session WHERE id = '{lost.id}'")
        assert row.quality == "estimate"
        assert row.cost_n > 0

    story(telling, kind="hyperbrowser")


def test_a_creation_that_was_dropped_is_not_looked_for_where_nobody_can_tell():
    async def telling(far):
        far.emulator.misbehave("create", "drop")
        await lease(await far.live())
        assert far.clock.monotonic() < 5
        far.emulator.end(far.emulator.running[0], Phase.TIMED_OUT, "over")

    story(telling, kind="hyperbrowser", close_timeout="20s")


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("kind", ["steel", "kernel"])
def test_what_was_never_created_costs_nothing_as_soon_as_the_provider_is_seen_not_to_know_it(kind, killed):
    """A process dies between its hold and the provider, or a gateway answers for a provider that never heard."""

    async def telling(far):
        far.emulator.misbehave("create", "slow" if killed else "status", seconds=10**6, status=504)
        first = await far.live()
        asking = first.start(lease(first))
        await asyncio.sleep(30)
        if killed:
            await first.kill()
            await far.live()
            await asyncio.sleep(90)
        began = far.clock.monotonic()
        await asyncio.wait([asking])
        (lost,) = far.rows("SELECT * FROM session WHERE state IN ('unknown', 'creating')")
        while far.rows(f"SELECT id FROM session WHERE ended_at IS NULL AND id = '{lost.id}'"):
            await asyncio.sleep(5)
        assert 250 < far.clock.monotonic() - began < 500, "a list may lag, but not for ever"
        (row,) = far.rows(f"SELECT state, cost_n FROM session WHERE id = '{lost.id}'")
        assert tuple(row) == ("void", 0)

    story(telling, kind=kind)


@pytest.mark.parametrize("kind", ["anchor", "browser_use", "browserbase", "kernel", "steel"])
def test_what_ended_before_anybody_looked_is_paid_for_what_it_used(kind):
    """No session shows, yet one was created: that it is not running is no proof."""

    async def telling(far):
        far.emulator.misbehave("create", "late", seconds=60)
        first = await far.live()
        first.start(lease(first))
        await asyncio.sleep(5)
        await first.kill()
        await asyncio.sleep(55)
        (made,) = far.emulator.running
        far.emulator.end(made, Phase.TIMED_OUT, "over")
        await far.live()
        await settled(far, 300)
        (row,) = far.rows("SELECT state, quality, cost_n, seconds_us FROM session")
        used = 5 if kind == "kernel" else 60  # which takes nothing for standing by
        assert (row.state, row.quality, round(row.seconds_us / 1e6)) == ("lost", "provider", used)
        assert row.cost_n > 0

    story(telling, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_refusal_gives_the_hold_back(kind):
    """The answer comes after our patience, and says that nothing was created: proof enough to pay nothing."""

    async def telling(far):
        far.emulator.out_of_money = True
        far.emulator.misbehave("create", "slow", seconds=40)
        life = await far.live()
        with pytest.raises(TabkeeperError):
            await lease(life, timeout=20)
        await asyncio.sleep(60)
        far.emulator.out_of_money = False
        await settled(far, 120)
        assert far.rows("SELECT state, cost_n FROM session WHERE state <> 'void'") == []

    story(telling, kind=kind, create_timeout="5s", close_timeout="3s")


@pytest.mark.parametrize(
    ("kind", "lag"),
    [(kind, False) for kind in ("anchor", "browser_use", "browserbase", "kernel", "steel")]
    + [(kind, True) for kind in KINDS],
)
def test_what_a_killed_process_had_asked_for_is_found_by_the_next(kind, lag):
    async def telling(far):
        if lag:
            far.emulator.misbehave("list", "lag", seconds=250, times=1000)
            far.emulator.misbehave("get", "status", status=404, times=8)
        far.emulator.misbehave("create", "late", seconds=60)
        first = await far.live()
        asking = first.start(lease(first))
        await asyncio.sleep(5)
        assert len(far.running()) == 1
        await first.kill()
        assert asking.done()
        second = await far.live()
        await asyncio.sleep(30)
        assert len(far.running()) == 1, "its heartbeat is not old yet"
        await asyncio.sleep(400 if lag else 160)
        assert far.running() == []
        await settled(far, 60)
        (row,) = far.rows("SELECT quality, state, process_id FROM session")
        assert (row.quality, row.state) == ("estimate", "lost")
        assert row.process_id == second.pool._ledger.process_id

    story(telling, kind=kind)


def test_two_survivors_do_not_both_take_what_a_dead_one_left():
    async def telling(far):
        far.emulator.misbehave("create", "late", seconds=60)
        first, second, third = [await far.live() for _ in range(3)]
        first.start(lease(first))
        await asyncio.sleep(5)
        far.emulator.misbehave("release", "status", status=500, times=10)
        await first.kill()
        for _ in range(200):
            await asyncio.sleep(1)
            assert len(second.pool._parts.sweeper.debts) + len(third.pool._parts.sweeper.debts) <= 1
        await settled(far, 600)

    story(telling)


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_that_is_refused_for_long_is_told_goes_over_restarts_and_is_confirmed_at_last(kind):
    async def telling(far):
        order = far.emulator.misbehave("release", "status", status=500, times=10**6)
        first = await far.live()
        await lease(first)
        await asyncio.sleep(500)
        assert first.pool.stats().sessions == 0, "its place is free"
        assert [row.kind for row in far.rows("SELECT kind FROM alert_event")] == ["release"]
        await first.close()
        assert len(far.running()) == 1
        second = await far.live()
        (row,) = far.rows("SELECT attempts, confirmed_at FROM release_outbox")
        assert row.attempts > 5
        assert row.confirmed_at is None
        order.times = 0
        await asyncio.sleep(100)
        assert far.running() == []
        assert far.rows("SELECT session_id FROM release_outbox WHERE confirmed_at IS NULL") == []
        await settled(far, 10)
        assert second.pool.stats().sessions == 0

    story(telling, kind=kind, idle_timeout="10s")


def test_a_session_that_the_books_take_to_be_over_is_ended_at_its_provider():
    """The provider refused, yet created: nobody knows but its list."""

    async def telling(far):
        far.emulator.misbehave("create", "status after", status=402)
        life = await far.live()
        with pytest.raises(TabkeeperError, match="402"):
            await lease(life)
        assert len(far.running()) == 1
        await asyncio.sleep(130)
        assert far.running() == []
        (alert,) = far.rows("SELECT kind, detail FROM alert_event")
        assert alert.kind == "stray"
        assert "not created" in alert.detail

    story(telling)


def test_a_session_that_was_ended_without_an_answer_is_told_of_too():
    async def telling(far):
        far.emulator.misbehave("create", "status after", status=402)
        far.emulator.misbehave("release", "slow", seconds=30)
        life = await far.live()
        with pytest.raises(TabkeeperError, match="402"):
            await lease(life)
        await asyncio.sleep(180)
        assert far.running() == []
        assert [alert.kind for alert in far.rows("SELECT kind FROM alert_event")] == ["stray"]
        (drift,) = far.rows("SELECT kind, provider, provider_session_id, times FROM drift")
        (made,) = far.emulator.sessions
        assert tuple(drift) == ("stray", "far", made, 1)

    story(telling)


def test_a_silent_session_that_its_provider_takes_to_run_is_told_of_and_closed():
    """Its connection is open and nothing comes back: no check of its provider's would ever find that."""

    async def telling(far):
        life = await far.live()
        await lease(life)
        (silent,) = far.running()

        async def nothing_comes_back(*_, **__):
            await asyncio.Future()

        life.pool._parts.checkup._ask = nothing_comes_back
        await life.start(life.pool._parts.checkup.round())
        await settled(far, 60)
        (drift,) = far.rows(
            "SELECT kind, provider, session_id, provider_session_id, times, detail FROM drift"
        )
        assert (drift.kind, drift.provider, drift.provider_session_id, drift.times) == (
            "dead",
            "far",
            silent,
            1,
        )
        assert "does not answer" in drift.detail
        (alert,) = far.rows("SELECT kind, session_id, detail FROM alert_event")
        assert tuple(alert) == ("drift", drift.session_id, drift.detail)
        assert far.running() == []

    story(telling, idle_timeout="20m")


def test_a_provider_that_lists_nothing_and_refuses_new_sessions_is_told_of_once():
    async def telling(far):
        life = await far.live()
        for _ in range(2):
            with pytest.raises(TabkeeperError):
                await lease(life, timeout=20)
        (alert,) = far.rows("SELECT kind, detail FROM alert_event")
        assert alert.kind == "drift"
        assert "lists no session of ours" in alert.detail
        (drift,) = far.rows("SELECT kind, provider, session_id, times, detail FROM drift")
        assert (drift.kind, drift.provider, drift.session_id) == ("refuses", "far", None)
        assert drift.times > 1, "each time it is seen, on one row"
        assert drift.detail == alert.detail

    story(telling, limits=Limits(concurrent=0))


def test_other_ledgers_sessions_on_the_same_account_are_let_be():
    async def telling(far):
        neighbour = Far(
            far.clock, far.folder, name="other", emulator=far.emulator, seed=2, idle_timeout="20m"
        )
        theirs = await neighbour.live()
        await lease(theirs)
        ours = await far.live()
        await lease(ours)
        stranger = far.emulator.admit(
            {"userMetadata": {"tool": "tabkeeper", "session": "s0123456789abcdef0123"}},
            seconds=3600,
            keep_alive=True,
        )
        lost = far.emulator.admit(
            {
                "userMetadata": {
                    "tool": "tabkeeper",
                    "session": f"s{ours.pool._ledger.installation}0123456789abcdef",
                }
            },
            seconds=3600,
            keep_alive=True,
        )
        await asyncio.sleep(300)
        assert lost.phase.over, "our mark, though a restored backup has no row of it"
        assert not stranger.phase.over, "another ledger's"
        assert len(far.running()) == 2, "the neighbour's too"
        await neighbour.lives[0].close()
        far.emulator.end(stranger, lost.phase, "told to")

    story(telling)


def test_sessions_of_a_provider_that_is_no_longer_configured_stay_on_record(caplog):
    async def telling(far):
        first = await far.live()
        first.start(lease(first, 1000))
        await asyncio.sleep(5)
        await first.kill()
        life = await far.live()
        configured = life.pool._parts.sweeper._providers
        gone = configured.pop("far")
        with caplog.at_level(logging.WARNING):
            await asyncio.sleep(200)
        assert "is not configured here" in caplog.text
        assert len(far.running()) == 1
        assert len(far.rows("SELECT id FROM session WHERE ended_at IS NULL")) == 1
        configured["far"] = gone
        await asyncio.sleep(100)
        assert far.running() == []
        await settled(far, 10)

    story(telling)
