"""The cost report as a value: what `tabkeeper report` shows, and what its JSON contains.

Money is decimal text in JSON. Nothing here reads a database or a clock; `daily` fills these models.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, computed_field, model_validator

from tabkeeper.money import ZERO, Money
from tabkeeper.reports.detail import (
    AlertCount,
    Band,
    Heat,
    ProviderCosts,
    Raised,
    Reconciled,
    Restated,
    SessionCosts,
    TagFigures,
    Unusual,
)
from tabkeeper.reports.part import Amount, Part

SCHEMA_VERSION: Literal[1] = 1
"""Raised when a field of the JSON changes its meaning or goes away."""

ATTRIBUTION = "a session counts, whole, in the hour in which its money was held"

ReportPeriod = Literal["day", "month"]


class Usage(Part):
    """What was used and what it cost. `idle`, `rounding` and `failed` are parts of `cost` and may overlap."""

    cost: Amount = ZERO
    idle: Amount = ZERO
    """Cost that no lease used."""
    rounding: Amount = ZERO
    """Cost owed to billing steps and minimums."""
    failed: Amount = ZERO
    """Cost of leases that did not end well, and of sessions that failed."""
    sessions: int = 0
    failed_sessions: int = 0
    leases: int = 0
    reused: int = 0
    """Leases that got a session which existed already."""
    failed_leases: int = 0
    session_seconds: float = 0.0
    """Life of the sessions."""
    leased_seconds: float = 0.0
    waited_seconds: float = 0.0
    bytes: int = 0

    @property
    def reuse_rate(self) -> float | None:
        """Share of leases, 0 to 1, that needed no new session; None without leases."""
        return self.reused / self.leases if self.leases else None

    @property
    def average_wait(self) -> float | None:
        """Seconds from request to grant, on average; None without leases."""
        return self.waited_seconds / self.leases if self.leases else None


class Cell(Usage):
    """The usage of one platform at one provider for one tenant; all cells add up to the totals.

    Sessions, their time and idle cost are the tenant's whose request created them; leases, their time and the cost
    that fell due while they ran are the tenant's who leased.
    """

    platform: str
    provider: str
    tenant: str
    billed_seconds: float = 0.0
    """Session time as the provider bills it."""
    billed_bytes: int = 0
    """Traffic as the provider bills it."""


class Group(Usage):
    """The usage of one platform, provider or tenant."""

    name: str


class ComponentFigures(Part):
    """What one provider charged for one kind of thing; quantities are milliseconds, bytes or counts."""

    provider: str
    kind: str
    amount: Amount = ZERO
    raw_qty: int = 0
    billed_qty: int = 0
    included_qty: int = 0


class Moment(Part):
    """One hour of a day, or one day of a month."""

    start: datetime
    label: str
    cost: Amount = ZERO
    sessions: int = 0


class TrendDay(Part):
    """One local day of the trend."""

    label: str
    """``2026-11-21``."""
    start: datetime
    end: datetime


class TrendRow(Part):
    """What one platform, or all of them, cost on each day of the trend; None is a day that no ledger has seen."""

    name: str
    costs: tuple[Amount | None, ...] = ()
    sessions: tuple[int | None, ...] = ()
    total: Amount = ZERO
    change: str | None = None
    """Cost of the last day against the mean of the days before, such as ``+12%``; None if those cost nothing."""


class Trend(Part):
    """The last seven local days of the report, oldest first."""

    days: tuple[TrendDay, ...] = ()
    platforms: tuple[TrendRow, ...] = ()
    """Dearest first; they add up to the total."""
    total: TrendRow = TrendRow(name="total")


class Previous(Part):
    """The period before: in whole, and up to the same point if this one is still open."""

    label: str
    cost: Amount = ZERO
    sessions: int = 0
    leases: int = 0
    to_date: Amount | None = None


class HoldFigures(Part):
    """Money set aside at this moment for sessions that still run."""

    open: int = 0
    amount: Amount = ZERO
    oldest_at: datetime | None = None
    oldest_session: str | None = None


class BudgetFigures(Part):
    """One budget: its latest window in the period, and what happened in all of them."""

    name: str
    scope: str
    """``pool``, or such as ``tenant acme``."""
    period: str
    timezone: str
    mode: str
    label: str
    """Name of the window shown."""
    starts_at: datetime
    resets_at: datetime | None
    limit: Amount
    spent: Amount = ZERO
    held: Amount = ZERO
    forced: Amount = ZERO
    denied: int | None = 0
    """None where nobody kept it: as of an earlier moment, in a window that was open then."""
    peak: Amount | None = None
    """The most that was spent and held at once; None where it was not looked for."""
    windows: int = 1
    """Windows of this budget in the period that saw any movement."""
    denied_in_period: int | None = 0
    forced_in_period: Amount = ZERO

    @model_validator(mode="before")
    @classmethod
    def _take_no_left(cls, data: Any) -> Any:
        # What is left is worked out, so what a JSON says of it is not taken over.
        return (
            {key: value for key, value in data.items() if key != "left"} if isinstance(data, dict) else data
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def left(self) -> Amount:
        """What may still be held; never below zero."""
        return max(self.limit - self.spent - self.held, ZERO)

    @property
    def used(self) -> float:
        """Share of the limit that is spent or held; may pass 1."""
        return (self.spent.nanos + self.held.nanos) / self.limit.nanos if self.limit else 0.0


class ForecastFigures(Part):
    """Where a window is expected to end."""

    period: ReportPeriod
    label: str
    spent: Amount
    p10: Amount | None = None
    p50: Amount | None = None
    p90: Amount | None = None
    run_rate: Amount | None = None
    closed_days: int = 0
    note: str = ""
    tested_days: int = 0
    """Days of the past for which the same forecast was made at the same hour, and compared with what came."""
    error: float | None = None
    """By how much those were off, added up, as a share of what came."""
    bias: float | None = None
    """The same with signs: more than nothing if too much was expected."""
    covered: int = 0
    """Of those days, how many ended between P10 and P90."""


class QualityFigures(Part):
    """How well the costs are known."""

    estimated_sessions: int = 0
    """Sessions whose end nobody saw, so that all that can be is counted."""
    estimated_cost: Amount = ZERO
    adjusted_sessions: int = 0
    """Sessions whose cost was corrected after they were settled; the period's figures hold the corrections."""
    adjusted_cost: Amount = ZERO
    """What the corrections add up to; less than nothing if they took more away."""
    adjusted_at: datetime | None = None
    """When the latest was booked."""


class CostReport(Part):
    """Costs and usage of one local day or month."""

    schema_version: Literal[1] = SCHEMA_VERSION
    period: ReportPeriod
    label: str
    """``2026-11-21`` or ``2026-11``."""
    timezone: str
    start: datetime
    end: datetime
    hours: float
    """Length of the period; a day has 23 or 25 where clocks change."""
    now: datetime
    is_open: bool
    """Whether the period is not over yet."""
    watermark: int = 0
    """Number of the ledger's latest entry that the report has seen."""
    attribution: str = ATTRIBUTION
    quality: QualityFigures = Field(default_factory=QualityFigures)
    totals: Usage = Field(default_factory=Usage)
    billed_seconds: float = 0.0
    """Session time as the providers bill it."""
    previous: Previous
    cells: tuple[Cell, ...] = ()
    platforms: tuple[Group, ...] = ()
    providers: tuple[Group, ...] = ()
    tenants: tuple[Group, ...] = ()
    components: tuple[ComponentFigures, ...] = ()
    timeline: tuple[Moment, ...] = ()
    """Hours of the day or days of the month; empty where the zone's days do not begin on a whole UTC hour."""
    trend: Trend = Field(default_factory=Trend)
    """Seven days that end with the day, with the month's last day, or with today in a month that is open."""
    holds: HoldFigures = Field(default_factory=HoldFigures)
    budgets: tuple[BudgetFigures, ...] = ()
    forecasts: tuple[ForecastFigures, ...] = ()
    """For an open period: the end of the day and of the month."""
    month_to_date: Amount = ZERO
    """From the local month's beginning to the period's end, or to now."""
    week_ago: Amount | None = None
    """Of a day: the same weekday of the week before, to the same point if this one is open."""
    session_costs: SessionCosts = Field(default_factory=SessionCosts)
    tags: tuple[TagFigures, ...] = ()
    """Costs of leases by tag, dearest first, the first hundred."""
    alerts: tuple[AlertCount, ...] = ()
    """Alerts raised in the period, by kind."""
    raised: tuple[Raised, ...] = ()
    """The latest of them."""
    reconciled: tuple[Reconciled, ...] = ()
    """What comparisons with providers in the period came to."""
    restated: tuple[Restated, ...] = ()
    """Earlier days whose cost changed after their report was kept, and since the report before this one."""
    unusual: tuple[Unusual, ...] = ()
    """Of a day: hours that are over and cost far from what they usually do, the furthest off first."""
    provider_costs: tuple[ProviderCosts, ...] = ()
    """The timeline by provider, dearest first."""
    band: Band = Field(default_factory=Band)
    """What earlier periods had cost by the same points of the timeline."""
    days: tuple[Moment, ...] = ()
    """The last thirty local days that have begun, oldest first."""
    heat: Heat = Field(default_factory=Heat)

    @property
    def delta(self) -> Money:
        """Change against the previous period, up to the same point if this one is open."""
        before = self.previous.cost if self.previous.to_date is None else self.previous.to_date
        return self.totals.cost - before
