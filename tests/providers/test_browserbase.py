"""Browserbase: its adapter before its emulator, every refusal and misbehaviour, and what the official SDK sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any

import httpx
import pytest
from browserbase import APIStatusError, AsyncBrowserbase, AuthenticationError, BadRequestError, NotFoundError
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
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.browserbase import BrowserbaseProvider
from tabkeeper.providers.emulator import BrowserbaseEmulator, Limits, Phase, serving

from .started import started

KEY = "bb_test_key"


class Sleeper:
    """Sleeps only a moment, and remembers how long it should have been; a clock that is given moves on by it."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.slept: list[float] = []
        self._clock = clock

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._clock is not None:
            self._clock.advance(seconds)
        await asyncio.sleep(0.001)


def far(
    emulator, losses=lambda *_: None, clock: VirtualClock | None = None, **settings: Any
) -> AbstractAsyncContextManager[BrowserbaseProvider]:
    sleeper = Sleeper(clock)
    provider = BrowserbaseProvider(
        "bb",
        ProviderSettings(kind="browserbase", api_key=KEY, base_url=emulator.url, **settings),
        sleep=sleeper,
        rng=Random(1),
    )
    provider.sleeper = sleeper
    return started(provider, emulator, losses)


@pytest.fixture
async def bb(browserbase) -> AsyncIterator[BrowserbaseProvider]:
    async with far(browserbase) as provider:
        yield provider


@pytest.fixture
async def sdk(browserbase) -> AsyncIterator[AsyncBrowserbase]:
    async with AsyncBrowserbase(api_key=KEY, base_url=browserbase.url, max_retries=0) as client:
        yield client


# ── what is asked for ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_that_is_configured_is_asked_for(browserbase, tools):
    async with far(
        browserbase,
        project_id=browserbase.project,
        region="eu-central-1",
        proxies=True,
        keep_alive=True,
        options={"browserSettings": {"viewport": {"width": 800, "height": 600}, "solveCaptchas": False}},
    ) as bb:
        await bb.create(tools.spec("s1"))
    method, path, headers, body = browserbase.requests[0]
    assert (method, path, headers["x-bb-api-key"]) == ("POST", "/v1/sessions", KEY)
    assert json.loads(body) == {
        "projectId": browserbase.project,
        "region": "eu-central-1",
        "proxies": True,
        "keepAlive": True,
        "timeout": 60,
        "browserSettings": {"viewport": {"width": 800, "height": 600}, "solveCaptchas": False},
        "userMetadata": {"tool": "tabkeeper", "session": "s1", "platform": "web"},
    }


@pytest.mark.parametrize(("wanted", "sent"), [(1, 60), (60, 60), (90.9, 90), (21600, 21600), (1e6, 21600)])
async def test_the_timeout_is_in_whole_seconds_within_the_bounds(bb, browserbase, wanted, sent):
    from tabkeeper.providers.base import SessionSpec

    await bb.create(SessionSpec(session_id="s", platform="web", max_seconds=wanted))
    assert json.loads(browserbase.requests[0][3])["timeout"] == sent


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"region": "mars"}, "providers.bb.region: must be one of us-west-2"),
        ({"options": {"timeout": 5}}, "providers.bb.options.timeout"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings, told):
    with pytest.raises(ConfigError, match=told):
        BrowserbaseProvider("bb", ProviderSettings(kind="browserbase", api_key=KEY, **settings))


# ── what is answered ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_concurrency_limit_is_told_from_the_rate_limit(tools):
    async with serving(BrowserbaseEmulator(Limits(concurrent=1, creates_per_minute=2))) as emulator:
        async with far(emulator) as bb:
            made = await bb.create(tools.spec("s1"))
            with pytest.raises(ProviderCapacityError, match=r"limit 1, currently 1"):
                await bb.create(tools.spec("s2"))
            await bb.close(made.provider_session_id)
            again = await bb.create(tools.spec("s3"))
            await bb.close(again.provider_session_id)
            with pytest.raises(ProviderRateLimitError) as told:
                await bb.create(tools.spec("s4"))
            assert 55 <= told.value.retry_after <= 60


async def test_a_rate_limit_without_a_word_about_time_has_none(bb, browserbase, tools):
    browserbase.misbehave("create", "status", status=429)
    with pytest.raises(ProviderRateLimitError) as told:
        await bb.create(tools.spec("s1"))
    assert told.value.retry_after is None
    browserbase.misbehave("create", "status", status=429, retry_after="17")
    with pytest.raises(ProviderRateLimitError) as told:
        await bb.create(tools.spec("s2"))
    assert told.value.retry_after == 17


@pytest.mark.parametrize("misbehaviour", [{"do": "drop"}, {"do": "status after", "status": 502}])
async def test_a_create_that_got_no_answer_is_found_by_its_label(bb, browserbase, tools, misbehaviour):
    browserbase.misbehave("create", **misbehaviour)
    with pytest.raises(OutcomeUnknownError):
        await bb.create(tools.spec("s1"))
    (found,) = await bb.list("s1")
    assert found.label == "s1"
    assert found.connect_url
    assert bb.alive(found.provider_session_id)
    await bb.close(found.provider_session_id)
    assert browserbase.bill().sessions == 1
    assert browserbase.running == []


async def test_what_a_cancelled_create_makes_after_all_is_ended(browserbase, tools):
    # Slow: the session does not exist yet when its caller gives up, so nobody could find it then.
    browserbase.misbehave("create", "slow", seconds=0.3)
    async with far(browserbase) as bb:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await bb.create(tools.spec("s1"))
        assert await bb.list("s1") == []
        async with asyncio.timeout(5):
            while not browserbase.sessions or browserbase.running:
                await asyncio.sleep(0.01)
    assert browserbase.bill().sessions == 1


async def test_what_was_found_meanwhile_is_not_ended_under_its_finder(browserbase, tools):
    browserbase.misbehave("create", "late", seconds=0.3)
    async with far(browserbase) as bb:
        creating = asyncio.create_task(bb.create(tools.spec("s1")))
        async with asyncio.timeout(20):
            while not browserbase.sessions:
                await asyncio.sleep(0.01)
            creating.cancel()
            (found,) = await bb.list("s1")
            while not bb._late:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert [one.id for one in browserbase.running] == [found.provider_session_id]
        assert bb.alive(found.provider_session_id)


async def test_leaving_at_once_after_a_cancelled_create_leaves_nothing(browserbase, tools):
    browserbase.misbehave("create", "slow", seconds=0.2)
    async with far(browserbase) as bb:
        creating = asyncio.create_task(bb.create(tools.spec("s1")))
        await asyncio.sleep(0.05)
        creating.cancel()
    assert len(browserbase.sessions) == 1
    assert browserbase.running == []


async def test_a_browser_that_boots_is_waited_for_and_one_that_fails_is_given_back(tools):
    clock = VirtualClock()
    async with serving(BrowserbaseEmulator(Limits(boot_seconds=0.9), clock=clock)) as emulator:
        async with far(emulator, clock=clock) as bb:
            await bb.create(tools.spec("s1"))
            assert bb.sleeper.slept == [0.2, 0.3, 0.5]
    async with serving(BrowserbaseEmulator(Limits(boot_seconds=60))) as emulator:
        async with far(emulator) as bb:
            creating = asyncio.create_task(bb.create(tools.spec("s1")))
            while not emulator.sessions:
                await asyncio.sleep(0.001)
            await emulator.lose(next(iter(emulator.sessions)))
            with pytest.raises(OutcomeUnknownError, match="ERROR"):
                await creating
            assert emulator.running == []


# ── ending ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_refused_release_of_a_running_session_is_an_error(bb, browserbase, tools):
    made = await bb.create(tools.spec())
    browserbase.misbehave("release", "status", status=400)
    with pytest.raises(ProviderRequestError):
        await bb.close(made.provider_session_id)
    browserbase.misbehave("release", "status", status=401, session_id=made.provider_session_id)
    with pytest.raises(ProviderAuthError):
        await bb.close(made.provider_session_id)
    assert bb.alive(made.provider_session_id)


async def test_an_end_is_believed_when_it_is_seen(bb, browserbase, tools):
    made = await bb.create(tools.spec())
    browserbase.misbehave("release", "stale")
    browserbase.misbehave("get", "stale", times=2)
    await bb.close(made.provider_session_id)
    assert not bb.alive(made.provider_session_id)
    made = await bb.create(tools.spec())
    browserbase.misbehave("any", "stale", times=99)
    with pytest.raises(ProviderUnavailableError, match="still runs"):
        await bb.close(made.provider_session_id)


async def test_an_unknown_status_counts_as_running(tools):
    def answer(request: httpx.Request) -> httpx.Response:
        body = {
            "id": "p1",
            "status": "HIBERNATED",
            "connectUrl": "wss://x/?k=1",
            "userMetadata": {},
            "new": 1,
        }
        return httpx.Response(201 if request.method == "POST" else 200, json=body)

    bb = BrowserbaseProvider(
        "bb",
        ProviderSettings(kind="browserbase", api_key=KEY),
        transport=httpx.MockTransport(answer),
        sleep=Sleeper(),
    )
    await bb.start(lambda *_: None)
    made = await bb.create(tools.spec("s1"))
    assert made.running
    assert made.label == "s1"
    with pytest.raises(ProviderUnavailableError, match="still runs"):
        await bb.close("p1")


async def test_a_session_without_an_address_is_given_back(tools):
    released = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/sessions":
            released.append(json.loads(request.content))
            return httpx.Response(200, json={"id": "p1", "status": "COMPLETED"})
        return httpx.Response(201, json={"id": "p1", "status": "RUNNING"})

    bb = BrowserbaseProvider(
        "bb", ProviderSettings(kind="browserbase", api_key=KEY), transport=httpx.MockTransport(answer)
    )
    await bb.start(lambda *_: None)
    with pytest.raises(OutcomeUnknownError, match="no address"):
        await bb.create(tools.spec("s1"))
    assert released == [{"status": "REQUEST_RELEASE"}]


# ── knowing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_found_dead_is_told_of_once(browserbase, losses, tools):
    async with far(browserbase, losses) as bb:
        made = await bb.create(tools.spec("s1"))
        await browserbase.lose(made.provider_session_id)
        assert not (await bb.get(made.provider_session_id)).running
        assert not (await bb.get(made.provider_session_id)).running
        assert not bb.alive(made.provider_session_id)
    assert losses.told == [("s1", "ended at its provider")]


async def test_lists_that_lag_or_lie_are_what_the_provider_says(bb, browserbase, tools):
    await bb.create(tools.spec("s1"))
    browserbase.misbehave("list", "lag", seconds=60, times=2)
    assert await bb.list("s1") == []
    browserbase.misbehave("list", "empty", times=2)
    assert await bb.list("s1") == []
    assert len(await bb.list("s1")) == 1


async def test_sessions_of_others_are_not_ours(bb, browserbase, sdk):
    await sdk.sessions.create(user_metadata={"session": "s1"})
    await sdk.sessions.create()
    assert await bb.list() == []
    browserbase.behave()
    for one in browserbase.running:
        browserbase.end(one, Phase.COMPLETED, "test")


async def test_a_session_can_be_watched_and_its_usage_read(bb, browserbase, tools):
    made = await bb.create(tools.spec())
    assert (await bb.live_view(made.provider_session_id)).startswith(browserbase.url)
    browserbase.sessions[made.provider_session_id].proxy_bytes = 12345
    running = await bb.usage(made.provider_session_id)
    assert (running.seconds, running.proxy_bytes, running.ended_at) == (None, 12345, None)
    await bb.close(made.provider_session_id)
    over = await bb.usage(made.provider_session_id)
    assert over.seconds == pytest.approx((over.ended_at - over.started_at).total_seconds())
    with pytest.raises(ProviderNotFoundError):
        await bb.live_view(made.provider_session_id)


async def test_check_tells_whether_the_key_is_valid_and_how_much_it_may(browserbase):
    async with far(browserbase, max_sessions=30) as bb:
        (check,) = await bb.check()
        assert check.ok
        assert "runs up to 25 sessions" in check.detail
        assert "max_sessions to 25" in check.advice
    async with far(browserbase, project_id="other") as bb:
        (check,) = await bb.check()
        assert not check.ok
    browserbase.misbehave("usage", "status", status=401)
    async with far(browserbase) as bb:
        (check,) = await bb.check()
        assert not check.ok
        assert "api_key" in check.advice
        assert KEY not in check.detail


# ── the official SDK ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_sdk_drives_the_emulator(browserbase, sdk):
    made = await sdk.sessions.create(
        project_id=browserbase.project,
        api_timeout=120,
        keep_alive=True,
        region="us-east-1",
        user_metadata={"pool": "p1", "deep": {"er": "x"}},
        browser_settings={"viewport": {"width": 800, "height": 600}},
    )
    assert (made.status, made.keep_alive, made.region) == ("RUNNING", True, "us-east-1")
    assert (made.expires_at - made.started_at).total_seconds() == 120
    assert made.connect_url.startswith("ws://127.0.0.1")
    got = await sdk.sessions.retrieve(made.id)
    assert got.connect_url == made.connect_url
    assert got.user_metadata == {"pool": "p1", "deep": {"er": "x"}}
    assert [s.id for s in await sdk.sessions.list(status="RUNNING", q="user_metadata['pool']:'p1'")] == [
        made.id
    ]
    assert [s.id for s in await sdk.sessions.list(q="user_metadata['deep']['er']:'x'")] == [made.id]
    assert await sdk.sessions.list(q="user_metadata['pool']:'p2'") == []
    assert (await sdk.sessions.debug(made.id)).debugger_fullscreen_url
    (project,) = await sdk.projects.list()
    assert project.concurrency == 25
    assert (await sdk.projects.retrieve(project.id)).default_timeout == 300
    over = await sdk.sessions.update(made.id, status="REQUEST_RELEASE")
    assert over.status == "COMPLETED"
    assert over.ended_at >= over.started_at
    again = await sdk.sessions.update(made.id, status="REQUEST_RELEASE")
    assert again.ended_at == over.ended_at
    assert [s.status for s in await sdk.sessions.list(status="COMPLETED")] == ["COMPLETED"]
    usage = await sdk.projects.usage(project.id)
    assert (usage.browser_minutes, usage.proxy_bytes) == (1, 0)


async def test_the_official_sdk_reads_the_emulators_errors(browserbase, sdk):
    with pytest.raises(BadRequestError, match="body/timeout must be <= 21600"):
        await sdk.sessions.create(api_timeout=300000)
    with pytest.raises(BadRequestError, match="body/timeout must be >= 60"):
        await sdk.sessions.create(api_timeout=5)
    with pytest.raises(BadRequestError, match="userMetadata"):
        await sdk.sessions.create(user_metadata={"x": "y" * 600})
    with pytest.raises(BadRequestError, match="q is not"):
        await sdk.sessions.list(q="pool=p1")
    with pytest.raises(NotFoundError):
        await sdk.sessions.retrieve("nobody")
    with pytest.raises(AuthenticationError):
        await sdk.with_options(api_key="wrong").sessions.list()
    browserbase.out_of_money = True
    with pytest.raises(APIStatusError, match="Free plan browser minutes limit reached") as told:
        await sdk.sessions.create()
    assert told.value.status_code == 402
    assert told.value.body == {
        "statusCode": 402,
        "error": "Payment Required",
        "message": "Free plan browser minutes limit reached. Please upgrade your account at "
        "https://browserbase.com/plans",
    }


async def test_the_sdk_retries_a_create_that_was_dropped_and_pays_twice(browserbase):
    """The control: what happens to who does not look before creating again."""
    browserbase.misbehave("create", "drop")
    async with AsyncBrowserbase(api_key=KEY, base_url=browserbase.url) as client:
        await client.sessions.create()
    assert len(browserbase.running) == 2
    for one in browserbase.running:
        browserbase.end(one, Phase.COMPLETED, "test")


_MATTER = ("x-bb-api-key", "content-type", "accept", "content-length")


def seen(requests, *, without=()) -> list[tuple]:
    return [
        (
            method,
            str(httpx.URL(path).copy_with(query=None)),
            dict(httpx.URL(path).params),
            {k: headers.get(k) for k in _MATTER if k not in without},
            json.loads(body) if body else None,
        )
        for method, path, headers, body in requests
    ]


@pytest.mark.parametrize("named", [True, False])
async def test_the_adapter_sends_what_the_sdk_sends(browserbase, sdk, tools, named):
    project = {"project_id": browserbase.project} if named else {}
    viewport = {"width": 800, "height": 600}
    async with far(
        browserbase,
        region="us-east-1",
        proxies=True,
        options={"browserSettings": {"viewport": viewport, "blockAds": True}},
        **project,
    ) as bb:
        made = await bb.create(tools.spec("s1"))
        one = made.provider_session_id
        await bb.get(one)
        await bb.list("s2")
        await bb.live_view(one)
        await bb.close(one)
        await bb.usage(one)
        await bb.check()
        await bb.used_so_far()
        ours = list(browserbase.requests)
    browserbase.requests.clear()

    await sdk.sessions.create(
        api_timeout=60,
        keep_alive=False,
        region="us-east-1",
        proxies=True,
        user_metadata={"tool": "tabkeeper", "session": "s1", "platform": "web"},
        browser_settings={"viewport": viewport, "block_ads": True},
        **project,
    )
    theirs = browserbase.running[0].id
    await sdk.sessions.retrieve(theirs)
    for status in ("PENDING", "RUNNING"):
        await sdk.sessions.list(status=status, q="user_metadata['tool']:'tabkeeper'")
    await sdk.sessions.debug(theirs)
    await sdk.sessions.update(theirs, status="REQUEST_RELEASE", **project)
    await sdk.sessions.retrieve(theirs)
    await (sdk.projects.retrieve(browserbase.project) if named else sdk.projects.list())
    if not named:
        await sdk.projects.list()
    await sdk.projects.usage(browserbase.project)

    def normal(requests, session_id):
        # The two lists are sent at once; lengths differ with the spacing of JSON alone.
        out = seen(requests, without=("content-length",))
        return sorted(
            ((m, p.replace(session_id, "ID"), q, h, b) for m, p, q, h, b in out), key=lambda r: repr(r[:3])
        )

    mine, sdks = normal(ours, one), normal(browserbase.requests, theirs)
    assert len(mine) == len(sdks) == (9 if named else 10)
    for left, right in zip(mine, sdks, strict=True):
        assert left == right


# ── the emulator ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_time_ends_sessions_and_is_billed_by_started_minutes(tools):
    clock = VirtualClock()
    limits = Limits(connect_seconds=1000)
    async with serving(BrowserbaseEmulator(limits, clock=clock)) as emulator:
        async with far(emulator) as bb:
            made = await bb.create(tools.spec("s1"))
            clock.advance(59.9)
            await emulator.catch_up()
            assert emulator.sessions[made.provider_session_id].phase is Phase.RUNNING
            clock.advance(1)
            assert not (await bb.get(made.provider_session_id)).running
            assert (await bb.usage(made.provider_session_id)).seconds == pytest.approx(60, abs=0.002)
            assert (emulator.bill().minutes, emulator.sessions[made.provider_session_id].why) == (
                1,
                "timeout",
            )
            await bb.create(tools.spec("s2"))
            clock.advance(10)
            assert emulator.bill().minutes == 2


async def test_a_session_nobody_connects_to_is_ended(tools):
    clock = VirtualClock()
    async with serving(BrowserbaseEmulator(clock=clock)) as emulator:
        async with AsyncBrowserbase(api_key=KEY, base_url=emulator.url) as sdk:
            made = await sdk.sessions.create(api_timeout=3600)
            clock.advance(300)
            assert (await sdk.sessions.retrieve(made.id)).status == "TIMED_OUT"


@pytest.mark.browser
@pytest.mark.parametrize("keep_alive", [False, True])
async def test_a_disconnect_ends_what_is_not_kept_alive(browserbase, tools, keep_alive):
    async with far(browserbase, keep_alive=keep_alive) as bb, async_playwright() as playwright:
        made = await bb.create(tools.spec())
        session = browserbase.sessions[made.provider_session_id]
        browser = await playwright.chromium.connect_over_cdp(made.connect_url)
        await browser.contexts[0].new_page()
        await browser.close()
        async with asyncio.timeout(5):
            while session.connections:
                await asyncio.sleep(0.01)
        assert session.phase is (Phase.RUNNING if keep_alive else Phase.COMPLETED)
        if keep_alive:
            browser = await playwright.chromium.connect_over_cdp(made.connect_url)
            assert len(browser.contexts[0].pages) >= 1
        await bb.close(made.provider_session_id)
        with pytest.raises(PlaywrightError, match="410"):
            await playwright.chromium.connect_over_cdp(made.connect_url)


@pytest.mark.browser
async def test_a_timeout_ends_the_browser_and_its_connection(tools):
    clock = VirtualClock()
    async with serving(BrowserbaseEmulator(clock=clock)) as emulator, far(emulator) as bb:
        async with async_playwright() as playwright:
            made = await bb.create(tools.spec())
            browser = await playwright.chromium.connect_over_cdp(made.connect_url)
            gone = asyncio.Event()
            browser.on("disconnected", lambda _: gone.set())
            (local,) = await emulator._browsers.list()
            clock.advance(61)
            await emulator.catch_up()
            async with asyncio.timeout(5):
                await gone.wait()
            import psutil

            assert not psutil.pid_exists(local.pid) or psutil.Process(local.pid).status() == "zombie"


async def test_misbehaviour_can_be_ordered_by_http(browserbase, bb, tools):
    async with httpx.AsyncClient(base_url=browserbase.url) as admin:
        order = {"on": "create", "do": "status", "status": 402}
        assert (await admin.post("/_emulator/faults", json=order)).status_code == 201
        with pytest.raises(ProviderPaymentError):
            await bb.create(tools.spec("s1"))
        made = await bb.create(tools.spec("s2"))
        (shown,) = (await admin.get("/_emulator/sessions")).json()
        assert (shown["id"], shown["phase"]) == (made.provider_session_id, "running")
        assert (await admin.post(f"/_emulator/sessions/{shown['id']}/lose")).status_code == 204
        assert (await admin.post("/_emulator/sessions/nobody/lose")).status_code == 404
        assert not (await bb.get(made.provider_session_id)).running
        for bad in (
            {"on": "x", "do": "drop"},
            {"on": "get"},
            {"on": "get", "do": "lag"},
            {"on": "get", "do": 1},
            5,
        ):
            assert (await admin.post("/_emulator/faults", json=bad)).status_code == 400
        browserbase.misbehave("any", "status", times=99)
        assert (await admin.delete("/_emulator/faults")).status_code == 204
        assert await bb.list() == []
