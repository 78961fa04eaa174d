"""The exact state of a copy of the board, as text: whoever loads it goes on as the copy that wrote it would.

Orders matter (stacks of idle sessions, heaps, turns), so the whole graph of plain objects is written as it is, and
only objects of the classes named here are ever made from it.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any

from tabkeeper.pool.gaps import Gaps, Histogram, _LaneGaps
from tabkeeper.pool.keep import Keeper
from tabkeeper.pool.lanes import LaneView, ProviderView
from tabkeeper.pool.meter import Meter
from tabkeeper.pool.model import Ahead, Lane, PlatformRules, Request, Rules, Session, State, Verdict
from tabkeeper.pool.queue import Turns, WaitQueue, _Step
from tabkeeper.pool.shared.replica import Member, Replica
from tabkeeper.pool.view import View
from tabkeeper.providers.breaker import Breaker, Ceiling, Gate, Pace
from tabkeeper.providers.route import Ladder

_CLASSES: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        View,
        LaneView,
        ProviderView,
        Request,
        Session,
        Verdict,
        Ahead,
        Rules,
        PlatformRules,
        WaitQueue,
        _Step,
        Turns,
        Keeper,
        Gaps,
        _LaneGaps,
        Histogram,
        Meter,
        Gate,
        Breaker,
        Pace,
        Ceiling,
        Ladder,
        Member,
    )
}
_LEFT_OUT = {"View": {"new_id", "costs"}}
_DICTS: Mapping[str, type] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}


def _fields(thing: object) -> Iterator[tuple[str, Any]]:
    left_out = _LEFT_OUT.get(type(thing).__name__, set())
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    for name in slots or vars(thing):
        if name not in left_out:
            yield name, getattr(thing, name)


class _Writer:
    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._things: list[object] = []

    def write(self, root: object) -> list[Any]:
        """Return one record for each object, the root's first."""
        self._number(root)
        # The list grows as it is gone through.
        return [
            [type(thing).__name__, {name: self._value(value) for name, value in _fields(thing)}]
            for thing in self._things
        ]

    def _number(self, thing: object) -> int:
        known = self._numbers.get(id(thing))
        if known is None:
            assert type(thing).__name__ in _CLASSES, f"{type(thing)} cannot be part of a snapshot"
            known = self._numbers[id(thing)] = len(self._things)
            self._things.append(thing)
        return known

    def _value(self, value: Any) -> Any:
        if value is None or type(value) in {bool, int, float, str}:
            return value
        if isinstance(value, State):
            return ["e", value.value]
        if isinstance(value, Lane):
            return ["l", *value]
        if isinstance(value, tuple):
            return ["t", [self._value(one) for one in value]]
        if isinstance(value, list):
            return ["a", [self._value(one) for one in value]]
        if isinstance(value, deque):
            return ["q", value.maxlen, [self._value(one) for one in value]]
        if isinstance(value, set | frozenset):
            written = sorted((self._value(one) for one in value), key=json.dumps)
            return ["s" if isinstance(value, set) else "f", written]
        if isinstance(value, Mapping):
            name = "defaultdict" if isinstance(value, defaultdict) else type(value).__name__
            return ["d", name, [[self._value(k), self._value(v)] for k, v in value.items()]]
        return ["o", self._number(value)]


class _Reader:
    def __init__(self, records: list[Any], root: object, known: Mapping[tuple[str, object], object]) -> None:
        self._records = records
        self._things: list[Any] = [root]
        for name, fields in records[1:]:
            kind = _CLASSES[name]
            old = known.get((name, fields.get("id"))) if kind in {Session, Request} else None
            self._things.append(object.__new__(kind) if old is None else old)

    def read(self) -> None:
        for thing, (_, fields) in zip(self._things, self._records, strict=True):
            for name, value in fields.items():
                object.__setattr__(thing, name, self._value(value))

    def _value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        match value[0]:
            case "e":
                return State(value[1])
            case "l":
                return Lane(*value[1:])
            case "t":
                return tuple(self._value(one) for one in value[1])
            case "a":
                return [self._value(one) for one in value[1]]
            case "q":
                return deque((self._value(one) for one in value[2]), maxlen=value[1])
            case "s":
                return {self._value(one) for one in value[1]}
            case "f":
                return frozenset(self._value(one) for one in value[1])
            case "d":
                items = {self._value(k): self._value(v) for k, v in value[2]}
                return defaultdict(list, items) if value[1] == "defaultdict" else _DICTS[value[1]](items)
            case "o":
                return self._things[value[1]]
            case other:
                raise ValueError(f"a snapshot of the board holds {other!r}, which this version does not know")


def write(replica: Replica) -> str:
    """Return the state of a copy as text."""
    return json.dumps(
        {
            "seq": replica.seq,
            "at": replica.at,
            "sum": replica.sum,
            "members": [[home, *(v for _, v in _fields(member))] for home, member in replica.members.items()],
            "view": _Writer().write(replica.view),
        },
        separators=(",", ":"),
    )


def load(
    replica: Replica,
    text: str,
    *,
    sessions: Mapping[str, Session] | None = None,
    requests: Mapping[int, Request] | None = None,
) -> None:
    """Make a copy what it was when `text` was written.

    Those `sessions` and `requests` (by default what it knows) stay the same objects, because others hold on to them;
    those that are no longer there are marked as closed, and as not waiting.
    """
    data = json.loads(text)
    view = replica.view
    sessions = dict(view.sessions if sessions is None else sessions)
    requests = dict({**view.requests, **replica.here} if requests is None else requests)
    known: dict[tuple[str, object], object] = {("Session", key): one for key, one in sessions.items()}
    known |= {("Request", key): one for key, one in requests.items()}
    _Reader(data["view"], view, known).read()
    for key, session in sessions.items():
        if key not in view.sessions:
            session.state = State.CLOSED
    for number, request in requests.items():
        if number not in view.requests:
            request.waiting = False
    replica.members.clear()
    replica.members.update({home: Member(*facts) for home, *facts in data["members"]})
    replica.restart(data["seq"], data["at"], data["sum"])
