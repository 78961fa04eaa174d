"""The report's queries: sums from the daily and hourly rollups, never a scan of the journal.

Whole UTC days come from the days, what is left at the ends from the hours. Where a zone's midnight falls inside
a UTC hour (India, Nepal), the two broken hours at the ends are read from the sessions themselves, by index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from tabkeeper.ledger.instants import DAY_US, HOUR_US, micros
from tabkeeper.reports.later import NOTHING, Later, Piece, hour_of

MEASURES = (
    "cost_n", "idle_n", "rounding_n", "failed_n", "sessions", "failed_sessions", "leases", "reused", "failures",
    "session_us", "leased_us", "waited_us", "bytes",
)  # fmt: skip
"""Columns of `rollup_hour` that add up."""

LINE_MEASURES = ("amount_n", "raw_qty", "billed_qty", "included_qty")
"""Columns of `rollup_line` that add up."""

_SESSIONS, _LEASES = MEASURES.index("sessions"), MEASURES.index("leases")

CellKey = tuple[str, str, str]
LineKey = tuple[str, str, str, str]
Sums = dict[str, int]


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to `end` (not included), in microseconds since 1970 UTC."""

    start: int
    end: int

    @classmethod
    def of(cls, start: datetime, end: datetime) -> Span:
        """Convert two aware instants."""
        return cls(micros(start), micros(end))

    @property
    def whole_hours(self) -> Span:
        """The whole hours inside; empty (start = end) if there is none."""
        first = -(-self.start // HOUR_US) * HOUR_US
        return Span(first, max(first, self.end // HOUR_US * HOUR_US))

    @property
    def whole_days(self) -> Span:
        """The whole UTC days among the whole hours; empty, and at their end, if there is none."""
        hours = self.whole_hours
        first, last = -(-hours.start // DAY_US) * DAY_US, hours.end // DAY_US * DAY_US
        return Span(first, last) if first < last else Span(hours.end, hours.end)

    @property
    def outer_hours(self) -> Span:
        """The whole hours that cover it."""
        return Span(self.start // HOUR_US * HOUR_US, -(-self.end // HOUR_US) * HOUR_US)

    @property
    def broken_ends(self) -> list[Span]:
        """What the whole hours leave over at both ends, if anything."""
        hours = self.whole_hours
        if hours.start == hours.end:
            return [self] if self.start < self.end else []
        ends = (Span(self.start, hours.start), Span(hours.end, self.end))
        return [span for span in ends if span.start < span.end]


def usage_by_cell(conn: Connection, span: Span, later: Later = NOTHING) -> dict[CellKey, Sums]:
    """Sum the usage by platform, provider and tenant."""
    total: dict[CellKey, Sums] = {}
    _add_rows(total, conn.execute(_USAGE_OF_HOURS, _days_and_hours(span)), MEASURES)
    for part in span.broken_ends:
        _add_rows(total, conn.execute(_USAGE_OF_SESSIONS, _bounds(part)), MEASURES)
        _add_rows(total, conn.execute(_USAGE_OF_LEASES, _bounds(part)), MEASURES)
    return _without(total, later.usage_in(span.start, span.end), MEASURES)


def lines_by_cell(conn: Connection, span: Span, later: Later = NOTHING) -> dict[LineKey, Sums]:
    """Sum the bills' lines by platform, provider, tenant (whose request created the session) and kind."""
    total: dict[LineKey, Sums] = {}
    _add_rows(total, conn.execute(_LINES_OF_HOURS, _days_and_hours(span)), LINE_MEASURES)
    for part in span.broken_ends:
        _add_rows(total, conn.execute(_LINES_OF_ENTRIES, _bounds(part)), LINE_MEASURES)
    return _without(total, later.lines_in(span.start, span.end), LINE_MEASURES)


def billed(lines: Mapping[LineKey, Sums], kinds: frozenset[str]) -> int:
    """Quantity of some kinds as billed, in milliseconds or bytes, from the sums of `lines_by_cell`."""
    return sum(sums["billed_qty"] for key, sums in lines.items() if key[3] in kinds)


class HourSums(NamedTuple):
    """What began in one UTC hour at one provider, or at all of them."""

    cost_n: int = 0
    sessions: int = 0
    leases: int = 0

    def plus(self, other: HourSums) -> HourSums:
        """Add up."""
        return HourSums(
            self.cost_n + other.cost_n, self.sessions + other.sessions, self.leases + other.leases
        )


ProviderHours = dict[int, dict[str, HourSums]]
"""By the hour's beginning in microseconds, and by provider."""


def hours(conn: Connection, span: Span, later: Later = NOTHING) -> ProviderHours:
    """Sum by UTC hour and provider; hours without sessions are missing."""
    found: ProviderHours = {}
    for hour, provider, *sums in conn.execute(_HOURS, _bounds(span)).all():
        found.setdefault(int(hour), {})[provider] = HourSums(*map(int, sums))
    for piece in later.usage_in(span.start, span.end):
        at, provider = found[hour_of(piece)], piece.key[1]
        at[provider] = at[provider].plus(_less(piece))
    return {
        hour: {name: sums for name, sums in at.items() if any(sums)}
        for hour, at in found.items()
        if any(any(sums) for sums in at.values())
    }


def cost(conn: Connection, span: Span, later: Later = NOTHING) -> int:
    """Nano-dollars of all sessions whose money was held in the span."""
    total = int(conn.execute(_TOTALS_OF_HOURS, _days_and_hours(span)).one()[0] or 0)
    for part in span.broken_ends:
        total += int(conn.execute(_COST_OF_ENTRIES, _bounds(part)).scalar_one())
    return total - sum(piece.sums[0] for piece in later.usage_in(span.start, span.end))


def totals(conn: Connection, span: Span, later: Later = NOTHING) -> HourSums:
    """Cost, sessions and leases of a span."""
    found = HourSums(*(int(v or 0) for v in conn.execute(_TOTALS_OF_HOURS, _days_and_hours(span)).one()))
    for part in span.broken_ends:
        for piece in usage_by_cell(conn, part).values():
            found = found.plus(HourSums(piece["cost_n"], piece["sessions"], piece["leases"]))
    for one in later.usage_in(span.start, span.end):
        found = found.plus(_less(one))
    return found


def cost_by_platform(conn: Connection, span: Span, later: Later = NOTHING) -> dict[str, tuple[int, int]]:
    """Nano-dollars and sessions of each platform; less to read than `usage_by_cell`, and it agrees with it."""
    rows = list(conn.execute(_PLATFORMS_OF_HOURS, _days_and_hours(span)))
    for part in span.broken_ends:
        rows += conn.execute(_PLATFORMS_OF_ENTRIES, _bounds(part))
    found: dict[str, tuple[int, int]] = {}
    for platform, cost_n, sessions in rows:
        before = found.get(platform, (0, 0))
        found[platform] = before[0] + int(cost_n), before[1] + int(sessions)
    for piece in later.usage_in(span.start, span.end):
        cost_n, sessions = found[piece.key[0]]
        found[piece.key[0]] = cost_n - piece.sums[0], sessions - piece.sums[_SESSIONS]
    return {name: sums for name, sums in found.items() if any(sums)} if later.usage else found


def _bounds(span: Span) -> dict[str, int]:
    return {"start": span.start, "end": span.end}


def _days_and_hours(span: Span) -> dict[str, int]:
    hours, days = span.whole_hours, span.whole_days
    return {"start": hours.start, "first_day": days.start, "last_day": days.end, "end": hours.end}


def _add_rows(total: dict[Any, Sums], rows: Iterable[Row[Any]], measures: tuple[str, ...]) -> None:
    for row in rows:
        values: tuple[Any, ...] = tuple(row)
        key = tuple(str(part) for part in values[: len(values) - len(measures)])
        sums = total.setdefault(key, dict.fromkeys(measures, 0))
        for measure, value in zip(measures, values[-len(measures) :], strict=True):
            sums[measure] += int(value or 0)


def _without(total: dict[Any, Sums], pieces: Iterable[Piece], measures: tuple[str, ...]) -> dict[Any, Sums]:
    taken = set()
    for piece in pieces:
        sums = total[piece.key]
        taken.add(piece.key)
        for measure, value in zip(measures, piece.sums, strict=True):
            sums[measure] -= value
    return {key: sums for key, sums in total.items() if key not in taken or any(sums.values())}


def _less(piece: Piece) -> HourSums:
    return HourSums(-piece.sums[0], -piece.sums[_SESSIONS], -piece.sums[_LEASES])


def _sums(columns: tuple[str, ...]) -> str:
    return ", ".join(f"SUM({column}) AS {column}" for column in columns)


def _by_days_and_hours(days: str, hours: str, columns: str) -> str:
    """Write a table of the span's whole days and of the hours before and after them."""
    return f"""(
        SELECT {columns} FROM {days} WHERE day_at >= :first_day AND day_at < :last_day UNION ALL
        SELECT {columns} FROM {hours} WHERE hour_at >= :start AND hour_at < :first_day UNION ALL
        SELECT {columns} FROM {hours} WHERE hour_at >= :last_day AND hour_at < :end) AS pieces"""  # noqa: S608


_SUMS_OF_CELLS = _by_days_and_hours(
    "rollup_day", "rollup_hour", ", ".join(("platform", "provider", "tenant", *MEASURES))
)
_SUMS_OF_LINES = _by_days_and_hours(
    "rollup_day_line", "rollup_line", ", ".join(("platform", "provider", "tenant", "kind", *LINE_MEASURES))
)

# The columns are constants of this module; what varies is bound.
_USAGE_OF_HOURS = text(f"""
    SELECT platform, provider, tenant, {_sums(MEASURES)}
      FROM {_SUMS_OF_CELLS}
     GROUP BY platform, provider, tenant""")  # noqa: S608

# What the ledger adds to an hour when it settles a session, once for the session ...
_USAGE_OF_SESSIONS = text("""
    SELECT s.platform, s.provider, s.tenant,
           SUM(s.idle_n), SUM(s.idle_n) AS idle_n, SUM(s.rounding_n),
           SUM(CASE WHEN s.state = 'failed' THEN s.idle_n ELSE 0 END),
           COUNT(*), SUM(CASE WHEN s.state = 'failed' THEN 1 ELSE 0 END),
           0, 0, 0 AS failures, SUM(s.seconds_us), 0 AS leased_us, 0 AS waited_us, 0 AS bytes
      FROM entry e JOIN session s ON s.id = e.session_id
     WHERE e.effective_at >= :start AND e.effective_at < :end AND e.kind = 'settle'
     GROUP BY s.platform, s.provider, s.tenant""")

# ... and once for each of its leases, under the lease's own tenant.
_USAGE_OF_LEASES = text("""
    SELECT s.platform, s.provider, l.tenant,
           SUM(l.cost_n), 0 AS idle_n, 0 AS rounding_n,
           SUM(CASE WHEN l.outcome <> 'ok' THEN l.cost_n ELSE 0 END),
           0 AS sessions, 0 AS failed_sessions,
           COUNT(*), SUM(1 - l.is_new), SUM(CASE WHEN l.outcome <> 'ok' THEN 1 ELSE 0 END),
           0 AS session_us,
           SUM(CASE WHEN l.end_age_us > l.start_age_us THEN l.end_age_us - l.start_age_us ELSE 0 END),
           SUM(l.waited_us), SUM(l.bytes)
      FROM entry e JOIN session s ON s.id = e.session_id JOIN lease l ON l.session_id = s.id
     WHERE e.effective_at >= :start AND e.effective_at < :end AND e.kind = 'settle'
     GROUP BY s.platform, s.provider, l.tenant""")

_LINES_OF_HOURS = text(f"""
    SELECT platform, provider, tenant, kind, {_sums(LINE_MEASURES)}
      FROM {_SUMS_OF_LINES}
     GROUP BY platform, provider, tenant, kind""")  # noqa: S608

_LINES_OF_ENTRIES = text("""
    SELECT s.platform, s.provider, s.tenant, l.kind,
           SUM(l.amount_n), SUM(l.raw_qty), SUM(l.billed_qty), SUM(l.included_qty)
      FROM entry e JOIN entry_line l ON l.entry_id = e.id JOIN session s ON s.id = e.session_id
     WHERE e.effective_at >= :start AND e.effective_at < :end
     GROUP BY s.platform, s.provider, s.tenant, l.kind""")

_HOURS = text("""
    SELECT hour_at, provider, SUM(cost_n), SUM(sessions), SUM(leases)
      FROM rollup_hour WHERE hour_at >= :start AND hour_at < :end
     GROUP BY hour_at, provider""")

_TOTALS_OF_HOURS = text(
    "SELECT SUM(cost_n), SUM(sessions), SUM(leases) FROM "  # noqa: S608
    + _by_days_and_hours("rollup_day", "rollup_hour", "cost_n, sessions, leases")
)

_PLATFORMS_OF_HOURS = text(
    "SELECT platform, SUM(cost_n), SUM(sessions) FROM "  # noqa: S608
    + _by_days_and_hours("rollup_day", "rollup_hour", "platform, cost_n, sessions")
    + " GROUP BY platform"
)

_PLATFORMS_OF_ENTRIES = text("""
    SELECT s.platform, SUM(s.cost_n), COUNT(*)
      FROM entry e JOIN session s ON s.id = e.session_id
     WHERE e.effective_at >= :start AND e.effective_at < :end AND e.kind = 'settle'
     GROUP BY s.platform""")

_COST_OF_ENTRIES = text(
    "SELECT COALESCE(SUM(amount_n), 0) FROM entry WHERE effective_at >= :start AND effective_at < :end"
)
