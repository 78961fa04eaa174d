"""Carries alerts from the outbox to their channels: claim, send, note; again later if it was not taken.

Whoever dies between sending and noting leaves a claim that runs out, and the alert is sent once more: at least once,
under the same key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime, timedelta
from random import Random

from tabkeeper.alerts.alert import Alert
from tabkeeper.alerts.channel import Channel, DeliveryError, Hook, HookChannel
from tabkeeper.config import AlertSettings
from tabkeeper.errors import LedgerError
from tabkeeper.ledger.alerting import AlertEvent, AlertOutbox
from tabkeeper.reports.report import CostReport

log = logging.getLogger("tabkeeper.alerts")

_AT_ONCE = 20
"""Events that a channel claims together."""
_SEND = timedelta(seconds=30)
"""A channel must have taken an alert by then."""
_CLAIM = _SEND * (_AT_ONCE + 1)


class Dispatcher:
    """Delivers the alerts of one ledger to the channels of this process.

    Args:
        outbox: the ledger's alerts.
        settings: pauses between attempts, and how many.
        channels: where alerts go.
        since: a channel never heard of before gets nothing older than this.
        rng: jitter of the pauses.
        claim_seconds: how long a claim lasts, after which another process may send; long enough for a slow channel.
        kept_report: finds the report that a daily_report tells of.
    """

    def __init__(
        self,
        outbox: AlertOutbox,
        settings: AlertSettings,
        channels: Sequence[Channel],
        *,
        since: datetime,
        rng: Random,
        claim_seconds: float = _CLAIM.total_seconds(),
        kept_report: Callable[[date], Awaitable[CostReport | None]] | None = None,
    ) -> None:
        self._outbox = outbox
        self._settings = settings
        self._since = since
        self._rng = rng
        self._kept_report = kept_report
        self._hold = timedelta(seconds=claim_seconds)
        self._channels: list[Channel] = []
        self._known: set[str] = set()
        self._running = asyncio.Lock()
        for channel in channels:
            self._add(channel)

    def add_hook(self, hook: Hook) -> None:
        """Call `hook` with every alert from now on."""
        self._add(HookChannel(hook))

    def _add(self, channel: Channel) -> None:
        names = {one.name for one in self._channels}
        name, number = channel.name, 2
        while channel.name in names:  # two hooks made in one place, such as by a factory
            channel.name = f"{name}#{number}"
            number += 1
        self._channels.append(channel)

    async def run(self) -> int:
        """Deliver what is due; returns how many alerts were taken. One slow channel does not hold up another."""
        async with self._running:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._serve(channel)) for channel in list(self._channels)]
            return sum(task.result() for task in tasks)

    async def _serve(self, channel: Channel) -> int:
        taken = 0
        try:
            if channel.name not in self._known:
                await self._outbox.open_channel(channel.name, since=self._since)
                self._known.add(channel.name)
            while claimed := await self._outbox.claim(
                channel.name, most=_AT_ONCE, hold=self._hold, keep=self._settings.keep
            ):
                for event, attempt in claimed:
                    taken += await self._deliver(channel, event, attempt)
        except LedgerError as error:
            log.warning("alerts cannot be delivered to %s now: %s", channel.name, error)
        return taken

    async def _deliver(self, channel: Channel, event: AlertEvent, attempt: int) -> bool:
        alert = Alert.of(event)
        if channel.wants(alert):
            if event.kind == "daily_report" and self._kept_report is not None:
                report = await self._kept_report(date.fromisoformat(event.key.rpartition("|")[2]))
                alert = alert.model_copy(update={"report": report})
            try:
                async with asyncio.timeout(_SEND.total_seconds()):
                    await channel.send(alert)
            except Exception as error:  # noqa: BLE001 - a hook of the user's may raise anything
                await self._not_taken(channel, event, attempt, error)
                return False
        await self._outbox.delivered(event, channel.name)
        return True

    async def _not_taken(self, channel: Channel, event: AlertEvent, attempt: int, error: Exception) -> None:
        said = (
            f"not taken within {_SEND.total_seconds():g} s"
            if isinstance(error, TimeoutError)
            else str(error)
            if isinstance(error, DeliveryError)
            else f"{type(error).__name__}: {error}"
        )
        again: timedelta | None = None
        if attempt < self._settings.attempts:
            pause = min(
                self._settings.retry_max.total_seconds(),
                self._settings.retry_base.total_seconds() * 2.0 ** min(attempt - 1, 40),
            ) * self._rng.uniform(0.75, 1.25)
            wanted = error.again_in if isinstance(error, DeliveryError) else None
            again = timedelta(seconds=max(pause, wanted or 0.0))
        log.warning(
            "alert %s was not delivered to %s (attempt %d): %s; %s",
            event.key,
            channel.name,
            attempt,
            said,
            "given up" if again is None else f"again in {again.total_seconds():.0f} s",
        )
        await self._outbox.failed(event, channel.name, error=said, again_in=again)
