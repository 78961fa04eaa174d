"""Ways an alert can take: a log, a function of the user's; webhooks have a room of their own."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tabkeeper.alerts.alert import Alert
from tabkeeper.errors import ConfigError

log = logging.getLogger("tabkeeper.alerts")

ENTRY_POINTS = "tabkeeper.alerts"
"""Functions that installed packages offer under this group of entry points hear of every alert."""

Hook = Callable[[Alert], Any]
"""A function, or a coroutine function, that takes an alert; what it returns does not matter, unless it raises."""


class DeliveryError(Exception):
    """An alert was not taken; `again_in` is when the other side wants it again, in seconds, if it says."""

    def __init__(self, message: str, *, again_in: float | None = None) -> None:
        super().__init__(message)
        self.again_in = again_in


class Channel(Protocol):
    """Where alerts go."""

    name: str
    """What has been delivered is remembered under it, so it must be the same after a restart."""

    def wants(self, alert: Alert) -> bool:
        """Say whether it takes such alerts at all."""
        ...

    async def send(self, alert: Alert) -> None:
        """Deliver one alert.

        Raises:
            Exception: it was not taken; it will be tried again.
        """
        ...


class LogChannel:
    """Writes alerts to the log ``tabkeeper.alerts``."""

    name = "log"

    def wants(self, alert: Alert) -> bool:  # noqa: ARG002 - all of them
        """See `Channel.wants`."""
        return True

    async def send(self, alert: Alert) -> None:
        """See `Channel.send`."""
        level = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}[alert.severity]
        log.log(level, "%s: %s", alert.title, alert.text)


class HookChannel:
    """Calls a function of the user's; one that is not a coroutine function runs in a thread."""

    def __init__(self, hook: Hook, name: str | None = None) -> None:
        self.hook = hook
        self.name = f"hook:{name or name_of(hook)}"

    def wants(self, alert: Alert) -> bool:  # noqa: ARG002 - all of them
        """See `Channel.wants`."""
        return True

    async def send(self, alert: Alert) -> None:
        """See `Channel.send`."""
        if inspect.iscoroutinefunction(self.hook) or inspect.iscoroutinefunction(
            getattr(self.hook, "__call__", None)  # noqa: B004 - an object with an async __call__
        ):
            await self.hook(alert)
            return
        outcome = await asyncio.to_thread(self.hook, alert)
        if inspect.isawaitable(outcome):
            await outcome


def name_of(hook: Hook) -> str:
    """Return a name that is the same after a restart: where the function is defined."""
    inner = getattr(hook, "func", hook)  # functools.partial
    owner = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{owner.__module__}.{owner.__qualname__}"


def find_hooks(named: Sequence[str]) -> list[HookChannel]:
    """Return the functions that the configuration names, and those of installed packages.

    Raises:
        ConfigError: there is no such function.
    """
    found = [HookChannel(_load(name), name) for name in named]
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            found.append(HookChannel(point.load(), point.value))
        except (ImportError, AttributeError) as error:
            # Somebody else's package: it must not keep the pool from opening.
            log.warning("the alert hook %r of an installed package cannot be loaded: %s", point.value, error)
    return found


def _load(name: str) -> Hook:
    module, _, function = name.partition(":")
    try:
        hook: Any = importlib.import_module(module)
        for part in function.split("."):
            hook = getattr(hook, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"alerts.hooks: {name!r} cannot be loaded: {error}") from None
    if not callable(hook):
        raise ConfigError(f"alerts.hooks: {name!r} cannot be called")
    return hook  # type: ignore[no-any-return]
