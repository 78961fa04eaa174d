"""All browser processes of one provider with their run directory and watchdog; knows no sessions.

A process is known here before anything can interrupt, and forgotten only when nothing of it is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tabkeeper.config import ProviderSettings
from tabkeeper.providers import chromium
from tabkeeper.providers.browser import Browser, LaunchError
from tabkeeper.providers.lifeline import Lifeline
from tabkeeper.providers.rundir import RunDir
from tabkeeper.providers.watchdog import remove_tree

_log = logging.getLogger(__name__)


class Processes:
    """Launches and ends browsers.

    Args:
        name: of the provider, for messages.
        settings: of the provider.
        state_dir: where the run directory is made, with the first browser.
        launch_seconds: a browser that is not ready by then has failed.
        on_exit: called from the loop, once, when a browser that was ready ends by itself.
    """

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        state_dir: Path,
        launch_seconds: float,
        on_exit: Callable[[Browser], None],
    ) -> None:
        self._name = name
        self._settings = settings
        self._state_dir = state_dir
        self._launch_seconds = launch_seconds
        self._on_exit = on_exit
        self._executable = Path()
        self._flags: list[str] = []
        self._run: RunDir | None = None
        self._lifeline: Lifeline | None = None
        self._browsers: set[Browser] = set()
        self._ending: dict[Browser, asyncio.Task[bool]] = {}
        self._closed = False

    def find(self) -> None:
        """Decide which browser will be started, and how.

        Raises:
            ConfigError: there is none, or the settings cannot be used.
        """
        self._executable = chromium.find_browser(self._name, self._settings)
        self._flags = chromium.flags(self._name, self._settings)

    async def launch(self, more: Sequence[str] = ()) -> Browser:
        """Start one browser with `more` flags; nothing is left of it if this fails or is cancelled.

        Raises:
            LaunchError: it did not come up.
        """
        if self._closed:
            raise LaunchError("the provider is closed")
        try:
            if self._run is None:
                self._run = RunDir(self._state_dir)
                self._lifeline = Lifeline(self._run.path)
            assert self._lifeline is not None
            # The watchdog comes first: it finds a browser by its directory even if we die before telling its pid.
            self._lifeline.ensure()
            folder = self._run.browser_dir()
            browser = Browser.spawn(self._executable, [*self._flags, *more], folder, chromium.environment())
        except OSError as error:
            raise LaunchError(f"this machine cannot start one: {error}") from error
        self._browsers.add(browser)
        self._lifeline.watch(browser.pid)
        try:
            await browser.ready(self._launch_seconds)
        except BaseException:
            browser.kill()  # at once, whatever happens to the clean-up below
            await asyncio.shield(self.end(browser))
            raise
        browser.on_exit = self._on_exit
        return browser

    def end(self, browser: Browser) -> asyncio.Task[bool]:
        """End a browser and remove its directory, in a task of its own: once begun it goes through.

        The result says whether nothing is left; it takes some seconds at most.
        """
        task = self._ending.get(browser)
        if task is None:
            task = self._ending[browser] = asyncio.create_task(self._end(browser))
            task.add_done_callback(lambda _: self._ending.pop(browser, None))
        return task

    async def aclose(self) -> None:
        """End all browsers, the watchdog last; it gets what did not end."""
        self._closed = True
        ends = [self.end(browser) for browser in self._browsers]
        await settled(ends)
        lifeline, self._lifeline = self._lifeline, None
        run, self._run = self._run, None
        if run is not None and lifeline is not None:
            clean = not self._browsers and await asyncio.to_thread(run.remove)
            await lifeline.end(clean=clean)

    async def _end(self, browser: Browser) -> bool:
        browser.on_exit = None
        gone = await browser.stop()
        await asyncio.to_thread(remove_tree, str(browser.folder))
        if gone:
            self._browsers.discard(browser)
            if self._lifeline is not None:
                self._lifeline.forget(browser.pid)
        else:
            _log.error(
                "provider %r: browser process %d does not end, even by SIGKILL", self._name, browser.pid
            )
        return gone


async def settled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait for tasks without taking over their errors."""
    pending = set(tasks)
    if pending:
        await asyncio.wait(pending)
