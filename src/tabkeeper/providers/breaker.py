"""When a provider account may be asked for one more session: after failures, too many calls, too many sessions. Pure.

All that depends on time is kept as instants, so that a planner can see when to look again. Chance is handed in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, assert_never

from tabkeeper.clock import Instant

NEVER: Instant = float("inf")
_MINUTE = 60.0

Kind = Literal["failure", "lasting", "rate", "capacity"]
"""What went wrong: it failed; it will fail again for the same reason; too many calls; too many sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """A create call that brought no session."""

    kind: Kind
    base: float
    """First pause in seconds; it doubles."""
    longest: float
    """Longest pause, unless the provider asks for a longer one."""
    retry_after: float | None = None
    """Seconds that the provider asked us to wait."""
    jitter: float = 1.0
    """Chance: the pause is multiplied by this."""

    def pause(self, step: int) -> float:
        """Return for how many seconds the provider is left alone after the `step`-th setback in a row, from 1."""
        if self.kind == "lasting":
            wait = self.longest
        else:
            wait = min(self.longest, self.base * 2.0 ** min(step - 1, 40)) * self.jitter
        return wait if self.retry_after is None else max(wait, self.retry_after)


class Breaker:
    """Closed while creations succeed; open after failures; then half-open: one session is tried, and decides.

    Every failure pauses the provider, twice as long as the one before; at `threshold` failures in a row it is open.
    Failures of calls that were sent before the last one came back belong to the same trouble: they count,
    but do not lengthen the pause again.
    """

    __slots__ = ("_last_failure", "_step", "failures", "probe", "resume_at", "threshold")

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self.failures = 0
        """In a row."""
        self.resume_at: Instant = 0.0
        self.probe: str | None = None
        """The session that is tried while half-open."""
        self._step = 0
        self._last_failure: Instant | None = None

    @property
    def is_open(self) -> bool:
        """Whether only one session at a time may be tried, once the pause is over."""
        return self.failures >= self.threshold

    def state(self, now: Instant) -> str:
        """Say it in a word."""
        if not self.is_open:
            return "closed"
        return "open" if now < self.resume_at and self.probe is None else "half-open"

    @property
    def free_at(self) -> Instant:
        """From when on a session may be created."""
        return NEVER if self.probe is not None else self.resume_at

    def began(self, session: str) -> None:
        """A session is being created."""
        if self.is_open:
            self.probe = session

    def ended(self, session: str) -> None:
        """Its creation is over, however."""
        if self.probe == session:
            self.probe = None

    def failed(self, setback: Setback, *, begun: Instant, now: Instant) -> None:
        """A creation that was begun at `begun` failed."""
        self.failures = self.threshold if setback.kind == "lasting" else self.failures + 1
        if self._last_failure is None or begun >= self._last_failure:
            self._step += 1
        self._last_failure = now
        self.resume_at = max(self.resume_at, now + setback.pause(max(1, self._step)))

    def succeeded(self) -> None:
        """A session was created, so the provider works."""
        self.failures = self._step = 0
        self.resume_at = 0.0
        self.probe = None
        self._last_failure = None


class Pace:
    """How many creations a minute: as configured, and less for a while when the provider says "too many".

    In no minute are there more than `per_minute`, a tenth of them at once. After a refusal, three quarters of
    what went through in the minute before are learnt; each good minute gives a quarter back.
    """

    __slots__ = (
        "_changed_at",
        "_due_at",
        "_first_refused",
        "_pause_step",
        "_recent",
        "blocked_until",
        "configured",
        "learnt",
    )

    def __init__(self, per_minute: int | None) -> None:
        self.configured = per_minute
        self.learnt: int | None = None
        self.blocked_until: Instant = 0.0
        self._due_at: Instant = 0.0
        self._recent: deque[Instant] = deque(maxlen=256)
        self._changed_at: Instant = -NEVER
        self._first_refused = 0
        self._pause_step = 0

    @property
    def per_minute(self) -> int | None:
        """Creations a minute; None without a limit."""
        return self.configured if self.learnt is None else self.learnt

    @property
    def free_at(self) -> Instant:
        """From when on a session may be created."""
        rate = self.per_minute
        if rate is None:
            return self.blocked_until
        burst, interval = _shape(rate)
        return max(self.blocked_until, self._due_at - (burst - 1) * interval)

    def took(self, now: Instant) -> None:
        """A session is being created."""
        self._recent.append(now)
        rate = self.per_minute
        if rate is not None:
            self._due_at = max(self._due_at, now) + _shape(rate)[1]

    def refused(self, setback: Setback, *, begun: Instant, now: Instant) -> None:
        """The provider said that there are too many calls."""
        if begun < self._changed_at:  # sent before we slowed down
            self.wait_until(now + (setback.retry_after or 0.0))
            return
        self._pause_step += 1
        self.wait_until(now + setback.pause(self._pause_step))
        seen = sum(at > now - _MINUTE for at in self._recent)
        if self.learnt is None:
            self._first_refused = max(2, seen)
        rate = self.per_minute
        self.learnt = max(1, ((seen if rate is None else min(seen, rate)) - 1) * 3 // 4)
        self._changed_at = now
        self._due_at = max(self._due_at, now)

    def wait_until(self, at: Instant) -> None:
        """Create nothing before then."""
        self.blocked_until = max(self.blocked_until, at)

    def succeeded(self, now: Instant) -> None:
        """A session was created."""
        self._pause_step = 0
        if self.learnt is None or now < self._changed_at + _MINUTE:
            return
        self._changed_at = now
        self.learnt += max(1, self.learnt // 4)
        enough = 2 * self._first_refused if self.configured is None else self.configured
        if self.learnt >= enough:
            self.learnt = None


def _shape(per_minute: int) -> tuple[int, float]:
    """How many at once, and seconds between the others, so that no minute has more than `per_minute`."""
    burst = max(1, per_minute // 10)
    return burst, _MINUTE / (per_minute - burst + 1)


class Ceiling:
    """How many sessions at once: as configured or told by the provider, and what its refusals teach.

    After a refusal it is what lives there; then one more is tried now and then: after 30 s, and twice as long
    after each attempt in vain, up to 10 minutes.
    """

    __slots__ = ("_interval", "configured", "learnt", "raise_at", "told", "trying")

    FIRST, LAST = 30.0, 600.0

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self.told: int | None = None
        """What the provider's own figures say."""
        self.learnt: int | None = None
        self.trying = False
        """One more than learnt is tried."""
        self.raise_at: Instant = NEVER
        """When one more will be."""
        self._interval = self.FIRST

    @property
    def limit(self) -> int:
        """Sessions at once."""
        most = self.configured if self.told is None else min(self.configured, self.told)
        return most if self.learnt is None else min(most, self.learnt + self.trying)

    def tick(self, now: Instant) -> bool:
        """Try one more if it is time; True if so."""
        if now < self.raise_at:
            return False
        self.trying, self.raise_at = True, NEVER
        return True

    def refused(self, others: int, now: Instant) -> None:
        """The provider has no place for one more beside `others` of ours."""
        others = max(1, others)
        self.learnt = others if self.learnt is None else min(self.learnt, others)
        self._interval = min(self._interval * 2, self.LAST) if self.trying else self._interval
        self.trying = False
        self.raise_at = now + self._interval

    def succeeded(self, alive: int, now: Instant) -> None:
        """A session was created; `alive` of ours live there now."""
        if self.learnt is None or alive <= self.learnt:
            return
        self.learnt, self.trying, self._interval = alive, False, self.FIRST
        self.raise_at = now + self._interval
        if alive >= (self.configured if self.told is None else min(self.configured, self.told)):
            self.learnt, self.raise_at = None, NEVER


class Gate:
    """Breaker, pace and ceiling of one provider account: when, and up to how many, sessions may be created."""

    __slots__ = ("_capacity_step", "breaker", "ceiling", "last_error", "pace")

    def __init__(self, limit: int, *, threshold: int = 3, per_minute: int | None = None) -> None:
        self.breaker = Breaker(threshold)
        self.pace = Pace(per_minute)
        self.ceiling = Ceiling(limit)
        self.last_error = ""
        self._capacity_step = 0

    @property
    def free_at(self) -> Instant:
        """From when on one more session may be created: `NEVER` while one is being tried."""
        return max(self.breaker.free_at, self.pace.free_at)

    def began(self, session: str, now: Instant) -> None:
        """A session is being created."""
        self.breaker.began(session)
        self.pace.took(now)

    def ended(self, session: str) -> None:
        """A session is no longer being created, whatever came of it."""
        self.breaker.ended(session)

    def succeeded(self, alive: int, now: Instant) -> None:
        """A session was created; `alive` of ours live there now."""
        self.breaker.succeeded()
        self.pace.succeeded(now)
        self.ceiling.succeeded(alive, now)
        self._capacity_step = 0

    def failed(self, setback: Setback, *, begun: Instant, others: int, now: Instant, error: str) -> None:
        """A creation that was begun at `begun`, beside `others`, brought no session."""
        self.last_error = error
        if setback.retry_after is not None:
            self.pace.wait_until(now + setback.retry_after)  # whatever succeeds meanwhile
        match setback.kind:
            case "failure" | "lasting":
                self.breaker.failed(setback, begun=begun, now=now)
            case "rate":
                self.pace.refused(setback, begun=begun, now=now)
            case "capacity":
                self._capacity_step += 1
                self.ceiling.refused(others, now)
                self.pace.wait_until(now + setback.pause(self._capacity_step))
            case _:
                assert_never(setback.kind)
