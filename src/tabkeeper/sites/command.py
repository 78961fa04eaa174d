"""A whole run from its name to its summary: the pool is opened, the run begun or resumed, worked on, and told of.

It is what `tabkeeper run` does, without a terminal.
"""

from __future__ import annotations

import importlib
import importlib.util
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from tabkeeper.config import PoolConfig, SiteSettings, nearest
from tabkeeper.errors import ConfigError, TabkeeperError
from tabkeeper.money import Money
from tabkeeper.pool.pool import SessionPool
from tabkeeper.sites.crawl import Crawl
from tabkeeper.sites.finds import Finds
from tabkeeper.sites.outlet import Export, check_new
from tabkeeper.sites.progress import Progress
from tabkeeper.sites.registry import SiteRegistry
from tabkeeper.sites.runs import Run, RunPage, Runs
from tabkeeper.sites.standing import Standing, per_page
from tabkeeper.sites.target import Parse, address


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be run, and how."""

    name: str
    """By which it is resumed; `tabkeeper run` takes the function's."""
    parse: Parse
    sites: Sequence[str] = ()
    """Domains, or addresses to start from. If empty: all sites of the configuration, or those of the run resumed."""
    platform: str = ""
    """Whose sessions are taken; the only one of the configuration if empty."""
    instance_limit: int = 10
    max_cost: Money | None = None
    attempts: int = 3
    out: Path | None = None
    """Where items go; ``items-RUN.jsonl`` if unset."""
    resume: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended."""

    run: Run
    committed: bool
    standing: Standing
    progress: Progress
    cost: Money
    """Of all sessions that were made for it, as far as they are settled."""
    out: Path
    stopped_by: TabkeeperError | None = None
    drained: bool = False
    """It was told to stop."""
    elsewhere: int = 0
    """Addresses found that are of none of its sites."""

    @property
    def cost_per_page(self) -> Money | None:
        """None if no page is done."""
        return per_page(self.cost, self.standing.done)


def load_function(ref: str) -> Parse:
    """Return the function that ``module:function`` or ``file.py:function`` names; the working directory counts.

    Raises:
        ConfigError: there is none.
    """
    place, colon, name = ref.rpartition(":")
    if not colon or not place or not name:
        raise ConfigError(f"{ref!r} names no function; write it like my_scraper:parse")
    try:
        if place.endswith(".py"):
            module = _load_file(Path(place))
        else:
            if sys.path[0] not in {"", str(Path.cwd())}:
                sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(place)
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, OSError) as error:
        raise ConfigError(f"{ref!r} cannot be loaded: {error}") from None
    if not callable(found):
        raise ConfigError(f"{ref!r} cannot be called")
    return cast("Parse", found)


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise ImportError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def sites_of(config: PoolConfig, wanted: Sequence[str], instance_limit: int) -> SiteRegistry:
    """Return the sites of a run: those named, with the configuration's settings where it has them.

    An address is a start page of its host's site. A site of which the configuration says nothing bears as many
    sessions as the run may have.

    Raises:
        ConfigError: a name is no site's, or there is none.
    """
    if not wanted:
        if not config.sites:
            raise ConfigError("name the sites: --sites=a.com,b.com, or [sites] in the configuration")
        return SiteRegistry.from_config(config)
    known = SiteRegistry.from_config(config)
    chosen = SiteRegistry()
    starts: dict[str, list[str]] = {}
    for one in wanted:
        url = address(one) if "://" in one else ""
        if "://" in one and not url:
            raise ConfigError(f"{one!r} is no address of a page; write it like https://shop.example/list")
        host = urlsplit(url).hostname or one
        site = known.of(url) if url else None
        domain = host if site is None else site.domain
        listed = starts.setdefault(domain.strip().lower(), [])
        if url:
            listed.append(url)
    for domain, pages in starts.items():
        found = config.sites.get(domain)
        settings = SiteSettings(max_sessions=instance_limit) if found is None else found
        chosen.add(domain, settings.model_copy(update={"start": tuple(pages)}) if pages else settings)
    return chosen


def platform_of(config: PoolConfig, wanted: str) -> tuple[PoolConfig, str]:
    """Return the platform whose sessions are taken, and the configuration with it.

    Raises:
        ConfigError: there is no such platform, or there are several and none was named.
    """
    if wanted:
        if wanted not in config.platforms:
            raise ConfigError(f"there is no platform {wanted!r}{nearest(wanted, config.platforms)}")
        return config, wanted
    if not config.platforms:
        made = PoolConfig(platforms={"web": {"providers": list(config.providers)}}).platforms
        return config.model_copy(update={"platforms": made}), "web"
    if len(config.platforms) > 1:
        raise ConfigError(f"say whose sessions to take: --platform {' or '.join(config.platforms)}")
    return config, next(iter(config.platforms))


async def carry_out(
    config: PoolConfig, order: Order, watch: Callable[[Crawl], None] = lambda _: None
) -> Summary:
    """Carry an order out.

    Args:
        config: the pool's.
        order: what to run.
        watch: called with the crawl before it begins: to show its progress, or to tell it to stop.

    Raises:
        ConfigError, RunError: it cannot begin.
        RunLostError, LedgerError: it broke off, and can be resumed.
    """
    config, platform = platform_of(config, order.platform)
    named = bool(order.sites or config.sites)
    sites = None if order.resume and not named else sites_of(config, order.sites, order.instance_limit)
    if order.out is not None and not order.resume:
        check_new(order.out)
    async with SessionPool(config) as pool:
        runs = Runs(pool.database)
        run, sites, pages = await _begin(runs, sites, config, order)
        await sites.sync(pool.database)
        out = order.out or Path(await Finds(pool.database).outlet(run) or f"items-{run.id}.jsonl")
        export = Export(runs, run, out)
        await export.open()
        try:
            crawl = Crawl(
                pool,
                sites,
                order.parse,
                runs=runs,
                run=run,
                platform=platform,
                export=export,
                instance_limit=order.instance_limit,
                attempts=order.attempts,
            )
            watch(crawl)
            committed = await crawl.work(pages)
            progress = crawl.progress()
        finally:
            export.close()
        standing = await runs.standing(run)
        cost = await _close_sessions(pool, runs, run)
    return Summary(
        run=run,
        committed=committed,
        standing=standing,
        progress=progress,
        cost=cost,
        out=out,
        stopped_by=crawl.stopped_by,
        drained=crawl.draining,
        elsewhere=crawl.elsewhere,
    )


async def _begin(
    runs: Runs, sites: SiteRegistry | None, config: PoolConfig, order: Order
) -> tuple[Run, SiteRegistry, list[RunPage]]:
    if order.resume:
        run, pages = await runs.resume(order.name, max_cost=order.max_cost)
        sites = sites or sites_of(config, run.sites, order.instance_limit)
        known = {site.domain for site in sites.all()}
        if not known.issuperset(run.sites):
            raise ConfigError(f"run {run.id} of {order.name!r} is over {', '.join(run.sites)}; name them all")
        return run, sites, pages
    assert sites is not None, "a run that begins has sites"
    run = Run(
        id=secrets.token_hex(4),
        name=order.name,
        sites=tuple(site.domain for site in sites.all()),
        max_cost=order.max_cost,
    )
    starts = [(address(url), site.domain) for site in sites.all() for url in site.start]
    return run, sites, await runs.start(run, starts)


async def _close_sessions(pool: SessionPool, runs: Runs, run: Run) -> Money:
    """End the run's sessions, so that all of its cost is known."""
    mine = [one.id for one in pool.stats().open_sessions if one.tenant == run.tenant]
    for session_id in mine:
        await pool.close_session(session_id, reason="its run is over")
    return await runs.cost(run)
