"""When is what the pool does worth an alert? Pure: samples of its counters in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tabkeeper.config import AlertSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The pool's counters at an instant; `creations` and `creations_failed` count from the pool's start."""

    at: datetime
    creations: int = 0
    creations_failed: int = 0
    sessions: int = 0
    unhealthy: int = 0
    longest_wait: float = 0.0
    """Seconds: of all requests that waited, or were served, since the sample before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Something to tell; `key` is the same for all processes that see it within one window."""

    kind: str
    key: str
    detail: str


def judge(samples: Sequence[Sample], settings: AlertSettings) -> list[Verdict]:
    """Judge the latest of `samples` (oldest first) against those of the window before it."""
    if not samples:
        return []
    last = samples[-1]
    start = window_start(last.at, settings.window)
    found: list[Verdict] = []

    def tell(kind: str, detail: str) -> None:
        found.append(Verdict(kind=kind, key=f"{kind}|{start.isoformat()}", detail=detail))

    first = next((one for one in samples if one.at >= last.at - settings.window), last)
    before = next((one for one in reversed(samples) if one.at < first.at), None)
    creations = last.creations - (before.creations if before else 0)
    failed = last.creations_failed - (before.creations_failed if before else 0)
    if creations >= settings.least_creations and failed > creations * settings.creation_failures:
        tell("creation_failures", f"{failed} of the last {creations} creations of sessions failed")
    # One bad look may be the moment between a death and its clearing away; two in a row are not.
    sick = [one for one in samples[-2:] if one.unhealthy > one.sessions * settings.unhealthy]
    if len(sick) == 2:
        tell("unhealthy", f"{last.unhealthy} of {last.sessions} sessions are unhealthy")
    if last.longest_wait > settings.queue_wait.total_seconds():
        tell("queue_wait", f"a request has waited {last.longest_wait:.0f} s for a session")
    return found


def window_start(at: datetime, window: timedelta) -> datetime:
    """Return the beginning of the window that `at` lies in; windows are counted from 1970, the same everywhere."""
    epoch = datetime.fromtimestamp(0, at.tzinfo)
    return epoch + (at - epoch) // window * window
