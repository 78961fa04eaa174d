"""Copies of a shared board decide alike: the same log, the same actions, wherever and from whatever snapshot.

The walks are those that prove the planner; here two copies walk beside the judged board and hear of it only in words.
"""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random
from typing import Any

import pytest

from tabkeeper.pool.shared.entries import Entry
from tabkeeper.pool.shared.reloading import Loader

from . import shadows
from .walk import WORLDS, Walk

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
SEEDS = 40 if PROOF else 1
STEPS = 400 if PROOF else 100


def stroll(world: str, seed: int, steps: int = STEPS) -> shadows.ShadowedBoard:
    walk = Walk(WORLDS[world], board=_module())
    walk.stroll(Random(f"{world} {seed}"), steps)
    return walk.table.board  # type: ignore[return-value]


def _module():
    class Module:
        MemoryBoard = shadows.ShadowedBoard

    return Module


@pytest.mark.parametrize("world", WORLDS)
def test_copies_decide_what_the_judged_board_decides_and_snapshots_lose_nothing(world: str) -> None:
    compared = renewed = 0
    for seed in range(SEEDS):
        board = stroll(world, seed)
        compared += board.compared
        renewed += board.renewed
    assert compared > 15 * SEEDS
    assert renewed > SEEDS


def test_a_copy_whose_snapshot_forgets_an_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what the walks compare would show a copy that is not exact."""

    class Forgetful(shadows.Copy):
        is_exact = False

        def restart(self, seq: int, at: float, total: int) -> None:
            super().restart(seq, at, total)
            self.view._timers.clear()

    monkeypatch.setattr(shadows, "Copy", Forgetful)
    with pytest.raises(AssertionError, match="a copy decides"):
        for world in WORLDS:
            stroll(world, 1, 200)


class Saved:
    """A log that only notes which snapshots were saved."""

    def __init__(self) -> None:
        self.at: list[int] = []

    async def save(self, seq: int, *_: object, **__: object) -> None:
        self.at.append(seq)


async def test_a_snapshot_is_due_by_what_a_newcomer_would_go_through() -> None:
    """Few entries may hold very many events."""
    line, copy = Saved(), shadows.Copy(WORLDS["the pool is the limit"])
    loader: Any = Loader(copy, line, None, None, planner="p", snapshot_every=100, keep_entries=0)  # type: ignore[arg-type]
    copy.apply(Entry(seq=1, at=0.0, home=0, nonce="1", events=[["join", "p", "here", 1, 1]]))
    copy.home = 1
    await loader.save_if_due()
    assert line.at == []
    copy.apply(Entry(seq=2, at=1.0, home=1, nonce="2", events=[["withdraw", n] for n in range(100)]))
    await loader.save_if_due()
    assert line.at == [2]


_SCRIPT = """
import sys
from tests.pool.test_replica import stroll
print([(stroll(w, 3, 60).copies[0].sum) for w in sorted(sys.argv[1:])])
"""


def test_no_order_depends_on_hashes() -> None:
    said = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT, *sorted(WORLDS)[:3]],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert "0" not in said.pop().split()
