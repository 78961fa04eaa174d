"""Steel: its adapter before its emulator, and what the official SDK sends. What all adapters share is tested once."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from steel import APIStatusError, AsyncSteel, AuthenticationError, NotFoundError

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderCapacityError,
    ProviderRequestError,
)
from tabkeeper.providers.base import SessionSpec
from tabkeeper.providers.emulator import Limits, Phase, SteelEmulator, serving
from tabkeeper.providers.steel import SteelProvider

from .started import moment, started

KEY = "ste-test-key"
EMULATOR = SteelEmulator


def far(emulator, **settings: Any) -> AbstractAsyncContextManager[SteelProvider]:
    provider = SteelProvider(
        "steel", ProviderSettings(kind="steel", api_key=KEY, base_url=emulator.url, **settings), sleep=moment
    )
    return started(provider, emulator)


@pytest.fixture
async def steel(emulator) -> AsyncIterator[SteelProvider]:
    async with far(emulator) as provider:
        yield provider


@pytest.fixture
async def sdk(emulator) -> AsyncIterator[AsyncSteel]:
    async with AsyncSteel(steel_api_key=KEY, base_url=emulator.url, max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("wanted", "sent"), [(1, 15000), (90.9994, 90999), (1e6, 86_400_000)])
async def test_the_timeout_is_in_milliseconds_within_the_bounds(wanted, sent):
    async with serving(SteelEmulator(Limits(max_seconds=86400))) as emulator, far(emulator) as steel:
        await steel.create(SessionSpec(session_id="s", platform="web", max_seconds=wanted))
        assert json.loads(emulator.requests[0][3])["timeout"] == sent


async def test_the_concurrency_limit_is_told_from_the_rate_limit(tools):
    async with serving(SteelEmulator(Limits(concurrent=1))) as emulator, far(emulator) as steel:
        await steel.create(tools.spec("s1"))
        with pytest.raises(ProviderCapacityError):
            await steel.create(tools.spec("s2"))


async def test_a_create_that_got_no_answer_is_found_and_ended_by_another_process(emulator, tools):
    emulator.misbehave("create", "drop")
    async with far(emulator) as dying:
        with pytest.raises(OutcomeUnknownError):
            await dying.create(tools.spec("s1"))
        async with far(emulator) as next_one:
            assert await next_one.list() == []
            (found,) = await next_one.list("s1")
            assert found.label == "s1"
            await next_one.close(found.provider_session_id)
    assert emulator.bill().sessions == 1


async def test_no_id_can_release_them_all(steel, emulator, tools):
    await steel.create(tools.spec("s1"))
    for bad in ("", "..", "a/b"):
        with pytest.raises(ProviderRequestError):
            await steel.close(bad)
    assert len(emulator.running) == 1


async def test_a_list_is_read_to_its_last_page(tools):
    async with serving(SteelEmulator(Limits(concurrent=300, creates_per_minute=300))) as emulator:
        async with far(emulator) as steel:
            for number in range(205):
                emulator.admit({}, seconds=60, keep_alive=True)
                if number == 3:
                    await steel.create(tools.spec("s1"))
            assert [s.label for s in await steel.list("s1")] == ["s1"]
            assert len([p for m, p, *_ in emulator.requests if m == "GET"]) == 3


async def test_usage_is_what_it_says_in_seconds(tools):
    clock = VirtualClock()
    async with serving(SteelEmulator(clock=clock)) as emulator, far(emulator) as steel:
        made = await steel.create(tools.spec())
        clock.advance(12.5)
        assert (await steel.usage(made.provider_session_id)).seconds == 12.5
        clock.advance(100)
        used = await steel.usage(made.provider_session_id)
        assert used.seconds == pytest.approx(60, abs=0.002)
        assert (used.ended_at - used.started_at).total_seconds() == used.seconds
        assert emulator.sessions[made.provider_session_id].phase is Phase.TIMED_OUT


@pytest.mark.parametrize("token", [True, False])
async def test_addresses_get_the_key_they_lack_and_show_it_nowhere(steel, emulator, tools, token, caplog):
    caplog.set_level(logging.DEBUG)
    emulator.tells_token = token
    made = await steel.create(tools.spec())
    assert ("apiKey=" in made.connect_url) != token
    assert (await steel.live_view(made.provider_session_id)).startswith(emulator.url)
    assert KEY not in repr(made)
    assert KEY not in "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("http"))


async def test_the_official_sdk_drives_the_emulator(emulator, sdk):
    made = await sdk.sessions.create(
        api_timeout=120_000, region="us-east", dimensions={"width": 800, "height": 600}
    )
    assert (made.status, made.timeout, made.region) == ("live", 120_000, "us-east")
    assert (made.dimensions.width, made.proxy_source) == (800, None)
    assert (await sdk.sessions.retrieve(made.id)).websocket_url == made.websocket_url
    others = [await sdk.sessions.create() for _ in range(2)]
    assert {s.id async for s in sdk.sessions.list(status="live", limit=1)} == {
        made.id,
        *(o.id for o in others),
    }
    for _ in range(2):
        assert (await sdk.sessions.release(made.id)).success
    over = await sdk.sessions.retrieve(made.id)
    assert (over.status, over.release_reason, over.proxy_bytes_used) == ("released", "user_requested", 0)
    assert over.duration >= 0
    assert (await sdk.sessions.release_all()).success
    with pytest.raises(NotFoundError):
        await sdk.sessions.retrieve("nobody")
    with pytest.raises(AuthenticationError):
        await sdk.with_options(steel_api_key="wrong").sessions.retrieve(made.id)
    emulator.out_of_money = True
    with pytest.raises(APIStatusError) as told:
        await sdk.sessions.create()
    assert told.value.status_code == 402


@pytest.mark.parametrize("named", [True, False])
async def test_the_adapter_sends_what_the_sdk_sends(emulator, sdk, tools, named):
    project = {"project_id": emulator.project} if named else {}
    async with far(
        emulator, region="us-east", proxies=True, options={"blockAds": True, "solveCaptcha": False}, **project
    ) as steel:
        made = await steel.create(tools.spec("s1"))
        one = made.provider_session_id
        await steel.list("s2")
        await steel.usage(one)
        await steel.close(one)
        ours = list(emulator.requests)
    emulator.requests.clear()
    del emulator.sessions[one]

    await sdk.sessions.create(
        session_id=one,
        api_timeout=60_000,
        region="us-east",
        use_proxy=True,
        block_ads=True,
        solve_captcha=False,
        **project,
    )
    await sdk.sessions.list(status="live", limit=100, **project)
    await sdk.sessions.retrieve(one)
    await sdk.sessions.release(one)
    await sdk.sessions.retrieve(one)

    def normal(requests):
        return [
            (
                method,
                str(httpx.URL(path).copy_with(query=None)),
                dict(httpx.URL(path).params),
                {k: headers.get(k) for k in ("steel-api-key", "content-type", "accept")},
                json.loads(body) if body else None,
            )
            for method, path, headers, body in requests
        ]

    mine, sdks = normal(ours), normal(emulator.requests)
    # The one difference: the SDK says that its empty release is JSON, which servers of this kind tend to refuse.
    assert sdks[3][3].pop("content-type") == "application/json"
    assert mine[3][3].pop("content-type") is None
    for left, right in zip(mine, sdks, strict=True):
        assert left == right


async def test_an_end_that_is_cut_short_leaves_no_connection_behind(tools):
    """Its server never answers, and the pool has no more time."""
    gone = asyncio.Event()

    async def silent(reader, writer):
        await reader.read()
        gone.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = ProviderSettings(kind="steel", api_key="k", base_url=f"http://127.0.0.1:{port}")
        steel = SteelProvider("st", settings)
        await steel.start(lambda *_: None)
        creating = asyncio.create_task(steel.create(tools.spec("s1")))
        await asyncio.sleep(0.1)
        creating.cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await steel.aclose()
        async with asyncio.timeout(5):
            await gone.wait()
        await steel.aclose()
    assert creating.cancelled()
