"""Chromium on this machine: sessions that share one browser process, or have one each.

This room owns processes and directories only: contexts and pages are made by the pool's Playwright connection. What
must never happen is a browser that outlives its owner; `lifeline` and `rundir` see to that.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    ProviderError,
    ProviderNotFoundError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers import chromium, rundir
from tabkeeper.providers.base import (
    Capabilities,
    Check,
    Leftover,
    LostCallback,
    ProviderUsage,
    RemoteSession,
    SessionSpec,
)
from tabkeeper.providers.browser import Browser, LaunchError, NotExecutableError
from tabkeeper.providers.devtools import DevToolsError, sweep
from tabkeeper.providers.processes import Processes, settled

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Session:
    label: str
    browser: Browser
    created_at: datetime


class LocalProvider:
    """See `Provider`. `start` raises `ConfigError` when there is no browser to start.

    Args:
        name: the provider's name in the configuration.
        settings: its section.
        state_dir: where browsers keep their data while they run; a directory of this user below TMPDIR if unset.
        launch_seconds: a browser that is not ready by then has failed.
        linger_seconds: a shared browser without sessions is ended after this time.
        clock: for `RemoteSession.created_at`.
    """

    capabilities = Capabilities(
        list_by_label=True,
        host_bound=True,
        own_proxies=frozenset({"http", "https", "socks5"}),
        proxy_by_context=True,
    )

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        state_dir: Path | None = None,
        launch_seconds: float = 30.0,
        linger_seconds: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._state_dir = state_dir or rundir.default_state_dir()
        self._linger_seconds = linger_seconds
        self._clock = clock or SystemClock()
        self._sharing = settings.isolation == "context"
        self._on_lost: LostCallback | None = None
        self._closed = False
        self._processes = Processes(name, settings, self._state_dir, launch_seconds, self._exited)
        self._sessions: dict[str, _Session] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._shared: Browser | None = None
        self._launching: asyncio.Task[None] | None = None
        self._launches: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._linger: asyncio.TimerHandle | None = None
        self._aclosing: asyncio.Task[None] | None = None

    async def start(self, on_lost: LostCallback) -> None:
        """See `Provider.start`; also ends browsers that earlier runs left behind.

        Raises:
            ConfigError: no browser on this machine (the message says how to install one), or unusable settings.
            ProviderUnavailableError: the state directory cannot be used.
        """
        assert self._on_lost is None, "started twice"
        self._processes.find()
        self._on_lost = on_lost
        try:
            await asyncio.to_thread(rundir.prepare, self._state_dir)
            await asyncio.to_thread(rundir.reap_abandoned, self._state_dir)
        except OSError as error:
            raise self._unavailable(f"its state directory cannot be used: {error}") from error

    async def create(self, spec: SessionSpec) -> RemoteSession:
        """See `Provider.create`. Leaves no process behind when it fails, is cancelled or times out."""
        self._check_open()
        if spec.session_id in self._sessions:
            raise ProviderRequestError(self.name, f"session {spec.session_id} exists already")
        try:
            browser = await (
                self._join_shared()
                if self._sharing
                else self._processes.launch(chromium.proxy_flags(spec.proxy))
            )
        except NotExecutableError as error:
            raise ProviderRequestError(self.name, f"{error}; set executable_path to a browser") from error
        except LaunchError as error:
            raise self._unavailable(f"no browser for session {spec.session_id}: {error}") from error
        self._check_open()
        if not browser.running:
            raise self._unavailable(f"the browser died at once: {browser.obituary}")
        session = _Session(spec.session_id, browser, self._clock.now())
        self._sessions[spec.session_id] = session
        return self._remote(session)

    def alive(self, provider_session_id: str) -> bool:
        """See `Provider.alive`; asks the kernel, so a killed browser is dead here before any event says so."""
        session = self._sessions.get(provider_session_id)
        return session is not None and session.browser.running

    async def get(self, provider_session_id: str) -> RemoteSession:
        """See `Provider.get`."""
        session = self._sessions.get(provider_session_id)
        if session is None:
            raise ProviderNotFoundError(self.name, f"there is no session {provider_session_id}")
        return self._remote(session)

    async def list(self, label_prefix: str = "") -> Sequence[RemoteSession]:
        """See `Provider.list`."""
        return [self._remote(s) for s in self._sessions.values() if s.label.startswith(label_prefix)]

    async def running(self) -> Sequence[RemoteSession]:
        """See `Provider.running`."""
        return await self.list()

    async def find(self, label: str) -> RemoteSession | None:
        """See `Provider.find`; nothing of this machine appears later."""
        found = self._sessions.get(label)
        return None if found is None else self._remote(found)

    async def close(self, provider_session_id: str) -> None:
        """See `Provider.close`. A shared browser stays for the others; without any, it is swept and lingers."""
        session = self._sessions.pop(provider_session_id, None)
        if session is not None:
            task = asyncio.create_task(self._end_session(session))
            self._closing[provider_session_id] = task
            task.add_done_callback(lambda _: self._closing.pop(provider_session_id, None))
        closing = self._closing.get(provider_session_id)
        if closing is not None:
            await asyncio.shield(closing)  # a cancelled caller must not leave a half-ended browser

    async def sweep(self, provider_session_id: str) -> int:
        """Close contexts and pages that no client is attached to in this session's browser; returns how many.

        Playwright's own contexts end with its connection, so this finds something only after other CDP clients.

        Raises:
            ProviderNotFoundError: there is no such session.
            ProviderUnavailableError: the browser does not answer.
        """
        session = self._sessions.get(provider_session_id)
        if session is None:
            raise ProviderNotFoundError(self.name, f"there is no session {provider_session_id}")
        try:
            async with asyncio.timeout(_SWEEP_SECONDS):
                return await sweep(session.browser.endpoint, alone=lambda: False)
        except (DevToolsError, TimeoutError) as error:
            raise self._unavailable(f"its browser does not answer: {error}") from error

    async def usage(self, provider_session_id: str) -> ProviderUsage | None:  # noqa: ARG002
        """See `Provider.usage`; a local browser bills nothing."""
        return None

    async def reap(self, leftovers: Sequence[Leftover]) -> None:
        """See `Provider.reap`. Browsers whose owner is alive are never touched."""
        for leftover in leftovers:
            await asyncio.to_thread(rundir.reap_process, leftover)
        await asyncio.to_thread(rundir.reap_abandoned, self._state_dir)

    async def check(self) -> Sequence[Check]:
        """See `Provider.check`; works before `start` too."""
        checks = []
        try:
            found = chromium.find_browser(self.name, self._settings)
            number = await asyncio.to_thread(chromium.version, found)
            checks.append(Check(name="browser", ok=True, detail=f"Chromium {number} at {found}"))
        except ConfigError as error:
            advice = "playwright install chromium, or apt-get install chromium"
            checks.append(Check(name="browser", ok=False, detail=str(error), advice=advice))
        if chromium.sandboxed(self._settings):
            checks.append(Check(name="sandbox", ok=True, detail="on"))
        else:
            why = "as root" if self._settings.sandbox else "by the setting `sandbox`"
            advice = (
                "run as another user than root, with sandbox = true, before you visit pages you do not trust"
            )
            checks.append(Check(name="sandbox", ok=True, detail=f"off, {why}", advice=advice))
        size = chromium.shared_memory_bytes()
        if size is not None:
            small = size < chromium.SMALL_SHM_BYTES
            advice = "give the container more, as with docker run --shm-size=1g" if small else ""
            detail = f"{size // 2**20} MB" + (", so Chromium uses files instead" if small else "")
            checks.append(Check(name="shared memory", ok=True, detail=detail, advice=advice))
        try:
            await asyncio.to_thread(rundir.prepare, self._state_dir)
            checks.append(Check(name="state directory", ok=True, detail=str(self._state_dir)))
        except OSError as error:
            advice = "make it writable, or set TMPDIR to a directory that is"
            checks.append(Check(name="state directory", ok=False, detail=str(error), advice=advice))
        return checks

    async def aclose(self) -> None:
        """See `Provider.aclose`. Bounded by a few seconds however the browsers behave; safe to repeat."""
        if self._aclosing is None:
            self._closed = True
            self._aclosing = asyncio.create_task(self._end_all())
        await asyncio.shield(self._aclosing)

    # -- browsers -----------------------------------------------------------------------------------------------

    async def _end_all(self) -> None:
        self._sessions.clear()
        if self._linger is not None:
            self._linger.cancel()
        for launch in self._launches:
            launch.cancel()
        await settled(self._launches)
        self._shared = None
        await self._processes.aclose()
        await settled(self._closing.values())

    async def _join_shared(self) -> Browser:
        """Return the shared browser, started if need be; many callers start it once."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._shared is not None and self._shared.running:
            return self._shared
        if self._launching is None:
            self._launching = asyncio.create_task(self._launch_shared())
            self._launches.add(self._launching)
            self._launching.add_done_callback(self._launched)
        launching = self._launching
        self._waiting += 1
        try:
            await asyncio.wait({launching})
        except asyncio.CancelledError:
            if self._waiting == 1:  # nobody else wants it
                self._launching = None
                launching.cancel()
                await settled([launching])
                # It may have come up in that very moment, and somebody new may have found it.
                if self._shared is not None and self._waiting == 1 and not self._sessions:
                    await asyncio.shield(self._end_browser(self._shared))
            raise
        finally:
            self._waiting -= 1
        if launching.cancelled():
            raise LaunchError("the provider was closed meanwhile")
        error = launching.exception()
        if error is not None:
            raise (
                type(error)(str(error)) if isinstance(error, LaunchError) else LaunchError(str(error))
            ) from error
        if self._shared is None:
            raise LaunchError("the browser died at once")
        return self._shared

    async def _launch_shared(self) -> None:
        self._shared = await self._processes.launch()

    def _launched(self, task: asyncio.Task[None]) -> None:
        self._launches.discard(task)
        if self._launching is task:
            self._launching = None
        if not task.cancelled():
            task.exception()  # told to those who wait; if nobody does any more, nobody needs to hear it

    async def _end_session(self, session: _Session) -> None:
        browser = session.browser
        if not self._sharing:
            await asyncio.shield(self._end_browser(browser))
            return
        if not self._unused(browser) or not browser.running:
            return
        try:
            async with asyncio.timeout(_SWEEP_SECONDS):
                await sweep(browser.endpoint, alone=functools.partial(self._unused, browser))
        except (DevToolsError, TimeoutError) as error:
            # Nobody uses it and it does not answer: the next session is better off with a new one.
            _log.warning("provider %r: the shared browser does not answer (%s); ending it", self.name, error)
            if self._unused(browser):
                await asyncio.shield(self._end_browser(browser))
            return
        if self._unused(browser) and not self._closed:
            loop = asyncio.get_running_loop()
            if self._linger is not None:
                self._linger.cancel()
            self._linger = loop.call_later(self._linger_seconds, self._lingered, browser)

    def _lingered(self, browser: Browser) -> None:
        if self._unused(browser):
            self._end_browser(browser)

    def _unused(self, browser: Browser) -> bool:
        return not self._waiting and all(s.browser is not browser for s in self._sessions.values())

    def _end_browser(self, browser: Browser) -> asyncio.Task[bool]:
        if self._shared is browser:
            self._shared = None
        return self._processes.end(browser)

    def _exited(self, browser: Browser) -> None:
        """The process ended and nobody asked it to: its sessions are lost, each is told of once."""
        lost = [key for key, session in self._sessions.items() if session.browser is browser]
        _log.warning("provider %r: %s; sessions lost: %d", self.name, browser.obituary, len(lost))
        self._end_browser(browser)
        assert self._on_lost is not None
        for key in lost:
            session = self._sessions.pop(key)
            try:
                self._on_lost(session.label, "browser died")
            except Exception:  # noqa: BLE001
                _log.exception("provider %r: telling of the lost session %s failed", self.name, session.label)

    # -- small things -------------------------------------------------------------------------------------------

    def _remote(self, session: _Session) -> RemoteSession:
        return RemoteSession(
            provider_session_id=session.label,
            connect_url=session.browser.endpoint,
            label=session.label,
            running=session.browser.running,
            created_at=session.created_at,
            pid=session.browser.pid,
            pid_started=session.browser.started,
            shared=self._sharing,
        )

    def _check_open(self) -> None:
        if self._closed or self._on_lost is None:
            raise self._unavailable("it is closed" if self._closed else "it was not started")

    def _unavailable(self, message: str) -> ProviderError:
        return ProviderUnavailableError(self.name, message)
