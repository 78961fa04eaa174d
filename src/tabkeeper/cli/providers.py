"""`tabkeeper providers`: who is configured to run browsers, at which price, and whether they would.

Asking costs nothing: no session is created and no browser started. All providers are asked at once, each within a
bound, so one that hangs keeps nobody waiting for the others.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from tabkeeper.cli.findings import Finding, Level
from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import PoolConfig, ProviderSettings
from tabkeeper.errors import ConfigError, NoPriceError, ProviderError
from tabkeeper.ledger.prices import Prices
from tabkeeper.ledger.rates import RateCard, is_free
from tabkeeper.providers import make_provider
from tabkeeper.providers.base import Capabilities, Check, Provider
from tabkeeper.providers.hosted import HostedProvider
from tabkeeper.reports.render_parts import counted

OLD_CARD = timedelta(days=60)
"""A price list that nobody has compared with its source for this long may be wrong."""
SOON = timedelta(days=14)
"""A price list that ends within this is worth a word."""

providers_app = typer.Typer(no_args_is_help=True, help="Show providers and their prices, and check keys.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came of checking one provider."""

    name: str
    kind: str
    findings: tuple[Finding, ...]
    skew: float | None
    """Seconds by which its clock is ahead of ours, at least; None if it does not tell."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not any(finding.level == "fail" for finding in self.findings)


@providers_app.command("list")
def list_(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Show the configured providers, their prices and what they can do; asks nobody.

    For instance:

      tabkeeper providers list

      tabkeeper providers list --json
    """
    settings = read_config(config)
    now = SystemClock().now()
    rows = []
    for name, section in settings.providers.items():
        price = _price(settings, name, now)
        rows.append(
            {
                "name": name,
                "kind": section.kind,
                "max_sessions": section.max_sessions,
                "platforms": _platforms(settings, name),
                "plan": section.plan,
                "price": {"level": price.level, "detail": price.detail, "advice": price.advice},
                "capabilities": asdict(make_provider(name, section).capabilities),
            }
        )
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("provider", "kind", "sessions", "platforms", "price", "can"):
        table.add_column(column, overflow="fold", no_wrap=column in {"provider", "kind"})
    for (name, section), row in zip(settings.providers.items(), rows, strict=True):
        table.add_row(
            escape(name),
            section.kind,
            str(section.max_sessions or ""),
            escape(", ".join(_platforms(settings, name))),
            escape(_price(settings, name, now).detail),
            ", ".join(abilities(Capabilities(**row["capabilities"]))),  # type: ignore[arg-type]
        )
    console().print(table)


@providers_app.command()
def check(
    provider: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this provider, by its name.")
    ] = None,
    config: ConfigOption = None,
    *,
    seconds: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds that each provider has to answer.")
    ] = 15.0,
    as_json: JsonOption = False,
) -> None:
    """Ask each provider whether the key is valid and what it allows; compare clocks; look at the age of prices.

    It asks for nothing that costs money. Exit code 1 if a check fails; warnings do not count.

    For instance:

      tabkeeper providers check

      tabkeeper providers check browserbase --timeout 5 --json
    """
    settings = read_config(config)
    if provider is not None and provider not in settings.providers:
        near = difflib.get_close_matches(provider, settings.providers, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"configured: {', '.join(settings.providers)}"
        raise ConfigError(f"there is no provider {provider!r}; {hint}")
    names = list(settings.providers) if provider is None else [provider]
    found = asyncio.run(check_all(settings, names, seconds))
    ok = all(one.ok for one in found)
    if as_json:
        print_json({"ok": ok, "providers": [{"ok": one.ok, **asdict(one)} for one in found]})
    else:
        console().print(_table(found))
        failed = sum(not one.ok for one in found)
        typer.echo(
            f"{failed} of {counted(len(found), 'provider')} cannot be used; the arrows say what to do."
            if failed
            else f"{counted(len(found), 'provider')} ready."
        )
    if not ok:
        raise typer.Exit(1)


async def check_all(
    settings: PoolConfig, names: Sequence[str], seconds: float, clock: Clock | None = None
) -> list[Checked]:
    """Check providers at once, in no more than `seconds` each and so in no more than that in all."""
    now = (clock or SystemClock()).now()
    return list(await asyncio.gather(*(_check(settings, name, seconds, now) for name in names)))


def abilities(capabilities: Capabilities) -> list[str]:
    """Name what a provider can do, in the words of the documentation."""
    return [
        one.name.replace("_", " ")
        for one in fields(capabilities)
        if getattr(capabilities, one.name) is True and one.name != "host_bound"
    ]


async def _check(settings: PoolConfig, name: str, seconds: float, now: datetime) -> Checked:
    section = settings.providers[name]
    findings, skew = await ask(name, section, seconds)
    if skew is not None and "clock" not in {one.name for one in findings}:
        findings.append(Finding(name="clock", level="ok", detail="this machine and the provider agree"))
    findings.append(_price(settings, name, now))
    return Checked(
        name=name,
        kind=section.kind,
        findings=tuple(findings),
        skew=None if skew is None else skew.total_seconds(),
    )


async def ask(name: str, section: ProviderSettings, seconds: float) -> tuple[list[Finding], timedelta | None]:
    """Ask one provider how it is, within `seconds`; return also how far its clock is ahead, if it tells."""
    provider: Provider | None = None
    try:
        provider = make_provider(name, section)
        async with asyncio.timeout(seconds):
            checks = await provider.check()
    except TimeoutError:
        what = f"no answer within {seconds:g} s"
        checks = [Check(name="account", ok=False, detail=what, advice=_unreachable(section))]
    except (ConfigError, ProviderError) as error:
        checks = [Check(name="account", ok=False, detail=str(error))]
    finally:
        if provider is not None:
            await provider.aclose()
    skew = provider.skew if isinstance(provider, HostedProvider) else None
    findings = [
        Finding(name=one.name, level=_level(one), detail=one.detail, advice=one.advice) for one in checks
    ]
    return findings, skew


def _unreachable(section: ProviderSettings) -> str:
    where = "see that base_url is right and that" if section.base_url else "see that"
    return f"{where} this machine reaches it"


def _level(check: Check) -> Level:
    return "fail" if not check.ok else "warn" if check.advice else "ok"


def _platforms(settings: PoolConfig, name: str) -> list[str]:
    return [key for key, platform in settings.platforms.items() if name in platform.providers]


def _price(settings: PoolConfig, name: str, now: datetime) -> Finding:
    """Look at the price list that holds for a provider: is there one, and can it still be believed."""
    try:
        card = Prices({name: settings.providers[name]}).current(name, now)
    except (ConfigError, NoPriceError) as error:
        detail, _, advice = str(error).rpartition("; ")
        # Without a price nothing is created there; that only matters to who wants to.
        level: Level = "fail" if _platforms(settings, name) else "warn"
        return Finding(name="price", level=level, detail=detail or advice, advice=advice if detail else "")
    advice = _doubts(card, now)
    return Finding(name="price", level="warn" if advice else "ok", detail=_describe(card), advice=advice)


def _describe(card: RateCard) -> str:
    if is_free(card):
        return "costs nothing"
    prices = ", ".join(f"${part.unit_price} a {part.unit}" for part in card.components)
    checked = f", checked {card.checked_at}" if card.checked_at else ""
    ends = f", until {card.effective_to:%Y-%m-%d}" if card.effective_to else ""
    return f"{card.plan}: {prices}{checked}{ends}"


def _doubts(card: RateCard, now: datetime) -> str:
    """Return what there is to do about a price list, or nothing."""
    if card.effective_to is not None and card.effective_to - now <= SOON:
        return f"it ends on {card.effective_to:%Y-%m-%d}: see whether an update of Tabkeeper has the next one"
    if card.checked_at is not None and now.date() - card.checked_at > OLD_CARD:
        days = (now.date() - card.checked_at).days
        return f"nobody has compared it with its source for {days} days: see {card.source.split(' ')[0]}"
    return ""


def _table(found: Sequence[Checked]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for one in found:
        for finding in one.findings:
            advice = f"\n[dim]→ {escape(finding.advice)}[/dim]" if finding.advice else ""
            mark = f"[{colours[finding.level]}]{finding.level}[/]"
            label = escape(f"{one.name}: {finding.name}")
            table.add_row(mark, label, escape(finding.detail) + advice)
    return table
