"""Browserless: its adapter before its emulator, beside plain HTTP in the documented forms: there is no official SDK."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderNotFoundError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import SessionSpec
from tabkeeper.providers.browserless import BrowserlessProvider
from tabkeeper.providers.emulator import BrowserlessEmulator, Limits, Phase, serving

from .started import moment, started

KEY = "bl-test-token"
EMULATOR = BrowserlessEmulator


def far(
    emulator, losses=lambda *_: None, **settings: Any
) -> AbstractAsyncContextManager[BrowserlessProvider]:
    provider = BrowserlessProvider(
        "bl",
        ProviderSettings(kind="browserless", api_key=KEY, base_url=emulator.url, **settings),
        sleep=moment,
    )
    return started(provider, emulator, losses)


def answering(answer) -> BrowserlessProvider:
    """The adapter before a service that always says the same."""
    return BrowserlessProvider(
        "bl",
        ProviderSettings(kind="browserless", api_key=KEY),
        transport=httpx.MockTransport(answer),
        sleep=moment,
    )


@pytest.fixture
async def bl(emulator) -> AsyncIterator[BrowserlessProvider]:
    async with far(emulator) as provider:
        yield provider


@pytest.fixture
async def client(emulator) -> AsyncIterator[httpx.AsyncClient]:
    """Plain HTTP, as the documents show it."""
    async with httpx.AsyncClient(base_url=emulator.url, params={"token": KEY}) as made:
        yield made


# ── what is asked for ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_adapter_sends_what_the_documents_show(emulator, client, tools):
    options = {"stealth": False, "browser": "chrome", "blockAds": True, "args": ["--lang=de"]}
    async with far(emulator, proxies=True, options=options) as bl:
        made = await bl.create(tools.spec("s1"))
        await bl.check()
        await bl.close(made.provider_session_id)
        ours = list(emulator.requests)
    emulator.requests.clear()
    body = {**options, "ttl": 60_000, "processKeepAlive": 0, "proxy": {"type": "residential"}}
    answer = (await client.post("/session", json=body)).json()
    await client.get("/profiles", params={"limit": 1})
    # The documents append to the address that was answered.
    async with httpx.AsyncClient() as plain:
        await plain.delete(answer["stop"] + "&force=true")

    def normal(requests, session_id):
        return [
            (
                method,
                httpx.URL(path).path.replace(session_id, "ID"),
                dict(httpx.URL(path).params),
                headers.get("content-type"),
                json.loads(body) if body else None,
            )
            for method, path, headers, body in requests
        ]

    assert normal(ours, made.provider_session_id.partition(".")[2]) == normal(emulator.requests, answer["id"])


@pytest.mark.parametrize(("wanted", "sent"), [(1.5, 1500), (90.9994, 90999), (1e6, 3_600_000)])
async def test_times_are_milliseconds_within_the_bounds_and_also_bound_the_connection(emulator, wanted, sent):
    async with far(emulator, keep_alive=True) as bl:
        made = await bl.create(SessionSpec(session_id="s", platform="web", max_seconds=wanted))
        body = json.loads(emulator.requests[0][3])
        assert (body["ttl"], body["processKeepAlive"]) == (sent, sent)
        assert httpx.URL(made.connect_url).params["timeout"] == str(sent)


def test_a_region_is_an_address_of_its_own():
    def settings(region: str) -> ProviderSettings:
        return ProviderSettings(kind="browserless", api_key=KEY, region=region)

    assert "production-ams.browserless.io" in repr(BrowserlessProvider("bl", settings("ams"))._api)
    with pytest.raises(ConfigError, match="sfo, lon, ams"):
        BrowserlessProvider("bl", settings("mars"))
    with pytest.raises(ConfigError, match=r"options\.ttl"):
        BrowserlessProvider(
            "bl", ProviderSettings(kind="browserless", api_key=KEY, options={"ttl": 864_000_000})
        )


# ── what is answered ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_concurrency_limit_is_told_from_the_rate_limit_and_from_spent_units(tools):
    async with serving(BrowserlessEmulator(Limits(concurrent=1, creates_per_minute=2))) as emulator:
        async with far(emulator) as bl:
            made = await bl.create(tools.spec("s1"))
            with pytest.raises(ProviderCapacityError, match="allows 1 concurrent"):
                await bl.create(tools.spec("s2"))
            await bl.close(made.provider_session_id)
            await bl.close((await bl.create(tools.spec("s3"))).provider_session_id)
            with pytest.raises(ProviderRateLimitError):
                await bl.create(tools.spec("s4"))
    refusal = {"error": "You have no units left this month"}
    bl = answering(lambda _: httpx.Response(401, json=refusal))
    await bl.start(lambda *_: None)
    with pytest.raises(ProviderPaymentError, match="no units left"):
        await bl.create(tools.spec("s5"))


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "x",
        None,
        {"id": "../profile/x", "connect": "wss://x/y", "stop": "https://x/session/y"},
        {"id": "a", "connect": "https://x/y", "stop": "https://x/session/a"},
    ],
)
async def test_an_answer_that_cannot_be_used_is_an_unknown_outcome(tools, body):
    bl = answering(lambda _: httpx.Response(200, json=body))
    await bl.start(lambda *_: None)
    with pytest.raises(OutcomeUnknownError):
        await bl.create(tools.spec("s1"))


async def test_without_a_key_in_the_address_it_is_added_and_an_id_may_lack_an_endpoint(tools):
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path))
        if request.method == "DELETE":
            return httpx.Response(204)
        body = {"id": "a", "connect": "wss://x/c?quality=high", "stop": "https://x/session/a?token=t"}
        return httpx.Response(200, json=body)

    bl = answering(answer)
    await bl.start(lambda *_: None)
    made = await bl.create(tools.spec("s1"))
    assert dict(httpx.URL(made.connect_url).params) == {"quality": "high", "token": KEY, "timeout": "60000"}
    assert made.provider_session_id == "a"
    await bl.close("a")
    assert seen[1:] == [("DELETE", "/session/a")]


@pytest.mark.parametrize("misbehaviour", [{"do": "drop"}, {"do": "status after", "status": 502}])
async def test_a_session_whose_creation_got_no_answer_costs_nothing(emulator, tools, misbehaviour):
    emulator.misbehave("create", **misbehaviour)
    async with far(emulator) as bl:
        with pytest.raises(OutcomeUnknownError):
            await bl.create(tools.spec("s1"))
        assert await bl.list("s1") == []
        with pytest.raises(ProviderNotFoundError, match="has no browser"):
            await bl.find("s1")
        async with far(emulator) as other:
            assert await other.find("s1") is None, "it cannot know whether somebody connected"
    assert len(emulator.sessions) == 1
    assert (emulator.bill().sessions, emulator.bill().seconds, emulator.units()) == (0, 0, 0)
    emulator.end(emulator.running[0], Phase.COMPLETED, "test")


async def test_what_a_cancelled_create_makes_after_all_is_ended_and_counts_as_nothing(emulator, tools):
    emulator.misbehave("create", "slow", seconds=0.3)
    async with far(emulator) as bl:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await bl.create(tools.spec("s1"))
        with pytest.raises(ProviderNotFoundError):
            await bl.find("s1")
        async with asyncio.timeout(5):
            while not emulator.sessions or emulator.running:
                await asyncio.sleep(0.01)
    assert emulator.bill().sessions == 0


# ── ending ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.browser
async def test_another_process_ends_a_session_by_its_id_although_somebody_is_connected(bl, emulator, tools):
    made = await bl.create(tools.spec("s1"))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(made.connect_url)
        async with far(emulator) as other:
            await other.close(made.provider_session_id)
        await emulator.catch_up()
        with pytest.raises(PlaywrightError):
            await browser.new_context()
        with pytest.raises(PlaywrightError):
            await playwright.chromium.connect_over_cdp(made.connect_url)


async def test_a_refused_end_leaves_the_session_running_whoever_asks(bl, emulator, tools):
    made = await bl.create(tools.spec())
    emulator.misbehave("release", "status", status=400, times=2)
    async with far(emulator) as other:
        emulator.misbehave("release", "status", status=400, times=2)
        for provider in (bl, other):
            with pytest.raises(ProviderUnavailableError, match="may still run"):
                await provider.close(made.provider_session_id)
    assert bl.alive(made.provider_session_id)
    emulator.misbehave("release", "status", status=401)
    with pytest.raises(ProviderAuthError):
        await bl.close(made.provider_session_id)


@pytest.mark.parametrize("answer", [None, 404, 410])
async def test_a_second_end_counts_as_closed(bl, emulator, tools, answer):
    emulator.release_again = answer
    made = await bl.create(tools.spec())
    for _ in range(2):
        await bl.close(made.provider_session_id)
    assert [one.phase for one in emulator.sessions.values()] == [Phase.COMPLETED]


async def test_an_end_that_fails_three_times_is_sent_a_fourth_time(bl, emulator, tools):
    made = await bl.create(tools.spec())
    emulator.misbehave("release", "status", status=500, times=3)
    await bl.close(made.provider_session_id)
    assert emulator.running == []


# ── knowing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_check_asks_something_that_costs_nothing(bl, emulator):
    (check,) = await bl.check()
    assert check.ok
    assert emulator.sessions == {}
    emulator.misbehave("usage", "status", status=401)
    (check,) = await bl.check()
    assert not check.ok
    assert "api_key" in check.advice
    assert KEY not in check.detail


async def test_the_token_shows_nowhere(emulator, caplog, tools):
    caplog.set_level(logging.DEBUG)
    async with far(emulator) as bl:
        made = await bl.create(tools.spec())
        emulator.misbehave("release", "status", status=401)
        with pytest.raises(ProviderAuthError) as told:
            await bl.close(made.provider_session_id)
    secret = emulator.sessions[made.provider_session_id.partition(".")[2]].secret
    ours = "\n".join(
        r.getMessage() for r in caplog.records if r.name.startswith(("httpx", "httpcore", "tabk"))
    )
    for text in (ours, repr(bl._api), repr(bl._settings), repr(made), str(told.value), repr(bl._made)):
        assert KEY not in text
        assert secret not in text


# ── the emulator ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.browser
@pytest.mark.parametrize("kept", [0, 20_000])
async def test_units_are_started_half_minutes_of_each_connection_and_what_is_kept_after_it(kept):
    """By hand: 31 s are 2 units, kept 20 s they are 51 s; 5 s more are another unit, kept they are 25 s."""
    clock = VirtualClock()
    async with serving(BrowserlessEmulator(clock=clock)) as emulator:
        body = {"ttl": 600_000, "processKeepAlive": kept}
        async with httpx.AsyncClient(base_url=emulator.url, params={"token": KEY}) as client:
            answer = (await client.post("/session", json=body)).json()
            clock.advance(100)
            assert emulator.units() == 0
            async with async_playwright() as playwright:
                for seconds in (31, 5):
                    address = answer["connect"] + "&timeout=300000"
                    browser = await playwright.chromium.connect_over_cdp(address)
                    clock.advance(seconds)
                    await browser.close()
                    while emulator.sessions[answer["id"]].connections:
                        await asyncio.sleep(0.01)
                    clock.advance(60)
            assert emulator.bill().seconds == 36 + 2 * kept / 1000
            assert emulator.units() == 3
            await client.delete(answer["stop"], params={"token": KEY, "force": "true"})


@pytest.mark.browser
@pytest.mark.parametrize(("asked", "lasts"), [("", 30), ("&timeout=50000", 50), ("&timeout=999000", 120)])
async def test_a_connection_is_cut_after_its_timeout_and_a_session_after_its_ttl(asked, lasts):
    clock = VirtualClock()
    async with serving(BrowserlessEmulator(clock=clock)) as emulator:
        async with httpx.AsyncClient(base_url=emulator.url, params={"token": KEY}) as client:
            answer = (await client.post("/session", json={"ttl": 120_000})).json()
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(answer["connect"] + asked)
            clock.advance(lasts - 1)
            await emulator.catch_up()
            assert browser.is_connected()
            clock.advance(1)
            await emulator.catch_up()
            assert emulator.sessions[answer["id"]].phase is Phase.TIMED_OUT
            with pytest.raises(PlaywrightError):
                await browser.new_context()


async def test_what_the_documents_forbid_is_refused_in_their_words(emulator, client):
    async def told(**body: Any) -> tuple[int, str]:
        answer = await client.post("/session", json=body)
        return answer.status_code, answer.json()["error"]

    assert await told() == (400, '"ttl" is required and must be greater than 0')
    assert (await told(ttl="1"))[0] == 400
    assert (await told(ttl=1000, headless="yes"))[0] == 400
    assert (await told(ttl=1000, browser="firefox"))[0] == 400
    assert (await client.post("/session", content=b"{")).status_code == 400
    wrong = await client.post("/session", params={"token": "wrong"}, json={"ttl": 1000})
    assert (wrong.status_code, wrong.json()) == (401, {"error": "Bad or missing authentication."})
    basic = {"authorization": httpx.BasicAuth(KEY, "")._auth_header}
    async with httpx.AsyncClient(base_url=emulator.url) as plain:
        assert (await plain.get("/profiles")).status_code == 401
        assert (await plain.get("/profiles", headers=basic)).json()["profiles"] == []
    assert (await client.get("/profiles", params={"limit": "1001"})).status_code == 400
    assert (await client.delete("/session/nobody")).status_code == 404
    assert emulator.sessions == {}


@pytest.mark.browser
async def test_without_force_a_session_in_use_goes_on(emulator, client):
    answer = (await client.post("/session", json={"ttl": 60_000})).json()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(answer["connect"])
        assert (await client.delete(f"/session/{answer['id']}")).status_code == 409
        assert browser.is_connected()
        with pytest.raises(PlaywrightError, match="401"):
            await playwright.chromium.connect_over_cdp(answer["connect"] + "x")
        assert (await client.delete(f"/session/{answer['id']}", params={"force": "true"})).status_code == 200
