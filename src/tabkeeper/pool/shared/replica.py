"""One process's copy of a board that many share: the committed log, applied entry by entry, and the plan after each.

It is a function of the log alone, so that all copies come to the same decisions in the same order: it reads no clock,
draws no chance, and no order in it depends on hashes. What is to be done about a decision, and by whom, is the
caller's business.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from tabkeeper.clock import Instant
from tabkeeper.pool.model import (
    ENDING,
    NEVER,
    Action,
    Check,
    Close,
    Create,
    GiveUpPlace,
    Grant,
    Lane,
    Reclaim,
    Refuse,
    ReportLeak,
    Request,
    Session,
    State,
)
from tabkeeper.pool.plan import begin_check, end_session, plan
from tabkeeper.pool.referee import Referee
from tabkeeper.pool.shared.entries import ANSWERED, OF_CREATIONS, OF_SESSIONS, Entry, Event, setback_from
from tabkeeper.pool.view import View

SUMS_KEPT = 1024
"""Entries whose checksum a copy still knows, to compare it with what others say."""


@dataclass(slots=True)
class Member:
    """A process that takes part."""

    process: str
    """Its row in the ledger's table of processes."""
    host: str
    pid: int
    pid_started_at: int
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A session has gone from one process's hands to another's."""

    session: Session
    old: int
    new: int


class _Time:
    """The instant of the entry that is being applied."""

    def __init__(self) -> None:
        self.at: Instant = 0.0

    def monotonic(self) -> Instant:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


class Replica(Referee):
    """See the module.

    Args:
        view: what is kept; its ids are made here.
        prefix: how ids of sessions begin.
    """

    def __init__(self, view: View, prefix: str) -> None:
        self._time = _Time()
        self._actions: list[Action] = []
        super().__init__(view, self._time, self._actions.extend)
        view.new_id = self._new_id
        self._prefix = prefix
        self._nonce, self._made = "", 0
        self.events = 0
        """How many this process has applied."""
        self.members: dict[int, Member] = {}
        self.seq = 0
        self.sum = 0
        self.sums: OrderedDict[int, int] = OrderedDict()
        self.here: dict[int, Request] = {}
        """This process's own requests: the very objects, by id."""
        self.answers: dict[int, Callable[[Request], None]] = {}
        """What this process wants to be called back for, by the number it gave."""
        self.moved: list[Moved] = []
        """By the last entry."""
        self.home = 0
        """Which process this copy is of; 0 before it has joined."""

    @property
    def at(self) -> Instant:
        """The instant of the last entry."""
        return self._time.at

    def _new_id(self) -> str:
        self._made += 1
        digest = hashlib.blake2b(f"{self._nonce}/{self._made}".encode(), digest_size=8)
        return self._prefix + digest.hexdigest()

    def apply(self, entry: Entry) -> list[Action]:
        """Take in the next entry and plan; return all actions, of all processes."""
        assert entry.seq == self.seq + 1, f"entry {entry.seq} after {self.seq}"
        self.moved = []
        self.hear(entry)
        actions = self.decide()
        self.seq = entry.seq
        self.sums[self.seq] = self.sum
        if len(self.sums) > SUMS_KEPT:
            self.sums.popitem(last=False)
        return actions

    def hear(self, entry: Entry) -> None:
        """Let an entry's events change the view."""
        self._time.at = max(self._time.at, entry.at)
        self._nonce, self._made = entry.nonce, 0
        self.events += len(entry.events)
        for event in entry.events:
            self._take(entry, event)

    def decide(self) -> list[Action]:
        """Plan; return what follows from the events, too."""
        actions = [*self._actions, *plan(self.view, self._time.at)]
        self._actions.clear()
        for action in actions:
            if isinstance(action, Create) and action.session.home not in self.members:
                # Nobody asked for it yet.
                action.session.home = action.session.lane.home or min(self.members, default=0)
            if isinstance(action, Grant) and action.session.home != action.request.home:
                self.moved.append(Moved(action.session, action.session.home, action.request.home))
                action.session.home = action.request.home
        words = "|".join(map(said, actions))
        self.sum = crc32(f"{words}#{len(self.view.sessions)}/{len(self.view.requests)}".encode(), self.sum)
        return actions

    def found(self, seq: int) -> None:
        """Begin anew after an entry, with nothing on the board and nobody taking part."""
        for session in self.view.sessions.values():
            session.state = State.CLOSED
        for request in self.view.requests.values():
            request.waiting = False
        vars(self.view).update(vars(View(self.view.rules, self._new_id, self.view.keeper)))
        self.members.clear()
        self.restart(seq, self._time.at, 0)

    def agrees(self, entry: Entry) -> bool:
        """Whether what its teller's copy had come to is what this one had."""
        return self.sums.get(entry.seen_seq, entry.seen_sum) == entry.seen_sum

    def restart(self, seq: int, at: Instant, total: int) -> None:
        """Go on from here: the view and the members have been loaded."""
        self.seq, self._time.at, self.sum = seq, at, total
        self.sums.clear()
        self.sums[seq] = total
        self.moved = []

    # ── events ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, entry: Entry, event: Event) -> None:
        kind, *facts = event
        home = entry.home
        if kind == "join":
            self.members[entry.seq] = Member(*facts)
            return
        if kind == "adopt":
            self._adopt(entry.seq, **facts[0])
            return
        if home not in self.members:
            return  # it was taken for dead; it has to join anew
        session = self.view.sessions.get(facts[0]) if kind in OF_SESSIONS else None
        if session is None and kind in OF_CREATIONS:
            session = self._gone(home, *facts[:2])
        if kind in OF_SESSIONS and (session is None or (session.home != home and kind != "end")):
            if kind in ANSWERED:
                self._answer(entry, facts[-1])
            return  # it is not, or no longer, the teller's
        match kind:
            case "request":
                self._asked(home, facts)
            case "withdraw":
                request = self.view.requests.get(facts[0])
                if request is not None and request.home == home:
                    self.withdraw(request)
            case "leave":
                self.members[home].leaving = True
                self._drop_requests(home)
            case "left":
                self._left(home, awaited=bool(facts and facts[0]))
            case "bury":
                if facts[0] in self.members and facts[0] != home:
                    self._bury(facts[0], home, sure=facts[1], clean=False)
            case "limit":
                self.told_limit(facts[0], facts[1])
            case "route":
                if facts[0] in self.view.rules.platforms:
                    self.told_route(facts[0], tuple(facts[1]))
            case "money":
                self.money_freed()
            case _:
                assert session is not None, event
                self._of_session(entry, kind, session, facts[2 if kind in OF_CREATIONS else 1 :])

    def _gone(self, home: int, session_id: str, creation: list[Any]) -> Session | None:
        """A session that has left the board; how its creation went still tells something of its provider."""
        lane, provider, created_at = Lane(*creation[0]), creation[1], creation[2]
        if lane.platform not in self.view.rules.platforms or provider not in self.view.providers:
            return None
        gone = Session(session_id, lane, provider, "", created_at, State.CLOSED)
        gone.home = home
        return gone

    def _of_session(self, entry: Entry, kind: str, session: Session, facts: list[Any]) -> None:
        at = self._time.at
        match kind:
            case "held":
                self.held(session, facts[0])
            case "ready":
                self.ready(session)
            case "failed":
                blame, setback, counts, hope, number = facts
                self.failed(
                    session,
                    blame=blame,
                    setback=setback_from(setback),
                    counts=counts,
                    hope=hope,
                    then=self._answer(entry, number),
                )
            case "denied":
                seconds, why, effect, fits, hope, number = facts
                self.denied(
                    session,
                    until=at + seconds,
                    why=why,
                    effect=effect,
                    fits=frozenset(fits),
                    hope=hope,
                    then=self._answer(entry, number),
                )
            case "late":
                self.too_late(session, facts[0], then=self._answer(entry, facts[1]))
            case "shorten":
                self.shorten(session, facts[0], at + facts[1])
            case "share":
                self.share(session, facts[0], facts[1])
            case "released":
                use, keep, reason, check, success = facts
                self.released(session, use, keep=keep, reason=reason, check=check, success=success)
            case "doubt":
                self.doubt(session)
            case "checked":
                self.checked(session, ok=facts[0], reason=facts[1])
            case "lost":
                self.lost(session, facts[0])
            case "end":
                self.end(session, facts[0])
            case "closed":
                self.closed(session)
            case _:
                raise ValueError(f"the board's log holds an event that this version does not know: {kind!r}")

    def _answer(self, entry: Entry, number: int) -> Callable[[Request], None] | None:
        return self.answers.pop(number, None) if entry.home == self.home else None

    def _asked(self, home: int, facts: list[Any]) -> None:
        number, lane, tenant, priority, waited, patience, seconds, wants, failures = facts
        key = Lane(*lane)
        if key.platform not in self.view.rules.platforms or self.members[home].leaving:
            return
        at = self._time.at
        request = self.here.get(number) if home == self.home else None
        if request is None:
            request = Request(number, key, tenant, priority, at, at, seconds)
        request.arrived_at, request.deadline = at - waited, at + patience
        request.lease_seconds, request.wants, request.failures = seconds, wants, failures
        request.home, request.covered_by, request.waiting = home, None, True
        if number not in self.view.requests:
            self.request(request)

    def _drop_requests(self, home: int) -> None:
        for request in [one for one in self.view.requests.values() if one.home == home]:
            self.withdraw(request)

    def _left(self, home: int, *, awaited: bool) -> None:
        """Let a process go, if somebody is there to go on with what it leaves, or when it leaves nothing."""
        self.members[home].leaving = True
        heirs = [one for one, member in self.members.items() if not member.leaving]
        left = [one for one in self.view.sessions.values() if one.home == home and one.lane.home is None]
        if not heirs and awaited:
            # Those who come to run the board next take up what idles: it leaves this board, but does not end.
            idle = [one for one in left if one.state is State.IDLE]
            left = [one for one in left if one.state is not State.IDLE]
            self.moved += [Moved(session, home, 0) for session in idle if not left]
        if heirs or not left:
            self._bury(home, min(heirs, default=0), sure=True, clean=True)
            return
        for session in left:
            self.end(session, "shutdown")

    def _adopt(
        self,
        home: int,
        *,
        id: str,  # noqa: A002 - the word of the log
        lane: list[Any],
        provider: str,
        tenant: str,
        created_at: Instant,
        fresh_until: Instant | None,
        dies_at: Instant | None,
        uses: int,
    ) -> None:
        """Take up an idle session that was left to the board; of what does not fit it, the ledger's row tells."""
        key = Lane(*lane)
        rules = self.view.rules.platforms.get(key.platform)
        if (
            home not in self.members
            or rules is None
            or provider not in rules.providers
            or id in self.view.sessions
        ):
            return
        at = self._time.at
        session = Session(id, key, provider, tenant, created_at)
        session.home, session.uses = home, uses
        session.fresh_until = NEVER if fresh_until is None else fresh_until
        session.dies_at = NEVER if dies_at is None else dies_at
        self.view.add_session(session)
        self.view.move(session, State.IDLE, at)

    def _bury(self, home: int, heir: int, *, sure: bool, clean: bool) -> None:
        """Take a process out, and give what it had to its heir; with `sure` nobody uses its sessions any more."""
        del self.members[home]
        self._drop_requests(home)
        for lane in [one for one in self.view.ahead if one.home == home]:
            del self.view.ahead[lane]
        at = self._time.at
        for session in [one for one in self.view.sessions.values() if one.home == home]:
            if session.lane.home is not None or not heir:
                # What only that process could use ended with it.
                if session.state not in ENDING:
                    end_session(self.view, session, "its process is gone", at, [])
                self.view.move(session, State.CLOSED, at)
                continue
            session.home = heir
            self.moved.append(Moved(session, home, heir))
            if session.state in ENDING:
                self._actions.append(Close(session))
            elif session.state is State.UNHEALTHY:
                self._actions.append(Check(session))
            elif session.state is State.CREATING or (session.state is State.LEASED and not sure):
                # Whoever is only cut off may go on using what it has leased, so nobody else gets that.
                end_session(self.view, session, "its process is gone", at, self._actions)
            elif session.state is State.LEASED or not clean:
                begin_check(self.view, session, at, self._actions)


def said(action: Action) -> str:
    """An action in a few letters: what copies must agree on."""
    match action:
        case Grant(request, session, use):
            return f"G{request.id},{session.id},{use}"
        case Create(session):
            return f"C{session.id},{session.provider},{session.lane.platform}"
        case Close(session):
            return f"X{session.id}"
        case Check(session):
            return f"K{session.id}"
        case Reclaim(session, use):
            return f"R{session.id},{use}"
        case ReportLeak(session, use):
            return f"L{session.id},{use}"
        case Refuse(request):
            return f"N{request.id}"
        case GiveUpPlace(session):
            return f"P{session.id}"


def whose(action: Action) -> int:
    """Return which process has to carry an action out."""
    match action:
        case Grant(request) | Refuse(request):
            return request.home
        case Create(session) | Close(session) | Check(session) | GiveUpPlace(session):
            return session.home
        case Reclaim(session, _) | ReportLeak(session, _):
            return session.home
