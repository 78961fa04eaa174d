"""A living process never looks dead, a dead one never looks alive."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tabkeeper.liveness import lives, realm, started_at


def test_this_very_process_lives_whatever_the_wall_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pid = psutil.Process().pid
    started = started_at(pid)
    assert started is not None
    assert lives(pid, started)
    real = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 7200)
    assert lives(pid, started), "a clock set two hours forward has killed us"


def test_a_process_that_ended_or_was_never_reaped_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = started_at(process.pid)
    assert started is not None
    assert lives(process.pid, started)
    process.kill()
    psutil.wait_procs([psutil.Process(process.pid)], timeout=0.2)  # it stays a zombie until we wait for it
    assert not lives(process.pid, started)
    process.communicate()
    assert not lives(process.pid, started)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells of threads")
def test_a_process_lives_until_its_last_thread_has_ended() -> None:
    """A killed process ends thread by thread, the first one often first; until the last, its connections are open."""
    script = (
        "import ctypes, sys, threading\n"
        "threading.Thread(target=sys.stdin.read).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    started = started_at(process.pid)
    assert started is not None
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert lives(process.pid, started)
    process.kill()
    while lives(process.pid, started):
        time.sleep(0.01)
    process.communicate()


def test_another_process_with_the_same_number_is_not_the_same() -> None:
    pid = psutil.Process().pid
    started = started_at(pid)
    assert started is not None
    assert not lives(pid, started - 5_000_000)


def test_the_realm_is_the_same_for_the_same_boot() -> None:
    assert realm() == realm()
    assert "/" in realm()
