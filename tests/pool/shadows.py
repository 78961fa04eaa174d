"""Copies of a shared board that hear what a judged board is told, in the words of the log, and must decide the same.

`ShadowedBoard` is a `MemoryBoard` for `Walk`: beside it run two copies without a database, one of which is thrown away
now and then and made anew from the other's snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tabkeeper.clock import VirtualClock
from tabkeeper.pool.board import MemoryBoard
from tabkeeper.pool.model import Action, Request, Rules
from tabkeeper.pool.shared import snapshot
from tabkeeper.pool.shared.entries import Entry
from tabkeeper.pool.shared.replica import Replica, said
from tabkeeper.pool.shared.teller import Teller
from tabkeeper.pool.view import View

from .builders import a_view

HOME = 1
EVENTS = (
    *("withdraw", "held", "ready", "failed", "denied", "too_late", "told_limit", "shorten"),
    *("released", "doubt", "checked", "lost", "end", "closed", "money_freed"),
)


class Copy(Replica):
    """A copy whose sessions are called s1, s2 … as a walk's are."""

    is_exact = True

    def __init__(self, rules: Rules) -> None:
        super().__init__(a_view(rules), "s")
        self.names = 0

    def _new_id(self) -> str:
        self.names += 1
        return f"s{self.names}"

    def told(self, at: float, *events: list[Any]) -> None:
        self.hear(Entry(seq=0, at=at, home=HOME, nonce="n", events=list(events)))


class _Words(Teller):
    def __init__(self, view: View, clock: VirtualClock, hear: Callable[[list[Any]], None]) -> None:
        super().__init__(view, clock, "s")
        self.replica.home = HOME
        self._hear = hear

    def _tell(self, *event: Any) -> None:
        self._hear(json.loads(json.dumps(list(event))))


class ShadowedBoard(MemoryBoard):
    """A board beside which copies decide, too."""

    renew_every = 7

    def __init__(self, view: View, clock: VirtualClock, carry_out: Callable[[list[Action]], None]) -> None:
        self.done: list[str] = []

        def note(actions: list[Action]) -> None:
            self.done += map(said, actions)
            carry_out(actions)

        super().__init__(view, clock, note)
        new_id = view.new_id
        self.copies = [Copy(view.rules), Copy(view.rules)]
        view.new_id = new_id  # a copy's teller makes ids of its own
        for copy in self.copies:
            copy.hear(Entry(seq=HOME, at=0.0, home=0, nonce="n", events=[["join", "p", "here", 1, 1]]))
        self.renewed = self.compared = 0
        words = _Words(a_view(view.rules), clock, self._hear)
        words.view = view
        self._words = words
        self._depth = 0

    def _hear(self, event: list[Any]) -> None:
        if self.view.draining:
            return  # there is no such thing on a shared board: its members leave one by one
        for copy in self.copies:
            copy.told(self._clock.monotonic(), event)

    def request(self, request: Request) -> None:
        request.home = HOME
        self._words.request(request)
        super().request(request)

    def _step(self) -> None:
        super()._step()
        mine, self.done = self.done, []
        for session in self.view.sessions.values():
            session.home = HOME
        if self.view.draining:
            return
        for copy in self.copies:
            copy.told(self._clock.monotonic())
            theirs = [said(action) for action in copy.decide()]
            assert theirs == mine, f"a copy decides {theirs}, the board {mine}"
            assert len(copy.view.requests) == len(self.view.requests)
        assert self.copies[0].sum == self.copies[1].sum
        self.compared += 1
        if self.compared % self.renew_every == 0:
            self._renew()

    def _renew(self) -> None:
        first = self.copies[0]
        made = Copy(self.view.rules)
        snapshot.load(made, snapshot.write(first))
        made.names = first.names
        assert not made.is_exact or snapshot.write(made) == snapshot.write(first)
        self.copies[1] = made
        self.renewed += 1


def _shadowed(name: str) -> Callable[..., Any]:
    def verb(self: ShadowedBoard, *args: Any, **more: Any) -> Any:
        if not self._depth:  # one verb may use another
            getattr(self._words, name)(*args, **more)
        self._depth += 1
        try:
            return getattr(MemoryBoard, name)(self, *args, **more)
        finally:
            self._depth -= 1

    return verb


for _name in EVENTS:
    setattr(ShadowedBoard, _name, _shadowed(_name))
