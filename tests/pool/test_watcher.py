"""Who takes part in a shared board is taken for dead in time, and by nobody who was held up himself."""

from __future__ import annotations

from itertools import accumulate, count

from tabkeeper.pool.shared.watcher import Watcher

HEARTBEAT = 10.0
OTHER = {2: ("elsewhere", 1, 1)}


def seconds_until_gone(pause: float) -> float:
    """Watch somebody who is silent, looking at such intervals."""
    watcher = Watcher(HEARTBEAT)
    return next(at for at in count(0.0, pause) if watcher.look({2: 7}, OTHER, "here", at))


def test_who_is_silent_for_a_heartbeat_is_gone() -> None:
    assert seconds_until_gone(1.0) == HEARTBEAT


def test_who_is_always_held_up_notices_too() -> None:
    assert seconds_until_gone(6.0) < 3 * HEARTBEAT


def test_who_was_held_up_for_long_gives_the_others_time() -> None:
    watcher = Watcher(HEARTBEAT)
    instants = accumulate([0.0, 1.0, 3600.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert not any(watcher.look({2: 7}, OTHER, "here", at) for at in instants)


def test_who_speaks_again_is_watched_anew() -> None:
    watcher = Watcher(HEARTBEAT)
    for at in range(100):
        assert not watcher.look({2: at // 9}, OTHER, "here", float(at))


def test_who_never_spoke_is_gone_after_a_heartbeat() -> None:
    watcher = Watcher(HEARTBEAT)
    found = [watcher.look({2: None}, OTHER, "here", float(at)) for at in range(11)]
    assert found == [[]] * 10 + [[(2, False)]]
