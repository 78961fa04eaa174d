"""What goes over the wire: requests and answers of the HTTP API as models. Money is decimal text, durations seconds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tabkeeper.config import Dollars, Name
from tabkeeper.service.problems import Problem

Seconds = Annotated[float, Field(ge=0, le=10**8, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Asked(BaseModel):
    """Base of requests: a field that does not exist is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)


class LeaseRequestBody(Asked):
    """What kind of session is wanted. All but the platform may be left out."""

    platform: Name = Field(description="A name under [platforms].")
    tenant: Name | None = Field(None, description="Who is charged; the token's first tenant, or 'default'.")
    priority: int = Field(0, ge=-(10**6), le=10**6, description="Higher is served first.")
    timeout: Seconds | None = Field(
        None, description="How long to stay in the queue; queue_timeout if left out."
    )
    wait: Seconds | None = Field(
        None,
        description="How long this call waits before it answers 202 with the place in the queue; until the lease is "
        "there or refused if left out, but service.max_wait at most. 0 answers at once.",
    )
    ttl: Annotated[float, Field(gt=0, le=86400)] | None = Field(
        None,
        description="The lease is taken back if nothing is heard for so long; service.lease_ttl if left out.",
    )
    max_duration: Seconds | None = Field(None, description="The lease is taken back after this time.")
    max_cost: Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,9})?$")] | None = Field(
        None, description='The lease is taken back before it costs more, in dollars: "0.05".'
    )
    profile: Text | None = Field(None, description="Domain of a site whose saved state is loaded and saved.")
    identity: Text | None = Field(None, description="Whose account is logged in; only a hash of it is kept.")
    session_id: Text | None = Field(None, description="Of an earlier lease, whose session is preferred.")
    sticky: Text | None = Field(None, description="Leases of one key go through one proxy.")
    failed_proxies: tuple[Text, ...] = Field((), max_length=100, description="Proxies not to go through.")
    tags: dict[Name, Annotated[str, Field(max_length=200)]] = Field(
        default_factory=dict, max_length=20, description="Kept with the lease in the usage log."
    )
    direct: bool = Field(
        default=False,
        description="Whether to tell the provider's own address; needs the scope 'direct'. The session is closed "
        "afterwards instead of being reused.",
    )


class ReleaseBody(Asked):
    """How the work went."""

    success: bool = True
    reason: Text | None = Field(None, description='Why it failed; with "blocked" the session is not reused.')


class QueuePlace(Told):
    """Where a request stands that has no session yet."""

    position: int = Field(description="1 is next.")
    waited_seconds: float
    gives_up_in_seconds: float
    blocked_by: str = Field(description="What stands between it and a session.")


class LeaseAnswer(Told):
    """A lease, or a place in the queue for one."""

    id: str
    status: str = Field(description="queued, active, ended or refused.")
    message: str = Field(description="The same for people.")
    platform: str
    tenant: str
    priority: int
    asked_at: datetime
    queue: QueuePlace | None = None
    session_id: str | None = None
    usage_id: str | None = Field(None, description="The lease's id in the usage log.")
    provider: str | None = None
    is_new: bool | None = Field(
        None, description="Whether the session was created for it, or is not the one that session_id named."
    )
    granted_at: datetime | None = None
    deadline: datetime | None = Field(None, description="It is taken back then.")
    waited_seconds: float | None = None
    expires_in_seconds: float | None = Field(
        None, description="It is taken back then if nothing is heard; null while a client is connected."
    )
    cost: Dollars | None = Field(None, description="So far, or in the end, by the price list.")
    hourly_rate: Dollars | None = Field(
        None, description="What an hour of the session costs by its price list, fees and traffic aside."
    )
    bytes_received: int | None = Field(None, description="What the session received during the lease.")
    outcome: str | None = Field(None, description="Of an ended lease: ok, failed, reclaimed or lost.")
    problem: Problem | None = Field(None, description="Why it was refused.")


class NewLeaseAnswer(LeaseAnswer):
    """The same, with what only its holder may know; told once."""

    token: str = Field(description="The lease's own token: who shows it is its holder.")
    cdp_url: str = Field(description="Where a CDP client connects; it contains the lease's token.")
    connect_url: str | None = Field(None, description="The provider's own address, if asked for.")


def seconds(value: float | None) -> timedelta | None:
    """Turn seconds of the wire into a duration."""
    return None if value is None else timedelta(seconds=value)


class JobHealth(Told):
    """How a job of the timetable went."""

    ok: bool
    last_run: datetime | None
    last_result: str


class HealthAnswer(Told):
    """Whether the service can be used, and how full it is."""

    status: str = Field(
        description="ok; degraded: something failed, but leases are given; unavailable: none are."
    )
    service: str = "tabkeeper"
    version: str
    capacity: str = Field(description="Sessions and the most there may be.", examples=["7/10"])
    session_capacity: str = Field(description="The same as capacity.", examples=["7/10"])
    active_sessions: int
    max_sessions: int
    persistent_sessions: int = Field(description="Sessions that are idle and kept for whoever comes next.")
    queued: int
    database: str = Field(description="ok, or why it is not.")
    jobs: dict[str, JobHealth]
    providers: dict[str, str] = Field(description="State of each one's breaker: closed is well.")
    problems: tuple[str, ...] = Field(description="What is wrong, in words.")
    timestamp: datetime


class SessionAnswer(Told):
    """One open session."""

    id: str
    platform: str
    provider: str
    tenant: str
    identity: str | None = Field(None, description="First digits of the keyed hash of whose account it is.")
    state: str
    uses: int
    created_at: datetime
    last_used: datetime | None
    last_refresh: datetime | None
    keep_alive: datetime | None = Field(None, description="While idle: it is kept until then.")
    lease_ends: datetime | None = None
    health: float
    cost: Dollars


class SessionsStatsAnswer(Told):
    """Sessions in brief."""

    status: str
    total: int
    healthy: int
    degraded: int
    average_age_minutes: float
    average_uses: float


class CleanupAnswer(Told):
    """What a cleanup did."""

    status: str
    closed: int
    message: str


class JobNow(Told):
    """One job of the timetable."""

    every_seconds: float
    runs: int
    failures: int
    last_run: datetime | None
    last_result: str
