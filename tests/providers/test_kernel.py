"""Kernel: its adapter before its emulator, and what the official SDK sends. What all adapters share is tested once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from kernel import (
    APIStatusError,
    AsyncKernel,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)
from playwright.async_api import async_playwright

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    OutcomeUnknownError,
    ProviderCapacityError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import Leftover, SessionSpec
from tabkeeper.providers.emulator import KernelEmulator, Limits, Phase, serving
from tabkeeper.providers.kernel import KernelProvider

from .started import moment, started

KEY = "sk_test_key"
EMULATOR = KernelEmulator


def settings(**more: Any) -> ProviderSettings:
    return ProviderSettings(kind="kernel", api_key=KEY, **more)


def far(emulator, **more: Any) -> AbstractAsyncContextManager[KernelProvider]:
    provider = KernelProvider("k", settings(base_url=emulator.url, **more), sleep=moment)
    return started(provider, emulator)


@pytest.fixture
async def kernel(emulator) -> AsyncIterator[KernelProvider]:
    async with far(emulator) as provider:
        yield provider


@pytest.fixture
async def sdk(emulator) -> AsyncIterator[AsyncKernel]:
    async with AsyncKernel(api_key=KEY, base_url=emulator.url, max_retries=0) as client:
        yield client


# ── what is asked for ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_everything_that_is_configured_is_asked_for(emulator):
    async with far(
        emulator,
        project_id=emulator.project,
        region="eu-west",
        plan="kernel/headful",
        options={"viewport": {"width": 1280, "height": 800}, "profile": {"name": "shop"}},
    ) as kernel:
        await kernel.create(SessionSpec(session_id="s1", platform="web (ü)", max_seconds=90.2))
    method, path, headers, body = emulator.requests[0]
    assert (method, path, headers["authorization"]) == ("POST", "/browsers", f"Bearer {KEY}")
    assert headers["x-kernel-project-id"] == emulator.project
    assert json.loads(body) == {
        "headless": False,
        "viewport": {"width": 1280, "height": 800},
        "profile": {"name": "shop"},
        "region": "eu-west",
        "timeout_seconds": 91,
        "name": "s1",
        "tags": {"tool": "tabkeeper", "session": "s1", "platform": "web ___"},
    }


@pytest.mark.parametrize(("wanted", "sent"), [(1, 10), (60, 60), (90.2, 91), (1e6, 259200)])
async def test_the_timeout_is_in_whole_seconds_within_the_bounds(kernel, emulator, wanted, sent):
    await kernel.create(SessionSpec(session_id="s", platform="web", max_seconds=wanted))
    assert json.loads(emulator.requests[0][3])["timeout_seconds"] == sent


@pytest.mark.parametrize(
    ("plan", "options", "sent"),
    [
        (None, {}, {}),
        (None, {"headless": True, "memory": "4GiB"}, {"headless": True, "memory": "4GiB"}),
        ("kernel/headless", {}, {"headless": True}),
        ("kernel/headless", {"memory": "1GiB"}, {"headless": True, "memory": "1GiB"}),
        ("kernel/headful", {"gpu": False}, {"headless": False, "gpu": False}),
        ("kernel/headful-gpu", {}, {"headless": False, "gpu": True}),
    ],
)
async def test_the_browser_asked_for_is_the_one_its_plan_is_the_price_of(
    emulator, tools, plan, options, sent
):
    async with far(emulator, plan=plan, options=options) as kernel:
        await kernel.create(tools.spec("s1"))
    body = json.loads(emulator.requests[0][3])
    assert {key: body[key] for key in ("headless", "gpu", "memory") if key in body} == sent


@pytest.mark.parametrize(
    ("plan", "options"),
    [
        ("kernel/headless", {"headless": False}),
        ("kernel/headless", {"memory": "4GiB"}),
        ("kernel/headful", {"gpu": True}),
        ("kernel/headful", {"headless": True}),
        ("kernel/headful-gpu", {"gpu": False}),
    ],
)
def test_a_browser_that_its_plan_is_not_the_price_of_is_refused(plan, options):
    with pytest.raises(ConfigError, match=f"options.{next(iter(options))}: plan '{plan}' is not the price"):
        KernelProvider("k", settings(plan=plan, options=options))


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, {"stealth": True}),
        ({"stealth": False}, {"stealth": False}),
        ({"proxy": {"name": "home"}}, {"proxy": {"name": "home"}}),
    ],
)
async def test_its_proxy_comes_with_stealth_and_one_of_your_own_without(emulator, tools, options, sent):
    async with far(emulator, proxies=True, options=options) as kernel:
        await kernel.create(tools.spec("s1"))
    body = json.loads(emulator.requests[0][3])
    assert {key: body[key] for key in ("stealth", "proxy") if key in body} == sent


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"region": "mars"}, "region: must be one of us-east"),
        ({"options": {"timeout_seconds": 5}}, "options.timeout_seconds"),
        ({"options": {"tags": {}}}, "options.tags"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(more, told):
    with pytest.raises(ConfigError, match=told):
        KernelProvider("k", settings(**more))


# ── what is answered ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("named", [True, False])
async def test_the_concurrency_limit_is_told_from_the_rate_limit_even_if_the_answer_does_not(tools, named):
    async with serving(KernelEmulator(Limits(concurrent=1, creates_per_minute=2))) as emulator:
        emulator.names_limit = named
        async with far(emulator) as kernel:
            made = await kernel.create(tools.spec("s1"))
            with pytest.raises(ProviderCapacityError):
                await kernel.create(tools.spec("s2"))
            await kernel.close(made.provider_session_id)
            again = await kernel.create(tools.spec("s3"))
            await kernel.close(again.provider_session_id)
            with pytest.raises(ProviderRateLimitError) as told:
                await kernel.create(tools.spec("s4"))
            assert 55 <= told.value.retry_after <= 60


async def test_a_spending_cap_is_about_money_and_not_about_the_key(kernel, emulator, tools):
    emulator.out_of_money = True
    with pytest.raises(ProviderPaymentError, match="Spending cap"):
        await kernel.create(tools.spec("s1"))


async def test_a_name_in_use_means_that_the_create_came_through_before(kernel, emulator, sdk, tools):
    made = await sdk.browsers.create(name="s1", tags={"tool": "tabkeeper", "session": "s1"})
    with pytest.raises(OutcomeUnknownError, match="runs already"):
        await kernel.create(tools.spec("s1"))
    (found,) = await kernel.list("s1")
    assert found.provider_session_id == made.session_id
    await kernel.close(made.session_id)


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


async def test_a_session_without_an_address_is_given_back(tools):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.method == "DELETE":
            return httpx.Response(204)
        over = {"deleted_at": "2026-11-20T10:00:00Z"} if "DELETE" in asked else {}
        return httpx.Response(200, json={"session_id": "p1", **over})

    kernel = KernelProvider("k", settings(), transport=httpx.MockTransport(answer))
    await kernel.start(lambda *_: None)
    with pytest.raises(OutcomeUnknownError, match="no address"):
        await kernel.create(tools.spec("s1"))
    assert asked == ["POST", "DELETE", "GET"]


# ── ending ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", [None, 400, 404, 409, 410])
async def test_a_second_delete_counts_as_closed_whatever_is_answered(kernel, emulator, tools, answer):
    emulator.release_again = answer
    made = await kernel.create(tools.spec())
    await kernel.close(made.provider_session_id)
    await kernel.close(made.provider_session_id)
    assert [one.phase for one in emulator.sessions.values()] == [Phase.COMPLETED]


async def test_a_project_that_is_gone_does_not_make_its_sessions_look_over(kernel, emulator, tools):
    made = await kernel.create(tools.spec("s1"))
    async with far(emulator, project_id="other") as astray:
        for asking in (
            astray.create(tools.spec("s2")),
            astray.close(made.provider_session_id),
            astray.get(made.provider_session_id),
        ):
            with pytest.raises(ProviderRequestError, match=r"providers\.k\.project_id"):
                await asking
    assert len(emulator.running) == 1


async def test_an_end_is_believed_when_it_is_seen(kernel, emulator, tools):
    made = await kernel.create(tools.spec())
    emulator.misbehave("get", "stale", times=2)
    await kernel.close(made.provider_session_id)
    made = await kernel.create(tools.spec())
    order = emulator.misbehave("get", "stale", times=99)
    with pytest.raises(ProviderUnavailableError, match="still runs"):
        await kernel.close(made.provider_session_id)
    assert order.done == 5


async def test_a_refused_delete_of_a_running_session_is_an_error(kernel, emulator, tools):
    made = await kernel.create(tools.spec())
    emulator.misbehave("release", "status", status=400)
    with pytest.raises(ProviderRequestError):
        await kernel.close(made.provider_session_id)
    assert kernel.alive(made.provider_session_id)


async def test_a_list_is_read_to_its_last_page(tools):
    async with serving(KernelEmulator(Limits(concurrent=300, creates_per_minute=300))) as emulator:
        async with far(emulator) as kernel:
            for number in range(205):
                ours = {"tags": {"tool": "tabkeeper", "session": f"x{number}"}}
                emulator.admit(ours, seconds=60, keep_alive=True)
                if number < 50:
                    emulator.admit({}, seconds=60, keep_alive=True)
                if number == 3:
                    await kernel.create(tools.spec("s1"))
            assert [s.label for s in await kernel.list("s1")] == ["s1"]
            assert len(await kernel.list()) == 206
            assert len([p for m, p, *_ in emulator.requests if m == "GET"]) == 6


# ── knowing ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_headful_session_can_be_watched_while_it_runs(emulator, tools):
    async with far(emulator, options={"headless": False}) as kernel:
        made = await kernel.create(tools.spec())
        assert (await kernel.live_view(made.provider_session_id)).startswith(emulator.url)
        await kernel.close(made.provider_session_id)
        with pytest.raises(ProviderRequestError, match="cannot be watched"):
            await kernel.live_view(made.provider_session_id)
    async with far(emulator, options={"headless": True}) as kernel:
        made = await kernel.create(tools.spec())
        with pytest.raises(ProviderRequestError, match="headless"):
            await kernel.live_view(made.provider_session_id)


async def test_usage_is_told_once_it_is_final():
    clock = VirtualClock()
    async with serving(KernelEmulator(clock=clock)) as emulator, far(emulator) as kernel:
        emulator.settle_seconds = 30
        made = await kernel.create(SessionSpec(session_id="s1", platform="web", max_seconds=600))
        one = made.provider_session_id
        clock.advance(12)
        assert (await kernel.usage(one)).seconds is None
        await kernel.close(one)
        pending = await kernel.usage(one)
        assert (pending.seconds, pending.ended_at is not None) == (None, True)
        clock.advance(30)
        used = await kernel.usage(one)
        # Nobody connected: five seconds, then standby for nothing.
        assert used.seconds == 5
        assert (used.ended_at - used.started_at).total_seconds() == 12


async def test_check_tells_whether_the_key_is_valid_and_how_much_it_may(emulator, tools):
    async with far(emulator, max_sessions=30) as kernel:
        await kernel.create(tools.spec())
        (check,) = await kernel.check()
        assert check.ok
        assert "may run 25 sessions and runs 1" in check.detail
        assert "max_sessions to 25" in check.advice
        emulator.misbehave("usage", "status", status=401)
        (check,) = await kernel.check()
        assert not check.ok
        assert "api_key" in check.advice


# ── the official SDK ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_sdk_drives_the_emulator(emulator, sdk):
    made = await sdk.browsers.create(
        headless=True,
        timeout_seconds=120,
        region="us-west",
        name="lease-1",
        tags={"lease": "1", "tenant": "acme"},
        viewport={"width": 800, "height": 600},
    )
    assert (made.timeout_seconds, made.region, made.memory) == (120, "us-west", "1GiB")
    assert made.browser_live_view_url is None
    assert made.cdp_ws_url.startswith("ws://127.0.0.1")
    for known in (made.session_id, "lease-1"):
        assert (await sdk.browsers.retrieve(known)).tags == {"lease": "1", "tenant": "acme"}
    others = [await sdk.browsers.create() for _ in range(2)]
    assert others[0].browser_live_view_url
    listed = {one.session_id async for one in sdk.browsers.list(limit=1)}
    assert listed == {made.session_id, *(one.session_id for one in others)}
    assert [one.name async for one in sdk.browsers.list(tags={"lease": "1", "tenant": "acme"})] == ["lease-1"]
    assert [one async for one in sdk.browsers.list(tags={"lease": "2"})] == []
    assert [one.name async for one in sdk.browsers.list(query="lease-")] == ["lease-1"]
    assert (await sdk.browsers.update("lease-1", tags={"lease": "9"})).tags == {"lease": "9"}
    limits = await sdk.organization.limits.retrieve()
    assert (limits.max_concurrent_sessions, limits.concurrent_sessions_available) == (25, 22)
    await sdk.browsers.delete_by_id(made.session_id)
    with pytest.raises(NotFoundError):
        await sdk.browsers.delete_by_id(made.session_id)
    with pytest.raises(NotFoundError):
        await sdk.browsers.retrieve(made.session_id)
    over = await sdk.browsers.retrieve(made.session_id, include_deleted=True)
    assert over.deleted_at >= over.created_at
    assert (over.usage_status, over.usage.uptime_ms) == ("ready", pytest.approx(0, abs=5000))
    assert [one.session_id async for one in sdk.browsers.list(status="deleted")] == [made.session_id]
    assert len([one async for one in sdk.browsers.list(status="all")]) == 3
    for one in others:
        await sdk.browsers.delete_by_id(one.session_id)


async def test_the_official_sdk_reads_the_emulators_errors(emulator, sdk):
    for wrong in (
        {"timeout_seconds": 9},
        {"timeout_seconds": 259201},
        {"name": "a b"},
        {"tags": {"a": "ü"}},
        {"proxy": {}},
        {"gpu": True, "headless": True},
    ):
        with pytest.raises(BadRequestError) as told:
            await sdk.browsers.create(**wrong)
        assert told.value.body["code"] == "bad_request"
    made = await sdk.browsers.create(name="n")
    with pytest.raises(ConflictError):
        await sdk.browsers.create(name="n")
    await sdk.browsers.delete_by_id(made.session_id)
    with pytest.raises(NotFoundError):
        await sdk.browsers.retrieve("nobody")
    with pytest.raises(AuthenticationError):
        await sdk.with_options(api_key="wrong").browsers.retrieve("nobody")
    emulator.misbehave("create", "status", status=429, retry_after="7")
    with pytest.raises(RateLimitError) as told:
        await sdk.browsers.create()
    assert told.value.response.headers["retry-after"] == "7"
    emulator.misbehave("create", "status", status=529)
    with pytest.raises(APIStatusError) as told:
        await sdk.browsers.create()
    assert (told.value.status_code, told.value.body["code"]) == (529, "capacity_exhausted")
    emulator.out_of_money = True
    with pytest.raises(PermissionDeniedError, match="Spending cap"):
        await sdk.browsers.create()


async def test_the_sdk_retries_a_create_that_was_dropped_and_pays_twice(emulator):
    """The control: what happens to who does not look before creating again."""
    emulator.misbehave("create", "drop")
    async with AsyncKernel(api_key=KEY, base_url=emulator.url) as client:
        await client.browsers.create()
    assert len(emulator.running) == 2
    for one in emulator.running:
        emulator.end(one, Phase.COMPLETED, "test")


@pytest.mark.parametrize("named", [True, False])
async def test_the_adapter_sends_what_the_sdk_sends(emulator, sdk, tools, named):
    project = {"project_id": emulator.project} if named else {}
    viewport = {"width": 800, "height": 600}
    async with far(
        emulator,
        region="us-east",
        proxies=True,
        plan="kernel/headless",
        options={"viewport": viewport, "profile": {"name": "shop", "save_changes": True}},
        **project,
    ) as kernel:
        made = await kernel.create(tools.spec("s1"))
        one = made.provider_session_id
        await kernel.list("s2")
        await kernel.usage(one)
        await kernel.close(one)
        await kernel.check()
        ours = list(emulator.requests)
    emulator.requests.clear()

    client = sdk.with_options(**project)
    theirs = await client.browsers.create(
        headless=True,
        stealth=True,
        region="us-east",
        timeout_seconds=60,
        name="s1",
        tags={"tool": "tabkeeper", "session": "s1", "platform": "web"},
        viewport=viewport,
        profile={"name": "shop", "save_changes": True},
    )
    two = theirs.session_id
    await client.browsers.list(limit=100, tags={"tool": "tabkeeper"})
    await client.browsers.retrieve(two, include_deleted=True)
    await client.browsers.delete_by_id(two)
    await client.browsers.retrieve(two, include_deleted=True)
    await client.organization.limits.retrieve()

    def normal(requests, session_id):
        return [
            (
                method,
                httpx.URL(path).path.replace(session_id, "ID"),
                dict(httpx.URL(path).params),
                {
                    k: headers.get(k)
                    for k in ("authorization", "x-kernel-project-id", "content-type", "accept")
                },
                json.loads(body) if body else None,
            )
            for method, path, headers, body in requests
        ]

    mine, sdks = normal(ours, one), normal(emulator.requests, two)
    # The one difference: the SDK takes anything back for a delete, and says that nothing is JSON.
    assert sdks[3][3].pop("accept") == "*/*"
    assert sdks[3][3].pop("content-type") == "application/json"
    assert mine[3][3].pop("accept") == "application/json"
    assert mine[3][3].pop("content-type") is None
    assert len(mine) == len(sdks) == 6
    for left, right in zip(mine, sdks, strict=True):
        assert left == right


# ── the emulator ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_nobody_connects_to_ends_after_its_timeout_and_stands_by_for_nothing(tools):
    clock = VirtualClock()
    async with serving(KernelEmulator(clock=clock)) as emulator, far(emulator) as kernel:
        made = await kernel.create(tools.spec("s1"))
        clock.advance(59.9)
        await emulator.catch_up()
        assert (await kernel.get(made.provider_session_id)).running
        clock.advance(0.2)
        assert not (await kernel.get(made.provider_session_id)).running
        assert emulator.sessions[made.provider_session_id].why == "timeout"
        assert emulator.bill().seconds == 5
        assert (await kernel.usage(made.provider_session_id)).seconds == 5


@pytest.mark.browser
async def test_a_connection_keeps_a_session_and_the_timeout_counts_from_its_end(tools):
    clock = VirtualClock()
    async with serving(KernelEmulator(clock=clock)) as emulator, far(emulator) as kernel:
        made = await kernel.create(tools.spec("s1"))
        session = emulator.sessions[made.provider_session_id]
        clock.advance(20)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(made.connect_url)
            page = await browser.contexts[0].new_page()
            await page.goto("data:text/html,<title>hello</title>")
            assert await page.title() == "hello"
            # Longer than any timeout: only idle sessions end.
            clock.advance(1000)
            await emulator.catch_up()
            assert await page.title() == "hello"
            assert emulator.bill().seconds == 5 + 1000
            await browser.close()
        async with asyncio.timeout(5):
            while session.connections:
                await asyncio.sleep(0.01)
        clock.advance(59.9)
        await emulator.catch_up()
        assert session.phase is Phase.RUNNING
        clock.advance(0.2)
        await emulator.catch_up()
        assert session.phase is Phase.TIMED_OUT
        # Five seconds of nobody, standby, the connection and five seconds after it.
        assert emulator.bill().seconds == 5 + 1000 + 5


async def test_a_gpu_does_not_stand_by():
    clock = VirtualClock()
    async with serving(KernelEmulator(clock=clock)) as emulator:
        async with far(emulator, plan="kernel/headful-gpu") as kernel:
            await kernel.create(SessionSpec(session_id="s1", platform="web", max_seconds=600))
            clock.advance(300)
            assert emulator.bill().seconds == 300
