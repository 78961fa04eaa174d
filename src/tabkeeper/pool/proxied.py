"""The proxies of one pool's sessions: which one a request is held to, which one a new session gets, how it did.

A session's proxy is fixed for its life. The plan sees only lanes: requests that are held to a proxy have their own.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from random import Random

from tabkeeper.clock import Clock
from tabkeeper.config import PlatformSettings, PoolConfig
from tabkeeper.errors import ConfigError, LedgerError, MissingKeyError, NoProxyError
from tabkeeper.pool.model import Lane
from tabkeeper.providers.base import Provider, ProxySpec
from tabkeeper.proxies.model import Proxy
from tabkeeper.proxies.pool import ProxyPool, Wanted
from tabkeeper.proxies.probe import Probe, probe_all
from tabkeeper.proxies.sticky import StickyProxies
from tabkeeper.proxies.store import Database, ProxyStore, configured, rules_from
from tabkeeper.proxies.strategies import Strategy
from tabkeeper.vault import Vault

log = logging.getLogger(__name__)

ALL = "*"
"""In `platforms.NAME.proxies`: every proxy there is."""
_ITS_FAULT = re.compile(
    r"ERR_(?:(?:HTTPS_|MANDATORY_|NO_SUPPORTED_|UNEXPECTED_)?PROX|TUNNEL_|SOCKS_|INVALID_AUTH_CREDENTIALS)"
)
"""What Chromium calls the failures of a proxy; what a site answers is not among them."""


class MovedError(NoProxyError):
    """The proxy that a request was held to is no longer accepted, and there are others: it asks again."""


class Proxied:
    """The proxies and sticky bindings of one pool.

    Raises:
        ConfigError: the address of a proxy cannot be used.
    """

    def __init__(
        self,
        config: PoolConfig,
        *,
        providers: Mapping[str, Provider],
        database: Database,
        clock: Clock,
        rng: Random,
        vault: Vault,
    ) -> None:
        self._config = config
        self._providers = providers
        self._database = database
        self.on = bool(config.proxies) or any(one.proxies for one in config.platforms.values())
        """Whether this pool has anything to do with proxies."""
        settings = config.proxy_pool
        self.pool = ProxyPool(
            configured(config),
            strategy=settings.strategy,
            rules=rules_from(settings),
            clock=clock,
            rng=Random(rng.getrandbits(64) if self.on else 0),  # noqa: S311 - no secrets, and none of others' chance
        )
        self.sticky = StickyProxies(
            self.pool,
            ttl=settings.sticky_ttl,
            fallback=settings.sticky_fallback,
            clock=clock,
            on_change=self._wake,
        )
        self._store = ProxyStore(
            self.pool, self.sticky, vault, clock, fixed=frozenset(one.id for one in config.proxies)
        )
        self._changed: Callable[[], object] = lambda: None
        self._saving: asyncio.Lock = asyncio.Lock()

    async def start(self, changed: Callable[[], object]) -> None:
        """Read what is stored, and see to it that every platform can have its proxies.

        Args:
            changed: called when something is to be saved soon.

        Raises:
            ConfigError: a platform names a proxy that there is not, or that one of its providers cannot use.
        """
        if not self.on:
            return
        await self._store.load(self._database)
        for name, platform in self._config.platforms.items():
            self._check(name, platform)
        self._changed = changed

    def _check(self, name: str, platform: PlatformSettings) -> None:
        where = f"platforms.{name}.proxies"
        for proxy_id in platform.proxies:
            if proxy_id != ALL and proxy_id not in self.pool:
                why = self._store.unreadable.get(proxy_id, f"there is no proxy {proxy_id!r}")
                raise ConfigError(f"{where}: {why}; `tabkeeper proxies list` shows what there is")
        for provider in platform.providers if platform.proxies else ():
            if not self._providers[provider].capabilities.own_proxies:
                raise ConfigError(
                    f"{where}: sessions at {provider!r} cannot be given a proxy of your own; take another provider, "
                    "or its own proxies"
                )
            for proxy_id in platform.proxies:
                why = "" if proxy_id == ALL else self._why_not(provider, self.pool.get(proxy_id))
                if why:
                    raise ConfigError(f"{where}: {why}")

    def _why_not(self, provider: str, proxy: Proxy) -> str:
        """Say why sessions at a provider cannot go through a proxy; nothing if they can."""
        can = self._providers[provider].capabilities
        if proxy.scheme not in can.own_proxies:
            return f"sessions at {provider!r} cannot use {proxy.id!r}, which is a {proxy.scheme} proxy"
        if can.proxy_by_context and proxy.scheme == "socks5" and proxy.has_credentials:
            return (
                f"{proxy.id!r} is a SOCKS5 proxy with user name and password, which Chromium does not support; "
                "use the HTTP port that most of them have, or a proxy that lets this machine in without"
            )
        return ""

    # ── for requests ───────────────────────────────────────────────────────────────────────────────────────────────

    def hold_to(
        self,
        platform: str,
        tenant: str,
        *,
        sticky: str | None,
        failed: Collection[str],
        identity: bool,
        idle: Collection[str],
    ) -> str | None:
        """Return the proxy that a request is held to; None if any of its platform's will do, or none.

        Without a key it is one of `idle`, the proxies of idle sessions that it could have, if any fits: what is paid
        for already is cheaper than a new session.

        Raises:
            ConfigError: the platform has no proxies.
            MissingKeyError: it needs a key, or the key is empty.
            NoProxyError: none that fits can be used now.
        """
        settings = self._config.platforms[platform]
        if sticky is None and not failed:
            if settings.proxies and settings.proxy_strategy == "sticky" and not identity:
                raise MissingKeyError(
                    f"platform {platform!r} has sticky proxies, so every request needs a key: "
                    f'get_session({platform!r}, sticky="user-42")'
                )
            return None
        if not settings.proxies:
            raise ConfigError(
                f"platform {platform!r} has no proxies, so there are no sticky sessions on it; set "
                f'platforms.{platform}.proxies, such as ["*"]'
            )
        if identity:
            raise ValueError("an identity keeps its own proxy; leave out sticky and failed_proxies")
        wanted = self._wanted(platform, failed)
        if sticky is None:
            for proxy_id in idle:
                if self.pool.usable(proxy_id) and wanted.fits(self.pool.get(proxy_id)):
                    return proxy_id
            return self.pool.choose(self._strategy(settings), wanted=wanted).id
        key = sticky if not sticky or tenant == "default" else f"{tenant}:{sticky}"
        return self.sticky.get(key, failed=wanted.failed, among=wanted.among).id

    def _wanted(self, platform: str, failed: Collection[str] = ()) -> Wanted:
        settings = self._config.platforms[platform]
        unfit = {
            proxy.id
            for proxy in self.pool.all()
            if any(self._why_not(provider, proxy) for provider in settings.providers)
        }
        among = None if ALL in settings.proxies else frozenset(settings.proxies)
        return Wanted(among=among, failed=unfit.union(failed))

    def _strategy(self, settings: PlatformSettings) -> Strategy | None:
        return None if settings.proxy_strategy == "sticky" else settings.proxy_strategy

    # ── for sessions ───────────────────────────────────────────────────────────────────────────────────────────────

    def pick(self, lane: Lane, in_use: Iterable[Proxy | None]) -> Proxy | None:
        """Return the proxy of a session that is about to be created; None if its platform has none.

        Args:
            lane: the session's.
            in_use: the proxies of all sessions that run.

        Raises:
            MovedError: the lane's proxy is no longer accepted.
            NoProxyError: none that fits can be used now.
        """
        settings = self._config.platforms[lane.platform]
        if not settings.proxies:
            return None
        wanted = self._wanted(lane.platform)
        if lane.proxy is not None:
            if lane.proxy not in self.pool or self.pool.superseded(lane.proxy, wanted):
                raise MovedError(f"proxy {lane.proxy!r} is no longer used")
            return self.pool.get(lane.proxy)
        if lane.identity is not None:
            key = f"identity:{lane.identity}"
            return self.sticky.get(key, failed=wanted.failed, among=wanted.among)
        busy = Counter(proxy.id for proxy in in_use if proxy is not None)
        return self.pool.choose(self._strategy(settings), wanted=wanted, busy=busy)

    def may_go_on(self, proxy: Proxy | None) -> bool:
        """Say whether a session that was used before may be given to the next."""
        return proxy is None or self.pool.usable(proxy.id)

    def learn(self, proxy: Proxy | None, *, success: bool, used: bool, error: str | None) -> None:
        """Take what a lease's end says about its proxy: only what is the proxy's own fault counts against it."""
        if proxy is None or not used:
            return
        if success:
            self.pool.report(proxy.id, ok=True)
        elif error and _ITS_FAULT.search(error):
            health = self.pool.report(proxy.id, ok=False, error=error.splitlines()[0])
            log.warning("proxy %s failed and is %s: %s", proxy.id, health, error.splitlines()[0])

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wake(self) -> None:
        self._changed()

    async def save(self) -> None:
        """Write what changed; what cannot be written now is written later."""
        async with self._saving:
            try:
                await self._store.save(self._database)
            except LedgerError as error:
                log.warning("bindings could not be saved yet: %s", error)

    async def sync(self) -> None:
        """Write what changed, forget what is over, learn what other processes and people changed."""
        if self.on:
            async with self._saving:
                await self._store.sync(self._database)

    async def probe(self) -> list[Probe]:
        """Probe every proxy, if there is an address for that."""
        settings = self._config.proxy_pool
        if settings.probe_url is None or not len(self.pool):
            return []
        found = await probe_all(self.pool, settings.probe_url, timeout=settings.probe_timeout.total_seconds())
        for one in found:
            if not one.ok:
                log.warning("proxy %s failed its probe: %s", one.proxy, one.error)
        return found


def spec_of(proxy: Proxy | None) -> ProxySpec | None:
    """Return a proxy as providers are told of it."""
    if proxy is None:
        return None
    return ProxySpec(server=proxy.server, username=proxy.username, password=proxy.password, url=proxy.url)
