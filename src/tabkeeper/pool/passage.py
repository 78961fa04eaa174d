"""The way to a session's browser for somebody who relays a CDP conversation and watches what is said in it.

It says where the browser is and takes two reports: what the browser received, and that nothing of the client is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from tabkeeper.pool.traffic import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One lease's way to its browser; the session is closed after the lease unless `vouch` is called before its end."""

    connect_url: str = field(repr=False)
    """Where the browser is. It may contain a key: never told to the client."""
    meter: Meter = field(repr=False)
    """What the session received; feed it with `Meter.heard`."""
    outlives_connections: bool
    """The session goes on when nobody is connected, so that another lease can have it."""
    is_home: bool
    """The session is one identity's alone: who comes next is the same, and finds the first context as it was left."""
    is_shared: bool
    """Other leases of the identity may use it at the same time, so nothing in it may be closed."""
    has_profile: bool
    """The first context begins with what was saved, and its state is to be saved."""
    restore: Callable[[], Awaitable[None]] = field(repr=False)
    """Put the profile into it, before a client comes. Raises as `Lease.context` does."""
    remember: Callable[[Collection[str]], Awaitable[None]] = field(repr=False)
    """Read its state, with the storage of these origins, before the lease is released as a success."""
    leave: Callable[[], Awaitable[None]] = field(repr=False)
    """Give the profile back as it was: how the lease ends says nothing of the site."""
    vouch: Callable[[], None]
    """Say that the client's doings are known and undone: the session may be used again."""
