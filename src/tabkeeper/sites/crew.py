"""The sessions of a run: taking one that a site bears, visiting a page on it, giving it back.

It decides nothing about who visits what; that is `crawl`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from tabkeeper.clock import Clock, Instant
from tabkeeper.errors import BlockedError, LeaseLostError, SessionTimeoutError, TabkeeperError
from tabkeeper.pool.browser import is_browser_error
from tabkeeper.pool.lease import Lease
from tabkeeper.pool.leasing import BLOCKED
from tabkeeper.pool.pool import SessionPool
from tabkeeper.proxies.pool import Wanted
from tabkeeper.sites.distributor import Free
from tabkeeper.sites.registry import Site, SiteRegistry
from tabkeeper.sites.runs import Gain, Run, RunPage
from tabkeeper.sites.target import Found, Parse, Target, collect

_KEPT_OUT = frozenset({401, 403, 407, 429, 503})
"""What a site answers to a visitor that it does not want, or does not want now."""
_GONE = frozenset({404, 410})
"""What it answers where there is no page: nothing is to be found there, and nothing is wrong."""
_CLOSING = 5.0
"""Seconds for which the closing of a page is waited for."""


class SiteError(TabkeeperError):
    """A site answered that it failed."""


@dataclass(slots=True, eq=False)
class Hand:
    """A session of the run, leased."""

    lease: Lease
    since: Instant
    site: str
    """For which it was taken."""
    busy: bool = False
    visits: int = 0

    @property
    def free(self) -> Free:
        """What the distributor sees of it."""
        lease = self.lease
        proxy = lease.proxy
        price = proxy.price_per_gb if proxy is not None else None
        return Free(
            id=lease.session_id,
            proxy="" if proxy is None else proxy.id,
            kind="" if proxy is None else str(proxy.kind),
            rate=lease.hourly_rate.nanos,
            price_per_gb=0 if price is None else int(price * 1_000_000_000),
        )


@dataclass(slots=True)
class Crew:
    """Takes sessions for one run and visits pages on them.

    Args:
        pool: open.
        platform: whose sessions are taken.
        run: who is charged.
        sites: which proxies each refuses.
        parse: the visitor's function.
        clock: where time comes from.
    """

    pool: SessionPool
    platform: str
    run: Run
    sites: SiteRegistry
    parse: Parse
    clock: Clock
    elsewhere: int = 0
    """Addresses found that are of no site of the run."""
    _keys: int = field(default=0, init=False)

    async def take(self, site: Site, avoid: Collection[str]) -> Hand:
        """Lease a session that may visit a site.

        Args:
            site: which proxies it likes and refuses.
            avoid: ids of proxies that it must not go through either.

        Raises:
            TabkeeperError: whatever `SessionPool.get_session` raises.
        """
        wishes = self._wishes(site, avoid)
        lease = await self.pool.get_session(
            self.platform, tenant=self.run.tenant, tags={"run": self.run.id, "site": site.domain}, **wishes
        )
        return Hand(lease, self.clock.monotonic(), site.domain)

    def _wishes(self, site: Site, avoid: Collection[str]) -> dict[str, Any]:
        settings = self.pool.config.platforms[self.platform]
        if not settings.proxies:
            return {}
        pool = self.pool.proxies
        everyone = pool.all()
        failed = self.sites.avoid(site.domain, everyone).union(avoid)
        strategy = site.settings.proxy_strategy or settings.proxy_strategy
        if strategy == "sticky":
            self._keys += 1
            return {"sticky": f"{site.domain}/{self._keys}", "failed_proxies": failed}
        if site.settings.proxy_strategy is None:
            return {"failed_proxies": failed}
        among = None if "*" in settings.proxies else settings.proxies
        chosen = pool.choose(strategy, wanted=Wanted(among=among, failed=failed)).id
        return {"failed_proxies": {proxy.id for proxy in everyone if proxy.id != chosen}}

    async def visit(self, hand: Hand, page: RunPage) -> Gain:
        """Visit a page on a session, and return what it gave.

        Raises:
            BlockedError: the site keeps the session out.
            SiteError: the site answered that it failed.
            Exception: whatever the browser, or the visitor's function, raises.
        """
        lease = hand.lease
        began, before = self.clock.monotonic(), lease.bytes_received
        found = await lease.use(lambda _: self._try(lease, page))
        if isinstance(found, Exception):
            raise found
        self.elsewhere += found.elsewhere
        return Gain(
            items=found.items,
            pages=found.pages,
            seconds=self.clock.monotonic() - began,
            received=max(0, lease.bytes_received - before),
        )

    async def _try(self, lease: Lease, wanted: RunPage) -> Found | Exception:
        """What is neither the browser's fault nor the way's is returned: it says nothing against the session."""
        try:
            return await self._look(lease, wanted)
        except Exception as error:
            if is_trouble(error):
                raise
            return error

    async def _look(self, lease: Lease, wanted: RunPage) -> Found:
        page = await lease.new_page()
        try:
            response = await page.goto(wanted.url, wait_until="domcontentloaded")
            status = 0 if response is None else response.status
            if status in _KEPT_OUT:
                raise BlockedError(f"{wanted.site} answers {status} to {wanted.url}")
            if status in _GONE:
                return Found()
            if status >= 400:
                raise SiteError(f"{wanted.site} answers {status} to {wanted.url}")
            target = Target(
                url=wanted.url,
                site=wanted.site,
                status=status,
                depth=wanted.depth,
                attempt=wanted.attempts + 1,
                run=self.run.id,
                proxy="" if lease.proxy is None else lease.proxy.id,
            )
            return await collect(self.parse, page, target, self.sites)
        finally:
            # A browser that is gone never closes anything; the lease's end takes care of that.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSING):
                    await page.close()

    def judge(self, hand: Hand, page: RunPage, error: Exception) -> tuple[frozenset[str], str | None]:
        """Say what a failed visit means: what the page must avoid from now on, and why the session must go, if so."""
        proxy = hand.lease.proxy
        where = frozenset({hand.lease.session_id if proxy is None else proxy.id})
        if isinstance(error, BlockedError):
            if proxy is not None:
                self.sites.block(page.site, proxy, str(error))
            return where, BLOCKED
        if isinstance(error, SiteError):
            return (where if proxy is not None else frozenset()), None
        if is_trouble(error):
            return where, f"{type(error).__name__}: {error}"[:300]
        return frozenset(), None

    async def let_go(self, hand: Hand, why: str | None = None) -> None:
        """Give a session back. One on which a visit failed is closed, unless its proxy tells it from the next one."""
        lease = hand.lease
        await lease.release(success=why is None, reason=why)
        if why not in {None, BLOCKED} and lease.proxy is None:
            await self.pool.close_session(lease.session_id, reason="a visit failed on it")


def is_trouble(error: BaseException) -> bool:
    """Say whether it was the browser, or the way to the site, that failed."""
    return isinstance(
        error, LeaseLostError | SessionTimeoutError | TimeoutError | ConnectionError
    ) or is_browser_error(error)
