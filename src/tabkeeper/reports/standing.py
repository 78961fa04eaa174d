"""How the books stand now: cost by platform and provider, budgets, alerts; few enough figures to ask every minute."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from tabkeeper.ledger.windows import FIRST_INSTANT, LAST_INSTANT, window_bounds
from tabkeeper.money import Money
from tabkeeper.reports import figures
from tabkeeper.reports.budgeting import budget_figures
from tabkeeper.reports.figures import Span
from tabkeeper.reports.report import BudgetFigures


@dataclass(frozen=True, slots=True)
class CostOf:
    """What sessions of one platform at one provider have cost; of closed ones only."""

    platform: str
    provider: str
    total: Money
    today: Money
    """Of sessions begun on the local day."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The books at one moment."""

    costs: tuple[CostOf, ...] = ()
    budgets: tuple[BudgetFigures, ...] = ()
    alerts: tuple[tuple[str, int], ...] = ()
    """Alerts raised so far, by kind."""


def standing(connection: Connection, zone: str, now: datetime) -> Standing:
    """Read it."""
    day = window_bounds("day", zone, now)
    ever = _costs(connection, Span.of(FIRST_INSTANT, LAST_INSTANT))
    today = _costs(connection, Span.of(day.start, day.end))
    alerts = connection.execute(text("SELECT kind, COUNT(*) FROM alert_event GROUP BY kind ORDER BY kind"))
    return Standing(
        costs=tuple(
            CostOf(platform, provider, Money(cost_n), Money(today.get((platform, provider), 0)))
            for (platform, provider), cost_n in sorted(ever.items())
        ),
        budgets=budget_figures(connection, now, now + timedelta(microseconds=1), now),
        alerts=tuple((str(kind), int(number)) for kind, number in alerts),
    )


def _costs(connection: Connection, span: Span) -> dict[tuple[str, str], int]:
    costs: dict[tuple[str, str], int] = {}
    for (platform, provider, _), sums in figures.usage_by_cell(connection, span).items():
        key = (platform, provider)
        costs[key] = costs.get(key, 0) + sums["cost_n"]
    return costs
