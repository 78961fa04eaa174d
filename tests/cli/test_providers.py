"""`tabkeeper providers` and `tabkeeper sessions view`: real emulators, a wrong key, a dead port, a skewed clock."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tabkeeper.cli import providers
from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import LeaseLostError, ProviderRequestError
from tabkeeper.ledger.rates import RateCard
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import Capabilities
from tabkeeper.providers.emulator import KINDS, serving

pytest_plugins = ["tabkeeper.providers.emulator.fixtures"]

KEY = "k-123456"


def section(name: str, **settings: str) -> str:
    lines = "".join(f'{key} = "{value}"\n' for key, value in settings.items())
    return f'[providers.{name}]\n{lines}[providers.{name}.rates]\nper_hour = "0.12"\n'


def write(folder: Path, *sections: str, platforms: str = "") -> None:
    (folder / "tabkeeper.toml").write_text(
        '[ledger]\nurl = "sqlite:///books.db"\n' + "".join(sections) + platforms, encoding="utf-8"
    )


def hosted(name: str, emulator: Any, key: str = KEY) -> str:
    return section(name, kind=emulator.kind, api_key=key, base_url=emulator.url)


async def ask(tabkeeper: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    told = await asyncio.to_thread(tabkeeper, "providers", "check", "--json", *arguments)
    assert KEY not in told.out
    assert told.err == ""
    answer = json.loads(told.out)
    assert answer["ok"] == (told.code == 0)
    return told.code, {one["name"]: one for one in answer["providers"]}


def findings(one: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {f["name"]: (f["level"], f["detail"], f["advice"]) for f in one["findings"]}


async def test_every_kind_with_a_valid_key_is_well_and_nothing_is_created(folder, tabkeeper, emulate):
    emulators = {kind: await emulate(kind, keys=[KEY]) for kind in KINDS}
    write(folder, section("here", kind="local"), *(hosted(kind, one) for kind, one in emulators.items()))
    code, found = await ask(tabkeeper)
    assert code == 0, found
    assert found.keys() == {"here", *KINDS}
    for kind, emulator in emulators.items():
        checks = findings(found[kind])
        assert {level for level, _, _ in checks.values()} == {"ok"}, checks
        assert checks["clock"][1] == "this machine and the provider agree"
        assert found[kind]["skew"] == 0
        assert emulator.sessions == {}
        assert [method for method, *_ in emulator.requests if method != "GET"] == []
    shown = await asyncio.to_thread(tabkeeper, "providers", "check")
    assert "providers ready" in shown.out
    assert await asyncio.to_thread(lambda: list(folder.iterdir())) == [folder / "tabkeeper.toml"]


async def test_a_wrong_key_fails_and_says_which(folder, tabkeeper, emulate):
    good, bad = await emulate("steel", keys=[KEY]), await emulate("browserbase", keys=["other"])
    write(folder, hosted("good", good), hosted("bad", bad))
    code, found = await ask(tabkeeper)
    assert (code, found["good"]["ok"], found["bad"]["ok"]) == (1, True, False)
    level, detail, advice = findings(found["bad"])["account"]
    assert (level, "401" in detail, "providers.bad.api_key" in advice) == ("fail", True, True)
    assert (await ask(tabkeeper, "good"))[0] == 0, "only the one that was named"
    shown = await asyncio.to_thread(tabkeeper, "providers", "check")
    assert (shown.code, "1 of 2 providers cannot be used" in shown.out) == (1, True)


async def test_who_hangs_and_who_is_dead_do_not_keep_the_others_waiting(folder, tabkeeper, emulate):
    good, slow = await emulate("steel"), [await emulate("steel") for _ in range(3)]
    for one in slow:
        one.misbehave("any", "slow", seconds=60, times=9)
    dead = section("dead", kind="browserbase", api_key=KEY, base_url="http://127.0.0.1:9")
    write(
        folder,
        *(hosted(f"slow{number}", one) for number, one in enumerate(slow)),
        dead,
        hosted("good", good),
    )
    began = time.monotonic()
    code, found = await ask(tabkeeper, "--timeout", "2")
    assert time.monotonic() - began < 4, "all at once: three times two seconds would be six"
    assert code == 1
    assert [name for name, one in found.items() if one["ok"]] == ["good"]
    assert "no answer within 2 s" in findings(found["slow1"])["account"][1]
    detail = findings(found["dead"])["account"][1]
    assert "127.0.0.1:9" in detail or "no answer within" in detail


@pytest.mark.parametrize(("ahead", "where"), [(3600, "behind"), (-90, "ahead of")])
async def test_a_clock_that_is_off_is_warned_of(folder, tabkeeper, emulate, ahead, where):
    clock = VirtualClock(datetime.now(UTC) + timedelta(seconds=ahead))
    emulator = await emulate("browserbase", clock=clock)
    write(folder, hosted("bb", emulator))
    code, found = await ask(tabkeeper)
    level, detail, advice = findings(found["bb"])["clock"]
    assert (code, level, where in detail, "NTP" in advice) == (0, "warn", True, True)
    assert abs(found["bb"]["skew"] - ahead) < 30
    doctor = await asyncio.to_thread(tabkeeper, "doctor", "--no-start", "--json")
    assert "bb: clock" in {one["name"] for one in json.loads(doctor.out)["checks"]}


def test_what_is_asked_for_wrongly_is_told_in_one_line(folder, tabkeeper):
    write(folder, section("steel-eu", kind="steel", api_key=KEY))
    told = tabkeeper("providers", "check", "stel-eu")
    assert (told.code, "did you mean 'steel-eu'?" in told.err) == (2, True)
    (folder / "tabkeeper.toml").write_text('[providers.x]\nkind = "mars"', encoding="utf-8")
    assert tabkeeper("providers", "list").code == 2


# ── prices ─────────────────────────────────────────────────────────────────────────────────────────────────────────


NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("card", "advice"),
    [
        ({"checked_at": NOW.date() - timedelta(days=60)}, ""),
        ({"checked_at": NOW.date() - timedelta(days=61)}, "for 61 days: see https://x"),
        ({"effective_to": NOW + timedelta(days=14)}, "it ends on 2026-12-15"),
        ({"effective_to": NOW + timedelta(days=15)}, ""),
    ],
)
def test_a_price_list_that_ends_soon_or_that_nobody_has_looked_at_is_doubted(card, advice):
    made = RateCard(plan="x/y", effective_from=NOW - timedelta(days=300), source="https://x and more", **card)
    assert advice in providers._doubts(made, NOW)
    assert bool(providers._doubts(made, NOW)) == bool(advice)


def test_a_provider_without_a_price_is_a_warning_and_for_a_platform_a_failure(folder, tabkeeper):
    def price(platforms: str = "") -> str:
        text = f'[providers.s]\nkind = "steel"\napi_key = "{KEY}"\n{platforms}'
        (folder / "tabkeeper.toml").write_text(text, encoding="utf-8")
        (row,) = json.loads(tabkeeper("providers", "list", "--json").out)
        assert "set providers.s.rates" in row["price"]["advice"]
        return row["price"]["level"]

    assert price() == "warn"
    assert price('[platforms.web]\nproviders = ["s"]') == "fail"


def test_the_list_shows_prices_platforms_and_abilities_and_asks_nobody(folder, tabkeeper):
    plan = f'[providers.bl]\nkind = "browserless"\napi_key = "{KEY}"\nplan = "browserless/starter"\nmax_gb = "0"\n'
    write(folder, plan, platforms='[platforms.web]\nproviders = ["bl"]')
    (row,) = json.loads(tabkeeper("providers", "list", "--json").out)
    assert row["platforms"] == ["web"]
    assert "browserless/starter: $0.0017 a unit" in row["price"]["detail"]
    told = row["capabilities"]
    assert (
        Capabilities(**told | {"own_proxies": frozenset(told["own_proxies"])})
        == make_provider("bl", ProviderSettings(kind="browserless", api_key=KEY)).capabilities
    )
    shown = tabkeeper("providers", "list")
    assert (shown.code, "own timeout" in shown.out, KEY in shown.out) == (0, True, False)


# ── watching ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_is_watched_from_elsewhere_and_goes_on(folder, tabkeeper, kind):
    async with serving(KINDS[kind](keys=[KEY])) as emulator:
        write(folder, hosted("far", emulator), platforms='[platforms.web]\nproviders = ["far"]')
        async with SessionPool.from_file(folder / "tabkeeper.toml") as pool:
            async with pool.get_session("web") as lease:
                can = pool._providers["far"].capabilities.live_view
                told = await asyncio.to_thread(tabkeeper, "sessions", "view", lease.session_id)
                if can:
                    assert told.code == 0, told
                    assert told.out.startswith(("http://127.0.0.1", "https://"))
                    assert await lease.live_view() == told.out.strip()
                else:
                    assert (told.code, "offers no live view" in told.err) == (1, True), told
                    with pytest.raises(ProviderRequestError, match=r"'far'.*no live view"):
                        await lease.live_view()
                assert pool._sessions.running[lease.session_id].exposed == can
                assert len(emulator.running) == 1, "looking ends nothing"
            with pytest.raises(LeaseLostError):
                await lease.live_view()
        over = await asyncio.to_thread(tabkeeper, "sessions", "view", lease.session_id)
        assert (over.code, "ended already" in over.err) == (1, True)
    assert (await asyncio.to_thread(tabkeeper, "sessions", "view", "nobody")).code == 2
