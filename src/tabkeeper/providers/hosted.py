"""What all hosted providers share: a create that cannot leak, a close that is sure, and what is known to run.

An adapter of a vendor is a subclass that says how to ask (`vendor.Vendor`); everything that money hangs on is written
once, here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import httpx

from tabkeeper.clock import Clock, Instant
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    OutcomeUnknownError,
    ProviderError,
    ProviderNotFoundError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.base import (
    Leftover,
    LostCallback,
    ProviderUsage,
    RemoteSession,
    SessionSpec,
)
from tabkeeper.providers.vendor import Vendor

_log = logging.getLogger(__name__)

LATE_SECONDS = 30.0
"""A session whose creation was given up and that appears after all is ended if nobody has found it within this."""
_MOST_LATE = 1000
"""Late answers that are remembered."""
BOOT_PAUSES = (0.2, 0.3, 0.5, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
"""A new session may have no address yet; this long, in seconds, it is waited for at most."""
_END_PAUSES = (0.2, 0.5, 1.0, 2.0)
"""A session that was asked to end is looked at again after these, before its end counts as unconfirmed."""
CLOSE_SECONDS = 20.0
"""`aclose` spends at most this on ending sessions."""


@dataclass(frozen=True, slots=True)
class _Known:
    label: str | None
    over_at: Instant


class UselessError(OutcomeUnknownError):
    """A session was created, and is paid for, but could not be used; what became of it, `find` tells."""

    def __init__(self, provider: str, message: str, provider_session_id: str) -> None:
        super().__init__(provider, message)
        self.provider_session_id = provider_session_id


class HostedProvider(Vendor):
    """See `Provider`; a base of adapters.

    Args:
        name: the provider's name in the configuration.
        settings: its section.
        transport, sleep, clock, rng: for tests.
    """

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Clock | None = None,
        rng: Random | None = None,
    ) -> None:
        super().__init__(name, settings, transport=transport, sleep=sleep, clock=clock, rng=rng)
        self._on_lost: LostCallback | None = None
        self._closed = False
        self._aclosing: asyncio.Task[None] | None = None
        self._labels: set[str] = set()
        """Of sessions that run or are being created: one label is one session."""
        self._late: dict[str, str | None] = {}
        """Sessions whose creation was given up before it was answered: their ids, None for what was never created."""
        self._known: dict[str, _Known] = {}
        """Sessions thought to run, by the provider's id."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._leaving = asyncio.Event()

    # -- Provider ------------------------------------------------------------------------------------------------

    async def start(self, on_lost: LostCallback) -> None:
        """See `Provider.start`; asks nobody."""
        assert self._on_lost is None, "started twice"
        self._on_lost = on_lost

    async def create(self, spec: SessionSpec) -> RemoteSession:
        """See `Provider.create`.

        When this is cancelled the call goes on: an answer tells best what there is to end.
        """
        if self._closed or self._on_lost is None:
            raise ProviderUnavailableError(
                self.name, "it is closed" if self._closed else "it was not started"
            )
        if spec.session_id in self._labels:
            raise ProviderRequestError(self.name, f"session {spec.session_id} exists already")
        self._labels.add(spec.session_id)
        creating = self._spawn(self._create(spec), f"create {spec.session_id}")
        try:
            made = await asyncio.shield(creating)
        except asyncio.CancelledError:
            if creating.cancelled():
                raise OutcomeUnknownError(self.name, "it was closed before it was answered") from None
            self._spawn(self._end_late(spec, creating), f"end {spec.session_id}")
            raise
        except ProviderError as error:
            # What may have been created all the same is found by `find`, and kept on record by whoever asked.
            self._labels.discard(spec.session_id)
            if isinstance(error, UselessError):
                self._tell_late(spec.session_id, error.provider_session_id)
            raise
        return self._note(replace(made, label=spec.session_id), spec.max_seconds)

    def alive(self, provider_session_id: str) -> bool:
        """See `Provider.alive`: True until it is closed, seen to be over, or its time at the provider is up."""
        known = self._known.get(provider_session_id)
        return known is not None and self._clock.monotonic() < known.over_at

    def take_over(self, session: RemoteSession) -> None:
        """See `Shareable.take_over`."""
        self._note(session, None)

    def let_go(self, provider_session_id: str) -> None:
        """See `Shareable.let_go`."""
        known = self._known.pop(provider_session_id, None)
        if known is not None and known.label is not None:
            self._labels.discard(known.label)

    async def get(self, provider_session_id: str) -> RemoteSession:
        """See `Provider.get`; a session that is over may still be known, and then does not run."""
        try:
            found = await self._get(provider_session_id)
        except ProviderNotFoundError:
            self._over(provider_session_id, "unknown at its provider")
            raise
        if found.running:
            # Whose it is, is not said: other processes' sessions are not ours to end.
            return found
        self._over(provider_session_id, "ended at its provider")
        return found

    async def list(self, label_prefix: str = "") -> Sequence[RemoteSession]:
        """See `Provider.list`. Where a list omits addresses, only the one asked for by its full label has one."""
        if self._closed:
            return []
        found = []
        asked = self._id_of(label_prefix)
        for session in await self._running():
            if session.label is None:
                # Where labels are not kept there, they are those of this process, or the one asked for in full.
                known = self._known.get(session.provider_session_id)
                label = (
                    known.label if known else label_prefix if session.provider_session_id == asked else None
                )
                session = replace(session, label=label)  # noqa: PLW2901
            if session.label is None or not session.label.startswith(label_prefix):
                continue
            if session.label == label_prefix:
                addressed = await self._addressed(session)
                if addressed is not None:
                    found.append(addressed)
                continue
            found.append(session)
        return found

    async def _addressed(self, session: RemoteSession) -> RemoteSession | None:
        """Return a session that was asked for by its label, as one that runs here from now on; None if it is over."""
        full = session if session.connect_url else await self._get(session.provider_session_id)
        if not full.running:
            return None
        if not full.connect_url:
            raise ProviderUnavailableError(
                self.name, f"session {session.provider_session_id} has no address yet"
            )
        return self._note(replace(full, label=session.label), None)

    async def running(self) -> Sequence[RemoteSession]:
        """See `Provider.running`."""
        return [] if self._closed else await self._running()

    async def find(self, label: str) -> RemoteSession | None:
        """See `Provider.find`: what a late answer told, else what the list shows, if it can."""
        late = self._late.get(label, "")
        if late is None:
            raise ProviderNotFoundError(self.name, f"session {label} was never created")
        made = late or self._id_of(label)
        listed = None
        if made is None:
            if not self.capabilities.list_by_label:
                return None
            try:
                listed = await self._search(label)
            except ProviderNotFoundError as error:
                # That there is no list is no proof that there is no session.
                raise ProviderUnavailableError(self.name, f"its list cannot be read: {error}") from error
            if listed is None or not listed.running:
                return listed
            if listed.connect_url:
                return self._note(listed, None)
            made = listed.provider_session_id
        try:
            full = replace(await self._get(made), label=label)
        except ProviderNotFoundError:
            if listed is not None:
                return listed  # its list knows better, or will
            over = RemoteSession(provider_session_id=made, connect_url="", label=label, running=False)
            return over if late else None
        return self._note(full, None) if full.running else full

    async def close(self, provider_session_id: str) -> None:
        """See `Provider.close`; what the provider does not know is over."""
        try:
            sure = await self._release(provider_session_id)
        except ProviderNotFoundError:
            sure = True
        except ProviderRequestError:
            # Some refuse to end what is over; others refuse for other reasons. Its status tells.
            if await self._still_running(provider_session_id):
                raise
            sure = True
        pauses = iter(_END_PAUSES)
        while not sure and await self._still_running(provider_session_id):
            pause = next(pauses, None)
            if pause is not None:
                await self._sleep(pause)
                continue
            raise ProviderUnavailableError(
                self.name, f"session {provider_session_id} is asked to end, but still runs"
            )
        known = self._known.pop(provider_session_id, None)
        if known is not None and known.label is not None:
            self._labels.discard(known.label)

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:  # noqa: ARG002 - for subclasses
        """See `Provider.usage`."""
        return None

    async def reap(self, leftovers: Sequence[Leftover]) -> None:
        """See `Provider.reap`; those whose id is not on record are looked for by their label."""
        ids = {one.provider_session_id for one in leftovers if one.provider_session_id is not None}
        labels = {one.session_id for one in leftovers if one.provider_session_id is None}
        chosen = {label: found for label in labels if (found := self._id_of(label)) is not None}
        ids |= set(chosen.values())
        labels -= chosen.keys()
        if labels:
            ids |= {one.provider_session_id for one in await self._running() if one.label in labels}
        failed: ProviderError | None = None
        for one in sorted(ids):
            try:
                await self.close(one)
            except ProviderError as error:
                failed = error
        if failed is not None:
            raise failed

    async def aclose(self) -> None:
        """See `Provider.aclose`; bounded, and what could not be ended is logged: its timeout ends it."""
        if self._aclosing is None:
            self._closed = True
            self._leaving.set()
            self._aclosing = asyncio.create_task(self._end_all())
        try:
            await asyncio.wait([self._aclosing])
        except asyncio.CancelledError:
            # There is no more time: connections are closed all the same.
            self._aclosing.cancel()
            await asyncio.wait([self._aclosing])
            raise
        if not self._aclosing.cancelled():
            self._aclosing.result()

    # -- small things --------------------------------------------------------------------------------------------

    def _note(self, session: RemoteSession, max_seconds: float | None) -> RemoteSession:
        """Remember a session that runs. Only creating it tells how long it may."""
        known = self._known.get(session.provider_session_id)
        label = session.label or (known.label if known else None)
        over_at = known.over_at if known else float("inf")
        if max_seconds is not None:
            over_at = self._clock.monotonic() + self._life(max_seconds)
        self._known[session.provider_session_id] = _Known(label, over_at)
        if label is not None:
            self._labels.add(label)
        return session

    def _life(self, max_seconds: float) -> float:
        """Return the timeout to ask for: no longer than is paid for, and such as the provider takes."""
        can = self.capabilities
        max_seconds = can.whole_steps(max_seconds)
        if can.max_seconds is not None:
            max_seconds = min(max_seconds, can.max_seconds)
        return max(max_seconds, can.min_seconds)

    def _prolong(self, provider_session_id: str, seconds: float) -> None:
        """Remember that a session was extended, by so much from now at least."""
        known = self._known.get(provider_session_id)
        if known is not None:
            over_at = max(known.over_at, self._clock.monotonic() + seconds)
            self._known[provider_session_id] = replace(known, over_at=over_at)

    def _over(self, provider_session_id: str, reason: str) -> None:
        """Tell once of a session that was thought to run."""
        known = self._known.pop(provider_session_id, None)
        if known is None or known.label is None:
            return
        self._labels.discard(known.label)
        if self._on_lost is not None:
            self._on_lost(known.label, reason)

    async def _still_running(self, provider_session_id: str) -> bool:
        try:
            return (await self._get(provider_session_id)).running
        except ProviderNotFoundError:
            return False

    async def _end_late(self, spec: SessionSpec, creating: asyncio.Task[RemoteSession]) -> None:
        """Wait for the answer that a cancelled caller did not wait for, and end what it tells of."""
        waiting = asyncio.create_task(self._leaving.wait())
        try:
            await asyncio.wait({creating, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not creating.done():
                # The process is about to end: a little longer, then the label on record must do.
                await asyncio.wait({creating}, timeout=CLOSE_SECONDS / 2)
        finally:
            creating.cancel()
            waiting.cancel()
        try:
            made = await creating
        except (ProviderError, asyncio.CancelledError) as error:
            _log.info(
                "provider %r: session %s, given up, was not created: %r", self.name, spec.session_id, error
            )
            self._labels.discard(spec.session_id)
            if isinstance(error, UselessError):
                self._tell_late(spec.session_id, error.provider_session_id)
            elif isinstance(error, ProviderError) and not isinstance(error, OutcomeUnknownError):
                self._tell_late(spec.session_id, None)
            return
        self._tell_late(spec.session_id, made.provider_session_id)
        if made.provider_session_id not in self._known:
            # Who gave up may be looking for it right now.
            pause = asyncio.ensure_future(self._sleep(LATE_SECONDS))
            leaving = asyncio.create_task(self._leaving.wait())
            try:
                await asyncio.wait({pause, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pause.cancel()
                leaving.cancel()
        if made.provider_session_id in self._known:
            return
        _log.warning(
            "provider %r: session %s came up after it was given up; ending it", self.name, spec.session_id
        )
        try:
            await self.close(made.provider_session_id)
        except ProviderError as error:
            _log.warning("provider %r: session %s could not be ended: %s", self.name, spec.session_id, error)
        self._labels.discard(spec.session_id)

    async def _booted(self, made: RemoteSession) -> RemoteSession:
        """Return a new session as soon as it can be connected to, within some seconds; else end it and say so."""
        for pause in BOOT_PAUSES:
            if made.connect_url or not made.running:
                break
            await self._sleep(pause)
            try:
                made = await self._get(made.provider_session_id)
            except ProviderError:
                break
        return await self._usable(made)

    async def _usable(self, made: RemoteSession) -> RemoteSession:
        """Return a new session if it runs and can be connected to; else end it and say so."""
        if made.running and made.connect_url:
            return made
        raise await self._useless(made.provider_session_id, "it ended at once or has no address")

    async def _useless(self, provider_session_id: str, why: object) -> UselessError:
        """End a session that was created but cannot be used, and return the error that says so."""
        what = f"session {provider_session_id} was created, but is of no use: {why}"
        try:
            await self.close(provider_session_id)
        except ProviderError as error:
            what += f"; it may still run: {error}"
        return UselessError(self.name, what, provider_session_id)

    def _tell_late(self, label: str, provider_session_id: str | None) -> None:
        self._late[label] = provider_session_id
        if len(self._late) > _MOST_LATE:
            del self._late[next(iter(self._late))]

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=f"tabkeeper {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end_all(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._tasks:
                    await asyncio.wait(set(self._tasks))
                await asyncio.gather(*(self._end(one) for one in list(self._known)))
        except TimeoutError:
            _log.warning("provider %r: sessions that may still run: %s", self.name, ", ".join(self._known))
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(set(self._tasks))
            await self._api.aclose()

    async def _end(self, provider_session_id: str) -> None:
        try:
            await self.close(provider_session_id)
        except ProviderError as error:
            _log.warning("provider %r: session %s may still run: %s", self.name, provider_session_id, error)
