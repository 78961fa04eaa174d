"""What every provider must do, run on each: shared local Chromium, a local process per session, plain CDP, hosted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import httpx
import pytest
from playwright.async_api import async_playwright

from tabkeeper.errors import ProviderNotFoundError, ProviderRequestError, ProviderUnavailableError
from tabkeeper.providers.base import Leftover
from tabkeeper.providers.cdp import CdpProvider

pytestmark = pytest.mark.browser


async def test_a_created_session_can_be_found_and_connected_to(provider, tools):
    made = await provider.create(tools.spec("s1"))
    assert made.running
    assert made.label == "s1"
    assert provider.alive(made.provider_session_id)
    assert (await provider.get(made.provider_session_id)).connect_url == made.connect_url
    assert (await provider.usage(made.provider_session_id) is not None) == provider.capabilities.usage
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(made.connect_url)
        page = await (await browser.new_context()).new_page()
        await page.goto("data:text/html,<title>hello</title>")
        assert await page.title() == "hello"
        await browser.close()


async def test_the_address_of_a_browser_does_not_show_in_a_repr(provider, tools):
    made = await provider.create(tools.spec())
    assert made.connect_url not in repr(made)


async def test_sessions_are_listed_by_label(provider, tools):
    made = {name: await provider.create(tools.spec(name)) for name in ("a-1", "a-2", "b-1")}
    assert sorted(s.label for s in await provider.list("a-")) == ["a-1", "a-2"]
    # A session whose creation got no answer is found by its label, and used: its address is known then.
    (found,) = await provider.list("a-2")
    assert found.connect_url == made["a-2"].connect_url
    await provider.close(made["a-1"].provider_session_id)
    assert sorted(s.label for s in await provider.list()) == ["a-2", "b-1"]


async def test_closing_twice_at_once_and_closing_the_unknown_count_as_closed(provider, tools):
    made = await provider.create(tools.spec())
    await asyncio.gather(*(provider.close(made.provider_session_id) for _ in range(3)))
    await provider.close(made.provider_session_id)
    await provider.close("nobody")
    assert not provider.alive(made.provider_session_id)
    with contextlib.suppress(ProviderNotFoundError):
        # Some remember what is over.
        assert not (await provider.get(made.provider_session_id)).running
    with pytest.raises(ProviderNotFoundError):
        await provider.get("nobody")


async def test_one_label_is_one_session(provider, tools):
    await provider.create(tools.spec())
    with pytest.raises(ProviderRequestError, match="exists already"):
        await provider.create(tools.spec())


async def test_a_closed_provider_creates_nothing(provider, tools):
    await provider.create(tools.spec())
    await asyncio.gather(provider.aclose(), provider.aclose())
    assert await provider.list() == []
    with pytest.raises(ProviderUnavailableError, match="closed"):
        await provider.create(tools.spec("s2"))


async def test_leftovers_of_dead_owners_are_ended_and_nothing_else(provider, tools):
    if provider.capabilities.host_bound or isinstance(provider, CdpProvider):
        pytest.skip("its sessions end with their owner")
    made = {name: await provider.create(tools.spec(name)) for name in ("s1", "s2", "s3")}
    known, by_label = made["s1"].provider_session_id, None
    await provider.reap(
        [
            Leftover(session_id=label, provider_session_id=found, pid=None, pid_started=None)
            for label, found in (("s1", known), ("s2", by_label), ("s9", None), ("s8", "gone"))
        ]
    )
    left = {one.label for one in await provider.list()}
    if not provider.capabilities.list_by_label:
        # Only an id tells whose a session is; s2 is ended by its timeout, if this object does not know it.
        left.discard("s2")
    assert left == {"s3"}


async def test_everything_is_well_before_the_first_session(provider):
    checks = await provider.check()
    assert [c for c in checks if not c.ok] == []
    assert await provider.list() == []


async def test_aclose_leaves_neither_process_nor_directory(local, state_dir, tools):
    await asyncio.gather(*(local.create(tools.spec(f"s{i}")) for i in range(2)))
    assert tools.browsers_of(state_dir)
    await local.aclose()
    assert tools.processes_of(state_dir) == []
    assert list(state_dir.iterdir()) == []


@pytest.mark.kill
async def test_a_killed_browser_is_dead_at_once_and_its_session_is_lost_once(local, losses, tools):
    made = await local.create(tools.spec("s1"))
    os.kill(made.pid, signal.SIGKILL)
    # The loop does not run in here: nobody but the kernel can tell.
    assert tools.eventually(lambda: not local.alive("s1"), seconds=1)
    assert losses.told == []
    async with asyncio.timeout(2):
        while not losses.told:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert losses.told == [("s1", "browser died")]
    await local.close("s1")
    # Fault d: the next one gets a browser that lives.
    again = await local.create(tools.spec("s2"))
    assert again.pid != made.pid
    assert local.alive("s2")
    assert losses.told == [("s1", "browser died")]


async def test_create_cancelled_anywhere_leaves_no_process(local, state_dir, tools):
    # Before it is spawned, while it comes up, about when it is ready.
    for pause in (0.0, 0.03, 0.12, 0.25):
        creating = asyncio.create_task(local.create(tools.spec(f"s{pause}")))
        await asyncio.sleep(pause)
        creating.cancel()
        try:
            await creating
        except asyncio.CancelledError:
            assert tools.browsers_of(state_dir) == []
        else:  # it was faster
            await local.close(f"s{pause}")
        assert await local.list() == []


async def test_parallel_creates_share_one_process_and_a_cancelled_one_does_not_end_it(
    shared, state_dir, tools
):
    creating = [asyncio.create_task(shared.create(tools.spec(f"s{i}"))) for i in range(5)]
    await asyncio.sleep(0.02)
    creating[0].cancel()
    made = await asyncio.gather(*creating, return_exceptions=True)
    assert isinstance(made[0], asyncio.CancelledError)
    assert len({s.pid for s in made[1:]}) == 1
    assert all(s.shared for s in made[1:])
    assert len(list(state_dir.glob("run-*/*/data"))) == 1


@pytest.mark.parametrize("local", ["process"], indirect=True)
async def test_a_session_per_process_has_a_process_of_its_own(state_dir, losses, tools, local):
    one, two = await asyncio.gather(local.create(tools.spec("s1")), local.create(tools.spec("s2")))
    assert one.pid != two.pid
    assert not one.shared
    await local.close("s1")
    assert not local.alive("s1")
    assert local.alive("s2")
    assert len(list(state_dir.glob("run-*/*/data"))) == 1
    assert losses.told == []


async def test_a_browser_of_another_run_answers_cdp_with_its_address_rewritten(remote_browser, tools):
    from tabkeeper.config import ProviderSettings

    url = remote_browser.replace("127.0.0.1", "localhost") + "/?token=s3cret"
    provider = CdpProvider("far", ProviderSettings(kind="cdp", url=url))
    await provider.start(lambda *_: None)
    made = await provider.create(tools.spec())
    theirs = httpx.get(f"{remote_browser}/json/version").json()["webSocketDebuggerUrl"]
    assert made.connect_url == theirs.replace("127.0.0.1", "localhost") + "?token=s3cret"
