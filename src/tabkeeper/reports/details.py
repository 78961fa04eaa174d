"""Reads the details of a report: dear sessions, tags, alerts, reconciliation, and what changed since earlier reports.

Where a period has so many sessions that looking at each would take long, it says less instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from heapq import nsmallest
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, bindparam, text

from tabkeeper.ledger.instants import micros, moment
from tabkeeper.ledger.report_runs import kept
from tabkeeper.ledger.windows import Window, window_bounds
from tabkeeper.money import ZERO, Money
from tabkeeper.reports.detail import (
    AlertCount,
    DearSession,
    Raised,
    Reconciled,
    Restated,
    SessionCosts,
    TagFigures,
)
from tabkeeper.reports.figures import Span

MOST_SESSIONS = 20_000
"""More of them in a period are not looked at one by one."""
_DEAREST = 10
_TAGS = 100
_RAISED = 12


def session_costs(conn: Connection, span: Span, upto: int, total: Money, sessions: int) -> SessionCosts:
    """Rank the sessions that count in a span by what they cost as of an entry."""
    if not sessions:
        return SessionCosts()
    average = Money(total.nanos // sessions)
    if sessions > MOST_SESSIONS:
        return SessionCosts(average=average)
    bounds = {"start": span.start, "end": span.end, "upto": upto}
    costs = {session_id: int(amount) for session_id, amount in conn.execute(_SETTLED, bounds)}
    for session_id, amount in conn.execute(_ADJUSTED, bounds):
        costs[session_id] += int(amount)
    ordered = sorted(costs.values())
    p95 = ordered[-(-len(ordered) * 95 // 100) - 1]
    dearest = nsmallest(_DEAREST, ((-cost, name) for name, cost in costs.items() if cost > 0))
    rows = {
        row.id: row for row in conn.execute(_SESSIONS, {"ids": [name for _, name in dearest], "upto": upto})
    }
    return SessionCosts(
        average=average,
        p95=Money(p95),
        dearest=tuple(_dear(rows[name], -cost) for cost, name in dearest),
    )


def tags(conn: Connection, span: Span, upto: int, sessions: int) -> tuple[TagFigures, ...]:
    """Sum the leases of a span by each of their tags."""
    if not sessions or sessions > MOST_SESSIONS:
        return ()
    bounds = {"start": span.start, "end": span.end, "upto": upto}
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for query in (_TAGGED, _TAGGED_LATER):
        for written, leases, cost in conn.execute(query, bounds):
            for pair in json.loads(written).items():
                before = found.get(pair, (0, 0))
                found[pair] = before[0] + int(cost or 0), before[1] + int(leases)
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))[:_TAGS]
    return tuple(
        TagFigures(tag=str(tag), value=str(value), cost=Money(cost), leases=leases)
        for (tag, value), (cost, leases) in ordered
    )


def alerts(conn: Connection, span: Span) -> tuple[tuple[AlertCount, ...], tuple[Raised, ...]]:
    """Count the alerts of a span by kind, and return the latest."""
    bounds = {"start": span.start, "end": span.end, "most": _RAISED}
    counts = tuple(
        AlertCount(kind=row.kind, number=int(row.number), amount=Money(int(row.amount)))
        for row in conn.execute(_ALERTS, bounds)
    )
    latest = tuple(
        Raised(
            at=moment(row.at),
            kind=row.kind,
            budget=row.budget,
            session_id=row.session_id,
            share=None if row.share_ppm is None else row.share_ppm / 1_000_000,
            amount=Money(int(row.amount_n or 0)),
            limit=None if row.limit_n is None else Money(int(row.limit_n)),
            detail=row.detail,
        )
        for row in conn.execute(_RAISED_LAST, bounds)
    )
    return counts, latest


def reconciled(conn: Connection, span: Span) -> tuple[Reconciled, ...]:
    """Add up the comparisons that were made in a span, by provider."""
    rows: dict[str, list[Any]] = {}
    for row in conn.execute(_RECON, {"start": span.start, "end": span.end}):
        rows.setdefault(row.provider, []).append(row)
    return tuple(
        Reconciled(
            provider=provider,
            looks=len(looks),
            sessions=sum(row.sessions for row in looks),
            waiting=looks[-1].waiting,
            ours=Money(sum(int(row.ours_n) for row in looks)),
            theirs=Money(sum(int(row.theirs_n) for row in looks)),
            adjusted=sum(row.adjusted for row in looks),
            past=sum(row.past for row in looks),
            failed=sum(bool(row.error) for row in looks),
        )
        for provider, looks in sorted(rows.items())
    )


def restated(
    conn: Connection, window: Window, place: ZoneInfo, now: datetime, upto: int
) -> tuple[Restated, ...]:
    """Find days before a period whose cost changed after the last report before it was kept; none without one."""
    before = window_bounds("day", place, window.start - timedelta(microseconds=1))
    last = _kept(conn, place, before.label, now)
    if last is None:
        return ()
    changed: dict[str, tuple[int, int]] = {}
    bounds = {"seen": last["watermark"], "upto": upto, "before": micros(window.start)}
    for row in conn.execute(_CHANGED, bounds):
        day = window_bounds("day", place, moment(row.quarter)).label
        sessions, amount = changed.get(day, (0, 0))
        changed[day] = sessions + int(row.sessions), amount + int(row.amount_n)
    found = []
    for day, (sessions, amount) in sorted(changed.items()):
        report = last if day == before.label else _kept(conn, place, day, now)
        if report is not None and amount:
            told = Money.parse(report["totals"]["cost"])
            found.append(Restated(day=day, sessions=sessions, amount=Money(amount), reported=told))
    return tuple(found)


def _kept(conn: Connection, place: ZoneInfo, day: str, now: datetime) -> Mapping[str, Any] | None:
    written = kept(conn, place.key, date.fromisoformat(day), by=now)
    found: Mapping[str, Any] | None = None if written is None else json.loads(written)
    return found


def _dear(row: Any, cost: int) -> DearSession:
    return DearSession(
        session_id=row.id,
        platform=row.platform,
        provider=row.provider,
        tenant=row.tenant,
        began=moment(row.created_at),
        seconds=(row.seconds_us - int(row.since_us or 0)) / 1e6,
        leases=row.uses,
        outcome=row.state,
        cost=Money(cost) if cost else ZERO,
    )


_SETTLED = text("""
    SELECT session_id, amount_n FROM entry
     WHERE effective_at >= :start AND effective_at < :end AND kind = 'settle' AND id <= :upto""")
_ADJUSTED = text("""
    SELECT session_id, amount_n FROM entry
     WHERE effective_at >= :start AND effective_at < :end AND kind = 'adjust' AND id <= :upto""")
_SESSIONS = text("""
    SELECT s.id, s.platform, s.provider, s.tenant, s.created_at, s.seconds_us, s.uses, s.state,
           (SELECT SUM(m.seconds_us) FROM entry e JOIN entry_share m ON m.entry_id = e.id
             WHERE e.session_id = s.id AND e.kind = 'adjust' AND e.id > :upto) AS since_us
      FROM session s WHERE s.id IN :ids""").bindparams(bindparam("ids", expanding=True))

_TAGGED = text("""
    SELECT l.tags, COUNT(*), SUM(l.cost_n)
      FROM entry e JOIN lease l ON l.session_id = e.session_id
     WHERE e.effective_at >= :start AND e.effective_at < :end AND e.id <= :upto AND e.kind = 'settle'
       AND l.tags <> '{}'
     GROUP BY l.tags""")
_TAGGED_LATER = text("""
    SELECT l.tags, 0, -SUM(m.cost_n)
      FROM entry e JOIN entry_share m ON m.entry_id = e.id JOIN lease l ON l.id = m.lease_id
     WHERE e.id > :upto AND e.kind = 'adjust' AND e.corrects_id <= :upto AND l.tags <> '{}'
       AND e.effective_at >= :start AND e.effective_at < :end
     GROUP BY l.tags""")

_ALERTS = text("""
    SELECT kind, COUNT(*) AS number, CAST(SUM(amount_n) AS BIGINT) AS amount FROM alert_event
     WHERE at >= :start AND at < :end GROUP BY kind ORDER BY kind""")
_RAISED_LAST = text("""
    SELECT at, kind, budget, session_id, share_ppm, amount_n, limit_n, detail FROM alert_event
     WHERE at >= :start AND at < :end AND kind <> 'daily_report' ORDER BY at DESC, id DESC LIMIT :most""")

_RECON = text("""
    SELECT provider, sessions, waiting, ours_n, theirs_n, adjusted, past, error FROM recon_run
     WHERE at >= :start AND at < :end ORDER BY at, id""")

# The sum keeps the database from reading all of history by the index of instants: what is new is few. Days begin on a
# quarter of an hour of UTC in every zone.
_CHANGED = text("""
    SELECT effective_at / 900000000 * 900000000 AS quarter, COUNT(DISTINCT session_id) AS sessions,
           SUM(amount_n) AS amount_n
      FROM entry
     WHERE id > :seen AND id <= :upto AND effective_at + 0 < :before AND kind IN ('settle', 'adjust')
     GROUP BY effective_at / 900000000 * 900000000""")
