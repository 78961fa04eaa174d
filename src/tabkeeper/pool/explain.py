"""Why a session is kept until when, or why and when it was closed: for people who ask about one session."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from tabkeeper.config import Dollars
from tabkeeper.ledger.histories import SessionHistory
from tabkeeper.pool.kept import Kept
from tabkeeper.pool.model import EVICTED_IN_USE
from tabkeeper.pool.stats import SessionStats

_REASONS = {
    "idle": "nobody needed it by the end of the time it was worth keeping",
    "evicted": "its place was needed for another session, and it was idle",
    EVICTED_IN_USE: "its place was needed for a request of higher priority than its holder's (evict_in_use)",
    "age": "it was as old as it may get (session_ttl, or the money held for it)",
    "used up": "it had served as many leases as it may (max_uses)",
    "unhealthy": "it was not found well",
    "lease expired": "its lease ran to its deadline and was taken back",
    "escalated": "its platform had moved to the next provider",
    "shutdown": "its pool closed",
    "drained": "its pool was draining",
}


class Explanation(BaseModel):
    """What there is to say of one session; `str()` of it is a few sentences."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    session_id: str
    platform: str
    provider: str
    state: str
    created_at: datetime
    cost: Dollars
    """So far, or in the end."""
    until: datetime | None = None
    """While idle: when it is closed if nobody comes. While leased: when the lease is taken back."""
    closed_at: datetime | None = None
    reason: str = ""
    """Why it was, or is being, closed, as the ledger has it."""
    kept: Kept | None = None
    """The figures of the decision to keep it, while it is idle."""
    text: str

    def __str__(self) -> str:
        return self.text


def explain_open(session: SessionStats, now: datetime) -> Explanation:
    """Explain a session that a pool runs, as it was at `now`."""
    until = session.lease_ends if session.state == "leased" else None
    if session.state == "idle" and session.kept is not None:
        until = min((at for at in (session.kept.until, session.fresh_until) if at is not None), default=None)
    return Explanation(
        session_id=session.id,
        platform=session.platform,
        provider=session.provider,
        state=session.state,
        created_at=session.created_at,
        cost=session.cost,
        until=until,
        reason=session.ending,
        kept=session.kept,
        text=" ".join(
            [
                (
                    f"Session {session.id} ({session.platform} at {session.provider}) is {session.state}, "
                    f"{_span(now, session.created_at)} old, and has cost {session.cost} in {session.uses} leases."
                ),
                *_about(session, until, now),
            ]
        ),
    )


def _about(session: SessionStats, until: datetime | None, now: datetime) -> list[str]:
    if session.ending:
        return [f"It is being closed: {_why(session.ending)}."]
    if session.state == "leased" and until is not None:
        return [
            f"Its lease is taken back at {_clock(until)}; what then becomes of it is decided when it ends."
        ]
    if session.state != "idle" or session.kept is None:
        return ["How long it is kept is decided when it is idle."]
    kept = session.kept
    said = [
        (
            f"It is idle since {_clock(session.idle_since or kept.decided_at)} and kept until "
            f"{_clock(until) if until is not None else 'somebody needs its place'}"
            f"{f' (in {_span(until, now)})' if until is not None and until > now else ''}, by the rule {kept.rule!r}."
        )
    ]
    if until is not None and until == session.fresh_until != kept.until:
        said.append("From then on it is too old for a new lease.")
    if kept.rule == "prewarm":
        return [*said, _ahead(kept)]
    return said + (_figures(kept) if kept.rule == "value" else [])


def _ahead(kept: Kept) -> str:
    return (
        f"It was created before anybody asked: by then somebody needs it with a chance of {kept.chance:.0%} "
        f"({kept.gaps_seen:.0f} gaps seen), for whom it is worth {kept.cold_start} (cold_start_cost) that it is ready; "
        f"in vain it costs {kept.waiting}."
    )


def _figures(kept: Kept) -> list[str]:
    paid = "its time costs nothing"
    if kept.paid_seconds is not None:
        paid = f"{kept.paid_seconds:.0f} s were paid for already when it became idle"
    return [
        (
            f"A new session for the next lease would cost {kept.new_session} (of it a fee of {kept.fee} and "
            f"{kept.cold_start} as cold_start_cost); by keeping this one the lease is expected to cost {kept.expected}."
        ),
        f"An hour costs {kept.per_hour}, and {paid}.",
        (
            f"Half of the gaps until the next use are expected to be shorter than {kept.gap_seconds:.0f} s "
            f"({kept.gaps_seen:.0f} seen, {kept.running_beside} leases beside it): by then it is used again with a "
            f"chance of {kept.chance:.0%}, and to wait in vain costs {kept.waiting}."
        ),
    ]


def explain_ended(session: SessionHistory) -> Explanation:
    """Explain a session by what the ledger knows: one that is over, or whose pool says nothing of it."""
    said = f"Session {session.id} ({session.platform} at {session.provider})"
    reason = session.close_reason or ""
    if session.ended_at is None:
        said += f" is {session.state} by the ledger since {_clock(session.created_at)}; its pool tells no more of it."
    else:
        lived = _span(session.ended_at, session.created_at)
        said += (
            f" was closed at {_clock(session.ended_at)}, {lived} old, because {_why(reason or session.state)}. "
            f"It cost {session.cost} in {session.uses} leases, {session.idle} of it while idle."
        )
        said += "".join(
            f" At {_clock(change.at)} it went to {change.new}: {change.reason}."
            for change in session.changes
            if change.reason not in {"", reason}
        )
    return Explanation(
        session_id=session.id,
        platform=session.platform,
        provider=session.provider,
        state=session.state,
        created_at=session.created_at,
        cost=session.cost,
        closed_at=session.ended_at,
        reason=reason,
        text=said,
    )


def _why(reason: str) -> str:
    return f"{_REASONS[reason]} ({reason!r})" if reason in _REASONS else reason


def _clock(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _span(later: datetime, earlier: datetime) -> str:
    return f"{max(0.0, (later - earlier).total_seconds()):.0f} s"
