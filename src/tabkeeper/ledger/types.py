"""Plain values that go into the ledger and come out of it. No SQL, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from tabkeeper.ledger.rates import RateCard
from tabkeeper.money import ZERO, Money


class Quality(StrEnum):
    """How well a cost is known."""

    MEASURED = "measured"
    """By our own clock, from creation to confirmed end."""
    PROVIDER = "provider"
    """By the provider's figures."""
    ESTIMATE = "estimate"
    """The end is unknown: what we cannot disprove, we count."""


OWN_TAGS = "tabkeeper/"
"""Names of tags that begin so are ours, in exports; users' tags do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """Ask to hold the worst case of one session before it is created."""

    session_id: str
    """Chosen by the pool, never reused; asking again with the same content returns the same hold."""
    platform: str
    provider: str
    tenant: str
    max_seconds: float
    """Longest life wanted, in seconds; the worst case is priced on it (plus nothing: add close times before)."""
    max_session_cost: Money | None = None
    """The life is shortened until the worst case fits in this."""
    proxy_price: Decimal | None = None
    """Dollars for 10^9 bytes through the session's own proxy; None if that costs nothing."""
    proxy_bytes: int = 0
    """The most that it may move through that proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Money set aside for a session that may now be created."""

    session_id: str
    amount: Money
    max_seconds: float
    """What the provider-side timeout must not exceed; at most what was asked for."""
    expires_at: datetime
    card: RateCard
    """The price list frozen for this session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUsage:
    """What a session used in its whole life."""

    seconds: float
    """From the moment the create call was sent to the confirmed end."""
    proxy_bytes: int = 0
    """Through a proxy that the provider charges for."""
    own_proxy_bytes: int | None = None
    """Through a proxy of one's own; None if nobody knows, and then all that was held for is counted."""
    quality: Quality = Quality.MEASURED


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What a session cost in the end."""

    session_id: str
    cost: Money
    idle: Money = ZERO
    """Part of `cost` that no lease used."""
    rounding: Money = ZERO
    """Part of `cost` owed to billing increments and minimums, not to time really used."""
    provisional: bool = False
    """The database was away: this is our price of the usage, which is kept and will be booked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseUsage:
    """One row of the usage log: who used which session, how long, and how it went.

    `start_age` and `end_age` are seconds of the session's life (0 is when its create call was sent).
    """

    lease_id: str
    session_id: str
    use_number: int
    platform: str
    provider: str
    tenant: str
    priority: int
    requested_at: datetime
    granted_at: datetime
    released_at: datetime
    waited: float
    start_age: float
    end_age: float
    is_new: bool
    """True if this was the session's first lease, so that it was created rather than reused."""
    outcome: str
    """"ok", "failed", "reclaimed", "evicted" or "lost"."""
    error: str | None = None
    bytes_received: int = 0
    place: str | None = None
    """file:line that asked for the lease."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A session moved from one state to another."""

    session_id: str
    at: datetime
    old: str
    new: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """A running session that another process began, and what there is to go on with."""

    provider_session_id: str | None
    """None: its creation was not answered, so it may not even exist."""
    connect_sealed: str | None = field(repr=False)
    created_at: datetime
    hold: Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A session that the ledger thinks is alive but whose owning process is not."""

    session_id: str
    platform: str
    provider: str
    provider_session_id: str | None
    pid: int | None
    pid_started: float | None
    created_at: datetime
    hold: Money
    expires_at: datetime
    """The hold reaches no further, and so does the timeout at the provider."""
    owner: str
    """The dead process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A session that the ledger takes to run at its provider, whichever process owns it."""

    session_id: str
    provider_session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the ledger says of a session that a provider lists."""

    session_id: str
    provider: str
    provider_session_id: str | None
    ended: bool
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """An invariant that does not hold: its name, what it says, and how many rows break it."""

    name: str
    meaning: str
    rows: int
    sample: str = ""
