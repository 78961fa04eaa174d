"""The clock of a shared pool against the database's: never ahead, never back, and behind by little."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabkeeper.clock import FleetClock

ANSWERS = st.lists(
    st.tuples(st.floats(0, 60), st.floats(0.0001, 3), st.floats(0, 1)), min_size=1, max_size=30
)  # seconds of nothing, seconds that an answer takes, the part of them after which the database reads its clock


class OnPaper(FleetClock):
    """Its machine's monotonic clock is a number."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.here = 1000.0
        patch.setattr("time.monotonic", lambda: self.here)
        super().__init__()

    def ask(self, ahead: float, seconds: float, part: float) -> None:
        sent = self.here
        self.here += seconds
        self.heard(sent + part * seconds + ahead, sent, self.here)


@given(answers=ANSWERS, ahead=st.floats(0, 1e9), drift=st.floats(-0.0004, 0.0004))
def test_it_is_never_ahead_of_the_database_and_behind_by_no_more_than_an_answer_takes(
    answers: list[tuple[float, float, float]], ahead: float, drift: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock, read = OnPaper(patch), -math.inf
        for idle, seconds, part in answers:
            clock.here += idle
            if read > -math.inf:
                assert clock.monotonic() <= clock.here * (1 + drift) + ahead + 1e-3
            clock.ask(ahead + drift * clock.here, seconds, part)
            truth = clock.here * (1 + drift) + ahead
            assert truth - seconds - 0.01 <= clock.monotonic() <= truth + 2e-3
            assert clock.monotonic() >= read
            read = clock.monotonic()


def test_a_fast_answer_counts_for_more_than_slow_ones_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = OnPaper(monkeypatch)
    clock.ask(5.0, 0.001, 0.5)
    for _ in range(10):
        clock.ask(5.0, 0.4, 1.0)
    assert clock.here + 5.0 - clock.monotonic() < 0.005


def test_a_database_whose_clock_was_set_is_followed_but_time_never_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = OnPaper(monkeypatch)
    clock.ask(5.0, 0.001, 0.5)
    before = clock.monotonic()
    clock.ask(-5.0, 0.001, 0.5)
    assert clock.monotonic() == before
    clock.here += 20.0
    assert clock.here - 5.02 < clock.monotonic() <= clock.here - 5.0
