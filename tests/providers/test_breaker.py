"""When a provider may be asked again: breaker, pace and ceiling, as stories and as laws."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tabkeeper.providers.breaker import NEVER, Breaker, Ceiling, Gate, Pace, Setback


def setback(kind="failure", **changes) -> Setback:
    return Setback(kind=kind, **({"base": 1.0, "longest": 30.0} | changes))


def fail(gate: Gate, now: float, **changes) -> None:
    gate.failed(setback(**changes), begun=now, others=0, now=now, error="x")


# ── breaker ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pauses_double_up_to_the_longest_and_a_success_forgets_them():
    gate = Gate(10)
    now, pauses = 0.0, []
    for _ in range(8):
        fail(gate, now)
        pauses.append(gate.free_at - now)
        now = gate.free_at
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    gate.succeeded(1, now)
    assert gate.free_at <= now
    fail(gate, now)
    assert gate.free_at - now == 1


def test_jitter_stretches_the_pause():
    gate = Gate(10)
    fail(gate, 0.0, jitter=1.25)
    assert gate.free_at == 1.25


def test_after_enough_failures_one_session_at_a_time_is_tried():
    breaker = Breaker(2)
    breaker.failed(setback(), begun=0, now=0)
    assert breaker.state(0) == "closed"
    breaker.began("a")
    assert breaker.free_at < NEVER
    breaker.failed(setback(), begun=1, now=1)
    assert (breaker.state(1), breaker.state(3)) == ("open", "half-open")
    breaker.began("probe")
    assert breaker.free_at == NEVER
    breaker.ended("another")
    assert breaker.free_at == NEVER
    breaker.ended("probe")
    assert breaker.free_at == 3, "it said nothing, so the next may be tried"
    breaker.began("next")
    breaker.succeeded()
    assert (breaker.state(3), breaker.free_at) == ("closed", 0)


def test_ten_failures_of_one_burst_are_one_trouble():
    breaker = Breaker(3)
    for n in range(10):
        breaker.failed(setback(), begun=0, now=5 + n / 10)
    assert breaker.is_open
    assert breaker.resume_at == 5.9 + 1


def test_a_lasting_error_opens_at_once_and_for_the_longest_pause():
    gate = Gate(10)
    fail(gate, 0.0, kind="lasting")
    assert gate.breaker.state(0) == "open"
    assert gate.free_at == 30


def test_retry_after_is_obeyed_even_if_a_session_succeeds_meanwhile():
    for kind in ("failure", "lasting", "rate", "capacity"):
        gate = Gate(10)
        fail(gate, 0.0, kind=kind, retry_after=300.0)
        gate.succeeded(1, 1.0)
        assert gate.free_at == 300, kind


# ── pace ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 400), st.lists(st.floats(0, 30), min_size=1, max_size=300))
def test_no_minute_has_more_than_configured(per_minute, pauses):
    pace, now, taken = Pace(per_minute), 0.0, []
    for pause in pauses:
        now = max(now + pause, pace.free_at)
        pace.took(now)
        taken.append(now)
    for i, start in enumerate(taken):
        assert sum(start <= at < start + 60 - 1e-6 for at in taken[i:]) <= per_minute


def test_the_configured_pace_is_reached():
    pace, now, number = Pace(60), 0.0, 0
    while (now := max(now, pace.free_at)) < 600:
        pace.took(now)
        number += 1
    assert 540 <= number <= 610


def test_too_many_calls_teach_a_pace_and_good_minutes_give_it_back():
    pace = Pace(None)
    for n in range(21):
        pace.took(n / 10)
    pace.refused(setback("rate"), begun=2.0, now=2.1)
    assert pace.learnt == 15
    assert pace.free_at >= 3.1
    pace.refused(setback("rate"), begun=1.9, now=2.2)
    assert pace.learnt == 15, "what was sent before we slowed down teaches nothing new"
    now, seen = 2.1, []
    while pace.learnt is not None:
        now += 60
        pace.succeeded(now)
        seen.append(pace.learnt)
    assert seen == [18, 22, 27, 33, 41, None]


def test_a_second_refusal_slows_down_further_but_never_to_nothing():
    pace, now = Pace(100), 0.0
    rates = []
    for _ in range(12):
        now = max(now, pace.free_at)
        pace.took(now)
        pace.refused(setback("rate"), begun=now, now=now)
        rates.append(pace.learnt)
        now += 0.1
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 1


# ── ceiling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_teaches_how_many_live_there_and_one_more_is_tried_later():
    ceiling = Ceiling(25)
    ceiling.refused(3, 0.0)
    assert ceiling.limit == 3
    assert not ceiling.tick(29)
    assert ceiling.tick(30)
    assert (ceiling.limit, ceiling.raise_at) == (4, NEVER)
    ceiling.refused(3, 31.0)
    assert (ceiling.limit, ceiling.raise_at) == (3, 91)
    ceiling.tick(91)
    ceiling.succeeded(4, 92)
    assert (ceiling.limit, ceiling.raise_at) == (4, 122)


def test_a_ceiling_that_is_reached_again_is_forgotten():
    ceiling = Ceiling(4)
    ceiling.refused(3, 0.0)
    ceiling.tick(30)
    ceiling.succeeded(4, 31)
    assert (ceiling.learnt, ceiling.limit, ceiling.raise_at) == (None, 4, NEVER)


def test_the_providers_own_figure_bounds_it():
    ceiling = Ceiling(25)
    ceiling.told = 5
    assert ceiling.limit == 5
    ceiling.refused(2, 0)
    assert ceiling.limit == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 700)), max_size=60))
def test_a_ceiling_stays_between_one_and_what_is_configured(events):
    ceiling, now = Ceiling(10), 0.0
    for refused, number, pause in events:
        now += pause
        ceiling.tick(now)
        if refused:
            ceiling.refused(number, now)
            assert now < ceiling.raise_at <= now + Ceiling.LAST, "there is always another try"
        else:
            ceiling.succeeded(min(number, ceiling.limit), now)
        assert 1 <= ceiling.limit <= 10


# ── all of it ───────────────────────────────────────────────────────────────────────────────────────────────────────


class GateLife(RuleBasedStateMachine):
    """A caller who asks only when the gate is free, and a provider that does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(5, threshold=2, per_minute=30)
        self.now = 0.0
        self.creating: dict[str, float] = {}
        self.number = 0
        self.deaf_until = 0.0

    @precondition(lambda self: self.gate.free_at <= self.now)
    @rule()
    def begin(self) -> None:
        assert self.now >= self.deaf_until, "Retry-After was not obeyed"
        if self.gate.breaker.is_open:
            assert self.gate.breaker.probe is None, "two are tried at once"
        self.number += 1
        name = f"s{self.number}"
        self.gate.began(name, self.now)
        self.creating[name] = self.now

    @precondition(lambda self: self.creating)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["well", "nothing", "failure", "lasting", "rate", "capacity"]),
        after=st.none() | st.integers(1, 90),
    )
    def end(self, data, kind, after) -> None:
        name = data.draw(st.sampled_from(sorted(self.creating)))
        begun = self.creating.pop(name)
        if kind == "well":
            self.gate.succeeded(1, self.now)
            assert self.gate.breaker.state(self.now) == "closed"
        elif kind != "nothing":
            self.gate.failed(setback(kind, retry_after=after), begun=begun, others=3, now=self.now, error="x")
            if after is not None:
                self.deaf_until = max(self.deaf_until, self.now + after)
        self.gate.ended(name)

    @rule(seconds=st.integers(1, 100))
    def wait(self, seconds) -> None:
        self.now += seconds
        self.gate.ceiling.tick(self.now)

    @invariant()
    def it_is_never_shut_for_ever(self) -> None:
        if self.gate.free_at == NEVER:
            assert self.gate.breaker.probe in self.creating, "shut, and nobody is being tried"
        else:
            assert self.gate.free_at <= self.now + 100


TestGateLife = GateLife.TestCase
TestGateLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
