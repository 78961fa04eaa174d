"""Browser Use Cloud: its adapter before its emulator, and what the official SDK sends; the rest is tested for all."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any

import httpx
import pytest
from browser_use_sdk import BrowserUseError
from browser_use_sdk.v3 import AsyncBrowserUse as AsyncBrowserUseV3
from browser_use_sdk.v4 import AsyncBrowserUse
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.money import Money
from tabkeeper.providers.base import Leftover, SessionSpec
from tabkeeper.providers.browser_use import BrowserUseProvider
from tabkeeper.providers.emulator import BrowserUseEmulator, Limits, Phase, serving

from .started import moment, passing, started

KEY = "bu_test_key"
EMULATOR = BrowserUseEmulator


def settings(**more: Any) -> ProviderSettings:
    return ProviderSettings(kind="browser_use", api_key=KEY, **more)


def far(emulator, sleep=moment, **more: Any) -> AbstractAsyncContextManager[BrowserUseProvider]:
    provider = BrowserUseProvider("bu", settings(base_url=emulator.url, **more), sleep=sleep)
    return started(provider, emulator)


@pytest.fixture
async def bu(emulator) -> AsyncIterator[BrowserUseProvider]:
    async with far(emulator) as provider:
        yield provider


@pytest.fixture
async def sdk(emulator) -> AsyncIterator[AsyncBrowserUse]:
    client = AsyncBrowserUse(KEY, base_url=f"{emulator.url}/api/v4", max_retries=0)
    yield client
    await client._http.close()


@pytest.fixture
async def sdk3(emulator) -> AsyncIterator[AsyncBrowserUseV3]:
    client = AsyncBrowserUseV3(KEY, base_url=f"{emulator.url}/api/v3", max_retries=0)
    yield client
    await client._http.close()


# ── what is asked for ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_that_is_configured_is_asked_for(emulator):
    profile = str(uuid.uuid4())
    options = {"profileId": profile, "browserScreenWidth": 1280, "browserScreenHeight": 800}
    async with far(emulator, proxies=True, options=options) as bu:
        await bu.create(SessionSpec(session_id="s1", platform="web", max_seconds=600))
    method, path, headers, body = emulator.requests[0]
    assert (method, path, headers["x-browser-use-api-key"]) == ("POST", "/api/v4/browsers", KEY)
    assert json.loads(body) == {
        **options,
        "proxyCountryCode": "us",
        "timeout": 10,
        "metadata": {"tool": "tabkeeper", "session": "s1", "platform": "web"},
    }


@pytest.mark.parametrize(("wanted", "sent"), [(1, 1), (60, 1), (179.9, 2), (14400, 240), (1e6, 240)])
async def test_the_timeout_is_in_whole_minutes_within_the_bounds(bu, emulator, wanted, sent):
    await bu.create(SessionSpec(session_id="s", platform="web", max_seconds=wanted))
    assert json.loads(emulator.requests[0][3])["timeout"] == sent


@pytest.mark.parametrize(
    ("proxies", "options", "sent"),
    [
        (False, {}, None),
        (True, {}, "us"),
        (True, {"proxyCountryCode": "de"}, "de"),
        (False, {"proxyCountryCode": "de"}, "de"),
    ],
)
async def test_a_proxy_is_refused_unless_it_is_wanted(emulator, tools, proxies, options, sent):
    async with far(emulator, proxies=proxies, options=options) as bu:
        await bu.create(tools.spec("s1"))
    body = json.loads(emulator.requests[0][3])
    assert "proxyCountryCode" in body
    assert body["proxyCountryCode"] == sent


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"region": "eu"}, "region: browser_use offers no choice"),
        ({"project_id": "p"}, "project_id"),
        ({"options": {"timeout": 5}}, "options.timeout"),
        ({"plan": "browser-use/direct", "max_gb": "1", "proxies": True}, "plan: with its proxies"),
        (
            {"plan": "browser-use/direct", "max_gb": "1", "options": {"proxyCountryCode": "de"}},
            "plan: with its proxies",
        ),
        ({"plan": "browser-use/direct", "max_gb": "0"}, "max_gb: .* without a proxy"),
    ],
)
def test_settings_that_cannot_be_or_would_be_priced_too_low_are_refused_at_once(more, told):
    with pytest.raises(ConfigError, match=told):
        BrowserUseProvider("bu", settings(**more))


# ── what is answered ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "detail", "kind", "told"),
    [
        (403, "Maximum session timeout is 4 hours (240 minutes).", ProviderRequestError, "4 hours"),
        (403, "API key is missing required scope: browsers", ProviderAuthError, "missing required scope"),
        (
            422,
            [{"loc": ["body", "timeout"], "msg": "too short", "type": "x"}],
            ProviderRequestError,
            "too short",
        ),
        (
            402,
            {
                "code": "api_key_monthly_spend_limit_reached",
                "message": "cap reached",
                "cap": 5.0,
                "spent": 5.0,
            },
            ProviderPaymentError,
            "cap reached",
        ),
    ],
)
async def test_the_words_of_a_refusal_are_understood_and_told(tools, status, detail, kind, told):
    answer = httpx.MockTransport(lambda _: httpx.Response(status, json={"detail": detail}))
    bu = BrowserUseProvider("bu", settings(), transport=answer)
    await bu.start(lambda *_: None)
    with pytest.raises(kind, match=told):
        await bu.create(tools.spec("s1"))


async def test_the_concurrency_limit_is_told_from_the_rate_limit(tools):
    async with serving(BrowserUseEmulator(Limits(concurrent=1, creates_per_minute=1))) as emulator:
        async with far(emulator) as bu:
            made = await bu.create(tools.spec("s1"))
            with pytest.raises(ProviderCapacityError, match="Too many concurrent"):
                await bu.create(tools.spec("s2"))
            await bu.close(made.provider_session_id)
            with pytest.raises(ProviderRateLimitError) as told:
                await bu.create(tools.spec("s3"))
            assert told.value.retry_after is None
            emulator.misbehave("create", "status", status=429, retry_after="9")
            with pytest.raises(ProviderRateLimitError) as told:
                await bu.create(tools.spec("s4"))
            assert told.value.retry_after == 9


@pytest.mark.parametrize("misbehaviour", [{"do": "drop"}, {"do": "status after", "status": 502}])
async def test_a_create_that_got_no_answer_is_found_and_ended_by_another_process(
    emulator, tools, misbehaviour
):
    emulator.misbehave("create", **misbehaviour)
    async with far(emulator) as dying:
        with pytest.raises(OutcomeUnknownError):
            await dying.create(tools.spec("s1"))
        async with far(emulator) as next_one:
            (found,) = await next_one.list("s1")
            assert found.connect_url
            await next_one.reap(
                [Leftover(session_id="s1", provider_session_id=None, pid=None, pid_started=None)]
            )
    assert emulator.bill().sessions == 1
    assert emulator.running == []


async def test_an_address_that_is_not_there_yet_is_waited_for(tools):
    clock = VirtualClock()
    async with serving(BrowserUseEmulator(Limits(boot_seconds=0.9), clock=clock)) as emulator:
        async with far(emulator, passing(clock)) as bu:
            made = await bu.create(tools.spec("s1"))
            assert made.connect_url
            assert len([1 for method, *_ in emulator.requests if method == "GET"]) == 3


@pytest.mark.parametrize("readable", [True, False])
async def test_a_session_that_never_gets_an_address_is_given_back(tools, readable):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.method == "GET" and not readable:
            return httpx.Response(500)
        status = "stopped" if request.method == "PATCH" else "active"
        return httpx.Response(200, json={"id": "p1", "status": status, "cdpUrl": None})

    bu = BrowserUseProvider("bu", settings(), transport=httpx.MockTransport(answer), sleep=moment)
    await bu.start(lambda *_: None)
    with pytest.raises(OutcomeUnknownError, match="no address"):
        await bu.create(tools.spec("s1"))
    assert (asked[0], asked[-1]) == ("POST", "PATCH")


async def test_either_spelling_is_read_and_an_unknown_status_runs(tools):
    body = {"id": "p1", "status": "hibernated", "cdp_url": "https://x.example", "metadata": None, "new": 1}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=body))
    bu = BrowserUseProvider("bu", settings(), transport=transport, sleep=moment)
    await bu.start(lambda *_: None)
    made = await bu.create(tools.spec("s1"))
    assert (made.running, made.connect_url) == (True, "https://x.example")
    with pytest.raises(ProviderUnavailableError, match="still runs"):
        await bu.close("p1")


# ── ending ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", [None, 400, 404, 409, 410])
async def test_a_second_stop_counts_as_closed_whatever_is_answered(bu, emulator, tools, answer):
    emulator.release_again = answer
    made = await bu.create(tools.spec())
    await bu.close(made.provider_session_id)
    await bu.close(made.provider_session_id)
    assert [one.phase for one in emulator.sessions.values()] == [Phase.COMPLETED]


async def test_an_end_is_believed_when_it_is_seen(bu, emulator, tools):
    made = await bu.create(tools.spec())
    emulator.misbehave("release", "stale")
    emulator.misbehave("get", "stale", times=2)
    await bu.close(made.provider_session_id)
    assert not bu.alive(made.provider_session_id)


async def test_a_refused_stop_of_a_running_session_is_an_error(bu, emulator, tools):
    made = await bu.create(tools.spec())
    emulator.misbehave("release", "status", status=422)
    with pytest.raises(ProviderRequestError):
        await bu.close(made.provider_session_id)
    assert bu.alive(made.provider_session_id)


async def test_a_list_is_read_to_its_last_page(tools):
    async with serving(BrowserUseEmulator(Limits(concurrent=300, creates_per_minute=300))) as emulator:
        async with far(emulator) as bu:
            for number in range(205):
                ours = {"metadata": {"tool": "tabkeeper", "session": f"x{number}"}}
                emulator.admit(ours, seconds=60, keep_alive=True)
                if number < 50:
                    emulator.admit({"metadata": {"tool": "other"}}, seconds=60, keep_alive=True)
                if number == 3:
                    await bu.create(tools.spec("s1"))
            assert [s.label for s in await bu.list("s1")] == ["s1"]
            assert len([p for m, p, *_ in emulator.requests if m == "GET"]) == 3


# ── knowing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_usage_is_seconds_bytes_and_dollars_once_it_is_over(tools):
    clock = VirtualClock()
    async with serving(BrowserUseEmulator(clock=clock)) as emulator:
        async with far(emulator, proxies=True) as bu:
            made = await bu.create(SessionSpec(session_id="s1", platform="web", max_seconds=1800))
            one = made.provider_session_id
            emulator.sessions[one].proxy_bytes = 12_345_678
            clock.advance(250)
            running = await bu.usage(one)
            assert (running.seconds, running.cost, running.proxy_bytes) == (None, None, 12_345_678)
            await bu.close(one)
            over = await bu.usage(one)
            assert over.seconds == 250
            # Five started minutes at $0.02 an hour, and 12.3 MB at $5 per GB.
            assert over.cost == Money.from_decimal(Decimal("0.0016666667") + Decimal("0.06172839"))


async def test_the_whole_timeout_is_charged_in_advance_and_the_rest_returned():
    clock = VirtualClock()
    async with serving(BrowserUseEmulator(clock=clock)) as emulator, far(emulator) as bu:
        made = await bu.create(SessionSpec(session_id="s1", platform="web", max_seconds=3600))
        assert round(emulator.balance(), 9) == Decimal("99.98")
        clock.advance(61)
        assert round(emulator.balance(), 9) == Decimal("99.98")
        await bu.close(made.provider_session_id)
        assert round(emulator.balance(), 9) == Decimal("99.999333333")
        emulator.credits = Decimal("0.01")
        with pytest.raises(ProviderPaymentError, match="Insufficient credits"):
            await bu.create(SessionSpec(session_id="s2", platform="web", max_seconds=3600))
        await bu.create(SessionSpec(session_id="s3", platform="web", max_seconds=600))


async def test_a_session_can_be_watched_while_it_runs(bu, emulator, tools):
    made = await bu.create(tools.spec())
    assert (await bu.live_view(made.provider_session_id)).startswith(emulator.url)
    await bu.close(made.provider_session_id)
    with pytest.raises(ProviderRequestError, match="cannot be watched"):
        await bu.live_view(made.provider_session_id)


async def test_check_tells_the_balance_and_how_much_the_key_may(emulator, tools):
    async with far(emulator, max_sessions=30) as bu:
        await bu.create(tools.spec())
        (check,) = await bu.check()
        assert check.ok
        assert "$100.00 left; 1 of 25 sessions run" in check.detail
        assert "max_sessions to 25" in check.advice
        # A key for one version of the API may create browsers and not read the account.
        emulator.misbehave("usage", "status", status=403)
        (check,) = await bu.check()
        assert check.ok
        assert "may not read the balance" in check.detail
        emulator.misbehave("any", "status", status=401, times=2)
        (check,) = await bu.check()
        assert not check.ok
        assert "api_key" in check.advice
        emulator.credits = Decimal(0)
        (check,) = await bu.check()
        assert (check.ok, check.advice) == (False, "top the account up")


# ── the official SDK ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_sdk_drives_the_emulator(emulator, sdk, sdk3):
    made = await sdk.browsers.create(
        timeout=30, proxy_country_code=None, metadata={"lease": "01"}, browser_screen_width=1280
    )
    assert (made.status.value, made.metadata, made.browser_cost) == ("active", {"lease": "01"}, "0.01")
    assert (made.timeout_at - made.started_at).total_seconds() == 1800
    assert made.cdp_url.startswith("http://127.0.0.1")
    usual = await sdk.browsers.create()
    assert (usual.timeout_at - usual.started_at).total_seconds() == 3600
    emulator.sessions[str(usual.id)].proxy_bytes = emulator.sessions[str(made.id)].proxy_bytes = 10**9
    got = await sdk.browsers.get(usual.id)
    # A proxy of theirs unless it is refused; traffic costs without one, too.
    assert (got.proxy_used_mb, got.proxy_cost) == ("1000", "5")
    assert (await sdk.browsers.get(made.id)).proxy_cost == "0.2"
    listed = await sdk.browsers.list(filter_by="active", page_size=1, page_number=2)
    assert ([one.id for one in listed.items], listed.total_items) == ([made.id], 2)
    for terms, count in (
        (["lease"], 1),
        (["lease=01"], 1),
        (["lease=02"], 0),
        (["lease", "x"], 0),
        (None, 2),
    ):
        assert len((await sdk.browsers.list(metadata=terms)).items) == count
    account = await sdk3.billing.account()
    assert (account.concurrent_session_limit, account.active_session_count) == (25, 2)
    assert account.total_credits_balance_usd == pytest.approx(100 - 0.01 - 0.02 - 5.2)
    over = await sdk.browsers.stop(made.id)
    assert (over.status.value, over.live_url, over.cdp_url) == ("stopped", None, None)
    assert (over.browser_cost, over.finished_at >= over.started_at) == ("0.0003333333", True)
    assert (await sdk.browsers.stop(made.id)).finished_at == over.finished_at
    assert [one.id for one in (await sdk.browsers.list(filter_by="stopped")).items] == [made.id]
    # All versions serve the same browsers.
    assert (await sdk3.browsers.stop(usual.id)).status.value == "stopped"


async def test_the_official_sdk_reads_the_emulators_errors(emulator, sdk):
    async def refused(status: int, told: str, work) -> None:
        with pytest.raises(BrowserUseError) as error:
            await work
        assert error.value.status_code == status
        assert told in error.value.message

    await refused(403, "Maximum session timeout", sdk.browsers.create(timeout=241))
    await refused(422, "greater than or equal to 1", sdk.browsers.create(timeout=0))
    await refused(422, "metadata", sdk.browsers.create(metadata={"a": 5}))
    await refused(422, "browserScreenWidth", sdk.browsers.create(browser_screen_width=100))
    await refused(422, "filterBy", sdk.browsers.list(filter_by="dead"))
    await refused(422, "pageSize", sdk.browsers.list(page_size=101))
    await refused(404, "Session not found", sdk.browsers.get(uuid.uuid4()))
    stranger = AsyncBrowserUse("wrong", base_url=f"{emulator.url}/api/v4")
    await refused(401, "Invalid API key", stranger.browsers.list())
    await stranger._http.close()
    emulator.out_of_money = True
    await refused(402, "Insufficient credits", sdk.browsers.create())


async def test_the_adapter_sends_what_the_sdk_sends(emulator, sdk, sdk3, tools):
    options = {"browserScreenWidth": 1280, "browserScreenHeight": 800, "solveCaptchas": False}
    async with far(emulator, options=options) as bu:
        made = await bu.create(tools.spec("s1"))
        one = made.provider_session_id
        await bu.list("s2")
        await bu.live_view(one)
        await bu.close(one)
        await bu.usage(one)
        await bu.check()
        ours = list(emulator.requests)
    emulator.requests.clear()

    theirs = await sdk.browsers.create(
        proxy_country_code=None,
        timeout=1,
        metadata={"tool": "tabkeeper", "session": "s1", "platform": "web"},
        browser_screen_width=1280,
        browser_screen_height=800,
        solve_captchas=False,
    )
    two = str(theirs.id)
    await sdk.browsers.list(page_size=100, page_number=1, filter_by="active", metadata=["tool=tabkeeper"])
    await sdk.browsers.get(two)
    await sdk.browsers.stop(two)
    await sdk.browsers.get(two)
    await sdk3.billing.account()

    def normal(requests, session_id):
        return [
            (
                method,
                httpx.URL(path).path.replace(session_id, "ID"),
                dict(httpx.URL(path).params),
                {k: headers.get(k) for k in ("x-browser-use-api-key", "content-type")},
                json.loads(body) if body else None,
            )
            for method, path, headers, body in requests
        ]

    mine, sdks = normal(ours, one), normal(emulator.requests, two)
    assert len(mine) == len(sdks) == 6
    for left, right in zip(mine, sdks, strict=True):
        assert left == right


# ── the emulator ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.browser
async def test_a_page_is_opened_by_discovery_and_a_disconnect_ends_nothing_but_the_timeout_does(tools):
    clock = VirtualClock()
    async with serving(BrowserUseEmulator(clock=clock)) as emulator, far(emulator) as bu:
        made = await bu.create(SessionSpec(session_id="s1", platform="web", max_seconds=120))
        session = emulator.sessions[made.provider_session_id]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(made.connect_url)
            page = await browser.contexts[0].new_page()
            await page.goto("data:text/html,<title>hello</title>")
            assert await page.title() == "hello"
            await browser.close()
            async with asyncio.timeout(5):
                while session.connections:
                    await asyncio.sleep(0.01)
            assert session.phase is Phase.RUNNING
            # Some clients take the address as it is.
            direct = made.connect_url.replace("http", "ws", 1)
            browser = await playwright.chromium.connect_over_cdp(direct)
            assert len(browser.contexts[0].pages) >= 1
            clock.advance(121)
            await emulator.catch_up()
            assert (session.phase, session.why) == (Phase.TIMED_OUT, "timeout")
            with pytest.raises(PlaywrightError, match="404"):
                await playwright.chromium.connect_over_cdp(made.connect_url)
        assert emulator.bill().minutes == 2
        over = await bu.get(made.provider_session_id)
        assert (over.running, over.connect_url) == (False, "")
