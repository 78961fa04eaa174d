"""What was booked after the entry that a report is as of: read once, and taken off every sum.

The sums in the database are those of today. An entry's part in them is known to the last unit, so yesterday's are
today's without what came since.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from tabkeeper.ledger.instants import HOUR_US


class Piece(NamedTuple):
    """What one entry added to the sums of one platform, provider and tenant (and kind, of a line)."""

    at: int
    key: tuple[str, ...]
    sums: tuple[int, ...]
    """In the order of `figures.MEASURES`, or of `figures.LINE_MEASURES`."""


@dataclass(frozen=True, slots=True)
class Later:
    """Pieces in the order of their instants."""

    usage: Sequence[Piece] = ()
    lines: Sequence[Piece] = ()

    def usage_in(self, start: int, end: int) -> Iterator[Piece]:
        """Yield what counts in a span."""
        return _within(self.usage, start, end)

    def lines_in(self, start: int, end: int) -> Iterator[Piece]:
        """Yield what counts in a span."""
        return _within(self.lines, start, end)


NOTHING = Later()


def read_later(conn: Connection, upto: int) -> Later:
    """Read what entries with higher numbers than `upto` added."""
    if conn.execute(text("SELECT 1 FROM entry WHERE id > :upto LIMIT 1"), {"upto": upto}).first() is None:
        return NOTHING
    usage = [_piece(row, 3) for query in _USAGE for row in conn.execute(query, {"upto": upto})]
    lines = [_piece(row, 4) for row in conn.execute(_LINES, {"upto": upto})]
    return Later(sorted(usage), sorted(lines))


def hour_of(piece: Piece) -> int:
    """Return the beginning of the UTC hour in which a piece counts."""
    return piece.at // HOUR_US * HOUR_US


def _piece(row: Any, keys: int) -> Piece:
    at, *rest = row
    return Piece(int(at), tuple(map(str, rest[:keys])), tuple(int(value or 0) for value in rest[keys:]))


def _within(pieces: Sequence[Piece], start: int, end: int) -> Iterator[Piece]:
    for place in range(bisect_left(pieces, start, key=lambda piece: piece.at), len(pieces)):
        if pieces[place].at >= end:
            return
        yield pieces[place]


# The order of columns is that of `figures.MEASURES`: cost, idle, rounding, failed, sessions, failed sessions, leases,
# reused, failures, lives, leased, waited, bytes. A session settled later counts as it stands, adjustments included.
_USAGE = (
    text("""
        SELECT e.effective_at, s.platform, s.provider, s.tenant, s.idle_n, s.idle_n, s.rounding_n,
               CASE WHEN s.state = 'failed' THEN s.idle_n ELSE 0 END, 1,
               CASE WHEN s.state = 'failed' THEN 1 ELSE 0 END, 0, 0, 0, s.seconds_us, 0, 0, 0
          FROM entry e JOIN session s ON s.id = e.session_id WHERE e.id > :upto AND e.kind = 'settle'"""),
    text("""
        SELECT e.effective_at, s.platform, s.provider, l.tenant, l.cost_n, 0, 0,
               CASE WHEN l.outcome <> 'ok' THEN l.cost_n ELSE 0 END, 0, 0, 1, 1 - l.is_new,
               CASE WHEN l.outcome <> 'ok' THEN 1 ELSE 0 END, 0,
               CASE WHEN l.end_age_us > l.start_age_us THEN l.end_age_us - l.start_age_us ELSE 0 END,
               l.waited_us, l.bytes
          FROM entry e JOIN session s ON s.id = e.session_id JOIN lease l ON l.session_id = s.id
         WHERE e.id > :upto AND e.kind = 'settle'"""),
    # What was settled before and adjusted since moved only so much.
    text("""
        SELECT e.effective_at, s.platform, s.provider, s.tenant, m.cost_n, m.cost_n, m.rounding_n,
               CASE WHEN s.state = 'failed' THEN m.cost_n ELSE 0 END, 0, 0, 0, 0, 0, m.seconds_us, 0, 0, 0
          FROM entry e JOIN session s ON s.id = e.session_id JOIN entry_share m ON m.entry_id = e.id
         WHERE e.id > :upto AND e.kind = 'adjust' AND e.corrects_id <= :upto AND m.lease_id = ''"""),
    text("""
        SELECT e.effective_at, s.platform, s.provider, l.tenant, m.cost_n, 0, 0,
               CASE WHEN l.outcome <> 'ok' THEN m.cost_n ELSE 0 END, 0, 0, 0, 0, 0, 0, 0, 0, 0
          FROM entry e JOIN session s ON s.id = e.session_id JOIN entry_share m ON m.entry_id = e.id
          JOIN lease l ON l.id = m.lease_id
         WHERE e.id > :upto AND e.kind = 'adjust' AND e.corrects_id <= :upto"""),
)

_LINES = text("""
    SELECT e.effective_at, s.platform, s.provider, s.tenant, n.kind,
           n.amount_n, n.raw_qty, n.billed_qty, n.included_qty
      FROM entry e JOIN session s ON s.id = e.session_id JOIN entry_line n ON n.entry_id = e.id
     WHERE e.id > :upto""")
