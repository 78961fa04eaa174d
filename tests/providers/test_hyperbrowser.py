"""Hyperbrowser: its adapter before its emulator, every refusal and quirk, and what the official SDK sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from hyperbrowser import AsyncHyperbrowser
from hyperbrowser.exceptions import HyperbrowserError
from hyperbrowser.models import CreateSessionParams, ScreenConfig, SessionListParams
from playwright.async_api import async_playwright

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderCapacityError,
    ProviderNotFoundError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import Leftover, SessionSpec
from tabkeeper.providers.emulator import HyperbrowserEmulator, Limits, Phase, serving
from tabkeeper.providers.hyperbrowser import HyperbrowserProvider

from .started import moment, passing, started

KEY = "hb-test-key"
EMULATOR = HyperbrowserEmulator


def made_of(
    *, base_url: str | None = None, transport=None, clock=None, sleep=moment, **settings: Any
) -> HyperbrowserProvider:
    section = ProviderSettings(kind="hyperbrowser", api_key=KEY, base_url=base_url, **settings)
    return HyperbrowserProvider("hb", section, sleep=sleep, transport=transport, clock=clock)


def far(emulator, clock=None, **settings: Any) -> AbstractAsyncContextManager[HyperbrowserProvider]:
    provider = made_of(base_url=emulator.url, clock=clock, **settings)
    return started(provider, emulator)


@pytest.fixture
async def hb(emulator) -> AsyncIterator[HyperbrowserProvider]:
    async with far(emulator) as provider:
        yield provider


@pytest.fixture
async def sdk(emulator) -> AsyncIterator[AsyncHyperbrowser]:
    async with AsyncHyperbrowser(api_key=KEY, base_url=emulator.url) as client:
        yield client


def end_all(emulator: HyperbrowserEmulator) -> None:
    for one in emulator.running:
        emulator.end(one, Phase.COMPLETED, "test")


# ── what is asked for ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_that_is_configured_is_asked_for(emulator, tools):
    options = {"screen": {"width": 800, "height": 600}, "profile": {"id": "p1", "persistChanges": True}}
    async with far(emulator, region="europe-west", proxies=True, options=options) as hb:
        await hb.create(tools.spec("s1"))
    method, path, headers, body = emulator.requests[0]
    assert (method, path, headers["x-api-key"]) == ("POST", "/api/session", KEY)
    assert json.loads(body) == {**options, "region": "europe-west", "useProxy": True, "timeoutMinutes": 1}


@pytest.mark.parametrize(("wanted", "sent"), [(1, 1), (119.9, 1), (120, 2), (43200, 720), (1e6, 720)])
async def test_the_timeout_is_in_whole_minutes_within_the_bounds(hb, emulator, wanted, sent):
    await hb.create(SessionSpec(session_id="s", platform="web", max_seconds=wanted))
    assert json.loads(emulator.requests[0][3])["timeoutMinutes"] == sent


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"region": "mars"}, "providers.hb.region: must be one of us"),
        ({"options": {"timeoutMinutes": 5}}, "providers.hb.options.timeoutMinutes"),
        ({"project_id": "p"}, "providers.hb.project_id"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings, told):
    with pytest.raises(ConfigError, match=told):
        made_of(**settings)


# ── what is answered ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_rate_limit_is_told_with_its_time_and_from_the_limit_of_sessions(tools):
    async with serving(HyperbrowserEmulator(Limits(concurrent=1))) as emulator, far(emulator) as hb:
        emulator.misbehave("create", "status", status=429, retry_after="17")
        with pytest.raises(ProviderRateLimitError) as told:
            await hb.create(tools.spec("s0"))
        assert told.value.retry_after == 17
        await hb.create(tools.spec("s1"))
        with pytest.raises(ProviderCapacityError):
            await hb.create(tools.spec("s2"))


async def test_a_browser_that_boots_is_waited_for_and_one_that_fails_is_given_back(tools):
    clock = VirtualClock()
    async with serving(HyperbrowserEmulator(Limits(boot_seconds=0.9), clock=clock)) as emulator:
        async with far(emulator, sleep=passing(clock)) as hb:
            assert (await hb.create(tools.spec("s1"))).connect_url
            assert clock.monotonic() == 1
    async with serving(HyperbrowserEmulator(Limits(boot_seconds=60))) as emulator, far(emulator) as hb:
        with pytest.raises(OutcomeUnknownError, match="no address"):
            await hb.create(tools.spec("s1"))
        assert emulator.running == []


# ── no labels ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_create_that_got_no_answer_is_nobodys_and_its_timeout_ends_it(tools):
    """It could be anybody's: no other session of the account is adopted or ended in its place."""
    clock = VirtualClock()
    async with serving(HyperbrowserEmulator(clock=clock)) as emulator, far(emulator) as hb:
        emulator.misbehave("create", "drop")
        with pytest.raises(OutcomeUnknownError):
            await hb.create(tools.spec("s1"))
        assert not hb.capabilities.list_by_label
        assert await hb.list("s1") == []
        await hb.reap([Leftover(session_id="s1", provider_session_id=None, pid=None, pid_started=None)])
        assert len(emulator.running) == 1
        clock.advance(60)
        await emulator.catch_up()
        assert emulator.running == []


async def test_a_session_of_this_process_is_listed_by_its_label_and_others_are_not(hb, emulator, sdk, tools):
    for _ in range(12):
        await sdk.sessions.create()
    made = await hb.create(tools.spec("s1"))
    for _ in range(2):
        await sdk.sessions.create()
    (found,) = await hb.list("s")
    assert (found.provider_session_id, found.label) == (made.provider_session_id, "s1")
    assert len([p for m, p, *_ in emulator.requests if m == "GET"]) == 2, "read to the last page"
    await hb.close(made.provider_session_id)
    assert len(emulator.running) == 14
    end_all(emulator)


async def test_what_a_cancelled_create_makes_after_all_is_ended(emulator, tools):
    emulator.misbehave("create", "slow", seconds=0.3)
    async with far(emulator) as hb:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await hb.create(tools.spec("s1"))
        async with asyncio.timeout(5):
            while not emulator.sessions or emulator.running:
                await asyncio.sleep(0.01)
    assert emulator.bill().sessions == 1


# ── ending ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_end_is_believed_when_it_is_seen(hb, emulator, tools):
    made = await hb.create(tools.spec())
    emulator.misbehave("get", "stale", times=2)
    await hb.close(made.provider_session_id)
    made = await hb.create(tools.spec())
    emulator.misbehave("get", "stale", times=99)
    with pytest.raises(ProviderUnavailableError, match="still runs"):
        await hb.close(made.provider_session_id)


@pytest.mark.parametrize(("status", "running"), [("active", True), ("napping", True), ("close-error", False)])
async def test_an_unknown_status_counts_as_running(status, running):
    body = {"id": "p1", "status": status, "wsEndpoint": "wss://x/?token=1", "startTime": "soon"}
    hb = made_of(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body)))
    await hb.start(lambda *_: None)
    assert (await hb.get("p1")).running == running
    assert (await hb.usage("p1")).seconds is None


# ── knowing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_usage_is_seconds_and_only_once_it_is_over(tools):
    clock = VirtualClock()
    async with serving(HyperbrowserEmulator(clock=clock)) as emulator, far(emulator) as hb:
        made = await hb.create(SessionSpec(session_id="s", platform="web", max_seconds=600))
        clock.advance(12.5)
        running = await hb.usage(made.provider_session_id)
        assert (running.seconds, running.ended_at, running.proxy_bytes, running.cost) == (None,) * 4
        await hb.close(made.provider_session_id)
        over = await hb.usage(made.provider_session_id)
        assert over.seconds == pytest.approx(12.5, abs=0.002)
        assert (over.ended_at - over.started_at).total_seconds() == over.seconds


async def test_a_session_can_be_extended_while_it_runs_and_the_call_is_sent_once(tools):
    clock = VirtualClock()
    async with serving(HyperbrowserEmulator(clock=clock)) as emulator, far(emulator, clock=clock) as hb:
        made = await hb.create(tools.spec())
        one = made.provider_session_id
        clock.advance(50)
        await hb.extend(one, 61)
        assert json.loads(emulator.requests[-1][3]) == {"durationMinutes": 2}
        clock.advance(100)
        assert hb.alive(one)
        assert (await hb.get(one)).running
        emulator.misbehave("get", "status after", status=500)
        with pytest.raises(OutcomeUnknownError):
            await hb.extend(one, 60)
        await hb.close(one)
        with pytest.raises(ProviderRequestError):
            await hb.extend(one, 60)
    assert [p for _, p, *_ in emulator.requests].count(f"/api/session/{one}/extend-session") == 3


async def test_a_session_can_be_watched_while_it_runs(hb, emulator, tools):
    made = await hb.create(tools.spec())
    assert (await hb.live_view(made.provider_session_id)).startswith(emulator.url)
    await hb.close(made.provider_session_id)
    with pytest.raises(ProviderNotFoundError):
        await hb.live_view(made.provider_session_id)


async def test_check_tells_whether_the_key_is_valid_and_what_is_left(hb, emulator):
    (check,) = await hb.check()
    assert (check.ok, check.advice) == (True, "")
    assert "10000 credits" in check.detail
    emulator.out_of_money = True
    (check,) = await hb.check()
    assert "top the account up" in check.advice
    emulator.misbehave("usage", "status", status=401)
    (check,) = await hb.check()
    assert not check.ok
    assert "api_key" in check.advice


# ── the official SDK ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_sdk_drives_the_emulator(emulator, sdk):
    made = await sdk.sessions.create(
        CreateSessionParams(
            timeout_minutes=2, region="us-west", use_proxy=True, screen=ScreenConfig(width=800, height=600)
        )
    )
    assert (made.status, made.end_time, made.credits_used) == ("active", None, None)
    assert (made.launch_state.use_proxy, made.launch_state.screen.width) == (True, 800)
    assert made.ws_endpoint.startswith("ws://127.0.0.1")
    got = await sdk.sessions.get(made.id)
    assert (got.ws_endpoint, got.start_time) == (made.ws_endpoint, made.start_time)
    for _ in range(2):
        await sdk.sessions.create()
    page = await sdk.sessions.list(SessionListParams(status="active", page=1, limit=2))
    assert (len(page.sessions), page.total_count, page.has_more) == (2, 3, True)
    page = await sdk.sessions.list(SessionListParams(status="active", page=2, limit=2))
    assert [one.id for one in page.sessions] == [made.id]
    assert (await sdk.sessions.extend_session(made.id, 5)).success
    assert emulator.sessions[made.id].seconds == 420
    emulator.sessions[made.id].proxy_bytes = 1_000_000
    for _ in range(2):
        assert (await sdk.sessions.stop(made.id)).success
    over = await sdk.sessions.get(made.id)
    assert (over.status, over.ws_endpoint, over.proxy_data_consumed) == ("closed", None, "1000000")
    assert over.end_time >= over.start_time
    assert over.credit_breakdown.proxy_data_credits_used == 10
    assert over.credits_used == pytest.approx(10 + over.credit_breakdown.browser_time_credits_used)
    team = await sdk.team.get_credit_info()
    assert (team.limit, team.remaining) == (10000, 10000 - team.usage)
    assert team.usage >= 10
    end_all(emulator)


async def test_the_official_sdk_reads_the_emulators_errors(emulator, sdk):
    async def refused(call, status: int, words: str) -> HyperbrowserError:
        with pytest.raises(HyperbrowserError, match=words) as told:
            await call
        assert told.value.status_code == status
        return told.value

    await refused(sdk.sessions.create(CreateSessionParams(timeout_minutes=721)), 400, "timeoutMinutes")
    await refused(sdk.sessions.get("nobody"), 404, "Session not found")
    await refused(sdk.sessions.stop("nobody"), 404, "Session not found")
    made = await sdk.sessions.create()
    await sdk.sessions.stop(made.id)
    told = await refused(sdk.sessions.extend_session(made.id, 5), 409, "not active")
    assert told.code == "SESSION_NOT_ACTIVE"
    emulator.out_of_money = True
    await refused(sdk.sessions.create(), 402, "Insufficient credits")
    async with AsyncHyperbrowser(api_key="wrong", base_url=emulator.url) as stranger:
        await refused(stranger.team.get_credit_info(), 401, "Invalid API key")


async def test_the_adapter_sends_what_the_sdk_sends(emulator, sdk, tools):
    options = {"screen": {"width": 800, "height": 600}, "solveCaptchas": False, "acceptCookies": True}
    async with far(emulator, region="us-east", proxies=True, options=options) as hb:
        made = await hb.create(tools.spec("s1"))
        one = made.provider_session_id
        await hb.list("s2")
        await hb.extend(one, 60)
        await hb.live_view(one)
        await hb.close(one)
        await hb.check()
        ours = list(emulator.requests)
    emulator.requests.clear()

    created = await sdk.sessions.create(
        CreateSessionParams(
            timeout_minutes=1,
            region="us-east",
            use_proxy=True,
            screen=ScreenConfig(width=800, height=600),
            solve_captchas=False,
            accept_cookies=True,
        )
    )
    theirs = created.id
    await sdk.sessions.list(SessionListParams(status="active"))
    await sdk.sessions.extend_session(theirs, 1)
    await sdk.sessions.get(theirs)
    await sdk.sessions.stop(theirs)
    await sdk.sessions.get(theirs)
    await sdk.team.get_credit_info()

    def normal(requests, session_id):
        return [
            [
                method,
                str(httpx.URL(path).copy_with(query=None)).replace(session_id, "ID"),
                dict(httpx.URL(path).params),
                {k: headers.get(k) for k in ("x-api-key", "content-type")},
                json.loads(body) if body else None,
            ]
            for method, path, headers, body in requests
        ]

    mine, sdks = normal(ours, one), normal(emulator.requests, theirs)
    # The SDK spells out defaults of its own, which are the API's.
    defaults = CreateSessionParams().model_dump(by_alias=True, exclude_none=True)
    assert sdks[0][4] == {**defaults, **mine[0][4]}
    sdks[0][4] = mine[0][4]
    for left, right in zip(mine, sdks, strict=True):
        assert left == right


# ── the emulator ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.browser
async def test_a_page_is_opened_and_its_session_lasts_until_its_time_is_up(tools):
    clock = VirtualClock()
    async with serving(HyperbrowserEmulator(keys=[KEY], clock=clock)) as emulator, far(emulator) as hb:
        made = await hb.create(tools.spec())
        async with async_playwright() as playwright:
            for _ in range(2):
                browser = await playwright.chromium.connect_over_cdp(made.connect_url)
                page = await browser.contexts[0].new_page()
                await page.goto("data:text/html,<title>hello</title>")
                assert await page.title() == "hello"
                await browser.close()
            clock.advance(61)
            assert not (await hb.get(made.provider_session_id)).running
            with pytest.raises(Exception, match="410"):
                await playwright.chromium.connect_over_cdp(made.connect_url)
        assert emulator.sessions[made.provider_session_id].why == "timeout"
