"""How well a session is: one score from 0 to 1, what lowers and lifts it, and when a session is past saving.

Pure arithmetic on what was seen; `checkup.py` looks and acts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Trouble = Literal["timeout", "network", "other"]

COST: Mapping[Trouble, float] = {"timeout": 0.2, "network": 0.1, "other": 0.3}
"""What an error in `Lease.use` takes from the score."""

SAMPLES = 5
"""Navigations that make a baseline, and as many of the latest that are held against it."""

MB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a session is not well; seconds, bytes and factors."""

    memory: int = 500 * MB
    unhealthy_below: float = 0.5
    recovery: float = 0.3
    slow_factor: float = 3.0
    slow_floor: float = 2.0
    memory_factor: float = 2.0
    memory_floor: int = 200 * MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one look at a session found."""

    answered: bool
    detail: str = ""
    """Why it did not answer."""
    seconds: float = 0.0
    memory: int | None = None
    """Bytes; None where nobody can tell."""


@dataclass(slots=True, eq=False)
class Health:
    """The health of one session."""

    score: float = 1.0
    verdict: str = ""
    """Why the session must be replaced as soon as nobody uses it; empty if it need not."""
    silent: bool = False
    """It did not answer the last look at it."""
    memory: int | None = None
    """Bytes at the last look."""
    memory_first: int | None = None
    """Bytes at the first check, when nobody used it."""
    first: list[float] = field(default_factory=list)
    """Seconds of the first navigations: the session's own baseline."""
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def hurt(self, kind: Trouble) -> None:
        """An operation on the session failed."""
        self.score = max(0.0, round(self.score - COST[kind], 6))

    def recover(self, limits: Limits) -> None:
        """A check was passed."""
        self.score = min(1.0, round(self.score + limits.recovery, 6))

    def is_sick(self, limits: Limits) -> bool:
        """Say whether the session must recover before anybody gets it."""
        return self.score < limits.unhealthy_below

    def navigated(self, seconds: float) -> None:
        """A document was loaded; the first few are the baseline."""
        if len(self.first) < SAMPLES:
            self.first.append(seconds)
        else:
            self.latest.append(seconds)

    def decline(self, limits: Limits) -> str:
        """Say what is so bad that the session should be replaced once nobody uses it; empty if nothing."""
        if self.verdict:
            return self.verdict
        if self.memory is not None and self.memory > limits.memory:
            return f"memory: {self.memory // MB} MB of {limits.memory // MB} MB"
        if len(self.latest) == SAMPLES:
            then, now = median(self.first), median(self.latest)
            if now > max(limits.slow_floor, limits.slow_factor * then):
                return f"slow: navigations take {now:.2g} s, {then:.2g} s at first"
        return ""

    def judge(self, probe: Probe, limits: Limits) -> str:
        """Take note of a look at the session; returns why it must be replaced, empty if it is well enough."""
        self.memory = probe.memory
        self.silent = not probe.answered
        if self.memory_first is None:
            self.memory_first = probe.memory
        if not probe.answered:
            self.score = 0.0
            self.verdict = f"unhealthy: {probe.detail}"
        else:
            self.verdict = self.decline(limits) or self._swollen(limits)
        if not self.verdict:
            self.recover(limits)
        return self.verdict

    def _swollen(self, limits: Limits) -> str:
        """Pages that are open may need much, so only what an idle session uses is held against its first figure."""
        if self.memory is None or not self.memory_first:
            return ""
        if self.memory <= max(limits.memory_floor, limits.memory_factor * self.memory_first):
            return ""
        return f"memory: {self.memory // MB} MB, {self.memory_first // MB} MB at first"
