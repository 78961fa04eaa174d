"""Our own words with a leased browser: what is in it, closing what a client left, pictures of its pages."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException

from tabkeeper.providers.discovery import NoBrowserError, websocket_of
from tabkeeper.service.gateway.wire import LONGEST, BrowserWire

_LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})
_QUEUED = 4
"""Messages that wait to be carried on; with more, the browser is no longer read."""
_LIVE_KINDS = frozenset({"page", "iframe", "service_worker", "shared_worker", "worker", "webview"})
_INNER = ("chrome-extension://", "chrome://", "devtools://")
_PING = 20.0
"""Seconds between questions to a browser elsewhere whether it still lives, and for its answer."""
_ANSWERING = 30.0
"""Seconds for an answer; a browser that takes longer hangs."""
_PAUSES = (0.01, 0.05, 0.2, 0.5, 1.0, 2.0)
_quiet = logging.getLogger(f"{__name__}.connections")
_quiet.setLevel(logging.WARNING)  # what it says below that quotes addresses, with the keys in them


class BrowserGoneError(Exception):
    """The browser cannot be reached, does not answer, or refuses. The message holds no address."""


async def dial(url: str, *, seconds: float = 30.0) -> ClientConnection:
    """Connect to a browser.

    Raises:
        BrowserGoneError: it cannot be reached.
    """
    return await _dial(url, ClientConnection, seconds, _PING)


async def dial_wire(url: str, *, ping: float) -> BrowserWire:
    """Connect to a browser whose messages are to be passed on as they come.

    Args:
        url: where it is.
        ping: seconds between questions whether it still lives, if it is elsewhere; and for its answer.

    Raises:
        BrowserGoneError: it cannot be reached.
    """
    connection = await _dial(url, BrowserWire, 30.0, ping)
    assert isinstance(connection, BrowserWire)
    return connection


async def _dial(url: str, kind: type[ClientConnection], seconds: float, ping: float) -> ClientConnection:
    try:
        url = await websocket_of(url, seconds=seconds)
        near = urlsplit(url).hostname in _LOCAL
        return await connect(
            url,
            max_size=LONGEST,
            max_queue=_QUEUED,
            compression=None,
            open_timeout=seconds,
            close_timeout=2,
            logger=_quiet,
            create_connection=kind,
            # A browser on this machine cannot vanish silently: its kernel closes the socket.
            ping_interval=None if near else ping,
            ping_timeout=ping,
            proxy=None if near else True,
        )
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI, NoBrowserError) as error:
        # Its own words could quote the address, and with it a key.
        raise BrowserGoneError(f"the browser cannot be reached ({type(error).__name__})") from None


class Browser:
    """A connection for a few questions. Answers are awaited one at a time; events are kept for `events`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._events: list[dict[str, Any]] = []

    async def call(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            BrowserGoneError: there is none.
        """
        number = next(self._ids)
        command: dict[str, object] = {"id": number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        try:
            async with asyncio.timeout(_ANSWERING):
                await self._connection.send(json.dumps(command))
                while (said := await self._heard()).get("id") != number:
                    self._events.append(said)
        except TimeoutError:
            raise BrowserGoneError(f"the browser did not answer {method} within {_ANSWERING:g} s") from None
        except (WebSocketException, ValueError, RecursionError):
            raise BrowserGoneError(f"the browser went away at {method}") from None
        result = said.get("result")
        if not isinstance(result, dict):
            raise BrowserGoneError(f"{method}: {str(said.get('error'))[:200]}")
        return result

    async def _heard(self) -> dict[str, Any]:
        said = json.loads(await self._connection.recv())
        if not isinstance(said, dict):
            raise ValueError("neither an answer nor an event")  # noqa: TRY004 - as what is no JSON at all
        return said

    async def tell(self, method: str, session: str | None, **params: object) -> None:
        """Send a command without waiting for what comes of it, which is then among the events.

        Raises:
            BrowserGoneError: there is no browser any more.
        """
        command = {"id": next(self._ids), "method": method, "params": params}
        try:
            await self._connection.send(
                json.dumps(command if session is None else command | {"sessionId": session})
            )
        except WebSocketException:
            raise BrowserGoneError(f"the browser went away at {method}") from None

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the browser tells, until it goes away."""
        while True:
            while self._events:
                yield self._events.pop(0)
            try:
                yield await self._heard()
            except (WebSocketException, ValueError, RecursionError):
                return

    async def targets(self) -> list[dict[str, Any]]:
        """Return what runs in the browser, its own inner pages left out."""
        found = (await self.call("Target.getTargets")).get("targetInfos")
        try:
            return [
                t for t in found or () if t["type"] in _LIVE_KINDS and not str(t["url"]).startswith(_INNER)
            ]
        except (KeyError, TypeError):
            raise BrowserGoneError("Target.getTargets: no such answer was asked for") from None


@asynccontextmanager
async def talking_to(url: str, *, seconds: float = 10.0) -> AsyncIterator[Browser]:
    """Ask a browser a few things.

    Raises:
        BrowserGoneError: it cannot be reached.
    """
    connection = await dial(url, seconds=seconds)
    try:
        yield Browser(connection)
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was in a browser before a client came."""

    contexts: frozenset[str]
    targets: frozenset[str]
    cookies: frozenset[tuple[str, ...]]

    @classmethod
    async def of(cls, browser: Browser) -> Inventory:
        """Look.

        Raises:
            BrowserGoneError: it does not tell.
        """
        contexts = await browser.call("Target.getBrowserContexts")
        cookies = await browser.call("Storage.getCookies")
        targets = await browser.targets()
        try:
            return cls(
                contexts=frozenset(contexts["browserContextIds"]),
                targets=frozenset(t["targetId"] for t in targets),
                cookies=frozenset(
                    (c["name"], c["domain"], c["path"], c["value"]) for c in cookies["cookies"]
                ),
            )
        except (KeyError, TypeError):
            raise BrowserGoneError("the browser does not tell what is in it") from None


async def close_what_came(browser: Browser, before: Inventory, *, home: bool) -> None:
    """Close the contexts that came since `before` and, at `home`, the pages of the first one.

    Raises:
        BrowserGoneError: it does not answer.
    """
    now = await Inventory.of(browser)
    for context in now.contexts - before.contexts:
        await browser.call("Target.disposeBrowserContext", browserContextId=context)
    for page in await browser.targets() if home else ():
        if page["type"] == "page" and page["targetId"] not in before.targets:
            with contextlib.suppress(BrowserGoneError):  # it went with its context
                await browser.call("Target.closeTarget", targetId=page["targetId"])


async def sweep(browser: Browser, before: Inventory, *, home: bool = False) -> str:
    """Close what came since `before`; return what is different all the same, in a few words.

    Args:
        browser: to be swept.
        before: what may be in it.
        home: the first context keeps its cookies; only the pages that came are closed.

    Raises:
        BrowserGoneError: it does not answer.
    """
    await close_what_came(browser, before, home=home)
    if home:
        before = replace(before, cookies=frozenset())
    now = before
    for pause in (*_PAUSES, None):
        now = await Inventory.of(browser)
        if home:
            now = replace(now, cookies=frozenset())
        if now == before:
            await browser.call("Browser.setDownloadBehavior", behavior="default")
            await browser.call("Browser.resetPermissions")
            return ""
        if pause is not None:
            await asyncio.sleep(pause)  # what runs in a context ends a moment after it
    return _difference(before, now)


def _difference(before: Inventory, now: Inventory) -> str:
    pairs: Mapping[str, tuple[frozenset[Any], frozenset[Any]]] = {
        "contexts": (before.contexts, now.contexts),
        "pages and workers": (before.targets, now.targets),
        "cookies of the default context": (before.cookies, now.cookies),
    }
    return ", ".join(f"other {name}" for name, (then, since) in pairs.items() if then != since)
