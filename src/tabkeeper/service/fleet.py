"""A pool that several processes share, as one: what runs and who waits in all of them, and what each does.

Sessions, queue and limits are as exact as what the processes themselves know; jobs are as of each one's last heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import Field, ValidationError

from tabkeeper.ledger.boardread import read_boards
from tabkeeper.ledger.instants import moment
from tabkeeper.ledger.processes import Heard, heard
from tabkeeper.ledger.usage import MOST_COUNTED, reuse_since
from tabkeeper.pool.shared.whole import LimitStats, MemberStats, SharedSessionStats, shared_pools
from tabkeeper.pool.stats import ProviderStats
from tabkeeper.pool.waiting import WaitingStats
from tabkeeper.service.models import JobNow, Told

_QUEUE = 100
_LATELY = timedelta(hours=1)


class MemberNow(Told):
    """One process of the pool."""

    name: str
    process_id: str
    host: str
    is_this: bool = Field(description="It is the one that answers.")
    does_jobs: bool = Field(description="It does what is done once for all.")
    leaving: bool = Field(description="It takes no more requests.")
    sessions: int
    leased: int
    waiting: int
    heard_at: datetime | None = Field(description="Its last heartbeat, and as of when its jobs are told.")
    jobs: Mapping[str, JobNow]


class ReuseNow(Told):
    """How often leases of the last hour found a session that was there already, by the usage log."""

    since: datetime
    leases: int = Field(
        description=f"Leases begun since then that are over; the newest {MOST_COUNTED:,} at most, those of all "
        "pools that use this ledger."
    )
    reused: int
    reuse_rate: float


class FleetNow(Told):
    """The whole pool at this moment."""

    name: str
    at: datetime
    unread: str = Field(description="Why sessions, queue and limits are not known; empty if they are.")
    members: tuple[MemberNow, ...]
    sessions: tuple[SharedSessionStats, ...]
    queued: int
    queue: tuple[WaitingStats, ...] = Field(description="The first hundred; their place is their process.")
    limits: tuple[LimitStats, ...]
    providers: Mapping[str, ProviderStats] = Field(
        description="Breakers, paces and limits that hold for all."
    )
    reuse: ReuseNow


def fleet_of(process_id: str) -> Callable[[Any], FleetNow | None]:
    """Return the query that tells of the pool in which a process takes part; None if it shares none.

    It may take some tenths of a second: from an event loop, have it run in a thread.
    """

    def query(engine: Any) -> FleetNow | None:
        with engine.connect() as connection:
            boards = read_boards(connection)
            ours = [one for one in boards if any(member.process_id == process_id for member in one.members)]
            if not ours:
                return None
            last = heard(connection)
            since = moment(ours[0].now) - _LATELY
            reuse = reuse_since(connection, since)
        found = shared_pools(ours)[0]
        return FleetNow(
            name=found.name,
            at=found.at,
            unread=found.unread,
            members=tuple(_member(one, last.get(one.process_id), process_id) for one in found.members),
            sessions=found.sessions,
            queued=len(found.waiting),
            queue=found.waiting[:_QUEUE],
            limits=found.limits,
            providers=found.providers,
            reuse=ReuseNow(since=since, leases=reuse.leases, reused=reuse.reused, reuse_rate=reuse.share),
        )

    return query


def _member(one: MemberStats, last: Heard | None, this: str) -> MemberNow:
    return MemberNow(
        name=one.name,
        process_id=one.process_id,
        host=one.host,
        is_this=one.process_id == this,
        does_jobs=one.does_jobs,
        leaving=one.leaving,
        sessions=one.sessions,
        leased=one.leased,
        waiting=one.waiting,
        heard_at=None if last is None else last.at,
        jobs={} if last is None else _jobs(last.snapshot.get("jobs", {})),
    )


def _jobs(told: Mapping[str, Mapping[str, Any]]) -> dict[str, JobNow]:
    """Read what a process told, which may be of another version."""
    found = {}
    for name, job in told.items():
        try:
            found[name] = JobNow.model_validate({k: v for k, v in job.items() if k in JobNow.model_fields})
        except ValidationError:
            continue
    return found
