"""How long an idle session is worth keeping, and which idle session goes first when room is needed.

Today's rules are the plain ones: a fixed time per platform, and least recently used goes first.
"""

from __future__ import annotations

from tabkeeper.clock import Instant
from tabkeeper.pool.model import PlatformRules, Session


def keep_until(session: Session, rules: PlatformRules, now: Instant) -> Instant:
    """Return until when a session that has just become idle is kept; never past its fresh time."""
    return min(now + rules.idle_timeout, session.fresh_until)
