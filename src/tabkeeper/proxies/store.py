"""Carries proxies, their records and bindings between memory and the database.

Credentials are stored sealed, or as the name of an environment variable; never in clear.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from tabkeeper.clock import Clock, Instant
from tabkeeper.config import PoolConfig, ProxyPoolSettings, ProxySettings
from tabkeeper.errors import ConfigError, ProxyError
from tabkeeper.ledger.instants import micros, moment
from tabkeeper.proxies import rows
from tabkeeper.proxies.health import HealthRules, Track
from tabkeeper.proxies.model import Proxy, ProxyKind, parse_address
from tabkeeper.proxies.pool import ProxyPool
from tabkeeper.proxies.rows import Statements
from tabkeeper.proxies.sticky import Binding, StickyProxies
from tabkeeper.vault import Vault

T = TypeVar("T")


class Database(Protocol):
    """Where the tables are; `tabkeeper.ledger.ledger.Ledger` is one."""

    async def transact(self, work: Callable[[Statements], T]) -> T:
        """Run `work` in one transaction and return what it returns."""
        ...


class OwnDatabase(Database, Protocol):
    """A database that this process has open under a name of its own."""

    @property
    def process_id(self) -> str:
        """That name: its row in the table of processes."""
        ...


def rules_from(settings: ProxyPoolSettings) -> HealthRules:
    """Read when a proxy is healthy from the configuration."""
    return HealthRules(
        degraded_after=settings.degraded_after,
        unhealthy_after=settings.unhealthy_after,
        dead_after=settings.dead_after,
        pause=settings.pause.total_seconds(),
        longest_pause=settings.longest_pause.total_seconds(),
    )


def configured(config: PoolConfig) -> list[Proxy]:
    """Return the proxies of a configuration.

    Raises:
        ConfigError: an address cannot be used.
    """
    return [_from_settings(one) for one in config.proxies]


def _from_settings(one: ProxySettings) -> Proxy:
    try:
        at = parse_address(one.url.get_secret_value())
    except ValueError as error:
        raise ConfigError(f"proxies: url of {one.id!r}: {error}") from None
    return Proxy(
        id=one.id,
        scheme=at.scheme,
        host=at.host,
        port=at.port,
        username=at.username if one.username is None else one.username.get_secret_value(),
        password=at.password if one.password is None else one.password.get_secret_value(),
        kind=ProxyKind(one.type),
        geo=one.geo,
        weight=one.weight,
        price_per_gb=one.price_per_gb,
    )


@dataclass(frozen=True, slots=True)
class _Changes:
    tracks: list[tuple[str, dict[str, Any]]]
    bindings: list[tuple[str, dict[str, Any] | None, bool]]

    def __bool__(self) -> bool:
        return bool(self.tracks or self.bindings)


class ProxyStore:
    """What is stored of one pool of proxies and of its bindings.

    Args:
        pool: in memory.
        sticky: in memory; None where only proxies matter.
        vault: seals credentials.
        clock: where time comes from.
        fixed: ids that the configuration describes, so that the database's ones of that name do not count.
    """

    def __init__(
        self,
        pool: ProxyPool,
        sticky: StickyProxies | None,
        vault: Vault,
        clock: Clock,
        *,
        fixed: frozenset[str] = frozenset(),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.pool = pool
        self.sticky = sticky
        self._vault = vault
        self._clock = clock
        self._fixed = fixed
        self._environ = os.environ if environ is None else environ
        self._loaded: dict[str, Any] = {}
        self._states: dict[str, Any] = {}
        self.unreadable: dict[str, str] = {}
        """Stored proxies that cannot be used, and why."""

    # ── as a job of a pool ─────────────────────────────────────────────────────────────────────────────────────────

    async def load(self, database: Database) -> None:
        """Read everything.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        self.take(await database.transact(self.read))

    async def save(self, database: Database) -> None:
        """Write what changed.

        Raises:
            LedgerUnavailableError: the database is away; it stays to be written.
        """
        changes = self.changes()
        if not changes:
            return
        try:
            await database.transact(lambda tx: self.write(tx, changes))
        except BaseException:
            self.put_back(changes)
            raise

    async def sync(self, database: Database) -> None:
        """Write what changed, forget what is over, and learn what other processes wrote.

        Raises:
            LedgerUnavailableError: the database is away.
        """
        if self.sticky is not None:
            self.sticky.clean()
        changes = self.changes()

        def work(tx: Statements) -> dict[str, Any]:
            self.write(tx, changes)
            rows.drop_expired(tx, self.wall_now())
            return self.read(tx)

        try:
            found = await database.transact(work)
        except BaseException:
            self.put_back(changes)
            raise
        self.take(found)

    # ── the steps, for whoever has a transaction ───────────────────────────────────────────────────────────────────

    def changes(self) -> _Changes:
        """Take what is to be written."""
        tracks = [
            (
                proxy_id,
                {
                    "succeeded": track.succeeded,
                    "failed": track.failed,
                    "in_row": track.in_row,
                    "recent": "".join("1" if ok else "0" for ok in track.recent),
                    "latency_us": None if track.latency is None else round(track.latency * 1e6),
                    "last_error": track.last_error,
                    "resume_at": self._wall(track.resume_at),
                },
            )
            for proxy_id, track in self.pool.take_changed()
        ]
        unsaved = {} if self.sticky is None else self.sticky.take_unsaved()
        return _Changes(tracks, [(key, self._to_row(one), more) for key, (one, more) in unsaved.items()])

    def put_back(self, changes: _Changes) -> None:
        """Write it another time."""
        self.pool.not_saved(proxy_id for proxy_id, _ in changes.tracks)
        if self.sticky is not None:
            self.sticky.not_saved({key: more for key, _, more in changes.bindings})

    def write(self, tx: Statements, changes: _Changes) -> None:
        """Write what `changes` gave."""
        now = self.wall_now()
        for proxy_id, values in changes.tracks:
            rows.put_state(tx, proxy=proxy_id, **values)
        for key, row, more in changes.bindings:
            if row is None:
                rows.drop_binding(tx, key)
            elif not more:
                rows.count_uses(tx, **row)
            else:
                rows.put_binding(tx, now=now, **row)

    def read(self, tx: Statements) -> dict[str, Any]:
        """Read what is stored, for `take`."""
        return {
            "proxies": rows.live_proxies(tx),
            "states": rows.states(tx),
            "bindings": rows.bindings(tx, self.wall_now()),
        }

    def take(self, found: Mapping[str, Any]) -> None:
        """Put what `read` found into memory."""
        stored = {row.id: row for row in found["proxies"] if row.id not in self._fixed}
        for gone in self._loaded.keys() - stored.keys():
            self.pool.remove(gone)
            self.unreadable.pop(gone, None)
        for proxy_id, row in stored.items():
            if self._loaded.get(proxy_id) != row:
                self._take_proxy(row)
        self._loaded = stored
        for proxy_id, state in found["states"].items():
            if self._states.get(proxy_id) != state:
                self._states[proxy_id] = state
                self.pool.adopt(proxy_id, self._track(state))
        if self.sticky is not None:
            self.sticky.adopt([self._to_binding(row) for row in found["bindings"] if row.proxy in self.pool])

    def _take_proxy(self, row: Any) -> None:
        try:
            self.pool.add(self._to_proxy(row))
        except (ConfigError, ProxyError) as error:
            self.pool.remove(row.id)
            self.unreadable[row.id] = str(error)
        else:
            self.unreadable.pop(row.id, None)

    # ── proxies that the database describes ────────────────────────────────────────────────────────────────────────

    def add(self, tx: Statements, proxy: Proxy, *, credentials_env: str = "") -> None:
        """Store a proxy.

        Args:
            tx: open.
            proxy: what to store.
            credentials_env: name of an environment variable that holds ``user:password``, instead of the proxy's own.

        Raises:
            ProxyError: there is one of that id.
            ConfigError: it has credentials, and there is no key to seal them with.
        """
        if proxy.id in self._fixed:
            raise ProxyError(f"the configuration has a proxy {proxy.id!r}; choose another id")
        sealed = None
        if proxy.has_credentials and not credentials_env:
            self._vault.require("credentials of proxies are stored")
            sealed = self._vault.seal(f"{proxy.username}\n{proxy.password}")
        added = rows.add_proxy(
            tx,
            id=proxy.id,
            server=proxy.server,
            credentials_env=credentials_env,
            credentials_sealed=sealed,
            kind=str(proxy.kind),
            geo=proxy.geo,
            weight=proxy.weight,
            price_per_gb=None if proxy.price_per_gb is None else str(proxy.price_per_gb),
            created_at=self.wall_now(),
        )
        if not added:
            raise ProxyError(f"there is a proxy {proxy.id!r} already; retire it first, or choose another id")

    def retire(self, tx: Statements, proxy_id: str) -> None:
        """Retire a stored proxy and forget its credentials.

        Raises:
            ProxyError: there is none, or the configuration describes it.
        """
        if proxy_id in self._fixed:
            raise ProxyError(f"proxy {proxy_id!r} is in the configuration; remove it there")
        if not rows.retire_proxy(tx, proxy_id, self.wall_now()):
            raise ProxyError(f"there is no proxy {proxy_id!r}; `tabkeeper proxies list` shows them")

    def _to_proxy(self, row: Any) -> Proxy:
        at = parse_address(row.server)
        username = password = ""
        if row.credentials_env:
            value = self._environ.get(row.credentials_env)
            if value is None:
                raise ProxyError(
                    f"proxy {row.id!r}: the environment variable {row.credentials_env} is not set; it holds "
                    "user:password"
                )
            username, _, password = value.partition(":")
        elif row.credentials_sealed is not None:
            username, _, password = self._vault.open(row.credentials_sealed).partition("\n")
        return Proxy(
            id=row.id,
            scheme=at.scheme,
            host=at.host,
            port=at.port,
            username=username,
            password=password,
            kind=ProxyKind(row.kind),
            geo=row.geo,
            weight=row.weight,
            price_per_gb=None if row.price_per_gb is None else Decimal(row.price_per_gb),
        )

    # ── between rows and values ────────────────────────────────────────────────────────────────────────────────────

    def _track(self, row: Any) -> Track:
        return Track(
            self.pool.rules,
            succeeded=row.succeeded,
            failed=row.failed,
            in_row=row.in_row,
            recent=[mark == "1" for mark in row.recent],
            latency=None if row.latency_us is None else row.latency_us / 1e6,
            last_error=row.last_error,
            resume_at=self._instant(row.resume_at),
        )

    def _to_row(self, binding: Binding | None) -> dict[str, Any] | None:
        if binding is None:
            return None
        return {
            "key": binding.key,
            "proxy": binding.proxy,
            "created_at": binding.created_us,
            "expires_at": self._wall(binding.expires_at),
            "used_at": self._wall(binding.used_at),
            "uses": binding.uses,
            "failovers": binding.failovers,
        }

    def _to_binding(self, row: Any) -> Binding:
        return Binding(
            key=row.key,
            proxy=row.proxy,
            created_us=row.created_at,
            created_at=self._instant(row.created_at),
            expires_at=self._instant(row.expires_at),
            used_at=self._instant(row.used_at),
            uses=row.uses,
            failovers=row.failovers,
        )

    def wall_now(self) -> int:
        """Return the time as rows have it."""
        return self._wall(self._clock.monotonic())

    def _wall(self, at: Instant) -> int:
        """Microseconds since 1970 for an instant of the monotonic clock, which means nothing after a restart."""
        return micros(self._clock.now() + timedelta(seconds=at - self._clock.monotonic()))

    def _instant(self, wall: int) -> Instant:
        left = moment(wall) - self._clock.now()
        return self._clock.monotonic() + left.total_seconds()
