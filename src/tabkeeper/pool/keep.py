"""How long an idle session is worth keeping, and what an idle session's place is worth when room is needed.

The rule "value" chooses the idle time with the least expected bill: the provider's own meter over the lane's learnt
gaps (`gaps`). It never ends a session inside time that is paid for already. It knows neither budgets nor limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import exp
from statistics import fmean

from tabkeeper.clock import Instant
from tabkeeper.pool.ahead import LEAST_SEEN, best_window
from tabkeeper.pool.gaps import EDGES, MIDS, Gaps, median
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import Ahead, Lane, Rules, Session, Verdict

MARGIN = 1.0
"""Seconds before the end of paid time at which a session is closed, so that its end does not cost another step."""

_SETUP_SHARE = 0.2
"""Weight of the newest creation in the mean time that creations take."""

_TIE = 1_000.0
"""Nano-dollars a cold start counts as at least when places are weighed: free sessions differ by their use alone."""

_LONGEST_NEUTRAL = 3600.0

_NEGLIGIBLE = 1e-3
"""A chance too small to look further for."""


class Keeper:
    """Decides for one pool, from its rules, its providers' meters and what it has learnt."""

    def __init__(self, rules: Rules, meters: Mapping[str, Meter]) -> None:
        self._rules = rules
        self._meters = {name: meter for name, meter in meters.items() if not meter.is_free}
        self._setup: dict[str, float] = {}
        self.gaps = Gaps()

    # ── what it is told ────────────────────────────────────────────────────────────────────────────────────────────

    def created(self, session: Session, now: Instant) -> None:
        """A session became ready; its creation took that long, and was metered."""
        self.creation_took(session.provider, now - session.created_at)

    def creation_took(self, provider: str, took: float) -> None:
        """A creation took so many seconds, in this run or an earlier one."""
        known = self._setup.get(provider)
        self._setup[provider] = took if known is None else known + _SETUP_SHARE * (took - known)

    # ── how long ───────────────────────────────────────────────────────────────────────────────────────────────────

    def decide(self, session: Session, now: Instant) -> Verdict:
        """Say until when a session that idles since `now` is kept; never past its fresh time."""
        rules = self._rules.platforms[session.lane.platform]
        level = self.gaps.level(session.lane)
        meter = self._meters.get(session.provider)
        if session.ahead is not None and not session.uses:
            return _as_planned(session, session.ahead, meter, now)
        rule = rules.keep
        if rule == "value":
            if meter is not None:
                return self._by_value(session, meter, level, rules.cold_start, now)
            rule = "fixed"
        hold = {"fixed": rules.idle_timeout, "always": float("inf"), "never": 0.0}[rule]
        until = min(now + hold, max(session.fresh_until, now))
        return Verdict(rule=rule, decided_at=now, until=until, level=level, age=now - session.created_at)

    def _by_value(
        self, session: Session, meter: Meter, level: int, cold_start: float, now: Instant
    ) -> Verdict:
        age, lane = now - session.created_at, session.lane
        durations = self.gaps.durations(lane)
        fresh, law = self._fresh(session.provider, meter, lane, level)
        fresh += cold_start
        room = max(0.0, session.fresh_until - now)
        hold, expected, chance = _best_hold(meter, age, durations, law, fresh, room)
        return Verdict(
            rule="value",
            decided_at=now,
            until=now + hold,
            level=level,
            age=age,
            paid_for=max(0.0, meter.paid_until(age) - age),
            gaps_seen=self.gaps.seen(lane, level),
            chance=chance,
            fresh=fresh,
            waiting=meter.bill(age + hold) - meter.bill(age),
            expected=expected,
            gap=median(law),
            rate=meter.rate,
            fee=meter.fee,
            cold_start=cold_start,
        )

    def _fresh(self, provider: str, meter: Meter, lane: Lane, level: int) -> tuple[float, list[float]]:
        """What a new session for one more lease costs, and the law of the next gap."""
        durations = self.gaps.durations(lane)
        setup = self._setup.get(provider, 0.0)
        ends = [setup + seconds for seconds in durations]
        fresh = meter.mean_bill(setup, durations)
        extra = max(0.0, fresh - meter.rate * fmean(durations))
        mean = min(extra / meter.rate, _LONGEST_NEUTRAL) if meter.rate else _LONGEST_NEUTRAL
        law = self.gaps.law(lane, level, neutral(float(f"{mean:.2g}")))
        if ends[0] < meter.linear_from:
            # Paid time that the new session has left over is worth something, if the next caller comes in it.
            spare = fmean([_within(law, meter.paid_until(end) - end) for end in ends])
            fresh -= extra * spare / 2
        return fresh, law

    # ── before anybody asks ────────────────────────────────────────────────────────────────────────────────────────

    def ahead(self, lane: Lane, provider: str, now: Instant) -> Ahead | None:
        """Say when to create a session that nobody asked for yet, now that the lane has none; None if never.

        Only for lanes that anybody may use through any proxy: of others there may be very many.
        """
        left_at, seen = self.gaps.left_at(lane), self.gaps.seen(lane, 0)
        if left_at is None or seen < LEAST_SEEN or lane.identity is not None or lane.proxy is not None:
            return None
        meter = self._meters.get(provider)
        worth = self._rules.platforms[lane.platform].cold_start
        law = self.gaps.law(lane, 0, neutral(_LONGEST_NEUTRAL))
        setup, durations = self._setup.get(provider, 0.0), self.gaps.durations(lane)
        window = best_window(meter, law, empty=now - left_at, setup=setup, durations=durations, worth=worth)
        if window is None:
            return None
        return Ahead(
            at=max(now, left_at + window.start),
            until=left_at + window.end,
            left_at=left_at,
            provider=provider,
            gain=window.gain,
            worth=worth,
            in_vain=window.in_vain,
            chance=window.chance,
            gaps_seen=seen,
        )

    # ── whose place is worth least ─────────────────────────────────────────────────────────────────────────────────

    def value(self, session: Session, now: Instant) -> float:
        """What an idle session's place is worth: nano-dollars saved for each second it is kept, at best.

        Compares sessions at a limit; the least goes first. It falls as a session idles in vain.
        """
        assert session.verdict is not None, session
        unused = session.ahead if not session.uses else None
        idle, level = now - (unused.left_at if unused else session.idle_since), session.verdict.level
        cold_start = self._rules.platforms[session.lane.platform].cold_start
        meter = self._meters.get(session.provider)
        if meter is None:
            law = self.gaps.law(session.lane, level, neutral(_LONGEST_NEUTRAL))
            return _rate_of_gain(None, 0.0, (), law, cold_start + _TIE, idle)
        fresh, law = self._fresh(session.provider, meter, session.lane, level)
        durations = self.gaps.durations(session.lane)
        return _rate_of_gain(meter, now - session.created_at, durations, law, fresh + cold_start + _TIE, idle)


def _as_planned(session: Session, ahead: Ahead, meter: Meter | None, now: Instant) -> Verdict:
    return Verdict(
        rule="prewarm",
        decided_at=now,
        until=min(ahead.until, max(session.fresh_until, now)),
        level=0,
        age=now - session.created_at,
        gaps_seen=ahead.gaps_seen,
        chance=ahead.chance,
        waiting=ahead.in_vain,
        rate=0.0 if meter is None else meter.rate,
        fee=0.0 if meter is None else meter.fee,
        cold_start=ahead.worth,
    )


def _best_hold(  # noqa: PLR0917 - the terms of one sum
    meter: Meter, age: float, durations: tuple[float, ...], law: list[float], fresh: float, room: float
) -> tuple[float, float, float]:
    """Return the idle time with the least expected cost of the next lease, that cost, and the chance of reuse."""
    paid, linear = meter.bill(age), age >= meter.linear_from
    busy, rate = meter.rate * fmean(durations), meter.rate
    best = (0.0, fresh, 0.0)
    reused, left, at = 0.0, 1.0, 0
    for edge in EDGES if linear else (0.0, *EDGES):
        hold = edge
        if not linear:
            # Within a paid step, waiting is free: only its end is a time to go.
            hold = max(edge, meter.paid_until(age + edge) - age - MARGIN)
            if edge and hold <= best[0]:
                continue
        hold = min(hold, room)
        while at < len(MIDS) and MIDS[at] <= hold:
            gap = MIDS[at]
            cost = rate * gap + busy if linear else meter.mean_bill(age + gap, durations) - paid
            reused += law[at] * cost
            left -= law[at]
            at += 1
        waited = rate * hold if linear else meter.bill(age + hold) - paid
        expected = reused + left * (waited + fresh)
        if expected < best[1] or (not edge and not linear and expected <= best[1]):
            best = (hold, expected, 1.0 - left)
        if hold >= room or left < _NEGLIGIBLE:
            break
    return best


def _rate_of_gain(  # noqa: PLR0917 - the terms of one sum
    meter: Meter | None,
    age: float,
    durations: tuple[float, ...],
    law: list[float],
    fresh: float,
    idle: float,
) -> float:
    """Return the best ratio of expected gain to expected time kept, over all times to keep on.

    `idle` seconds have passed in vain already; gain is what is saved against closing now.
    """
    ahead = [
        (max(gap - idle, 0.1), chance)
        for gap, chance, edge in zip(MIDS, law, (*EDGES, 2 * MIDS[-1]), strict=True)
        if edge > idle
    ]
    left = total = sum(chance for _, chance in ahead)
    if total <= 0:
        return 0.0
    paid = 0.0 if meter is None else meter.bill(age)
    best, gained, kept = float("-inf"), 0.0, 0.0
    for wait, chance in ahead:
        cost = waited = 0.0
        if meter is not None:
            cost = meter.mean_bill(age + wait, durations) - paid
            waited = meter.bill(age + wait) - paid
        gained += chance * (fresh - cost)
        kept += chance * wait
        left -= chance
        rate = (gained - left * waited) / (kept + left * wait)
        best = max(best, rate)
        if left < total * _NEGLIGIBLE:
            break
    return best


def _within(law: list[float], seconds: float) -> float:
    """The chance that the next gap is at most this long."""
    if seconds <= 0:
        return 0.0
    return sum([chance for chance, gap in zip(law, MIDS, strict=True) if gap <= seconds])


@lru_cache(maxsize=256)
def neutral(mean: float) -> list[float]:
    """Return the memoryless law of this mean: where nothing is known, keeping and closing come to the same."""
    if mean <= 0:
        return [1.0] + [0.0] * (len(MIDS) - 1)
    beyond = [1.0, *(exp(-edge / mean) for edge in EDGES), 0.0]
    return [beyond[i] - beyond[i + 1] for i in range(len(MIDS))]
