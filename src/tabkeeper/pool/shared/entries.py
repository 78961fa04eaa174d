"""What the log of a shared board is written in: entries, each with the events that one process told at one instant."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tabkeeper.clock import Instant
from tabkeeper.providers.breaker import Setback

Event = list[Any]
"""Its kind, and what is to be known of it, plain enough for JSON."""

OF_SESSIONS = frozenset(
    {
        "held",
        "ready",
        "failed",
        "denied",
        "late",
        "shorten",
        "share",
        "released",
        "doubt",
        "checked",
        "lost",
        "end",
        "closed",
    }
)
"""Kinds of events that name a session first."""
OF_CREATIONS = frozenset({"held", "ready", "failed", "denied"})
"""Those of them that say how a creation went, also when the session is gone."""
ANSWERED = frozenset({"failed", "denied", "late"})
"""Those that end with the number of a callback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the log: what a process told at an instant of the database's."""

    seq: int
    at: Instant
    home: int
    """Who told it; 0 before it has joined."""
    nonce: str
    """Different for each entry: told twice, it is known, and ids are made of it."""
    events: list[Event]
    seen_seq: int = 0
    """The teller's copy was here, ..."""
    seen_sum: int = 0
    """... and had come to this."""


def to_text(events: list[Event]) -> str:
    """Write events down."""
    return json.dumps(events, separators=(",", ":"))


def entry_from(row: Mapping[str, Any]) -> Entry:
    """Read a line of the log."""
    return Entry(
        seq=row["seq"],
        at=row["at"] / 1_000_000,
        home=row["home"],
        nonce=row["nonce"],
        events=json.loads(row["events"]),
        seen_seq=row["seen_seq"],
        seen_sum=row["seen_sum"],
    )


def setback_to(setback: Setback | None) -> list[Any] | None:
    """Write down what a failure means for its provider."""
    if setback is None:
        return None
    return [setback.kind, setback.base, setback.longest, setback.retry_after, setback.jitter]


def setback_from(facts: Collection[Any] | None) -> Setback | None:
    """Read what `setback_to` wrote."""
    if facts is None:
        return None
    kind, base, longest, retry_after, jitter = facts
    return Setback(kind=kind, base=base, longest=longest, retry_after=retry_after, jitter=jitter)
