"""`StickyProxies`: a session key keeps its proxy until its time is up, its proxy fails, or it is closed.

Memory first, written behind: a call takes microseconds, a restart finds every binding again. It needs no browser and
no event loop, and may be called from threads and tasks alike.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import TracebackType
from typing import Self

from tabkeeper.clock import Clock, Instant, SystemClock
from tabkeeper.config import parse_duration
from tabkeeper.errors import MissingKeyError
from tabkeeper.ledger.instants import micros
from tabkeeper.proxies.model import Proxy, proxy_from_url
from tabkeeper.proxies.pool import ProxyPool, Wanted
from tabkeeper.proxies.strategies import Strategy

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A session key and its proxy."""

    key: str
    proxy: str
    """The proxy's id."""
    created_us: int
    """When it was made, in microseconds since 1970: of two that processes make at once, the first stays."""
    created_at: Instant
    expires_at: Instant
    used_at: Instant
    uses: int = 0
    failovers: int = 0
    """How often it got another proxy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StickyStats:
    """What became of session keys since this object was made."""

    active: int
    created: int
    failovers: int
    expired: int
    closed: int
    requests: int
    mean_lifetime: float
    """Seconds from the first use to the end, over those that ended; 0 if none did."""
    longest_lifetime: float


class StickyProxies:
    """Binds session keys to proxies.

    >>> with StickyProxies(["http://a:8080", "http://b:8080"]) as sticky:
    ...     sticky.get("user-42") == sticky.get("user-42")
    True

    Args:
        proxies: a pool of them, or addresses such as ``http://user:password@host:8080``.
        ttl: how long a key keeps its proxy: a timedelta, seconds, or text such as ``"30m"``.
        fallback: how its proxy is chosen, at first and when its own fails.
        clock: where time comes from.
        on_change: called, on the caller's thread, when a binding should be saved soon.
    """

    def __init__(
        self,
        proxies: ProxyPool | Iterable[str | Proxy],
        *,
        ttl: timedelta | float | str = _HOUR,
        fallback: Strategy = "least_used",
        clock: Clock | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        if isinstance(proxies, ProxyPool):
            self.pool = proxies
        else:
            made = (proxy_from_url(one) if isinstance(one, str) else one for one in proxies)
            self.pool = ProxyPool(made, clock=self._clock)
        self._ttl = parse_duration(ttl).total_seconds()
        self._fallback: Strategy = fallback
        self._on_change = on_change
        self._on_stop: Callable[[], None] | None = None
        self._lock: AbstractContextManager[object] = threading.Lock()
        self._bindings: dict[str, Binding] = {}
        self._unsaved: dict[str, bool] = {}
        """What is to be saved: True where more changed than the count of uses."""
        self._created = self._failovers = self._expired = self._closed = self._requests = 0
        self._lifetimes = self._longest = 0.0

    @classmethod
    def open(
        cls,
        database: str,
        proxies: ProxyPool | Iterable[str | Proxy] = (),
        *,
        ttl: timedelta | float | str = _HOUR,
        fallback: Strategy = "least_used",
        keys: Sequence[str] = (),
    ) -> Self:
        """Keep bindings in a database, so that they survive a restart.

        Args:
            database: an SQLAlchemy URL such as ``sqlite:///proxies.db``; it may be the one of a pool.
            proxies: beside those that `tabkeeper proxies add` stored there.
            ttl: see the class.
            fallback: see the class.
            keys: as ``security.keys``, to read the credentials of stored proxies.

        Raises:
            LedgerUnavailableError, SchemaVersionError: the database cannot be used.
        """
        from tabkeeper.proxies.alone import Keeper

        made = cls(proxies, ttl=ttl, fallback=fallback)
        keeper = Keeper(database, made, keys)
        made._on_change, made._on_stop = keeper.wake, keeper.stop
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Save what is not saved yet. Safe to repeat."""
        if self._on_stop is not None:
            self._on_stop()

    # ── a key's proxy ──────────────────────────────────────────────────────────────────────────────────────────────

    def get(
        self,
        key: str,
        *,
        failed: Collection[str] = (),
        among: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        geo: str | None = None,
    ) -> Proxy:
        """Return the key's proxy: the same one until its time is up, unless that fails.

        It gets another one when its own is no longer healthy (or unheard of), is gone, or is in `failed`.

        Args:
            key: whose proxy: an account, a cart, a visitor.
            failed: ids of proxies that did not work for the caller, or that its site blocks.
            among: ids to choose from; all if unset.
            kinds: kinds to choose from, such as ``["residential"]``; all if unset.
            geo: where it must be; anywhere if unset.

        Raises:
            MissingKeyError: the key is empty or None.
            NoProxyError: no proxy that fits can be used now.
        """
        wanted = Wanted(among=among, kinds=kinds, geo=geo, failed=failed)
        _check(key)
        with self._lock:
            now = self._clock.monotonic()
            binding = self._living(key, now)
            current = None if binding is None else binding.proxy
            proxy = self.pool.keep_or_choose(current, self._fallback, wanted=wanted, key=key)
            urgent = proxy.id != current
            if binding is None:
                self._created += 1
                binding = Binding(
                    key=key,
                    proxy=proxy.id,
                    created_us=micros(self._clock.now()),
                    created_at=now,
                    expires_at=now + self._ttl,
                    used_at=now,
                )
                self.pool.began(proxy.id)
            elif urgent:
                self._failovers += 1
                self.pool.ended(binding.proxy)
                self.pool.began(proxy.id)
                binding = replace(binding, proxy=proxy.id, failovers=binding.failovers + 1)
            self._requests += 1
            self._bindings[key] = replace(binding, used_at=now, uses=binding.uses + 1)
            self._unsaved[key] = urgent or self._unsaved.get(key, False)
        if urgent:
            self._tell()
        return proxy

    def failed(self, key: str, error: str = "") -> None:
        """Tell that the key's proxy did not work: it counts against the proxy's health."""
        _check(key)
        binding = self._bindings.get(key)
        if binding is not None:
            self.pool.report(binding.proxy, ok=False, error=error)

    def succeeded(self, key: str, latency: float | None = None) -> None:
        """Tell that the key's proxy worked, and how long its answer took in seconds."""
        _check(key)
        binding = self._bindings.get(key)
        if binding is not None:
            self.pool.report(binding.proxy, ok=True, latency=latency)

    def touch(self, key: str, ttl: timedelta | float | str | None = None) -> bool:
        """Let the key's time begin again; False if it has no proxy (any more).

        Raises:
            MissingKeyError: the key is empty or None.
        """
        _check(key)
        seconds = self._ttl if ttl is None else parse_duration(ttl).total_seconds()
        with self._lock:
            now = self._clock.monotonic()
            binding = self._living(key, now)
            if binding is None:
                return False
            self._bindings[key] = replace(binding, expires_at=now + seconds)
            self._unsaved[key] = True
        self._tell()
        return True

    def close(self, key: str) -> bool:
        """Forget a key's proxy; False if it has none.

        Raises:
            MissingKeyError: the key is empty or None.
        """
        _check(key)
        with self._lock:
            binding = self._living(key, self._clock.monotonic())
            if binding is None:
                return False
            self._end(binding)
            self._closed += 1
        self._tell()
        return True

    def list(self) -> list[Binding]:
        """Return the keys that have a proxy, by key. Their instants are the clock's own."""
        with self._lock:
            now = self._clock.monotonic()
            return [
                self._bindings[key] for key in sorted(self._bindings) if self._bindings[key].expires_at > now
            ]

    def clear(self) -> int:
        """Forget every key's proxy; returns how many there were."""
        with self._lock:
            living = list(self._bindings.values())
            for binding in living:
                self._end(binding)
            self._closed += len(living)
        self._tell()
        return len(living)

    def clean(self) -> int:
        """Forget the keys whose time is up; returns how many. Done on schedule where a pool or database is open."""
        with self._lock:
            now = self._clock.monotonic()
            over = [binding for binding in self._bindings.values() if binding.expires_at <= now]
            for binding in over:
                self._end(binding)
            self._expired += len(over)
        if over:
            self._tell()
        return len(over)

    def stats(self) -> StickyStats:
        """Count what became of keys since this object was made."""
        with self._lock:
            ended = self._expired + self._closed
            return StickyStats(
                active=len(self._bindings),
                created=self._created,
                failovers=self._failovers,
                expired=self._expired,
                closed=self._closed,
                requests=self._requests,
                mean_lifetime=self._lifetimes / ended if ended else 0.0,
                longest_lifetime=self._longest,
            )

    def _living(self, key: str, now: Instant) -> Binding | None:
        binding = self._bindings.get(key)
        if binding is not None and binding.expires_at <= now:
            self._end(binding)
            self._expired += 1
            return None
        return binding

    def _end(self, binding: Binding) -> None:
        del self._bindings[binding.key]
        self._unsaved[binding.key] = True
        lived = min(self._clock.monotonic(), binding.expires_at) - binding.created_at
        self._lifetimes += lived
        self._longest = max(self._longest, lived)
        self.pool.ended(binding.proxy)

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()

    # ── for the store ──────────────────────────────────────────────────────────────────────────────────────────────

    def take_unsaved(self) -> dict[str, tuple[Binding | None, bool]]:
        """Return what changed since the last call, by key: the binding (None: gone), and if more than uses did."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
            return {key: (self._bindings.get(key), more) for key, more in unsaved.items()}

    def not_saved(self, keys: Mapping[str, bool]) -> None:
        """Give back what could not be saved."""
        with self._lock:
            for key, more in keys.items():
                self._unsaved[key] = more or self._unsaved.get(key, False)

    def adopt(self, stored: Collection[Binding]) -> None:
        """Take over what the database says, except where this process knows better."""
        with self._lock:
            now = self._clock.monotonic()
            known = {binding.key for binding in stored}
            for binding in stored:
                mine = self._bindings.get(binding.key)
                if self._unsaved.get(binding.key) or binding.expires_at <= now or mine == binding:
                    continue
                if mine is None or mine.proxy != binding.proxy:
                    if mine is not None:
                        self.pool.ended(mine.proxy)
                    self.pool.began(binding.proxy)
                self._bindings[binding.key] = binding
            for key in [one for one in self._bindings if one not in known and not self._unsaved.get(one)]:
                self.pool.ended(self._bindings.pop(key).proxy)


def _check(key: object) -> None:
    if key is None or key == "":
        raise MissingKeyError(
            "a sticky session needs a key, such as the account or cart it is for: get('user-42')"
        )
    if not isinstance(key, str):
        raise TypeError(f"a session key is text, not {key!r}")
