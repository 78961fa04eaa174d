"""Single facts of the journal and of budgets, as of an entry: what no sum by hour or day can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from tabkeeper.reports.as_of import EVERYTHING
from tabkeeper.reports.figures import Span

MOST_POSTINGS = 50_000
"""A window with more of them is not gone through one by one."""


def first_session(conn: Connection, upto: int = EVERYTHING) -> int | None:
    """When the money of the ledger's first settled session was held, in microseconds; None if there is none."""
    found = conn.execute(_FIRST, {"upto": upto}).one_or_none()
    return None if found is None else int(found[0])


def watermark(conn: Connection, upto: int = EVERYTHING) -> int:
    """Number of the latest entry, 0 in an empty ledger."""
    found = conn.execute(text("SELECT COALESCE(MAX(id), 0) FROM entry WHERE id <= :upto"), {"upto": upto})
    return int(found.scalar_one())


def open_holds(conn: Connection, upto: int = EVERYTHING) -> tuple[int, int, int | None, str | None]:
    """Count, nano-dollars, oldest instant and its session, of all holds that were open."""
    rows = conn.execute(_OPEN_HOLDS, {"upto": upto}).all()
    oldest = min(((int(row.held_at), str(row.session_id)) for row in rows), default=(None, None))
    return len(rows), sum(int(row.amount_n) for row in rows), *oldest


def estimates(conn: Connection, span: Span, upto: int = EVERYTHING) -> tuple[int, int]:
    """Sessions of the span whose cost is an estimate, and that cost."""
    count, amount = conn.execute(_ESTIMATES, {**_bounds(span), "upto": upto}).one()
    return int(count), int(amount)


def adjustments(conn: Connection, span: Span, upto: int = EVERYTHING) -> tuple[int, int, int | None]:
    """Sessions of the span that were adjusted, by how many nano-dollars in all, and when the latest was."""
    sessions, amount, latest = conn.execute(_ADJUSTMENTS, {**_bounds(span), "upto": upto}).one()
    return int(sessions), int(amount), None if latest is None else int(latest)


def budgets(conn: Connection, span: Span) -> list[RowMapping]:
    """Versions of budgets in force at some moment of the span, by name and then newest first."""
    return list(conn.execute(_BUDGETS, _bounds(span)).mappings())


def budget_windows(conn: Connection, span: Span, upto: int = EVERYTHING) -> list[Mapping[str, Any]]:
    """Windows that have a moment in common with the span, with their budget's name, oldest first.

    As of an earlier entry they hold what the entries up to it put there; which limit they had is the budget's to say.
    """
    rows = list(map(dict, conn.execute(_WINDOWS, _bounds(span)).mappings()))
    if upto == EVERYTHING:
        return list(rows)
    later = {row.window_id: row for row in conn.execute(_POSTED_LATER, {"upto": upto})}
    known = [row for row in rows if conn.execute(_IS_POSTED, {"window": row["id"], "upto": upto}).first()]
    return [_then(row, later[row["id"]]) if row["id"] in later else row for row in known]


def peak(conn: Connection, window: int, upto: int = EVERYTHING) -> int | None:
    """Return the most nano-dollars that a window had spent and held at once; None if too much was posted to it.

    A budget's window may be far longer than the period of a report: a project's has no end at all.
    """
    bounds = {"window": window, "upto": upto}
    if conn.execute(_POSTED, {**bounds, "most": MOST_POSTINGS + 1}).scalar_one() > MOST_POSTINGS:
        return None
    return max(0, int(conn.execute(_PEAK, bounds).scalar() or 0))


def _then(row: Mapping[str, Any], since: Any) -> Mapping[str, Any]:
    return {
        **row,
        **{name: int(row[name]) - int(getattr(since, name)) for name in ("held_n", "spent_n", "forced_n")},
    }


def _bounds(span: Span) -> dict[str, int]:
    return {"start": span.start, "end": span.end}


# The sum keeps the database from reading all entries in the order of their numbers: the first is soon found by instant.
_FIRST = text("""
    SELECT effective_at FROM entry WHERE kind = 'settle' AND id + 0 <= :upto ORDER BY effective_at LIMIT 1""")

# Every estimate writes an alert, and there are few of them; the journal itself has no index by quality. An estimate
# that was corrected is none any more.
_ESTIMATES = text("""
    SELECT COUNT(*), COALESCE(SUM(e.amount_n), 0)
      FROM alert_event a JOIN session s ON s.id = a.session_id
      JOIN entry e ON e.session_id = s.id AND e.kind = 'settle' AND e.quality = 'estimate' AND e.id <= :upto
     WHERE a.kind = 'estimate' AND s.created_at >= :start AND s.created_at < :end
       AND NOT EXISTS (SELECT 1 FROM entry c WHERE c.session_id = s.id AND c.kind = 'adjust' AND c.id <= :upto)""")

_ADJUSTMENTS = text("""
    SELECT COUNT(DISTINCT session_id), COALESCE(SUM(amount_n), 0), MAX(recorded_at) FROM entry
     WHERE kind = 'adjust' AND effective_at >= :start AND effective_at < :end AND id <= :upto""")

# Open now, or ended by an entry that came later.
_OPEN_HOLDS = text("""
    SELECT h.held_at, h.session_id, h.amount_n FROM hold h
      JOIN entry e ON e.session_id = h.session_id AND e.kind = 'hold' AND e.id <= :upto WHERE h.state = 'open'
     UNION ALL
    SELECT h.held_at, h.session_id, h.amount_n FROM entry r JOIN hold h ON h.session_id = r.session_id
      JOIN entry e ON e.session_id = h.session_id AND e.kind = 'hold' AND e.id <= :upto
     WHERE r.id > :upto AND r.kind IN ('settle', 'void')""")

_BUDGETS = text("""
    SELECT id, name, version, scope_kind, scope_value, period, timezone, mode, limit_n
      FROM budget WHERE effective_from < :end AND (effective_to IS NULL OR effective_to > :start)
     ORDER BY name, version DESC""")

_WINDOWS = text("""
    SELECT w.id, b.name, w.start_at, w.end_at, w.label, w.mode, w.limit_n, w.held_n, w.spent_n, w.forced_n, w.denied
      FROM budget_window w JOIN budget b ON b.id = w.budget_id
     WHERE w.start_at < :end AND w.end_at > :start
     ORDER BY b.name, w.start_at, b.version""")

# The sum keeps the database from reading all postings in the order of windows: what came later is few.
_POSTED_LATER = text("""
    SELECT window_id + 0 AS window_id, SUM(d_held_n) AS held_n, SUM(d_spent_n) AS spent_n,
           SUM(d_forced_n) AS forced_n
      FROM posting WHERE entry_id > :upto GROUP BY window_id + 0""")

_IS_POSTED = text("SELECT 1 FROM posting WHERE window_id = :window AND entry_id <= :upto LIMIT 1")

_POSTED = text("""
    SELECT COUNT(*) FROM (
        SELECT 1 FROM posting WHERE window_id = :window AND entry_id <= :upto LIMIT :most) AS first_ones""")

_PEAK = text("""
    SELECT MAX(used) FROM (
        SELECT SUM(d_held_n + d_spent_n) OVER (ORDER BY entry_id) AS used FROM posting
         WHERE window_id = :window AND entry_id <= :upto) AS course""")
