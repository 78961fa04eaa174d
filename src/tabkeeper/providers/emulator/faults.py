"""Misbehaviour on order: what an emulator does wrong, when, and how often. Plain data, no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Verb = Literal["create", "get", "list", "release", "usage", "any"]
Deed = Literal["late", "slow", "drop", "status", "status after", "lag", "empty", "stale"]
"""What goes wrong.

- ``late``: done at once, answered after `seconds`.
- ``slow``: done, and answered, after `seconds`.
- ``drop``: done, and the connection dropped instead of an answer.
- ``status``: not done; answered with `status`, as the provider words it, and `retry_after` if set.
- ``status after``: done, yet answered with `status`.
- ``lag``: a list that does not show sessions younger than `seconds` yet.
- ``empty``: a list that shows nothing.
- ``stale``: a list or an answer that still shows sessions as running that are over.
"""
_LISTS = frozenset({"lag", "empty"})


@dataclass(slots=True, kw_only=True)
class Fault:
    """One order to misbehave."""

    on: Verb
    do: Deed
    seconds: float = 0.0
    status: int = 500
    retry_after: str | None = None
    """As the header says it: seconds or an HTTP date."""
    times: int = 1
    """How often; it is used up then."""
    session_id: str | None = None
    """Only for this one."""
    done: int = 0

    def __post_init__(self) -> None:
        if self.on not in get_args(Verb):
            raise ValueError(f"on: {self.on!r} is none of {', '.join(get_args(Verb))}")
        if self.do not in get_args(Deed):
            raise ValueError(f"do: {self.do!r} is none of {', '.join(get_args(Deed))}")
        if self.do in _LISTS and self.on != "list":
            raise ValueError(f"do: only a list can be {self.do!r}")
        if not 400 <= self.status <= 599:
            raise ValueError("status: must be that of an error, 400 to 599")


class Faults:
    """All orders of one emulator, in the order in which they were given."""

    def __init__(self) -> None:
        self._orders: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Give an order."""
        self._orders.append(fault)
        return fault

    def clear(self) -> None:
        """Behave again."""
        self._orders.clear()

    def take(self, verb: Verb, session_id: str | None) -> Fault | None:
        """Return the first order for this call, and count it."""
        for fault in self._orders:
            if (
                fault.on in {verb, "any"}
                and fault.session_id in {None, session_id}
                and fault.done < fault.times
            ):
                fault.done += 1
                return fault
        return None
