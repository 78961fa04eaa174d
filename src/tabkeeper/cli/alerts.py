"""`tabkeeper alerts`: what was raised and who has heard of it, and whether the channels work."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tabkeeper.alerts.alert import Alert
from tabkeeper.alerts.channel import Channel, find_hooks
from tabkeeper.alerts.webhook import Webhook
from tabkeeper.cli.options import ConfigOption, JsonOption, console, print_json, read_config
from tabkeeper.cli.picture import ago
from tabkeeper.cli.records import reading
from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig
from tabkeeper.errors import ConfigError
from tabkeeper.ledger.alerting import AlertDelivery, AlertEvent, recent

alerts_app = typer.Typer(no_args_is_help=True, help="List alerts, and try the channels they take.")
_STYLES = {"info": "dim", "warning": "yellow", "critical": "bold red"}
_SECONDS = 30.0


@alerts_app.command("list")
def list_(
    config: ConfigOption = None,
    *,
    most: Annotated[int, typer.Option("--last", min=1, help="Show this many, newest first.")] = 20,
    undelivered: Annotated[
        bool, typer.Option("--undelivered", help="Only what a channel has not taken.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the latest alerts, and how far each has come on each channel.

    For instance:

      tabkeeper alerts list

      tabkeeper alerts list --undelivered --json
    """
    now = SystemClock().now()
    with reading(read_config(config)) as engine, engine.connect() as connection:
        found = recent(connection, most)
    if undelivered:
        found = [(event, ways) for event, ways in found if any(way.state != "delivered" for way in ways)]
    if as_json:
        print_json([_as_json(event, ways) for event, ways in found])
        return
    if not found:
        typer.echo("no alerts")
        return
    console().print(_table(found, now))


@alerts_app.command("test")
def try_(
    config: ConfigOption = None,
    *,
    channel: Annotated[str | None, typer.Option(help="Only this webhook, by its name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a test alert to every webhook and to every hook of the configuration. Exit code 1 if one did not take it.

    For instance:

      tabkeeper alerts test

      tabkeeper alerts test --channel ops
    """
    settings = read_config(config)
    channels = _channels(settings, channel)
    results = asyncio.run(_try_all(channels))
    if as_json:
        print_json([{"channel": name, "ok": error is None, "error": error} for name, error in results])
    else:
        for name, error in results:
            typer.echo(f"{name}: {'taken' if error is None else f'NOT taken: {error}'}")
    if any(error is not None for _, error in results):
        raise typer.Exit(1)


def _channels(settings: PoolConfig, name: str | None) -> list[Channel]:
    webhooks = [Webhook(one) for one in settings.alerts.webhooks if name in {None, one.name}]
    found: list[Channel] = [*webhooks, *(find_hooks(settings.alerts.hooks) if name is None else ())]
    if found:
        return found
    known = ", ".join(one.name for one in settings.alerts.webhooks) or "none"
    if name is not None:
        raise ConfigError(f"there is no webhook {name!r} under [[alerts.webhooks]]; known: {known}")
    raise ConfigError("there is nobody to tell: add [[alerts.webhooks]] or alerts.hooks to the configuration")


async def _try_all(channels: list[Channel]) -> list[tuple[str, str | None]]:
    now = SystemClock().now()
    alert = Alert(
        key=f"test|{now.isoformat()}",
        kind="test",
        severity="info",
        at=now,
        title="Test",
        text="this is how an alert of Tabkeeper arrives; there is nothing to do",
    )
    return await asyncio.gather(*(_try(channel, alert) for channel in channels))


async def _try(channel: Channel, alert: Alert) -> tuple[str, str | None]:
    try:
        async with asyncio.timeout(_SECONDS):
            await channel.send(alert)
    except TimeoutError:
        return channel.name, f"no answer within {_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - a hook of the user's may raise anything
        return channel.name, str(error) or type(error).__name__
    return channel.name, None


def _table(found: list[tuple[AlertEvent, list[AlertDelivery]]], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("when", "kind", "what", "told"):
        table.add_column(column, overflow="fold", no_wrap=column in {"when", "kind"})
    for event, ways in found:
        alert = Alert.of(event)
        told = ", ".join(_way(way) for way in ways) or "nobody yet"
        table.add_row(ago(event.at, now), Text(alert.kind, _STYLES[alert.severity]), Text(alert.text), told)
    return table


def _way(way: AlertDelivery) -> str:
    if way.state == "delivered":
        return way.channel
    end = "given up" if way.state == "dead" else "tried"
    return f"{way.channel} ({end} {way.attempts} times{': ' + way.last_error if way.last_error else ''})"


def _as_json(event: AlertEvent, ways: list[AlertDelivery]) -> dict[str, object]:
    return {
        **Alert.of(event).model_dump(mode="json", exclude={"report"}),
        "channels": [
            {
                "channel": way.channel,
                "state": way.state,
                "attempts": way.attempts,
                "last_error": way.last_error or None,
                "delivered_at": way.delivered_at,
            }
            for way in ways
        ],
    }
