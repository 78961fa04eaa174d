"""A whole shared pool at one moment: who takes part, what runs, who waits for what, and which limits are reached.

It is worked out from the board's log as every process of the pool does, so it is as exact as what they know, and it
can be read by anybody who reaches the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from tabkeeper.clock import Instant
from tabkeeper.ledger.boardread import BoardRows
from tabkeeper.pool.fleet import code_of_decisions
from tabkeeper.pool.model import NEVER, Rules, Session, State
from tabkeeper.pool.shared import snapshot
from tabkeeper.pool.shared.entries import entry_from
from tabkeeper.pool.shared.replica import Replica
from tabkeeper.pool.stats import Frozen, ProviderStats
from tabkeeper.pool.sweeper import label_prefix
from tabkeeper.pool.tally import provider_stats
from tabkeeper.pool.view import View
from tabkeeper.pool.waiting import WaitingStats, waiting

_NOTHING = Rules(
    max_sessions=0,
    max_queued=0,
    aging=1.0,
    close_timeout=0.0,
    leak_after=0.0,
    platforms={},
    provider_limits={},
)


class MemberStats(Frozen):
    """One process of a shared pool."""

    name: str
    """Its process id and host, as other tables show it."""
    host: str
    pid: int | None
    """None of those that stand by, and if this version cannot read the board."""
    process_id: str
    stands_by: bool = False
    """It has another version or configuration, and waits until those that take part have left."""
    leaving: bool = False
    """It takes no more requests."""
    does_jobs: bool = False
    """It does what is done once for all."""
    sessions: int = 0
    """In its hands."""
    leased: int = 0
    waiting: int = 0


class SharedSessionStats(Frozen):
    """One session of a shared pool."""

    id: str
    platform: str
    provider: str
    tenant: str
    """Whose budgets hold its cost."""
    state: str
    since_seconds: float
    """How long it has been idle, or leased; else its age."""
    uses: int
    process: str
    """Who has it in its hands."""
    only_there: bool
    """No other process can use it."""


class LimitStats(Frozen):
    """One limit over all processes."""

    kind: str
    """pool, queue, platform, provider or tenant (whose limit is of leases)."""
    name: str
    used: int
    most: int


class SharedPoolStats(Frozen):
    """One shared pool."""

    name: str
    at: datetime
    """The board's time."""
    members: tuple[MemberStats, ...]
    sessions: tuple[SharedSessionStats, ...] = ()
    waiting: tuple[WaitingStats, ...] = ()
    """In the order of their arrival; `place` is the process whose caller it is."""
    limits: tuple[LimitStats, ...] = ()
    providers: Mapping[str, ProviderStats] = {}
    """What one process learns of a provider holds for all."""
    unread: str = ""
    """Why sessions, queue and limits are not known; empty if they are."""


def shared_pools(boards: Iterable[BoardRows]) -> list[SharedPoolStats]:
    """Return what `ledger.boardread.read_boards` read as pools.

    It may take some tenths of a second and blocks meanwhile: from an event loop, call it in a thread.
    """
    return [_pool(rows) for rows in boards]


def _pool(rows: BoardRows) -> SharedPoolStats:
    at = datetime.fromtimestamp(rows.now / 1_000_000, UTC)
    replica = _follow(rows)
    if isinstance(replica, str):
        members = (_member(one.host, None, one.process_id, rows) for one in rows.members)
        return SharedPoolStats(name=rows.board, at=at, members=(*members, *_successors(rows)), unread=replica)
    view, now = replica.view, max(replica.at, rows.now / 1_000_000)
    names = {home: f"{one.pid}@{one.host.partition('/')[0]}" for home, one in replica.members.items()}
    homes = [request.home for request in view.requests.values()]
    held = list(view.sessions.values())
    members = (
        _member(one.host, one.pid, one.process, rows).model_copy(
            update={
                "leaving": one.leaving,
                "sessions": sum(session.home == home for session in held),
                "leased": sum(session.home == home and session.state is State.LEASED for session in held),
                "waiting": homes.count(home),
            }
        )
        for home, one in replica.members.items()
    )
    return SharedPoolStats(
        name=rows.board,
        at=at,
        members=(*members, *_successors(rows)),
        sessions=tuple(_session(one, names.get(one.home, "?"), now) for one in held),
        waiting=tuple(waiting(view, lambda number: names.get(view.requests[number].home, "?"), now)),
        limits=tuple(_limits(view)),
        providers={name: provider_stats(one, now) for name, one in view.providers.items()},
    )


def _follow(rows: BoardRows) -> Replica | str:
    """Come to what the members have come to; or say why that cannot be done."""
    if not rows.document:
        return "it has just been begun"
    if rows.planner.partition(":")[0] != code_of_decisions():
        return "its processes run another version of Tabkeeper than this command"
    replica = Replica(View(_NOTHING, lambda: ""), label_prefix(rows.installation))
    snapshot.load(replica, rows.document)
    for row in rows.entries:
        entry = entry_from(row)
        if not replica.agrees(entry):
            return "what its processes have told cannot be followed from its last snapshot"
        replica.apply(entry)
    return replica


def _member(host: str, pid: int | None, process: str, rows: BoardRows) -> MemberStats:
    machine = host.partition("/")[0]
    return MemberStats(
        name=machine if pid is None else f"{pid}@{machine}",
        host=machine,
        pid=pid,
        process_id=process,
        does_jobs=process == rows.leader,
    )


def _successors(rows: BoardRows) -> Iterator[MemberStats]:
    for one in rows.successors:
        yield _member(one.host, None, one.process_id, rows).model_copy(update={"stands_by": True})


def _session(session: Session, process: str, now: Instant) -> SharedSessionStats:
    began = {State.IDLE: session.idle_since, State.LEASED: session.leased_at}
    return SharedSessionStats(
        id=session.id,
        platform=session.lane.platform,
        provider=session.provider,
        tenant=session.tenant,
        state=str(session.state),
        since_seconds=round(max(0.0, now - began.get(session.state, session.created_at)), 3),
        uses=session.uses,
        process=process,
        only_there=session.lane.home is not None,
    )


def _limits(view: View) -> Iterator[LimitStats]:
    rules = view.rules
    yield LimitStats(kind="pool", name="", used=len(view.sessions), most=rules.max_sessions)
    yield LimitStats(kind="queue", name="", used=len(view.requests), most=rules.max_queued)
    for name, platform in rules.platforms.items():
        yield LimitStats(kind="platform", name=name, used=view.by_platform[name], most=platform.max_sessions)
    for name, provider in view.providers.items():
        if provider.limit < NEVER:
            yield LimitStats(kind="provider", name=name, used=provider.sessions, most=provider.limit)
    for name, most in rules.tenant_limits.items():
        yield LimitStats(kind="tenant", name=name, used=view.leased_by_tenant[name], most=most)
