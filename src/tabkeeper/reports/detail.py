"""Parts of a report that go into detail: sessions, tags, alerts, reconciliation, restatements, and what plots show."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import computed_field, model_validator

from tabkeeper.money import ZERO
from tabkeeper.reports.part import Amount, Part


class DearSession(Part):
    """One of the dearest sessions."""

    session_id: str
    platform: str
    provider: str
    tenant: str
    began: datetime
    seconds: float
    leases: int
    outcome: str
    cost: Amount


class SessionCosts(Part):
    """What single sessions cost; None without any, and where there are too many to be sorted."""

    average: Amount | None = None
    p95: Amount | None = None
    dearest: tuple[DearSession, ...] = ()


class TagFigures(Part):
    """The leases with one tag."""

    tag: str
    value: str
    cost: Amount = ZERO
    leases: int = 0


class AlertCount(Part):
    """How many alerts of one kind there were; `amount` is theirs, added up."""

    kind: str
    number: int
    amount: Amount = ZERO


class Raised(Part):
    """One alert."""

    at: datetime
    kind: str
    budget: str | None = None
    session_id: str | None = None
    share: float | None = None
    """The threshold that was reached, as a share of the limit."""
    amount: Amount = ZERO
    limit: Amount | None = None
    detail: str = ""


class Reconciled(Part):
    """What comparisons with one provider came to."""

    provider: str
    looks: int = 0
    sessions: int = 0
    """Compared."""
    waiting: int = 0
    """Sessions whose figures were not there at the last look."""
    ours: Amount = ZERO
    """What was booked for those compared, before."""
    theirs: Amount = ZERO
    adjusted: int = 0
    past: int = 0
    """Differences past the tolerance."""
    failed: int = 0
    """Looks that ended in an error."""

    @model_validator(mode="before")
    @classmethod
    def _take_no_capture(cls, data: Any) -> Any:
        # It is worked out, so what a JSON says of it is not taken over.
        known = data if isinstance(data, dict) else {}
        return {key: value for key, value in known.items() if key != "capture"} if known else data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def capture(self) -> float | None:
        """Which part of the provider's bill we had booked by ourselves; None if it billed nothing."""
        return self.ours.nanos / self.theirs.nanos if self.theirs else None


class Restated(Part):
    """An earlier day whose cost changed."""

    day: str
    sessions: int
    amount: Amount
    """By how much."""
    reported: Amount
    """What the day's report had said."""


class Unusual(Part):
    """An hour of a day, or a day of a month, that cost much more or less than the same weekday in the weeks before."""

    start: datetime
    label: str
    """Its local time; its date."""
    cost: Amount
    usual: Amount
    """The median of the weeks before."""
    off: float
    """How far above it, in robust standard deviations; below it if negative."""
    weeks: int
    """How many weeks it was compared with."""


class ProviderCosts(Part):
    """One provider's part of the timeline."""

    name: str
    costs: tuple[Amount, ...] = ()


class Band(Part):
    """What was spent by the end of each step of the timeline, added up, in earlier periods of the same kind."""

    periods: int = 0
    """Same weekdays of the last weeks, or the month before."""
    low: tuple[Amount, ...] = ()
    middle: tuple[Amount, ...] = ()
    high: tuple[Amount, ...] = ()


class Heat(Part):
    """Mean cost of each local hour of the last four weeks: seven rows of 24, from Monday; None without history."""

    weeks: int = 0
    costs: tuple[tuple[Amount | None, ...], ...] = ()
