"""A hosted provider under the real pool: a page, its price, and the faults that make others pay twice.

Faults are those of the design's table, named by their letters. Chromium is real, the provider is emulated.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tabkeeper.config import PoolConfig, load_config, parse_config
from tabkeeper.errors import LeaseLostError, SessionCreationError, TabkeeperError
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.money import Money
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.emulator import KINDS, BrowserbaseEmulator, Limits, Phase, serving

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("ledger_file")]
one_browser = pytest.mark.usefixtures("one_browser")

PAGE = "data:text/html,<title>here</title><p>hello"
PRICE = {"rates": {"per_hour": "0.12", "increment": "1m", "minimum": "1m"}}


def config(emulator, tmp_path: Path, price: dict[str, Any] | None = None, **pool: Any) -> PoolConfig:
    return parse_config(
        {
            "pool": {"max_sessions": 2, "session_ttl": "5m", **pool},
            "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"},
            "providers": {
                "bb": {"kind": emulator.kind, "api_key": "k", "base_url": emulator.url, **(price or PRICE)}
            },
            "platforms": {"web": {"providers": ["bb"], "retry_base": "50ms"}},
            "budgets": [{"name": "daily", "limit": "20.00"}],
        }
    )


UNANSWERED = {
    "connection dropped": {"do": "drop"},
    "gateway timeout": {"do": "status after", "status": 504},
    "answered after our timeout": {"do": "late", "seconds": 2.5},
    "created after our timeout": {"do": "slow", "seconds": 2.5},
}
FAILURES = {"3 times": 3, "6 times": 6}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request):
    return request.param


def every_kind_with(name: str, cases: dict[str, Any], share: int):
    """Each kind of provider meets each case in the long proofs, else every `share`th, one further for each kind."""
    step = 1 if os.environ.get("TABKEEPER_PROOF") else share
    return pytest.mark.parametrize(
        ("kind", name),
        [
            pytest.param(kind, case, id=f"{key}-{what}")
            for turn, (key, kind) in enumerate(KINDS.items())
            for number, (what, case) in enumerate(cases.items())
            if (number + turn) % step == 0
        ],
        indirect=["kind"],
    )


def label_of(body: dict[str, Any]) -> str:
    """Our label, wherever this provider keeps it."""
    if "session" in body:  # Anchor's, a list of words
        return next(one for one in body["session"]["tags"] if one.startswith("session:"))
    kept = next(body[key] for key in ("userMetadata", "tags", "metadata") if key in body)
    return kept["session"]


async def visit(pool: SessionPool) -> str:
    async with pool.get_session("web") as lease:
        page = await lease.new_page()
        await page.goto(PAGE)
        return await page.title()


async def until(condition, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def clean(pool: SessionPool) -> None:
    """The books agree with themselves."""
    await pool._ledger.flush()
    assert [f"{v.name}: {v.meaning}" for v in await pool._ledger.verify()] == []


async def test_a_page_is_opened_and_costs_what_browserbase_takes(tmp_path):
    """Developer: $0.12 an hour by the started minute after 100 h; 5,999 min are used, so one minute is left free."""
    async with serving(BrowserbaseEmulator()) as emulator:
        plan = {"plan": "browserbase/developer", "max_gb": "0"}
        async with SessionPool(config(emulator, tmp_path, plan)) as pool:
            ask = HoldRequest(
                session_id="past", platform="web", provider="bb", tenant="default", max_seconds=359_940
            )
            await pool._ledger.hold(ask)
            await pool._ledger.activate("past", provider_session_id="past")
            await pool._ledger.settle("past", SessionUsage(seconds=359_940), reason="done")
            costs = [await pool.ledger.daily_cost()]
            for _ in range(3):
                async with pool.get_session("web") as lease:
                    # Over the network, yet through no proxy: traffic costs nothing then.
                    await (await lease.new_page()).goto(f"{emulator.url}/_emulator/sessions")
                ours = list(pool._sessions.running.values())
                await asyncio.gather(*(pool.close_session(one.session.id) for one in ours))
                await until(lambda: not pool._sessions.running)
                costs.append(await pool.ledger.daily_cost())
            await clean(pool)
        assert costs == [Money.parse(text) for text in ("0", "0", "0.0020", "0.0040")]
        assert (emulator.bill().sessions, emulator.bill().minutes) == (3, 3)


async def test_sessions_are_reused_and_all_are_ended_with_the_pool(kind, tmp_path):
    async with serving(kind()) as emulator:
        async with SessionPool(config(emulator, tmp_path)) as pool:
            for _ in range(4):
                assert await visit(pool) == "here"
            await clean(pool)
        assert [one.phase for one in emulator.sessions.values()] == [Phase.COMPLETED]


@one_browser
@every_kind_with("misbehaviour", UNANSWERED, 2)
async def test_fault_a_a_create_without_an_answer_is_one_session_or_is_ended(kind, tmp_path, misbehaviour):
    async with serving(kind()) as emulator:
        emulator.misbehave("create", **misbehaviour)
        # Without labels there is nothing to be found by looking longer.
        looks = {} if kind.keeps_labels else {"close_timeout": "4s"}
        async with SessionPool(config(emulator, tmp_path, create_timeout="1s", **looks)) as pool:
            assert await visit(pool) == "here"
            owed = list(pool._parts.sweeper.debts.values())
            await clean(pool)
        if not kind.keeps_labels and misbehaviour["do"] in {"drop", "status after"}:
            # It cannot be told from another one: its timeout ends it, and until then money is held for it.
            (lost,) = emulator.running
            (debt,) = owed
            assert len(emulator.sessions) == 2
            assert lost.created_at + timedelta(seconds=lost.seconds) <= debt.expires_at + timedelta(seconds=1)
            return
        if misbehaviour["do"] != "slow":
            assert emulator.bill().sessions == 1, "adopted"
        if kind.starts_on_connect:
            # What nobody connected to has no browser.
            assert emulator.bill().sessions == 1
            assert not [one for one in emulator.running if one.connected]
            return
        if not kind.keeps_labels:
            assert (len(emulator.sessions), emulator.running) == (1, []), "the late answer tells"
            return
        bodies = [one.request for one in emulator.sessions.values()]
        wanted = {body.get("sessionId") or label_of(body) for body in bodies}
        assert len(wanted) == len(emulator.sessions), "never two for one"
        assert emulator.running == []


@one_browser
@every_kind_with("times", FAILURES, 2)
async def test_fault_b_a_release_that_fails_is_repeated_until_confirmed(kind, tmp_path, times):
    async with serving(kind()) as emulator:
        limits = {"close_timeout": "2s", "keep": "fixed", "idle_timeout": "100ms", "max_sessions": 1}
        keep = PRICE | {"keep_alive": True}
        async with SessionPool(config(emulator, tmp_path, keep, **limits)) as pool:
            order = emulator.misbehave("release", "status", status=500, times=times)
            assert await visit(pool) == "here"
            # The slot is free after the deadline for closing, whatever the provider says.
            assert await visit(pool) == "here"
            await until(lambda: order.done == times and not emulator.running, 30)
            await until(lambda: not pool._sessions.running, 10)
            await clean(pool)
        assert emulator.running == []


@one_browser
async def test_a_session_that_the_provider_loses_is_lost_to_its_holder_and_not_served_again(kind, tmp_path):
    async with serving(kind()) as emulator:
        async with SessionPool(config(emulator, tmp_path)) as pool:
            async with pool.get_session("web") as lease:
                await lease.new_page()
                await emulator.lose(emulator.running[0].id)
                with pytest.raises(LeaseLostError):
                    async with asyncio.timeout(5):
                        while True:
                            page = await lease.new_page()
                            await page.close()
            assert await visit(pool) == "here"
            await clean(pool)
        assert len(emulator.sessions) == 2
        assert emulator.running == []


@one_browser
async def test_no_money_and_no_key_are_told_to_who_asks(kind, tmp_path):
    async with serving(kind(keys=["other"])) as emulator:
        async with SessionPool(config(emulator, tmp_path)) as pool:
            with pytest.raises(SessionCreationError, match="api_key"):
                await visit(pool)
            await clean(pool)
    async with serving(kind()) as emulator:
        emulator.out_of_money = True
        async with SessionPool(config(emulator, tmp_path)) as pool:
            with pytest.raises(SessionCreationError, match=r"status 402|[Ss]pending cap"):
                await visit(pool)


@one_browser
async def test_at_the_providers_limit_requests_wait_and_are_served(kind, tmp_path):
    async with serving(kind(Limits(concurrent=1))) as emulator:
        async with SessionPool(config(emulator, tmp_path, max_sessions=3)) as pool:
            titles = await asyncio.gather(*(visit(pool) for _ in range(3)))
            assert titles == ["here"] * 3
            await clean(pool)
        assert emulator.running == []


@one_browser
@pytest.mark.kill
@every_kind_with("killed", {"killed": True}, 3)
async def test_fault_c_a_process_killed_between_create_and_record_leaves_nothing(kind, tmp_path, killed):
    """A real process, killed with the answer on its way: the next one ends its session and settles by estimate."""
    async with serving(kind()) as emulator:
        emulator.misbehave("create", "late", seconds=60)
        file = tmp_path / "tabkeeper.toml"
        file.write_text(
            f'[ledger]\nurl = "sqlite:///{tmp_path}/ledger.db"\n[platforms.web]\nproviders = ["bb"]\n'
            f'[providers.bb]\nkind = "{emulator.kind}"\napi_key = "k"\nbase_url = "{emulator.url}"\n'
            '[providers.bb.rates]\nper_hour = "0.12"\nincrement = "1m"\nminimum = "1m"\n'
        )
        if not kind.keeps_labels:
            # Nothing at the provider says whose it is, so it takes a promise that nobody else uses the account.
            file.write_text(
                file.read_text().replace('api_key = "k"', 'api_key = "k"\nexclusive = true')
                + '[pool]\ncreate_timeout = "1s"\nclose_timeout = "1s"\n'
            )
        script = Path(__file__).with_name("killed_asking.py")
        child = await asyncio.create_subprocess_exec(sys.executable, str(script), str(file))
        try:
            await until(lambda: len(emulator.sessions) == 1, 60)
        finally:
            child.kill()
            await child.wait()
        emulator.behave()
        # It does not show at once.
        emulator.misbehave("list", "empty")
        emulator.misbehave("get", "status", status=404)
        async with SessionPool(load_config(file)) as pool:
            if not kind.keeps_labels and not kind.starts_on_connect:
                emulator.behave()
                while emulator.running:
                    await asyncio.sleep(0.2)
                    await pool._parts.sweeper.round()
            await until(
                lambda: not [one for one in emulator.running if one.connected or not kind.starts_on_connect]
            )
            await until(lambda: not pool._parts.sweeper.debts)
            await clean(pool)
            with pool._ledger.reader.connect() as db:
                rows = db.execute(text("SELECT state, quality, cost_n FROM session")).all()
        if kind.starts_on_connect:
            assert [tuple(row) for row in rows] == [("void", None, 0)], "nobody could connect to it"
        else:
            assert [(row.state, row.quality) for row in rows] == [("lost", "estimate")]
            assert rows[0].cost_n > 0
        assert len(emulator.sessions) == 1


@one_browser
async def test_fault_m_a_session_that_its_provider_takes_to_run_but_that_is_dead_is_told_and_closed(
    kind, tmp_path
):
    async with serving(kind()) as emulator:
        async with SessionPool(config(emulator, tmp_path)) as pool:
            with pytest.raises(TabkeeperError):
                async with pool.get_session("web") as lease:
                    await lease.new_page()
                    await emulator.lose(emulator.running[0].id, quietly=True)
                    async with asyncio.timeout(10):
                        while True:
                            page = await lease.new_page()
                            await page.close()
            assert await visit(pool) == "here"
            await until(lambda: len(emulator.running) == 1)
            await clean(pool)
            (silent, _) = emulator.sessions.values()
            (drift,) = await pool._ledger.drift.seen(since=silent.created_at - timedelta(minutes=1))
            assert (drift.kind, drift.provider, drift.times) == ("dead", "bb", 1)
            assert silent.id in str(drift.provider_session_id)
            told = [event for event, _ in await pool._ledger.alerts.recent(20) if event.kind == "drift"]
            assert [(one.session_id, one.detail) for one in told] == [(drift.session_id, drift.detail)]
        assert len(emulator.sessions) == 2
        assert emulator.running == []
