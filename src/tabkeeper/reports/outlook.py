"""Which budgets will not last? A forecast for each open window of a budget, inside that window and within its scope."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from tabkeeper.ledger.instants import micros, moment
from tabkeeper.money import Money
from tabkeeper.reports.forecast import Past, forecast

_HISTORY = timedelta(weeks=4)
_LONGEST = timedelta(days=400)
"""A window without an end is not forecast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overstep:
    """A window whose forecast is over its limit."""

    window_id: int
    budget: str
    label: str
    expected: Money
    limit: Money

    @property
    def detail(self) -> str:
        """One sentence for people."""
        return (
            f"budget {self.budget!r} is expected to end {self.label} at {self.expected}, "
            f"over its limit of {self.limit}"
        )


def oversteps(connection: Connection, now: datetime) -> list[Overstep]:
    """Forecast every open window; without seven closed days of history there is no forecast, and no finding."""
    found = []
    for row in connection.execute(_WINDOWS, {"now": micros(now)}):
        start, end = moment(row.start_at), moment(row.end_at)
        if end - start > _LONGEST:
            continue
        scope = {"kind": row.scope_kind, "value": row.scope_value}
        since = {"since": micros(now - _HISTORY)}
        costs = {moment(hour): int(cost) for hour, cost in connection.execute(_HOURS, since | scope)}
        first = connection.execute(_FIRST, scope).scalar()
        past = Past(
            costs,
            since=None if first is None else moment(first),
            now=now,
            zone=ZoneInfo(row.timezone),
        )
        outlook = forecast(
            start=start, end=end, spent=Money(int(row.spent_n)), past=past, held=Money(int(row.held_n))
        )
        if outlook.p50 is not None and outlook.p50.nanos > row.limit_n:
            found.append(
                Overstep(
                    window_id=row.id,
                    budget=row.name,
                    label=row.label,
                    expected=outlook.p50,
                    limit=Money(int(row.limit_n)),
                )
            )
    return found


_WINDOWS = text("""
    SELECT w.id, w.label, w.start_at, w.end_at, w.limit_n, w.spent_n, w.held_n,
           b.name, b.scope_kind, b.scope_value, b.timezone
      FROM budget_window w JOIN budget b ON b.id = w.budget_id
     WHERE b.effective_to IS NULL AND w.start_at <= :now AND w.end_at > :now ORDER BY w.id""")


_IN_SCOPE = """(CAST(:kind AS TEXT) = 'pool' OR (CAST(:kind AS TEXT) = 'platform' AND platform = :value)
    OR (CAST(:kind AS TEXT) = 'provider' AND provider = :value)
    OR (CAST(:kind AS TEXT) = 'tenant' AND tenant = :value))"""
_HOURS = text(
    f"SELECT hour_at, SUM(cost_n) FROM rollup_hour WHERE hour_at >= :since AND {_IN_SCOPE} GROUP BY hour_at"  # noqa: S608 - a constant
)
_FIRST = text(f"SELECT MIN(hour_at) FROM rollup_hour WHERE {_IN_SCOPE}")  # noqa: S608 - a constant
