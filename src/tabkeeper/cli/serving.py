"""Can each platform be served at each of its providers at all: is there a price, and do the budgets admit one session?

It asks what the ledger would be asked, of the same prices and with the same words, but of empty budgets and without a
database.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import datetime, timedelta

from tabkeeper.cli.findings import Finding, Level
from tabkeeper.config import BudgetSettings, PoolConfig, show_duration
from tabkeeper.errors import BudgetExceededError, ConfigError, NoPriceError
from tabkeeper.ledger.prices import Prices
from tabkeeper.ledger.rates import RateCard, is_free
from tabkeeper.ledger.types import HoldRequest
from tabkeeper.money import Money

_SHORTER = "shorten session_ttl, lease_timeout"


def serving(settings: PoolConfig, now: datetime) -> Iterator[Finding]:
    """Look at every platform at every one of its providers, and at who the budgets are for."""
    prices = Prices(settings.providers)
    cards: dict[str, RateCard] = {}
    for name in settings.providers:
        try:
            cards[name] = prices.current(name, now)
        except ConfigError as error:
            yield _failed(f"{name}: price", str(error))  # a pool with such a plan does not even open
        except NoPriceError as error:
            if any(name in platform.providers for platform in settings.platforms.values()):
                yield _failed(f"{name}: price", str(error))
    if not settings.platforms:
        yield Finding(
            name="platforms",
            level="warn",
            detail="there is no platform, so nothing can be leased",
            advice="add a section such as [platforms.web]",
        )
    for platform_name, platform in settings.platforms.items():
        for name in platform.providers:
            if name in cards:
                yield _one_session(settings, platform_name, name, prices, cards)
    yield from _tenants(settings)


def _one_session(
    settings: PoolConfig,
    platform_name: str,
    provider: str,
    prices: Prices,
    cards: dict[str, RateCard],
) -> Finding:
    pool, platform, card = settings.pool, settings.platforms[platform_name], cards[provider]
    name = f"{platform_name} at {provider}"
    longest = (
        (platform.session_ttl or pool.session_ttl)
        + (platform.lease_timeout or pool.lease_timeout)
        + pool.close_timeout
    )
    ask = HoldRequest(
        session_id="doctor",
        platform=platform_name,
        provider=provider,
        tenant="doctor",
        max_seconds=longest.total_seconds(),
        max_session_cost=platform.max_session_cost,
    )
    try:
        seconds, cost = prices.terms(0, card, ask)
    except NoPriceError as error:
        return _failed(name, str(error))
    except BudgetExceededError as error:
        detail = f"the shortest session may cost {error.needed}, max_session_cost is {error.limit}"
        return Finding(
            name=name, level="fail", detail=detail, advice=f"raise platforms.{platform_name}.max_session_cost"
        )
    if is_free(card):
        return Finding(name=name, level="ok", detail="costs nothing")
    tight = [b for b in settings.budgets if _refuses(b, platform_name, provider, cost)]
    if not tight:
        life = show_duration(timedelta(seconds=int(seconds)))
        return Finding(name=name, level="ok", detail=f"one session may cost {cost} (it lives {life} at most)")
    free = next((p for p in platform.providers if p in cards and is_free(cards[p])), None)
    return _too_dear(name, cost, tight, free)


def _refuses(budget: BudgetSettings, platform: str, provider: str, cost: Money) -> bool:
    applies = budget.platform in {None, platform} and budget.provider in {None, provider}
    return applies and budget.mode == "hard" and cost > budget.limit


def _too_dear(name: str, cost: Money, tight: list[BudgetSettings], free: str | None) -> Finding:
    """Say which budgets admit not even one session; those of single tenants and those with a way out only warn."""
    general = [budget for budget in tight if budget.tenant is None]
    fatal = [budget for budget in general if free is None or budget.on_exceed != "fallback"]
    level: Level = "fail" if fatal else "warn"
    named = ", ".join(
        f'budget "{budget.name}"{"" if budget.tenant is None else f" of tenant {budget.tenant}"} is {budget.limit}'
        for budget in (fatal or general or tight)
    )
    detail = f"one session may cost {cost}, {named}"
    if general and not fatal:
        detail += f"; so all goes to {free}"
    return Finding(
        name=name, level=level, detail=detail, advice=f"raise it, or {_SHORTER}, or set max_session_cost"
    )


def _tenants(settings: PoolConfig) -> Iterator[Finding]:
    for budget in settings.budgets:
        if budget.tenant is None or budget.tenant in settings.tenants:
            continue
        near = difflib.get_close_matches(budget.tenant, settings.tenants, 1)
        yield Finding(
            name=f"budget {budget.name}",
            level="warn",
            detail=f"it is for tenant {budget.tenant!r}, which is not under [tenants]",
            advice=f"did you mean {near[0]!r}?"
            if near
            else f"check the name, or add [tenants.{budget.tenant}]",
        )


def _failed(name: str, said: str) -> Finding:
    """Make a finding of an error, whose last clause says what to do."""
    detail, _, advice = said.rpartition("; ")
    return Finding(name=name, level="fail", detail=detail or advice, advice=advice if detail else "")
