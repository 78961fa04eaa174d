"""Anchor Browser: its adapter before its emulator, every refusal and quirk, and what the official SDK sends."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any

import httpx
import pytest
from anchorbrowser import (
    APIStatusError,
    AsyncAnchorbrowser,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)
from anchorbrowser.lib.browser import get_cdp_url
from playwright.async_api import async_playwright

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderNotFoundError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.money import Money
from tabkeeper.providers.anchor import AnchorProvider
from tabkeeper.providers.base import SessionSpec
from tabkeeper.providers.emulator import AnchorEmulator, Limits, Phase, serving

from .started import moment, started

KEY = "sk-test/+key"
EMULATOR = AnchorEmulator


def made_of(*, base_url: str | None = None, transport=None, **settings: Any) -> AnchorProvider:
    section = ProviderSettings(kind="anchor", api_key=KEY, base_url=base_url, **settings)
    return AnchorProvider("anchor", section, sleep=moment, transport=transport)


def far(emulator, **settings: Any) -> AbstractAsyncContextManager[AnchorProvider]:
    provider = made_of(base_url=emulator.url, **settings)
    return started(provider, emulator)


@pytest.fixture
async def anchor(emulator) -> AsyncIterator[AnchorProvider]:
    async with far(emulator) as provider:
        yield provider


@pytest.fixture
async def sdk(emulator) -> AsyncIterator[AsyncAnchorbrowser]:
    async with AsyncAnchorbrowser(api_key=KEY, base_url=emulator.url, max_retries=0) as client:
        yield client


def end_all(emulator: AnchorEmulator) -> None:
    for one in emulator.running:
        emulator.end(one, Phase.COMPLETED, "test")


# ── what is asked for ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_that_is_configured_is_asked_for(emulator, tools):
    options = {
        "browser": {"viewport": {"width": 800, "height": 600}, "profile": {"name": "me", "persist": True}},
        "session": {"tags": ["mine"], "timeout": {"idle_timeout": 2}, "recording": {"active": False}},
    }
    async with far(emulator, proxies=True, options=options) as anchor:
        await anchor.create(tools.spec("s1"))
    method, path, headers, body = emulator.requests[0]
    assert (method, path, headers["anchor-api-key"]) == ("POST", "/v1/sessions", KEY)
    assert json.loads(body) == {
        "browser": options["browser"],
        "session": {
            "tags": ["mine", "tabkeeper", "session:s1", "platform:web"],
            "timeout": {"max_duration": 1, "idle_timeout": 2},
            "recording": {"active": False},
            "proxy": {"type": "anchor_proxy", "active": True},
        },
    }
    assert options["session"]["tags"] == ["mine"]


@pytest.mark.parametrize(("wanted", "sent"), [(1, 1), (60, 1), (119.9, 1), (120, 2), (1e6, 16666)])
async def test_the_timeout_is_in_whole_minutes_that_are_paid_for(anchor, emulator, wanted, sent):
    await anchor.create(SessionSpec(session_id="s", platform="web", max_seconds=wanted))
    assert json.loads(emulator.requests[0][3])["session"]["timeout"]["max_duration"] == sent


async def test_a_session_is_not_thought_to_live_past_the_last_whole_minute(tools):
    clock = VirtualClock()
    async with serving(AnchorEmulator(clock=clock)) as emulator:
        anchor = AnchorProvider(
            "a", ProviderSettings(kind="anchor", api_key=KEY, base_url=emulator.url), clock=clock
        )
        await anchor.start(lambda *_: None)
        made = await anchor.create(SessionSpec(session_id="s", platform="web", max_seconds=100))
        clock.advance(59)
        assert anchor.alive(made.provider_session_id)
        clock.advance(2)
        assert not anchor.alive(made.provider_session_id)
        await anchor.aclose()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"region": "us-east"}, "providers.anchor.region"),
        ({"project_id": "p"}, "providers.anchor.project_id"),
        ({"options": {"session": {"timeout": {"max_duration": 5}}}}, "session.timeout.max_duration"),
        ({"options": {"session": 5}}, "must be tables"),
        ({"options": {"session": {"tags": "x"}}}, "tags a list"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings, told):
    with pytest.raises(ConfigError, match=told):
        made_of(**settings)


# ── what is answered ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_concurrency_limit_is_told_from_the_rate_limit(tools):
    async with serving(AnchorEmulator(Limits(concurrent=1, creates_per_minute=2))) as emulator:
        async with far(emulator) as anchor:
            made = await anchor.create(tools.spec("s1"))
            with pytest.raises(ProviderCapacityError):
                await anchor.create(tools.spec("s2"))
            await anchor.close(made.provider_session_id)
            again = await anchor.create(tools.spec("s3"))
            await anchor.close(again.provider_session_id)
            with pytest.raises(ProviderRateLimitError) as told:
                await anchor.create(tools.spec("s4"))
            assert 55 <= told.value.retry_after <= 60


@pytest.mark.parametrize("misbehaviour", [{"do": "drop"}, {"do": "status after", "status": 502}])
async def test_a_create_that_got_no_answer_is_found_by_another_process(emulator, tools, misbehaviour):
    emulator.misbehave("create", **misbehaviour)
    async with far(emulator) as dying:
        with pytest.raises(OutcomeUnknownError):
            await dying.create(tools.spec("s1"))
        async with far(emulator) as next_one:
            (found,) = await next_one.list("s1")
            assert found.label == "s1"
            assert f"sessionId={found.provider_session_id}" in found.connect_url
            await next_one.close(found.provider_session_id)
    assert emulator.bill().sessions == 1


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("as_object", [True, False])
async def test_answers_of_old_and_new_documents_are_read(anchor, emulator, tools, wraps, as_object):
    emulator.wraps, emulator.tags_as_object = wraps, as_object
    made = await anchor.create(tools.spec("s1"))
    found = await anchor.get(made.provider_session_id)
    assert (found.label, found.running, found.connect_url) == ("s1", True, made.connect_url)


async def test_sessions_of_others_are_not_ours(anchor, emulator, sdk):
    await sdk.sessions.create_session(session={"tags": ["session:s1"]})
    await sdk.sessions.create_session()
    assert await anchor.list() == []
    end_all(emulator)


# ── addresses ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tells_key", [True, False])
async def test_addresses_hold_key_and_session_and_show_nowhere(emulator, tools, tells_key, caplog):
    caplog.set_level(logging.DEBUG)
    emulator.tells_key = tells_key
    async with far(emulator) as anchor:
        made = await anchor.create(tools.spec())
        query = httpx.URL(made.connect_url).params
        assert (query["apiKey"], query["sessionId"]) == (KEY, made.provider_session_id)
        emulator.misbehave("release", "status", status=401)
        with pytest.raises(ProviderAuthError) as told:
            await anchor.close(made.provider_session_id)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith(("httpx", "httpcore", "tabk"))]
    for text in (*ours, repr(anchor._api), repr(anchor._settings), repr(made), str(told.value)):
        assert KEY not in text


def test_the_address_of_a_session_is_the_sdks_own():
    ours = httpx.URL(made_of()._address("5e-1", ""))
    sdks = httpx.URL(get_cdp_url("https://api.anchorbrowser.io", "5e-1", "KEY"))
    assert (ours.scheme, ours.host, ours.path) == (sdks.scheme, sdks.host, "/")
    assert {**ours.params, "apiKey": "KEY"} == dict(sdks.params)


@pytest.mark.browser
async def test_an_address_without_a_session_starts_another_one(emulator):
    """The control: why the adapter never hands one out."""
    async with async_playwright() as playwright:
        url = str(httpx.URL(emulator.url.replace("http", "ws"), params={"apiKey": KEY}))
        browser = await playwright.chromium.connect_over_cdp(url)
        await browser.close()
    assert emulator.bill().sessions == 1
    end_all(emulator)


# ── ending ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", [None, 400, 401, 404, 410])
@pytest.mark.parametrize("word", [None, "hibernated"])
async def test_a_second_release_counts_as_closed_whatever_is_answered(anchor, emulator, tools, answer, word):
    emulator.release_again, emulator.over_word = answer, word
    made = await anchor.create(tools.spec())
    await anchor.close(made.provider_session_id)
    if answer in {None, 401} or word is None:
        await anchor.close(made.provider_session_id)
    assert [one.phase for one in emulator.sessions.values()] == [Phase.COMPLETED]


async def test_a_bad_key_is_told_from_a_session_that_is_over(anchor, emulator, tools):
    made = await anchor.create(tools.spec())
    emulator.misbehave("release", "status", status=401)
    with pytest.raises(ProviderAuthError):
        await anchor.close(made.provider_session_id)
    assert anchor.alive(made.provider_session_id)
    emulator.misbehave("any", "status", status=401, times=2)
    with pytest.raises(ProviderAuthError):
        await anchor.close(made.provider_session_id)
    await anchor.close("nobody")


async def test_an_end_is_believed_when_it_is_seen(anchor, emulator, tools):
    made = await anchor.create(tools.spec())
    emulator.misbehave("get", "stale", times=2)
    await anchor.close(made.provider_session_id)
    made = await anchor.create(tools.spec())
    emulator.misbehave("any", "stale", times=99)
    with pytest.raises(ProviderUnavailableError, match="still runs"):
        await anchor.close(made.provider_session_id)


async def test_an_unknown_status_counts_as_running_until_a_release_succeeds(anchor, emulator, tools):
    emulator.over_word = "hibernated"
    made = await anchor.create(tools.spec())
    await emulator.lose(made.provider_session_id)
    assert (await anchor.get(made.provider_session_id)).running
    await anchor.close(made.provider_session_id)
    assert not anchor.alive(made.provider_session_id)


async def test_no_id_can_end_them_all(anchor, emulator, tools):
    await anchor.create(tools.spec("s1"))
    for bad in ("", "..", "a/b", "a?b"):
        with pytest.raises(ProviderRequestError):
            await anchor.close(bad)
    assert len(emulator.running) == 1


# ── knowing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_usage_is_seconds_bytes_and_dollars(tools):
    clock = VirtualClock()
    async with serving(AnchorEmulator(clock=clock)) as emulator, far(emulator) as anchor:
        made = await anchor.create(SessionSpec(session_id="s", platform="web", max_seconds=600))
        emulator.sessions[made.provider_session_id].proxy_bytes = 1_000_000
        clock.advance(12.5)
        running = await anchor.usage(made.provider_session_id)
        assert (running.seconds, running.proxy_bytes, running.cost) == (12, 1_000_000, None)
        clock.advance(60)
        await anchor.close(made.provider_session_id)
        over = await anchor.usage(made.provider_session_id)
        # Two started minutes of $0.09 an hour, and a megabyte of $8 a gigabyte.
        assert (over.seconds, over.cost) == (72, Money.parse("0.011"))
        assert (over.ended_at - over.started_at).total_seconds() == 72


@pytest.mark.parametrize(
    ("told", "cost"), [("N/A", None), ("0.25", "0.25"), (1, "1"), (None, None), (True, None), ("NaN", None)]
)
async def test_credits_are_read_whatever_they_are_written_as(told, cost):
    body = {"data": {"status": "completed", "credits_used": told}}
    anchor = made_of(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body)))
    used = await anchor.usage("x")
    assert used.cost == (Money.parse(cost) if cost else None)
    assert (used.seconds, used.proxy_bytes, used.ended_at) == (None, None, None)


async def test_a_session_can_be_watched_while_it_runs(anchor, emulator, tools):
    made = await anchor.create(tools.spec())
    assert (await anchor.live_view(made.provider_session_id)).startswith(emulator.url)
    await anchor.close(made.provider_session_id)
    with pytest.raises(ProviderNotFoundError):
        await anchor.live_view(made.provider_session_id)


async def test_check_tells_credits_and_how_many_may_run(emulator):
    async with far(emulator, max_sessions=30) as anchor:
        (check,) = await anchor.check()
        assert check.ok
        assert "up to 25 sessions, 50 credits" in check.detail
        assert "max_sessions to 25" in check.advice
        emulator.misbehave("usage", "status", status=401)
        (check,) = await anchor.check()
        assert not check.ok
        assert "api_key" in check.advice


# ── the official SDK ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_sdk_drives_the_emulator(emulator, sdk):
    made = await sdk.sessions.create_session(
        session={"tags": ["a", "b"], "timeout": {"max_duration": 2, "idle_timeout": 1}},
        browser={"viewport": {"width": 800, "height": 600}},
    )
    one = made.data.id
    assert httpx.URL(made.data.cdp_url).params["sessionId"] == one
    emulator.tags_as_object = True
    got = (await sdk.sessions.get_session(one)).data
    assert (got.session_id, got.status, got.credits_used, got.proxy_bytes) == (one, "running", 0, 0)
    assert got.configuration["browser"]["viewport"]["width"] == 800
    active = (await sdk.sessions.get_all_sessions_status(tags="a,b")).data
    assert (active.count, active.items[0].session_id, active.items[0].tags) == (1, one, ["a", "b"])
    assert (await sdk.sessions.get_all_sessions_status(tags="a,c")).data.count == 0
    assert (await sdk.sessions.get_session_pages(one)).data.items[0].frontend_url
    page = (await sdk.sessions.list_sessions(limit=50, sort_order="desc")).data
    assert (page.sessions[0].used_credits, page.total_pages) == ("N/A", 1)
    assert (await sdk.sessions.delete_session(one)).data.status == "success"
    with pytest.raises(AuthenticationError, match="browser session ID"):
        await sdk.sessions.delete_session(one)
    assert (await sdk.sessions.get_session(one)).data.credits_used == 0.0015
    page = (await sdk.sessions.list_sessions(status="completed")).data
    assert page.sessions[0].used_credits.root == "0.0015"
    bill = (await sdk.billing.get_billing()).data
    assert (bill.credits, bill.credits_used, bill.max_concurrent_browsers) == (49.9985, 0.0015, 25)
    days = await sdk.sessions.get_sessions_history(metrics=["session_count", "credits_used"])
    assert [(day.session_count, day.credits_used) for day in days.data] == [(1, 0.0015)]
    assert (days.summary.total_credits_used, days.pagination.total_records) == (0.0015, 1)
    await sdk.sessions.create_session()
    assert (await sdk.sessions.delete_all_sessions()).data.status == "success"


async def test_the_official_sdk_reads_the_emulators_errors(emulator, sdk):
    with pytest.raises(BadRequestError, match="CAPTCHA solver requires proxy"):
        await sdk.sessions.create_session(browser={"captcha_solver": {"active": True}})
    with pytest.raises(BadRequestError, match="max_duration"):
        await sdk.sessions.create_session(session={"timeout": {"max_duration": 0}})
    with pytest.raises(BadRequestError, match="limit"):
        await sdk.sessions.list_sessions(limit=100)
    with pytest.raises(NotFoundError, match="Session not found"):
        await sdk.sessions.get_session("nobody")
    with pytest.raises(AuthenticationError, match="Invalid API Key"):
        await sdk.with_options(api_key="wrong").billing.get_billing()
    emulator.misbehave("create", "status", status=429, retry_after="58")
    with pytest.raises(RateLimitError) as limit:
        await sdk.sessions.create_session()
    assert limit.value.response.headers["retry-after"] == "58"
    emulator.out_of_money = True
    with pytest.raises(APIStatusError) as told:
        await sdk.sessions.create_session()
    assert told.value.status_code == 402
    assert "Insufficient credits" in str(told.value)


async def test_the_adapter_sends_what_the_sdk_sends(emulator, sdk, tools):
    browser = {"viewport": {"width": 800, "height": 600}, "adblock": {"active": False}}
    async with far(emulator, proxies=True, options={"browser": browser}) as anchor:
        made = await anchor.create(tools.spec("s1"))
        one = made.provider_session_id
        await anchor.list("s2")
        await anchor.live_view(one)
        await anchor.usage(one)
        await anchor.close(one)
        await anchor.check()
        await anchor.used_on(date(2026, 3, 4))
        ours = list(emulator.requests)
    emulator.requests.clear()

    created = await sdk.sessions.create_session(
        session={
            "tags": ["tabkeeper", "session:s1", "platform:web"],
            "timeout": {"max_duration": 1, "idle_timeout": 5},
            "proxy": {"type": "anchor_proxy", "active": True},
        },
        browser=browser,
    )
    theirs = created.data.id
    await sdk.sessions.get_all_sessions_status(tags="tabkeeper")
    await sdk.sessions.get_session_pages(theirs)
    await sdk.sessions.get_session(theirs)
    await sdk.sessions.delete_session(theirs)
    await sdk.sessions.get_session(theirs)
    await sdk.billing.get_billing()
    await sdk.sessions.get_sessions_history(
        from_date="2026-03-04T00:00:00Z",
        to_date="2026-03-04T23:59:59.999000Z",
        granularity="day",
        metrics=["session_count", "session_hours", "proxy_bytes", "credits_used"],
    )

    def normal(requests, session_id):
        return [
            (
                method,
                path.replace(session_id, "ID"),
                {k: headers.get(k) for k in ("anchor-api-key", "content-type", "accept")},
                json.loads(body) if body else None,
            )
            for method, path, headers, body in requests
        ]

    mine, sdks = normal(ours, one), normal(emulator.requests, theirs)
    for left, right in zip(mine, sdks, strict=True):
        if left[3] is None:  # what an empty request says of its type means nothing
            right[2]["content-type"] = None
        assert left == right


# ── the emulator ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_time_ends_sessions_left_alone_and_those_that_last_too_long(tools):
    clock = VirtualClock()
    async with serving(AnchorEmulator(clock=clock)) as emulator:
        async with AsyncAnchorbrowser(api_key=KEY, base_url=emulator.url) as sdk:
            for limits in (
                {"max_duration": 60, "idle_timeout": 1},
                {"max_duration": 2, "idle_timeout": -1},
                {"max_duration": -1, "idle_timeout": -1},
            ):
                await sdk.sessions.create_session(session={"timeout": limits})
        idle, long, forever = emulator.sessions.values()
        clock.advance(61)
        await emulator.catch_up()
        assert (idle.why, idle.lasted, long.phase) == ("idle", 60, Phase.RUNNING)
        clock.advance(60)
        await emulator.catch_up()
        assert (long.why, long.lasted) == ("timeout", 120)
        clock.advance(1e6)
        await emulator.catch_up()
        assert forever.phase is Phase.RUNNING


@pytest.mark.browser
async def test_a_page_is_opened_and_its_session_outlives_the_connection_for_its_idle_time(tools):
    clock = VirtualClock()
    async with serving(AnchorEmulator(keys=[KEY], clock=clock)) as emulator, far(emulator) as anchor:
        made = await anchor.create(SessionSpec(session_id="s", platform="web", max_seconds=6000))
        session = emulator.sessions[made.provider_session_id]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(made.connect_url)
            page = await browser.contexts[0].new_page()
            await page.goto("data:text/html,<title>hello</title>")
            assert await page.title() == "hello"
            clock.advance(1000)
            await emulator.catch_up()
            assert session.phase is Phase.RUNNING, "nobody is idle who is connected"
            await browser.close()
        async with asyncio.timeout(5):
            while session.connections:
                await asyncio.sleep(0.01)
        clock.advance(299)
        await emulator.catch_up()
        assert session.phase is Phase.RUNNING
        clock.advance(2)
        assert not (await anchor.get(made.provider_session_id)).running
        assert session.why == "idle"
