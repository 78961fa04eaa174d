"""`SiteRegistry`: the sites there are, and for each the proxies that it refuses for now. Safe under threads and tasks.

It answers questions and keeps blocks; who visits what is decided elsewhere.
"""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import PoolConfig, SiteSettings, TrustSettings, check_domain, nearest, parse_config
from tabkeeper.errors import ConfigError
from tabkeeper.proxies.model import Proxy
from tabkeeper.proxies.rows import Statements
from tabkeeper.proxies.store import Database
from tabkeeper.sites.blocks import Block, drop_old, read_blocks, write_blocks

_MESSAGE = 500
"""Characters of a message that are kept."""


@dataclass(frozen=True, slots=True)
class Site:
    """One site."""

    domain: str
    settings: SiteSettings = field(default_factory=SiteSettings)

    @property
    def start(self) -> tuple[str, ...]:
        """Its start pages; its front page if none were named."""
        return self.settings.start or (f"https://{self.domain}/",)


class SiteRegistry:
    """The sites, and which proxies each refuses.

    >>> sites = SiteRegistry({"shop.example": {"max_sessions": 3}})
    >>> sites.of("https://www.shop.example/list").domain
    'shop.example'

    Args:
        sites: settings by domain, as models or as plain data.
        clock: where time comes from.

    Raises:
        ConfigError: a mistake in them.
    """

    def __init__(
        self,
        sites: Mapping[str, SiteSettings | Mapping[str, Any]] = {},
        *,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._sites: dict[str, Site] = {}
        self._blocks: dict[tuple[str, str], Block] = {}
        self._unsaved: dict[tuple[str, str], None] = {}
        for domain, settings in sites.items():
            self.add(domain, settings)

    @classmethod
    def from_config(cls, config: PoolConfig, *, clock: Clock | None = None) -> SiteRegistry:
        """Take the sites of a configuration."""
        return cls(config.sites, clock=clock)

    @classmethod
    def from_file(cls, path: str | Path, *, clock: Clock | None = None) -> SiteRegistry:
        """Read sites from a TOML or JSON file: under ``sites``, or all of it if it has no such part.

        Raises:
            ConfigError: it cannot be read, or has a mistake.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
            data = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
        except ValueError as error:
            kind = "JSON" if file.suffix == ".json" else "TOML"
            raise ConfigError(f"{file} is not valid {kind}: {error}") from None
        sites = data.get("sites", data) if isinstance(data, dict) else None
        if not isinstance(sites, dict):
            raise ConfigError(f"{file}: sites are a table by domain")
        return cls(parse_config({"sites": sites}, str(file)).sites, clock=clock)

    # ── the sites ──────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, domain: str, settings: SiteSettings | Mapping[str, Any] | None = None) -> Site:
        """Take a site in; one of the same domain is replaced, and keeps its blocks.

        Raises:
            ConfigError: a mistake in it.
        """
        try:
            name = check_domain(domain)
            made = settings if isinstance(settings, SiteSettings) else SiteSettings(**(settings or {}))
        except ValidationError as error:
            mistake = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in mistake["loc"])
            raise ConfigError(f"site {domain!r}: {where}: {mistake['msg']}") from None
        except ValueError as error:
            raise ConfigError(str(error)) from None
        site = Site(name, made)
        with self._lock:
            self._sites[name] = site
        return site

    def all(self) -> list[Site]:
        """Return the sites, by domain."""
        with self._lock:
            return [self._sites[name] for name in sorted(self._sites)]

    def get(self, domain: str) -> Site:
        """Return a site.

        Raises:
            ConfigError: there is none of that domain.
        """
        found = self._sites.get(domain) or self._sites.get(domain.strip().lower())
        if found is None:
            raise ConfigError(
                f"there is no site {domain!r}{nearest(domain, self._sites)}; add [sites.{domain!r}]"
            )
        return found

    def of(self, url: str) -> Site | None:
        """Return the site that an address belongs to: its host's, or the nearest domain above it; None if none."""
        host = (urlsplit(url).hostname or "").lower()
        while host:
            if host in self._sites:
                return self._sites[host]
            host = host.partition(".")[2]
        return None

    def trust(self, domain: str, config: PoolConfig) -> TrustSettings:
        """Return when a profile saved at a site is healthy: by its own thresholds, else by those of [profiles]."""
        return config.all_profiles.trust_for(self.get(domain).domain)

    # ── the proxies that they refuse ───────────────────────────────────────────────────────────────────────────────

    def block(
        self, domain: str, proxy: Proxy, message: str = "", *, cool_down: timedelta | None = None
    ) -> bool:
        """Do not use a proxy for a site until its cool-down is over; it is used for others.

        Only proxies of the site's `block_types` are blocked (datacenter unless it says otherwise); False for others.

        Args:
            domain: the site's.
            proxy: which refused, or was refused.
            message: what was said, for people.
            cool_down: instead of the site's own.

        Raises:
            ConfigError: there is no such site.
        """
        site = self.get(domain)
        if proxy.kind not in site.settings.block_types:
            return False
        now = self._clock.now()
        block = Block(
            site=site.domain,
            proxy=proxy.id,
            blocked_at=now,
            until=now + (site.settings.cool_down if cool_down is None else cool_down),
            message=" ".join(message.split())[:_MESSAGE],
        )
        with self._lock:
            self._blocks[site.domain, proxy.id] = block
            self._unsaved[site.domain, proxy.id] = None
        return True

    def unblock(self, domain: str, proxy_id: str) -> bool:
        """Use a proxy for a site again at once; False if it was not blocked."""
        with self._lock:
            found = self._blocks.pop((domain, proxy_id), None)
            if found is not None:
                self._unsaved[domain, proxy_id] = None
            return found is not None and found.until > self._clock.now()

    def blocked(self, domain: str | None = None) -> list[Block]:
        """Return the blocks of a site, or of all, that are in force now, by site and proxy."""
        now = self._clock.now()
        with self._lock:
            return [
                self._blocks[key]
                for key in sorted(self._blocks)
                if self._blocks[key].until > now and domain in {None, key[0]}
            ]

    def avoid(self, domain: str, proxies: Iterable[Proxy]) -> frozenset[str]:
        """Return the ids of the `proxies` that must not visit a site now: blocked, or of a type that it does not allow.

        Hand it to `get_session(failed_proxies=...)`, or to `StickyProxies.get(failed=...)`.

        Raises:
            ConfigError: there is no such site.
        """
        site = self.get(domain)
        blocked = {block.proxy for block in self.blocked(site.domain)}
        allowed = site.settings.proxy_types
        return frozenset(
            proxy.id for proxy in proxies if proxy.id in blocked or (allowed and proxy.kind not in allowed)
        )

    # ── the database ───────────────────────────────────────────────────────────────────────────────────────────────

    async def sync(self, database: Database) -> None:
        """Write what changed, forget what is over, and learn what other processes blocked.

        Raises:
            LedgerUnavailableError: the database is away; it stays to be written.
        """
        now = self._clock.now()
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
            blocks = [self._blocks[key] for key in unsaved if key in self._blocks]
            gone = [key for key in unsaved if key not in self._blocks]

        def work(tx: Statements) -> list[Block]:
            write_blocks(tx, blocks, gone)
            drop_old(tx, now)
            return read_blocks(tx, now)

        try:
            found = await database.transact(work)
        except BaseException:
            with self._lock:
                self._unsaved.update(unsaved)
            raise
        with self._lock:
            kept = {key: self._blocks[key] for key in self._unsaved if key in self._blocks}
            stored = {(block.site, block.proxy): block for block in found}
            self._blocks = {key: block for key, block in stored.items() if key not in self._unsaved} | kept
