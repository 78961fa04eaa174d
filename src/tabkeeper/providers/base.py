"""What a provider of browsers must answer: a few verbs, and a record of what it can do.

An adapter turns one vendor's ways into these values and nothing else; it decides nothing and knows no ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from math import ceil, floor
from typing import Protocol, runtime_checkable

from tabkeeper.money import Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a provider can do, as data, so that plans can read it."""

    list_by_label: bool = False
    """`list` finds sessions by the label they were created with."""
    finds_ended: bool = False
    """`find` tells of sessions that are over, too: what it does not know, long after, was never created."""
    extend: bool = False
    """`extend` moves the provider-side timeout of a running session."""
    usage: bool = False
    """`usage` tells what the provider billed or measured."""
    own_timeout: bool = False
    """The provider itself ends a session after `SessionSpec.max_seconds`."""
    min_seconds: float = 0.0
    """The shortest time after which the provider itself ends a session."""
    max_seconds: float | None = None
    """The longest; None if it sets no limit."""
    step_seconds: float = 0.0
    """Its timeouts are whole multiples of this, such as minutes; 0 if any will do."""
    live_view: bool = False
    """A person can watch a session at an address that the adapter tells."""
    regions: bool = False
    """Where browsers run can be chosen."""
    proxies: bool = False
    """The provider has proxies of its own."""
    own_proxies: frozenset[str] = frozenset()
    """Schemes of the proxies of the caller's own that a session can be given, such as ``http``."""
    proxy_by_context: bool = False
    """Whoever opens a context gives it the session's proxy; the provider itself cannot do it for all."""
    concurrency: bool = False
    """`check` tells how many sessions the account may run at once."""
    host_bound: bool = False
    """Its sessions end with this process at the latest: nothing appears, or stays, without it."""
    outlives_connections: bool = True
    """A session goes on when its last client has disconnected; with the setting `keep_alive` any does."""
    free_until_connected: bool = False
    """A session costs nothing until somebody connects to it."""

    def whole_steps(self, seconds: float, *, up: bool = False) -> float:
        """Return the longest timeout that the provider takes and that is not above `seconds` (`up`: not below)."""
        if not self.step_seconds:
            return seconds
        steps = seconds / self.step_seconds
        return (ceil(steps) if up else floor(steps)) * self.step_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySpec:
    """The proxy that a session goes through."""

    server: str
    """``scheme://host:port``, without credentials."""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    url: str = field(default="", repr=False)
    """All in one: ``scheme://user:password@host:port``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """What a session to be created must be like."""

    session_id: str
    """Our id; the provider's session carries it as its label."""
    platform: str
    max_seconds: float
    """Nobody pays for it longer than this: the provider-side timeout, where there is one."""
    options: Mapping[str, object] = field(default_factory=dict)
    proxy: ProxySpec | None = None
    """For its whole life; only where `Capabilities.own_proxies` has its scheme."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSession:
    """A session as the provider knows it."""

    provider_session_id: str
    connect_url: str = field(repr=False)
    """Where a CDP client connects. May hold a secret: never logged, never stored in clear."""
    label: str | None = None
    """Our session id, if the provider still knows it."""
    running: bool = True
    created_at: datetime | None = None
    pid: int | None = None
    """Local browsers: process id of the browser, with `pid_started` to tell it from a later namesake."""
    pid_started: float | None = None
    """Seconds since the epoch at which `pid` was started."""
    shared: bool = False
    """The browser behind `connect_url` also serves other sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderUsage:
    """What the provider measured for one session; None means that it does not say."""

    seconds: float | None = None
    proxy_bytes: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cost: Money | None = None
    """What it says that it billed for time and traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderTotal:
    """What a provider counted for the whole account, whoever used it; None means that it does not say."""

    seconds: float | None = None
    proxy_bytes: int | None = None
    cost: Money | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A session of an earlier run whose owner is gone, as the ledger remembers it."""

    session_id: str
    provider_session_id: str | None
    pid: int | None
    pid_started: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding of `Provider.check`: what was looked at, whether it is well, and what to do if not."""

    name: str
    ok: bool
    detail: str
    advice: str = ""
    concurrency: int | None = None
    """How many sessions the account may run at once, where the provider tells."""


LostCallback = Callable[[str, str], None]
"""Called with (our session id, reason) when a running session is found dead; from the event loop, once."""


class Provider(Protocol):
    """Runs browsers. All methods raise only `tabkeeper.errors.ProviderError` kinds (and CancelledError).

    `create` is sent once and never retried blindly; if it is cancelled or fails it must leave nothing running,
    or raise `OutcomeUnknownError`; a hosted adapter that is cancelled ends what is created after all, unless `list`
    or `get` has found it meanwhile. `close` may be called twice and for unknown ids: both count as closed.
    """

    name: str
    capabilities: Capabilities

    async def start(self, on_lost: LostCallback) -> None:
        """Make ready to create sessions; called once, before anything else."""
        ...

    async def create(self, spec: SessionSpec) -> RemoteSession:
        """Start one session; it costs money from here on.

        Raises:
            ProviderError: and nothing was created; OutcomeUnknownError: perhaps something was.
        """
        ...

    def alive(self, provider_session_id: str) -> bool:
        """Say without waiting whether the session is still thought to run (microseconds; called before a grant)."""
        ...

    async def get(self, provider_session_id: str) -> RemoteSession:
        """Ask for one session.

        Raises:
            ProviderNotFoundError: the provider does not know it.
        """
        ...

    async def list(self, label_prefix: str = "") -> Sequence[RemoteSession]:
        """List running sessions whose label starts with `label_prefix`."""
        ...

    async def running(self) -> Sequence[RemoteSession]:
        """List all sessions of ours that run, by whichever process; where labels are not kept, all of the account."""
        ...

    async def find(self, label: str) -> RemoteSession | None:
        """Look for the session whose creation got no answer; None if it does not show, or not yet.

        It may be over already (`RemoteSession.running`), and its `connect_url` may be empty.

        Raises:
            ProviderNotFoundError: it is certain that nothing was created.
        """
        ...

    async def close(self, provider_session_id: str) -> None:
        """End a session. Returns once the provider confirms that it is over; safe to repeat."""
        ...

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:
        """Tell what the provider measured, or None where it does not say."""
        ...

    async def reap(self, leftovers: Sequence[Leftover]) -> None:
        """End what sessions of dead owners still run; returns when nothing of them does."""
        ...

    async def check(self) -> Sequence[Check]:
        """Look whether sessions could be created, without creating any."""
        ...

    async def aclose(self) -> None:
        """End everything this object started, processes included."""
        ...


@runtime_checkable
class Shareable(Protocol):
    """A provider whose sessions any process can use that knows their address."""

    def take_over(self, session: RemoteSession) -> None:
        """Look after a session that another process has created."""
        ...

    def let_go(self, provider_session_id: str) -> None:
        """Leave a session to another process: it is not ended with this object."""
        ...


@runtime_checkable
class Watchable(Protocol):
    """A provider whose sessions a person can watch; its `capabilities` say `live_view`."""

    async def live_view(self, provider_session_id: str) -> str:
        """Return an address at which the session can be watched. Who has it needs no key: a secret.

        Raises:
            ProviderError: there is no such session, or it has no such address.
        """
        ...


@runtime_checkable
class Dated(Protocol):
    """A provider that tells what the account used on a day."""

    async def used_on(self, day: date) -> ProviderTotal | None:
        """Return the total of the sessions created on a UTC day that is over; None if it does not say."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A provider that tells one running total of the account, without saying since when."""

    async def used_so_far(self) -> ProviderTotal | None:
        """Return it; None if it does not say, as of an account with several projects."""
        ...
