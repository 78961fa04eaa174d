"""Who is taken for gone, and after how long: both ends of a conversation, in virtual time."""

import asyncio
from unittest.mock import Mock

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from tabkeeper.service.gateway.server import GatewayProtocol
from tabkeeper.service.gateway.wire import BrowserWire, Ears
from tabkeeper.testing import run_virtual

from .test_wire import Client

PING = 20
HOUR = 3600


class End:
    """One end of a conversation as the gateway sees it; it answers pings after some seconds, or not at all."""

    def __init__(self, answers_after: float | None) -> None:
        self.answers_after = answers_after
        self.taken_for_gone: float | None = None
        self.waiting = 0
        """Bytes that it has not taken."""
        self.transport = Mock(is_closing=lambda: False, get_write_buffer_size=lambda: self.waiting)
        self.transport.get_extra_info = lambda _: None
        self.transport.write = self._told
        self.transport.abort = self.transport.close = self._gone
        self.connection: BrowserWire | GatewayProtocol | None = None

    def _gone(self) -> None:
        if self.taken_for_gone is None:
            self.taken_for_gone = asyncio.get_running_loop().time()

    def _told(self, data: bytes) -> None:
        if data[:1] == b"\x89" and self.answers_after is not None:
            asyncio.get_running_loop().call_later(self.answers_after, self._answer, data)

    def _answer(self, ping: bytes) -> None:
        if self.connection is not None:
            is_client = isinstance(self.connection, GatewayProtocol)
            body = ping[-4:] if is_client else bytes(a ^ b for a, b in zip(ping[-4:], ping[2:6], strict=True))
            self.say(Frame(Opcode.PONG, body))

    def say(self, frame: Frame) -> None:
        self.connection.data_received(frame.serialize(mask=isinstance(self.connection, GatewayProtocol)))

    async def as_browser(self) -> None:
        wire = BrowserWire(ClientProtocol(parse_uri("ws://b/")), ping_interval=PING, ping_timeout=PING)
        wire.connection_made(self.transport)
        wire.protocol.state = State.OPEN
        wire.protocol.parser = super(ClientProtocol, wire.protocol).parse()
        next(wire.protocol.parser)
        wire.hear(Ears(heard=lambda _: True, carry=lambda _: None))
        wire.start_keepalive()
        self.connection = wire

    async def as_client(self) -> None:
        client = Client(self.transport)
        await client.let_in()
        self.connection = client.protocol
        self.client = client

    async def leave(self) -> None:
        if isinstance(self.connection, BrowserWire):
            self.connection.keepalive_task.cancel()
        else:
            self.client.left.set()
            await asyncio.wait(self.client.tasks)


def after_an_hour(kind, answers_after=None, then=None):
    """Say when an end was taken for gone, in seconds; None if it was not."""

    async def story(_):
        end = End(answers_after)
        await (end.as_browser() if kind == "browser" else end.as_client())
        doing = asyncio.create_task(then(end)) if then else None
        await asyncio.sleep(HOUR)
        if doing is not None:
            doing.cancel()
            await asyncio.wait([doing])
        gone = end.taken_for_gone
        await end.leave()
        return gone

    return run_virtual(story)


both = pytest.mark.parametrize("kind", ["browser", "client"])


@both
def test_who_answers_lives_and_who_does_not_is_gone_after_twice_the_time(kind):
    assert after_an_hour(kind, answers_after=0.1) is None
    assert after_an_hour(kind) == pytest.approx(2 * PING + 1)


@both
def test_an_answer_that_we_were_too_slow_to_read_counts(kind):
    """As after a machine has slept: what is due and what has come are both there at once."""
    assert after_an_hour(kind, answers_after=PING + 0.5) is None
    assert after_an_hour(kind, answers_after=PING + 1.5) == pytest.approx(2 * PING + 1)


@both
def test_whatever_comes_is_a_sign_of_life(kind):
    async def talk(end):
        while True:
            await asyncio.sleep(PING / 2)
            end.say(Frame(Opcode.TEXT, b"{}"))

    assert after_an_hour(kind, then=talk) is None


@both
def test_while_it_is_not_read_silence_means_nothing(kind):
    async def hold(end):
        end.connection.hold()
        await asyncio.sleep(HOUR / 2)
        end.connection.go_on()

    gone = after_an_hour(kind, then=hold)
    assert HOUR / 2 + PING < gone < HOUR / 2 + 3 * PING + 2


def test_a_browser_that_takes_what_it_is_sent_lives():
    """Its answer waits behind a file that is on its way to it."""

    async def take(end):
        end.waiting = HOUR // 2
        while end.waiting:
            await asyncio.sleep(1)
            end.waiting -= 1

    gone = after_an_hour("browser", then=take)
    assert HOUR / 2 + PING < gone < HOUR / 2 + 3 * PING + 2
