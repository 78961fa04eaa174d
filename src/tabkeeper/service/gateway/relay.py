"""Carries a CDP conversation between a client and its browser until one of them, or the lease, is over.

A message is carried on in the moment in which it arrives. Whoever reads slowly slows down whoever writes: as soon as
one end takes nothing more the other is not read, so nothing piles up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from starlette.types import Message, Receive

from tabkeeper.service.gateway.server import GatewayProtocol
from tabkeeper.service.gateway.talk import Step, Talk
from tabkeeper.service.gateway.wire import BrowserWire, Ears, GoneError

EndedBy = Literal["client", "silence", "release", "binary", "stall", "browser", "lease"]
"""client: said goodbye; silence: vanished; release: gave its lease back; binary: spoke no CDP; stall: stopped reading;
browser: went away; lease: is over."""
_GOODBYES = frozenset({1000, 1001, 1005})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a conversation ended."""

    by: EndedBy
    success: bool = True
    reason: str | None = None


class Relay:
    """One conversation.

    Args:
        client: its WebSocket, which is accepted.
        browser: the connection to the browser.
        talk: reads what is said.
        stall: seconds after which a client, or a browser, that reads nothing is given up.
    """

    def __init__(self, client: GatewayProtocol, browser: BrowserWire, talk: Talk, *, stall: float) -> None:
        self._client = client
        self._browser = browser
        self._talk = talk
        self._stall = stall
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._client_full: asyncio.TimerHandle | None = None
        self._browser_full: asyncio.TimerHandle | None = None

    async def run(self, receive: Receive, over: asyncio.Event) -> Ending:
        """Carry until somebody ends it.

        Args:
            receive: tells how the client left.
            over: says that the lease is.
        """
        waits = {
            asyncio.create_task(_parting(receive), name="tabkeeper gateway parting"),
            asyncio.create_task(_wait(over), name="tabkeeper gateway lease"),
        }
        self._client.hear(self._said, full=self._client_is_full, room=self._client_has_room)
        self._browser.hear(
            Ears(
                heard=self._heard,
                carry=self._client.carry,
                full=self._browser_is_full,
                room=self._browser_has_room,
                gone=self._browser_gone,
            )
        )
        try:
            done, _ = await asyncio.wait({self._ended, *waits}, return_when=asyncio.FIRST_COMPLETED)
            return min((one.result() for one in done), key=lambda one: one.by != "lease")
        finally:
            self._let_go()
            for task in waits:
                task.cancel()
            await asyncio.wait(waits)

    def _let_go(self) -> None:
        """Drop what is said from now on; both ends are read, so that they can be closed."""
        self._ended.cancel()
        for timer in (self._client_full, self._browser_full):
            if timer is not None:
                timer.cancel()
        self._client.hear(lambda _: None)
        self._browser.hear(Ears(heard=lambda _: False, carry=lambda _: None))

    def _end(self, ending: Ending) -> None:
        if not self._ended.done():
            self._ended.set_result(ending)

    # ── what is said ───────────────────────────────────────────────────────────────────────────────────────────────

    def _said(self, text: str | None) -> None:
        if self._ended.done():
            return
        if text is None:
            self._end(Ending(by="binary", success=False, reason="it sent a binary frame"))
            return
        step = self._talk.said(text)
        for command in step.to_browser:
            self._tell_browser(command)
        if step.to_client is not None:
            self._client.say(step.to_client)
        if step.ends:
            self._end(_released(step))

    def _heard(self, message: bytes) -> bool:
        if self._ended.done():
            return False
        passes, command = self._talk.heard(message)
        if command is not None:
            self._tell_browser(command)
        return passes

    def _tell_browser(self, command: str) -> None:
        try:
            self._browser.say(command)
        except GoneError:
            self._browser_gone()

    def _browser_gone(self) -> None:
        self._end(Ending(by="browser", success=False, reason=self._browser.ending))

    # ── who reads slowly ───────────────────────────────────────────────────────────────────────────────────────────

    def _client_is_full(self) -> None:
        # Nor is it asked for more: we answer some commands, and pings, ourselves.
        self._browser.hold()
        self._client.hold()
        self._client_full = self._later(self._client_stalls, self._client.waiting)

    def _client_stalls(self, waiting: int) -> None:
        if self._client.waiting < waiting:  # slow, not still: one message can be long
            self._client_full = self._later(self._client_stalls, self._client.waiting)
        else:
            self._end(Ending(by="stall", success=False, reason="the client stopped reading"))

    def _client_has_room(self) -> None:
        if self._client_full is not None:
            self._client_full.cancel()
            self._client_full = None
        self._browser.go_on()
        if self._browser_full is None:
            self._client.go_on()

    def _browser_is_full(self) -> None:
        self._client.hold()
        self._browser_full = self._later(self._browser_stalls, self._browser.waiting)

    def _browser_stalls(self, waiting: int) -> None:
        if self._browser.waiting < waiting:
            self._browser_full = self._later(self._browser_stalls, self._browser.waiting)
        else:
            self._end(Ending(by="browser", success=False, reason="the browser stopped reading"))

    def _browser_has_room(self) -> None:
        if self._browser_full is not None:
            self._browser_full.cancel()
            self._browser_full = None
        if self._client_full is None:
            self._client.go_on()

    def _later(self, look: Callable[[int], None], waiting: int) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._stall, look, waiting)


async def _wait(over: asyncio.Event) -> Ending:
    await over.wait()
    return Ending(by="lease")


async def _parting(receive: Receive) -> Ending:
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    return _farewell(message)


def _farewell(message: Message) -> Ending:
    """Tell a goodbye from a broken connection: servers name no reason for what was not said."""
    if message.get("reason") is not None and message.get("code") in _GOODBYES:
        return Ending(by="client")
    return Ending(by="silence", success=False, reason="its client went away without a word")


def _released(step: Step) -> Ending:
    return Ending(by="release", success=step.success, reason=step.reason)
