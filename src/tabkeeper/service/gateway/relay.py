"""Carries a CDP conversation between a client and its browser until one of them, or the lease, is over.

Each direction holds one message at a time: whoever reads slowly slows down whoever writes, and nothing piles up here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from starlette.types import Message, Receive, Send
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tabkeeper.service.gateway.talk import Step, Talk

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
        receive, send: to the client; its WebSocket is accepted.
        browser: the connection to the browser.
        talk: reads what is said.
        stall: seconds after which a client that reads nothing is given up.
    """

    def __init__(
        self, receive: Receive, send: Send, browser: ClientConnection, talk: Talk, *, stall: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._browser = browser
        self._talk = talk
        self._stall = stall
        self._sending = asyncio.Lock()

    async def run(self, over: asyncio.Event) -> Ending:
        """Carry until somebody ends it; `over` says that the lease is."""
        work = {
            asyncio.create_task(self._inwards(), name="tabkeeper gateway inwards"),
            asyncio.create_task(self._outwards(), name="tabkeeper gateway outwards"),
            asyncio.create_task(_wait(over), name="tabkeeper gateway lease"),
        }
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            return min((task.result() for task in done), key=lambda one: one.by != "lease")
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)

    async def _inwards(self) -> Ending:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return _parting(message)
            text = message.get("text")
            if text is None:
                return Ending(by="binary", success=False, reason="it sent a binary frame")
            step = self._talk.said(text)
            try:
                for command in step.to_browser:
                    await self._browser.send(command)
            except ConnectionClosed:
                return Ending(by="browser")
            if step.to_client is not None and await self._tell(step.to_client) == "stalled":
                return _STALLED
            if step.ends:
                return _released(step)

    async def _outwards(self) -> Ending:
        heard = self._talk.heard
        while True:
            try:
                message = await self._browser.recv(decode=False)
                passes, command = heard(message)
                if command is not None:
                    await self._browser.send(command)
            except ConnectionClosed:
                return Ending(by="browser")
            if not passes:
                continue
            told = await self._tell(message.decode("utf-8", "replace"))
            if told == "stalled":
                return _STALLED
            if told == "gone":
                await asyncio.Event().wait()  # the other direction hears how it left

    async def _tell(self, text: str) -> Literal["told", "stalled", "gone"]:
        try:
            async with asyncio.timeout(self._stall), self._sending:
                await self._send({"type": "websocket.send", "text": text})
        except TimeoutError:
            return "stalled"
        except (OSError, RuntimeError):
            return "gone"
        return "told"


_STALLED = Ending(by="stall", success=False, reason="the client stopped reading")


async def _wait(over: asyncio.Event) -> Ending:
    await over.wait()
    return Ending(by="lease")


def _parting(message: Message) -> Ending:
    """Tell a goodbye from a broken connection: servers name no reason for what was not said."""
    if message.get("reason") is not None and message.get("code") in _GOODBYES:
        return Ending(by="client")
    return Ending(by="silence", success=False, reason="its client went away without a word")


def _released(step: Step) -> Ending:
    return Ending(by="release", success=step.success, reason=step.reason)
