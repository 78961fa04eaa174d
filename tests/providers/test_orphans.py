"""No browser outlives its owner, whatever ends the owner: real owners, real browsers, looked at from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest

from tabkeeper.config import ProviderSettings
from tabkeeper.providers.base import Leftover
from tabkeeper.providers.local import LocalProvider

pytestmark = [pytest.mark.browser, pytest.mark.kill, pytest.mark.usefixtures("whole_browser")]
LOCAL = ProviderSettings(kind="local")


def all_gone(tools, state_dir) -> bool:
    return tools.eventually(
        lambda: not tools.processes_of(state_dir) and not list(state_dir.glob("run-*")), seconds=8
    )


@pytest.mark.parametrize("mode", ["return", "raise", "aclose"])
def test_nothing_is_left_when_the_owner_ends_by_itself(owner, state_dir, tools, mode):
    dying = owner(mode)
    assert dying.process.wait(15) == (1 if mode == "raise" else 0)
    assert all_gone(tools, state_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_owner_is_told_to_end(owner, state_dir, tools, number):
    dying = owner("wait")
    assert tools.browsers_of(dying.run_dir)
    dying.kill(number)
    assert all_gone(tools, state_dir)


def test_nothing_is_left_of_a_process_per_session_either(owner, state_dir, tools):
    dying = owner("wait", "process")
    dying.kill()
    assert all_gone(tools, state_dir)


def test_a_forked_child_that_holds_the_lifeline_open_does_not_keep_browsers_alive(owner, state_dir, tools):
    dying = owner("fork")
    dying.kill()
    assert tools.eventually(lambda: not tools.browsers_of(dying.run_dir))
    assert psutil.pid_exists(dying.child)


def test_the_watchdog_is_deaf_to_what_stops_a_whole_service(owner, state_dir, tools):
    dying = owner("wait")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(dying.watchdog, number)
    dying.kill(signal.SIGKILL)
    assert all_gone(tools, state_dir)


async def test_killed_with_its_watchdog_the_next_start_reaps(owner, state_dir, tools, losses):
    dying = owner("wait")
    os.kill(dying.watchdog, signal.SIGKILL)
    dying.kill()
    time.sleep(0.5)
    assert tools.browsers_of(dying.run_dir), "control: nobody but the next start can end it"
    provider = LocalProvider("local", LOCAL, state_dir=state_dir)
    await provider.start(losses)
    assert not tools.processes_of(dying.run_dir)
    assert not dying.run_dir.exists()
    await provider.aclose()


async def test_control_without_a_watchdog_an_orphan_stays_until_reaped_by_its_recorded_pid(
    owner, state_dir, tools
):
    dying = owner("no-watchdog")
    dying.kill()
    time.sleep(0.5)
    assert dying.browser in [p.pid for p in tools.browsers_of(dying.run_dir)]
    # Another state directory: only what the ledger remembers leads to it.
    provider = LocalProvider("local", LOCAL, state_dir=state_dir / "elsewhere")
    wrong = Leftover(
        session_id="a", provider_session_id="a", pid=dying.browser, pid_started=dying.browser_started - 60
    )
    await provider.reap([wrong])
    assert tools.browsers_of(dying.run_dir), "another start time is another process"
    right = Leftover(
        session_id="a", provider_session_id="a", pid=dying.browser, pid_started=dying.browser_started
    )
    await provider.reap([right])
    assert not tools.processes_of(dying.run_dir)
    assert not dying.run_dir.exists()


async def test_a_browser_whose_owner_lives_is_never_reaped(owner, state_dir, tools, losses):
    living = owner("wait")
    provider = LocalProvider("local", LOCAL, state_dir=state_dir)
    await provider.start(losses)
    leftover = Leftover(
        session_id="a", provider_session_id="a", pid=living.browser, pid_started=living.browser_started
    )
    await provider.reap([leftover])
    assert psutil.pid_exists(living.browser)
    assert psutil.Process(living.browser).status() != psutil.STATUS_ZOMBIE
    assert living.run_dir.exists()
    await provider.aclose()


async def test_a_namesake_that_is_no_browser_of_ours_is_never_killed(state_dir, losses):
    stranger = subprocess.Popen(["sleep", "30"])
    try:
        provider = LocalProvider("local", LOCAL, state_dir=state_dir)
        started = psutil.Process(stranger.pid).create_time()
        leftover = Leftover(session_id="a", provider_session_id="a", pid=stranger.pid, pid_started=started)
        await provider.reap(
            [leftover, Leftover(session_id="b", provider_session_id=None, pid=None, pid_started=None)]
        )
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_dead_watchdog_is_replaced_and_the_new_one_knows_everything(state_dir, tools, losses):
    provider = LocalProvider(
        "local", ProviderSettings(kind="local", isolation="process"), state_dir=state_dir
    )
    await provider.start(losses)
    await provider.create(tools.spec("s1"))
    lifeline = provider._processes._lifeline
    old = lifeline.pid
    os.kill(old, signal.SIGKILL)
    assert tools.eventually(lambda: lifeline._process.poll() is not None)
    await provider.create(tools.spec("s2"))
    assert lifeline.pid != old
    assert len(lifeline._groups) == 2
    # What the lifeline is for: its end, without a goodbye, ends both.
    await lifeline.end(clean=False)
    assert not tools.browsers_of(state_dir)
    await provider.aclose()
