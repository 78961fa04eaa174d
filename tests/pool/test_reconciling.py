"""Providers that bill otherwise, lag or lie, under the real pool and command: adjusted once, told, on record."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from tabkeeper.cli.app import run
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.money import Money
from tabkeeper.pool import reconciling
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.emulator import KINDS, BrowserbaseEmulator, KernelEmulator, Phase, serving

from .test_faults_hosted import clean, config, until, visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.usefixtures("ledger_file", "one_browser"),
]

# $0.12 an hour by the started minute, so two more minutes cost $0.004; the tolerance is less.
STRICT = {"reconcile_tolerance": {"absolute": "0.001", "relative": 0.02}}


def strict(emulator, tmp_path, **more):
    settings = config(emulator, tmp_path, **more)
    ledger = settings.ledger.model_validate({"url": settings.ledger.url, **STRICT})
    return settings.model_copy(update={"ledger": ledger})


WITH_USAGE = [
    pytest.param(kind, id=name)
    for name, kind in KINDS.items()
    if name in {"anchor", "browser_use", "browserbase", "hyperbrowser", "kernel", "steel"}
]


def rows(pool, sql):
    with pool._ledger.reader.connect() as db:
        return [tuple(row) for row in db.exec_driver_sql(sql).all()]


async def alerts(pool):
    await pool._ledger.flush()
    return [event.kind for event, _ in await pool._ledger.alerts.recent(20)]


async def visited(pool):
    """One session in its whole life."""
    await visit(pool)
    for one in list(pool._sessions.running.values()):
        await pool.close_session(one.session.id)
    await until(lambda: not pool._sessions.running)


@pytest.mark.parametrize("kind", WITH_USAGE)
async def test_what_a_provider_billed_more_is_adjusted_once_and_told(kind, tmp_path):
    async with serving(kind()) as emulator:
        emulator.settle_seconds = 0  # Kernel's figures lag
        async with SessionPool(strict(emulator, tmp_path)) as pool:
            await visited(pool)
            await pool.reconcile()  # some bill by prices of their own
            before = await pool.ledger.daily_cost()
            (session,) = emulator.sessions.values()
            emulator.bills_more(session.id, seconds=600)
            seen = await pool.reconcile(dry_run=True)
            assert await pool.ledger.daily_cost() == before
            found = await pool.reconcile()
            (one,) = found.providers
            assert (one.compared, one.adjusted, one.past) == (1, 1, True)
            assert one.difference == seen.providers[0].difference
            assert one.difference.nanos > 0
            assert not found.ok
            assert "1 adjusted" in str(found)
            assert await pool.ledger.daily_cost() == before + one.difference
            again = (await pool.reconcile()).providers[0]
            assert (again.adjusted, again.difference) == (0, Money(0))
            assert "reconciliation" in await alerts(pool)
            await clean(pool)


async def test_figures_that_lag_are_asked_for_again_on_schedule(tmp_path, monkeypatch):
    monkeypatch.setattr(reconciling, "FIGURES_AFTER", timedelta(0))
    async with serving(KernelEmulator()) as emulator, SessionPool(strict(emulator, tmp_path)) as pool:
        await visited(pool)
        (session,) = emulator.sessions.values()
        emulator.settle_seconds = 3600
        await pool._jobs.reconcile()
        looks = "SELECT sessions, waiting FROM recon_run"
        assert rows(pool, looks) == [(0, 1)]
        emulator.settle_seconds = 0
        emulator.bills_more(session.id, seconds=600)
        await pool._jobs.reconcile()
        assert rows(pool, looks) == [(0, 1)], "not before its time"
        with pool._ledger._engine.begin() as db:
            db.exec_driver_sql("UPDATE recon_item SET next_at = 0")
        await pool._jobs.reconcile()
        assert rows(pool, looks) == [(0, 1), (1, 0)]
        assert rows(pool, "SELECT COUNT(*) FROM entry WHERE kind = 'adjust'") == [(1,)]
        await pool._jobs.reconcile()
        assert len(rows(pool, looks)) == 2, "nothing is left to ask"
        await clean(pool)


async def test_a_scheduled_look_is_bounded_and_the_next_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(reconciling, "FIGURES_AFTER", timedelta(0))
    async with serving(BrowserbaseEmulator()) as emulator:
        settings = strict(emulator, tmp_path)
        few = settings.ledger.model_copy(update={"reconcile_most": 2})
        async with SessionPool(settings.model_copy(update={"ledger": few})) as pool:
            for n in range(3):
                over = emulator.admit({"userMetadata": {}}, seconds=60, keep_alive=True)
                emulator.end(over, Phase.COMPLETED, "released")
                name = f"s{n}"
                ask = HoldRequest(session_id=name, platform="web", provider="bb", tenant="t", max_seconds=60)
                await pool._ledger.hold(ask)
                await pool._ledger.activate(name, provider_session_id=over.id)
                await pool._ledger.settle(name, SessionUsage(seconds=1), reason="done")
            for _ in range(3):
                await pool._jobs.reconcile()
            assert rows(pool, "SELECT sessions FROM recon_run ORDER BY id") == [(2,), (1,)]
            await clean(pool)


async def test_a_provider_that_fails_cuts_its_look_short_and_no_others(tmp_path):
    async with serving(BrowserbaseEmulator()) as good, serving(BrowserbaseEmulator()) as bad:
        settings = strict(good, tmp_path, close_timeout="1s")
        other = settings.providers["bb"].model_copy(update={"base_url": bad.url})
        settings = settings.model_copy(update={"providers": {**settings.providers, "bad": other}})
        async with SessionPool(settings) as pool:
            await visited(pool)
            ask = HoldRequest(
                session_id="elsewhere", platform="web", provider="bad", tenant="default", max_seconds=60
            )
            await pool._ledger.hold(ask)
            await pool._ledger.activate("elsewhere", provider_session_id="x")
            await pool._ledger.settle("elsewhere", SessionUsage(seconds=1), reason="done")
            bad.misbehave("get", "slow", seconds=3, times=100)
            found = {one.provider: one for one in (await pool.reconcile()).providers}
            assert (found["bb"].compared, found["bb"].error) == (1, "")
            assert found["bad"].compared == 0
            assert found["bad"].error
            await clean(pool)


async def test_drift_a_list_that_lies_and_a_session_that_is_over_there(tmp_path, monkeypatch):
    monkeypatch.setattr(reconciling, "LIST_LAG", timedelta(0))
    async with serving(BrowserbaseEmulator()) as emulator, SessionPool(strict(emulator, tmp_path)) as pool:
        await visited(pool)
        (over,) = emulator.sessions
        assert (await pool.reconcile()).ok
        # Another process's session, which its provider ended without a word.
        ask = HoldRequest(session_id="other", platform="web", provider="bb", tenant="default", max_seconds=60)
        await pool._ledger.hold(ask)
        await pool._ledger.activate("other", provider_session_id=over)
        await visit(pool)
        emulator.misbehave("list", "empty", times=100)
        for times in (1, 2):
            (one,) = (await pool.reconcile()).providers
            assert {drift.kind: drift.times for drift in one.drift} == {"ended": times, "unlisted": times}
        assert not one.ok
        assert (await alerts(pool)).count("drift") == 2
        assert len(pool._sessions.running) == 1, "what runs there is not touched"
        await pool._ledger.settle_orphan("other", reason="test")
        await clean(pool)


async def test_a_session_of_ours_that_is_over_there_is_ended_here(tmp_path, monkeypatch):
    monkeypatch.setattr(reconciling, "LIST_LAG", timedelta(0))
    async with serving(BrowserbaseEmulator()) as emulator, SessionPool(strict(emulator, tmp_path)) as pool:
        await visit(pool)
        (session,) = emulator.sessions.values()
        # It is over by the books of the provider, whose gateway lets the connection live on.
        session.phase = Phase.COMPLETED
        session.lasted, session.ended_at = 1.0, session.created_at + timedelta(seconds=1)
        (one,) = (await pool.reconcile()).providers
        assert [drift.kind for drift in one.drift] == ["ended"]
        await until(lambda: not pool._sessions.running)
        await clean(pool)


async def test_the_command_shows_adjusts_and_says_by_its_exit_code_that_something_differs(tmp_path, capsys):
    async with serving(BrowserbaseEmulator()) as emulator:
        async with SessionPool(strict(emulator, tmp_path)) as pool:
            await visited(pool)
        (session,) = emulator.sessions.values()
        file = tmp_path / "tabkeeper.toml"
        file.write_text(
            f"""
            [ledger]
            url = "sqlite:///{tmp_path}/ledger.db"
            reconcile_tolerance = {{absolute = "0.001"}}
            [providers.local]
            kind = "local"
            [providers.bb]
            kind = "browserbase"
            api_key = "k"
            base_url = "{emulator.url}"
            rates = {{per_hour = "0.12", increment = "1m", minimum = "1m"}}
            [platforms.web]
            providers = ["bb"]
            """
        )

        async def command(*words):
            code = await asyncio.to_thread(run, ["reconcile", "--config", str(file), *words])
            return code, capsys.readouterr().out

        assert (await command())[0] == 0
        emulator.bills_more(session.id, seconds=120)
        code, out = await command("--dry-run", "--json")
        (seen,) = json.loads(out)["providers"]
        assert (code, seen["adjusted"], seen["difference"]) == (1, 1, "0.004")
        code, out = await command("--provider", "bb", "--since", "1d")
        assert code == 1
        assert "+$0.004" in out
        assert "33.3%" in out
        code, out = await command("--json")
        assert code == 0
        (day,) = json.loads(out)["capture"]
        assert (day["ours"], day["theirs"], day["compared"]) == ("0.002", "0.006", 1)
        assert (await command("--provider", "nobody"))[0] == 2
        assert (await command("--since", "yesterday"))[0] == 2
