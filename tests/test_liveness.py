"""A living process never looks dead, a dead one never looks alive."""

import subprocess
import sys

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


def test_another_process_with_the_same_number_is_not_the_same() -> None:
    pid = psutil.Process().pid
    started = started_at(pid)
    assert started is not None
    assert not lives(pid, started - 5_000_000)


def test_the_realm_is_the_same_for_the_same_boot() -> None:
    assert realm() == realm()
    assert "/" in realm()
