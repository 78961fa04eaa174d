"""What must always be true of the books, each as one query that returns the rows which break it.

The same text runs on SQLite and PostgreSQL; `check` runs all over one snapshot. The numbers are stable names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from tabkeeper.ledger.instants import DAY_US
from tabkeeper.ledger.settling import LINE_SUMS, SUMS
from tabkeeper.ledger.types import Violation


@dataclass(frozen=True, slots=True)
class Invariant:
    """One promise, and the query that finds what breaks it (first column: an example to show)."""

    name: str
    meaning: str
    query: str


def _same_sums(days: str, hours: str, keys: Sequence[str], sums: Sequence[str]) -> str:
    by = ", ".join(keys)
    return (
        f"SELECT day_at FROM (SELECT day_at, {by}, {', '.join(sums)} FROM {days} UNION ALL "  # noqa: S608 - our names
        f"SELECT hour_at / {DAY_US} * {DAY_US}, {by}, {', '.join(f'-{c}' for c in sums)} FROM {hours}) AS both_sides "
        f"GROUP BY day_at, {by} HAVING {' OR '.join(f'SUM({c}) <> 0' for c in sums)}"
    )


def _balance(column: str) -> str:
    return (
        f"SELECT w.id FROM budget_window w LEFT JOIN (SELECT window_id, SUM(d_{column}) AS total FROM posting "  # noqa: S608
        f"GROUP BY window_id) p ON p.window_id = w.id WHERE w.{column} <> COALESCE(p.total, 0)"
    )


INVARIANTS: tuple[Invariant, ...] = (
    Invariant("I01", "a window's held is the sum of its postings", _balance("held_n")),
    Invariant("I02", "a window's spent is the sum of its postings", _balance("spent_n")),
    Invariant("I03", "a window's forced is the sum of its postings", _balance("forced_n")),
    Invariant(
        "I04",
        "a hard window never has more held and spent than its limit and what was forced",
        "SELECT id FROM budget_window WHERE mode = 'hard' AND held_n + spent_n > limit_n + forced_n",
    ),
    Invariant(
        "I05",
        "a window's held is that of the open holds",
        "SELECT w.id FROM budget_window w LEFT JOIN (SELECT p.window_id, SUM(h.amount_n) AS total FROM hold h "
        "JOIN entry e ON e.session_id = h.session_id AND e.kind = 'hold' JOIN posting p ON p.entry_id = e.id "
        "WHERE h.state = 'open' GROUP BY p.window_id) o ON o.window_id = w.id WHERE w.held_n <> COALESCE(o.total, 0)",
    ),
    Invariant(
        "I06",
        "a hold that is over holds nothing any more, in any window",
        "SELECT h.session_id FROM hold h JOIN entry e ON e.session_id = h.session_id "
        "JOIN posting p ON p.entry_id = e.id WHERE h.state <> 'open' "
        "GROUP BY h.session_id, p.window_id HAVING SUM(p.d_held_n) <> 0",
    ),
    Invariant(
        "I07",
        "each hold has one entry, and each posting of it holds its amount",
        "SELECT h.session_id FROM hold h LEFT JOIN entry e ON e.session_id = h.session_id AND e.kind = 'hold' "
        "GROUP BY h.session_id HAVING COUNT(e.id) <> 1 UNION ALL "
        "SELECT h.session_id FROM hold h JOIN entry e ON e.session_id = h.session_id AND e.kind = 'hold' "
        "JOIN posting p ON p.entry_id = e.id WHERE p.d_held_n <> h.amount_n",
    ),
    Invariant(
        "I08",
        "a hold has exactly one end if it is over, and none while it is open",
        "SELECT h.session_id FROM hold h LEFT JOIN entry e ON e.session_id = h.session_id "
        "AND e.kind IN ('settle', 'void') GROUP BY h.session_id, h.state "
        "HAVING COUNT(e.id) <> CASE WHEN h.state = 'open' THEN 0 ELSE 1 END "
        "OR COALESCE(MAX(e.kind), 'open') <> CASE h.state WHEN 'settled' THEN 'settle' WHEN 'voided' THEN 'void' "
        "ELSE 'open' END",
    ),
    Invariant(
        "I09",
        "the lines of an entry add up to it",
        "SELECT e.id FROM entry e LEFT JOIN (SELECT entry_id, SUM(amount_n) AS total FROM entry_line "
        "GROUP BY entry_id) n ON n.entry_id = e.id WHERE e.amount_n <> COALESCE(n.total, 0)",
    ),
    Invariant(
        "I10",
        "the hourly sums are those of the journal and of its lines",
        "SELECT hour_at FROM (SELECT r.hour_at, r.provider, r.platform, SUM(r.cost_n) AS cost "
        "FROM rollup_hour r GROUP BY r.hour_at, r.provider, r.platform UNION ALL "
        "SELECT e.effective_at / 3600000000 * 3600000000, s.provider, s.platform, -SUM(e.amount_n) "
        "FROM entry e JOIN session s ON s.id = e.session_id GROUP BY 1, 2, 3) AS both_sides "
        "GROUP BY hour_at, provider, platform HAVING SUM(cost) <> 0 UNION ALL "
        "SELECT hour_at FROM (SELECT r.hour_at, r.provider, r.platform, r.tenant, r.kind, SUM(r.amount_n) AS cost "
        "FROM rollup_line r GROUP BY 1, 2, 3, 4, 5 UNION ALL "
        "SELECT e.effective_at / 3600000000 * 3600000000, s.provider, s.platform, s.tenant, n.kind, "
        "-SUM(n.amount_n) FROM entry e JOIN session s ON s.id = e.session_id JOIN entry_line n ON n.entry_id = e.id "
        "GROUP BY 1, 2, 3, 4, 5) AS both_lines GROUP BY hour_at, provider, platform, tenant, kind "
        "HAVING SUM(cost) <> 0",
    ),
    Invariant(
        "I11",
        "a hold is priced by a list of its own provider",
        "SELECT h.session_id FROM hold h JOIN session s ON s.id = h.session_id "
        "JOIN rate_card c ON c.id = h.rate_card_id WHERE c.provider <> s.provider OR s.rate_card_id <> c.id",
    ),
    Invariant(
        "I12",
        "price lists of one provider do not overlap",
        "SELECT a.id FROM rate_card a JOIN rate_card b ON b.provider = a.provider AND b.id > a.id "
        "WHERE a.effective_to IS NULL OR a.effective_to > b.effective_from",
    ),
    Invariant(
        "I13",
        "windows of one budget do not overlap",
        "SELECT a.id FROM budget_window a JOIN budget_window b ON b.budget_id = a.budget_id AND b.id <> a.id "
        "AND b.start_at >= a.start_at WHERE b.start_at < a.end_at",
    ),
    Invariant(
        "I14",
        "an entry spends the same in all its windows",
        "SELECT entry_id FROM posting GROUP BY entry_id HAVING MIN(d_spent_n) <> MAX(d_spent_n)",
    ),
    Invariant(
        "I15",
        "a crossing is told once",
        "SELECT window_id FROM alert_event WHERE kind = 'threshold' GROUP BY window_id, metric, share_ppm "
        "HAVING COUNT(*) > 1",
    ),
    Invariant(
        "I16",
        "a correction points back",
        "SELECT e.id FROM entry e LEFT JOIN entry c ON c.id = e.corrects_id "
        "WHERE e.corrects_id IS NOT NULL AND (c.id IS NULL OR c.id >= e.id)",
    ),
    Invariant(
        "I17",
        "no session, lease or idle time has a negative cost",
        "SELECT id FROM session WHERE cost_n < 0 OR idle_n < 0 UNION ALL SELECT id FROM lease WHERE cost_n < 0",
    ),
    Invariant(
        "I18",
        "a session has ended exactly if its hold is over",
        "SELECT s.id FROM session s LEFT JOIN hold h ON h.session_id = s.id WHERE h.session_id IS NULL "
        "OR (s.ended_at IS NOT NULL AND h.state = 'open') OR (s.ended_at IS NULL AND h.state <> 'open')",
    ),
    Invariant(
        "I19",
        "an entry spends its amount in each of its windows, and gives back no more than it says",
        "SELECT p.entry_id FROM posting p JOIN entry e ON e.id = p.entry_id WHERE p.d_spent_n <> e.amount_n "
        "OR p.d_forced_n < 0",
    ),
    Invariant(
        "I20",
        "each threshold that was reached has its alert",
        "SELECT w.id FROM budget_window w JOIN window_threshold t ON t.window_id = w.id "
        "WHERE w.spent_n >= t.amount_n AND NOT EXISTS (SELECT 1 FROM alert_event a WHERE a.window_id = w.id "
        "AND a.kind = 'threshold' AND a.metric = 'spent' AND a.share_ppm = t.share_ppm)",
    ),
    Invariant(
        "I22",
        "what is used of an allowance is what its sessions were given free",
        "SELECT provider FROM (SELECT a.provider, a.plan, a.kind, SUM(a.used_qty) AS qty FROM allowance a "
        "GROUP BY a.provider, a.plan, a.kind UNION ALL SELECT c.provider, c.plan, n.kind, -SUM(n.included_qty) "
        "FROM entry_line n JOIN entry e ON e.id = n.entry_id JOIN hold h ON h.session_id = e.session_id "
        "JOIN rate_card c ON c.id = h.rate_card_id GROUP BY c.provider, c.plan, n.kind) AS both_sides "
        "GROUP BY provider, plan, kind HAVING SUM(qty) <> 0",
    ),
    Invariant(
        "I26",
        "the shares of a session's leases and its idle part add up to its cost",
        "SELECT s.id FROM session s LEFT JOIN (SELECT session_id, SUM(cost_n) AS total FROM lease "
        "GROUP BY session_id) n ON n.session_id = s.id WHERE s.ended_at IS NOT NULL "
        "AND s.cost_n <> s.idle_n + COALESCE(n.total, 0)",
    ),
    Invariant(
        "I27",
        "a session's cost is the sum of its entries",
        "SELECT s.id FROM session s LEFT JOIN (SELECT session_id, SUM(amount_n) AS total FROM entry "
        "GROUP BY session_id) e ON e.session_id = s.id WHERE s.cost_n <> COALESCE(e.total, 0)",
    ),
    Invariant(
        "I28",
        "a session's entries reach the windows that its hold reached",
        "SELECT h.session_id FROM hold h JOIN entry e ON e.session_id = h.session_id "
        "LEFT JOIN posting p ON p.entry_id = e.id GROUP BY h.session_id "
        "HAVING COUNT(DISTINCT p.window_id) * COUNT(DISTINCT e.id) <> COUNT(p.window_id)",
    ),
    Invariant(
        "I29",
        "the rest of the hourly sums is that of sessions and leases",
        "SELECT hour_at FROM (SELECT hour_at, SUM(idle_n) AS idle, SUM(rounding_n) AS rounding, "
        "SUM(sessions) AS n, SUM(session_us) AS us FROM rollup_hour GROUP BY hour_at UNION ALL "
        "SELECT h.held_at / 3600000000 * 3600000000, -SUM(s.idle_n), -SUM(s.rounding_n), -COUNT(*), "
        "-SUM(s.seconds_us) FROM session s JOIN hold h ON h.session_id = s.id WHERE h.state = 'settled' "
        "GROUP BY 1) AS both_sides GROUP BY hour_at HAVING SUM(idle) <> 0 OR SUM(rounding) <> 0 OR SUM(n) <> 0 "
        "OR SUM(us) <> 0",
    ),
    Invariant(
        "I30",
        "the daily sums are the hourly ones added up",
        _same_sums("rollup_day", "rollup_hour", ("provider", "platform", "tenant"), SUMS)
        + " UNION ALL "
        + _same_sums("rollup_day_line", "rollup_line", ("provider", "platform", "tenant", "kind"), LINE_SUMS),
    ),
    Invariant(
        "I31",
        "an adjustment corrects the settlement of its own session, in the same hour",
        "SELECT e.id FROM entry e LEFT JOIN entry c ON c.id = e.corrects_id AND c.kind = 'settle' "
        "AND c.session_id = e.session_id AND c.effective_at = e.effective_at "
        "WHERE e.kind = 'adjust' AND c.id IS NULL",
    ),
    Invariant(
        "I32",
        "in the hourly sums a tenant bears the shares of its leases and the idle part of its sessions",
        "SELECT tenant FROM (SELECT hour_at, tenant, cost_n AS cost, failed_n AS failed FROM rollup_hour UNION ALL "
        "SELECT h.held_at / 3600000000 * 3600000000, s.tenant, -s.idle_n, "
        "-CASE WHEN s.state = 'failed' THEN s.idle_n ELSE 0 END "
        "FROM session s JOIN hold h ON h.session_id = s.id UNION ALL "
        "SELECT h.held_at / 3600000000 * 3600000000, l.tenant, -l.cost_n, "
        "-CASE WHEN l.outcome <> 'ok' THEN l.cost_n ELSE 0 END "
        "FROM lease l JOIN hold h ON h.session_id = l.session_id) AS both_sides GROUP BY hour_at, tenant "
        "HAVING SUM(cost) <> 0 OR SUM(failed) <> 0",
    ),
    Invariant(
        "I33",
        "a session that was compared costs what its provider's figures come to",
        "SELECT s.id FROM recon_item i JOIN session s ON s.id = i.session_id "
        "WHERE i.state = 'compared' AND i.theirs_n <> s.cost_n",
    ),
    Invariant(
        "I34",
        "only an estimate is corrected by anything but its provider's figures",
        "SELECT e.id FROM entry e JOIN entry c ON c.id = e.corrects_id WHERE e.kind = 'adjust' "
        "AND e.quality <> 'provider' AND c.quality <> 'estimate'",
    ),
    Invariant(
        "I35",
        "what is booked of a session is as good as its latest entry",
        "SELECT s.id FROM session s JOIN (SELECT session_id, MAX(id) AS id FROM entry "
        "WHERE kind IN ('settle', 'adjust') GROUP BY session_id) x ON x.session_id = s.id "
        "JOIN entry e ON e.id = x.id WHERE s.quality <> e.quality",
    ),
    Invariant(
        "I36",
        "what an adjustment moved is what it books",
        "SELECT e.id FROM entry e LEFT JOIN (SELECT entry_id, SUM(cost_n) AS total FROM entry_share "
        "GROUP BY entry_id) m ON m.entry_id = e.id WHERE e.kind = 'adjust' AND e.amount_n <> COALESCE(m.total, 0)",
    ),
    Invariant(
        "I37",
        "what a provider billed for a period beyond our sessions is booked once, and only then",
        "SELECT p.provider FROM recon_period p LEFT JOIN session s ON s.id = p.session_id "
        "WHERE p.booked_n <> COALESCE(s.cost_n, 0) UNION ALL SELECT s.provider FROM session s "
        "LEFT JOIN recon_period p ON p.session_id = s.id WHERE s.platform = '(unattributed)' AND p.provider IS NULL",
    ),
)


def check(connection: Connection) -> list[Violation]:
    """Run every invariant; the connection's transaction decides which state of the books they see."""
    found = []
    for invariant in INVARIANTS:
        rows, sample = connection.exec_driver_sql(
            f"WITH broken(sample) AS ({invariant.query}) SELECT COUNT(*), MIN(CAST(sample AS TEXT)) FROM broken"  # noqa: S608
        ).one()
        if rows:
            violation = Violation(
                name=invariant.name, meaning=invariant.meaning, rows=rows, sample=sample or ""
            )
            found.append(violation)
    return found
