"""The proxies there are, in memory: which is next, and how each did. Safe under threads and tasks.

A choice costs microseconds and never waits for a database; `store` carries what changed there and back.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType

from tabkeeper.clock import Clock, Instant, SystemClock
from tabkeeper.errors import MissingKeyError, NoProxyError, ProxyError
from tabkeeper.proxies.health import ACCEPTED, Health, HealthRules, Track
from tabkeeper.proxies.model import Proxy, ProxyKind
from tabkeeper.proxies.strategies import Candidate, Strategy, choose

_TOLD = 5
"""Proxies that a message names at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which proxies fit."""

    among: Collection[str] | None = None
    """Ids; None for all."""
    kinds: Collection[str] | None = None
    geo: str | None = None
    failed: Collection[str] = ()
    """Ids that the caller has had enough of, or that its site blocks."""

    def fits(self, proxy: Proxy) -> bool:
        """Say whether a proxy fits, whatever its health."""
        return (
            (self.among is None or proxy.id in self.among)
            and (self.kinds is None or proxy.kind in self.kinds)
            and (self.geo is None or proxy.geo.lower() == self.geo.lower())
            and proxy.id not in self.failed
        )


ANY = Wanted()


@dataclass(slots=True, eq=False)
class Entry:
    """One proxy and its record."""

    proxy: Proxy
    track: Track
    in_use: int = 0
    uses: int = 0
    chosen_at: int = 0

    def candidate(self, busy: int = 0) -> Candidate:
        """Return what strategies see of it."""
        return Candidate(
            id=self.proxy.id,
            weight=self.proxy.weight,
            price=self.proxy.price_per_gb,
            latency=self.track.latency,
            in_use=self.in_use + busy,
            uses=self.uses,
            chosen_at=self.chosen_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a proxy does, for people and reports."""

    proxy: Proxy
    health: Health
    in_use: int
    uses: int
    succeeded: int
    failed: int
    failures_in_row: int
    latency: float | None
    """Seconds; None if never measured."""
    last_error: str
    paused_for: float
    """Seconds for which it is left alone still."""


@dataclass(slots=True)
class _Tiers:
    """Proxies that fit, the better ones first."""

    good: list[Entry] = field(default_factory=list)
    degraded: list[Entry] = field(default_factory=list)
    trial: list[Entry] = field(default_factory=list)

    def best(self) -> list[Entry]:
        return self.good or self.degraded or self.trial


class ProxyPool:
    """Chooses proxies and keeps their records.

    Args:
        proxies: the ones there are; more by `add`.
        strategy: how to choose if a call does not say.
        rules: when a proxy is healthy.
        clock: where time comes from.
        rng: chance for strategies and pauses; give a seeded one to repeat every choice.

    >>> from tabkeeper.proxies.model import proxy_from_url
    >>> pool = ProxyPool([proxy_from_url("http://a:8080", id="a"), proxy_from_url("http://b:8080", id="b")])
    >>> [pool.choose().id for _ in range(3)]
    ['a', 'b', 'a']
    """

    def __init__(
        self,
        proxies: Iterable[Proxy] = (),
        *,
        strategy: Strategy = "round_robin",
        rules: HealthRules | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
    ) -> None:
        self.strategy: Strategy = strategy
        self.rules = rules or HealthRules()
        self._clock = clock or SystemClock()
        self._rng = rng or Random()  # noqa: S311 - no secrets
        self._lock: AbstractContextManager[object] = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._choices = 0
        self._changed: set[str] = set()
        for proxy in proxies:
            self.add(proxy)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, proxy_id: str) -> bool:
        return proxy_id in self._entries

    # ── which ones there are ───────────────────────────────────────────────────────────────────────────────────────

    def add(self, proxy: Proxy) -> None:
        """Take a proxy in; one of the same id is replaced and keeps its record."""
        with self._lock:
            known = self._entries.get(proxy.id)
            if known is None:
                self._entries[proxy.id] = Entry(proxy, Track(self.rules))
            else:
                known.proxy = proxy

    def adopt(self, proxy_id: str, track: Track) -> None:
        """Take over a record that was stored, unless there is a newer one that is not stored yet."""
        with self._lock:
            entry = self._entries.get(proxy_id)
            if entry is not None and proxy_id not in self._changed:
                entry.track = track

    def remove(self, proxy_id: str) -> bool:
        """Choose a proxy no more; False if there is none of that id. Keys that had it get another."""
        with self._lock:
            return self._entries.pop(proxy_id, None) is not None

    def get(self, proxy_id: str) -> Proxy:
        """Return a proxy by its id.

        Raises:
            ProxyError: there is none.
        """
        return self._entry(proxy_id).proxy

    def all(self) -> list[Proxy]:
        """Return all proxies, by id."""
        with self._lock:
            return [self._entries[key].proxy for key in sorted(self._entries)]

    def standing(self, proxy_id: str) -> Standing:
        """Say how a proxy does.

        Raises:
            ProxyError: there is none of that id.
        """
        with self._lock:
            entry = self._entry(proxy_id)
            track = entry.track
            return Standing(
                proxy=entry.proxy,
                health=track.health,
                in_use=entry.in_use,
                uses=entry.uses,
                succeeded=track.succeeded,
                failed=track.failed,
                failures_in_row=track.in_row,
                latency=track.latency,
                last_error=track.last_error,
                paused_for=max(0.0, track.resume_at - self._clock.monotonic()),
            )

    def health(self, proxy_id: str) -> Health:
        """Say what can be expected of a proxy.

        Raises:
            ProxyError: there is none of that id.
        """
        return self._entry(proxy_id).track.health

    # ── choosing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def choose(
        self,
        strategy: Strategy | None = None,
        *,
        wanted: Wanted = ANY,
        key: str | None = None,
        busy: Mapping[str, int] = MappingProxyType({}),
    ) -> Proxy:
        """Return the next proxy: healthy and unheard-of ones first, degraded ones if there is no other.

        One that failed is tried again, once, when its pause is over.

        Args:
            strategy: how; the pool's own if unset.
            wanted: which proxies fit.
            key: for the strategy ``sticky``.
            busy: how many have each proxy now, beside session keys.

        Raises:
            NoProxyError: none fits, or none that fits works.
            MissingKeyError: the strategy is ``sticky``, and there is no key.
        """
        with self._lock:
            tiers = self._tiers(wanted)
            return self._pick(strategy, [*tiers.good, *tiers.trial] or tiers.best(), wanted, key, busy)

    def keep_or_choose(
        self, current: str | None, strategy: Strategy | None, *, wanted: Wanted, key: str
    ) -> Proxy:
        """Return the proxy that a session key has if it is accepted, else the best of the others.

        Unknown and healthy proxies are accepted; any other only while there is none of these.

        Raises:
            NoProxyError: none fits, or none that fits works.
        """
        with self._lock:
            entry = None if current is None else self._entries.get(current)
            if entry is not None and wanted.fits(entry.proxy) and entry.track.health in ACCEPTED:
                return entry.proxy
            best = self._tiers(wanted).best()
            if entry is not None and entry in best:
                return entry.proxy
            return self._pick(strategy, best, wanted, key)

    def _tiers(self, wanted: Wanted) -> _Tiers:
        now = self._clock.monotonic()
        tiers = _Tiers()
        for entry in self._entries.values():
            if not wanted.fits(entry.proxy):
                continue
            health = entry.track.health
            if health in ACCEPTED:
                tiers.good.append(entry)
            elif entry.track.may_try(now):
                tiers.trial.append(entry)
            elif health is Health.DEGRADED:
                tiers.degraded.append(entry)
        return tiers

    def _pick(
        self,
        strategy: Strategy | None,
        entries: list[Entry],
        wanted: Wanted,
        key: str | None,
        busy: Mapping[str, int] = MappingProxyType({}),
    ) -> Proxy:
        if not entries:
            raise NoProxyError(self._why_none(wanted))
        how = strategy or self.strategy
        if how == "sticky" and not key:
            raise MissingKeyError('the strategy "sticky" needs a session key')
        found = choose(
            how,
            [one.candidate(busy.get(one.proxy.id, 0)) for one in entries],
            chance=self._rng.random(),
            key=key,
        )
        entry = self._entries[found.id]
        self._choices += 1
        entry.chosen_at = self._choices
        entry.uses += 1
        if entry.track.health not in ACCEPTED:
            entry.track.trying(self._clock.monotonic())
        return entry.proxy

    def usable(self, proxy_id: str) -> bool:
        """Say whether a session that goes through a proxy may still be given to somebody."""
        with self._lock:
            entry = self._entries.get(proxy_id)
            return entry is not None and entry.track.health in {*ACCEPTED, Health.DEGRADED}

    def superseded(self, proxy_id: str, wanted: Wanted) -> bool:
        """Say whether a proxy is out of use while there are others that fit."""
        with self._lock:
            if self.usable(proxy_id):
                return False
            tiers = self._tiers(wanted)
            return bool(tiers.good or tiers.degraded)

    def _why_none(self, wanted: Wanted) -> str:
        if not self._entries:
            return (
                "there are no proxies: add [[proxies]] to the configuration, or run `tabkeeper proxies add`"
            )
        now = self._clock.monotonic()
        told = [self._why_not(entry, wanted, now) for _, entry in sorted(self._entries.items())]
        more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        return f"no proxy can be used now: {'; '.join(told[:_TOLD])}{more}"

    def _why_not(self, entry: Entry, wanted: Wanted, now: Instant) -> str:
        proxy, track = entry.proxy, entry.track
        if proxy.id in wanted.failed:
            return f"{proxy.id} is in the list of failed ones"
        if not wanted.fits(proxy):
            return f"{proxy.id} ({proxy.kind}{', ' + proxy.geo if proxy.geo else ''}) does not fit"
        left = max(0.0, track.resume_at - now)
        when = "until a probe succeeds" if track.health is Health.DEAD else f"for {left:.0f} s more"
        return f"{proxy.id} is {track.health} {when} ({track.last_error or 'no reason given'})"

    # ── outcomes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def report(self, proxy_id: str, *, ok: bool, latency: float | None = None, error: str = "") -> Health:
        """Tell how something went that used a proxy, and return its health now. An unknown id counts for nothing.

        Args:
            proxy_id: which.
            ok: whether the proxy did its work; what a site answers through it is not its fault.
            latency: seconds until the answer.
            error: what went wrong, for people.
        """
        with self._lock:
            entry = self._entries.get(proxy_id)
            if entry is None:
                return Health.UNKNOWN
            if ok:
                entry.track.ok(latency)
            else:
                jitter = self._rng.uniform(0.75, 1.25)
                entry.track.bad(error[:300], self._clock.monotonic(), jitter=jitter)
            self._changed.add(proxy_id)
            return entry.track.health

    def began(self, proxy_id: str) -> None:
        """A session or key has a proxy now."""
        self._count(proxy_id, 1)

    def ended(self, proxy_id: str) -> None:
        """A session or key has it no more."""
        self._count(proxy_id, -1)

    def _count(self, proxy_id: str, change: int) -> None:
        with self._lock:
            entry = self._entries.get(proxy_id)
            if entry is not None:
                entry.in_use = max(0, entry.in_use + change)

    # ── for the store ──────────────────────────────────────────────────────────────────────────────────────────────

    def take_changed(self) -> list[tuple[str, Track]]:
        """Return the records that changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, set()
            return [(key, self._entries[key].track) for key in sorted(changed) if key in self._entries]

    def not_saved(self, proxy_ids: Iterable[str]) -> None:
        """Give back what could not be saved."""
        with self._lock:
            self._changed.update(proxy_ids)

    def _entry(self, proxy_id: str) -> Entry:
        entry = self._entries.get(proxy_id)
        if entry is None:
            raise ProxyError(f"there is no proxy {proxy_id!r}; `tabkeeper proxies list` shows them")
        return entry


def kinds_of(names: Iterable[str]) -> frozenset[ProxyKind]:
    """Read names of kinds."""
    return frozenset(ProxyKind(name) for name in names)
