"""What a browser says comes out as it went in, however the network cuts it: beside the library's own reading."""

import asyncio
import tracemalloc
from unittest.mock import Mock

import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from tabkeeper.config import GatewaySettings
from tabkeeper.service.gateway.server import GatewayProtocol, uvicorn_options
from tabkeeper.service.gateway.wire import LONGEST, BrowserWire, Ears

TEXT, CONT, PING, CLOSE = Opcode.TEXT, Opcode.CONT, Opcode.PING, Opcode.CLOSE


class Story:
    """A browser that answers a handshake, and what a listener hears of it; messages with "no" are for nobody."""

    def __init__(self):
        self.heard: list[bytes] = []
        self.carried: list[bytes] = []
        self.transport = Mock(is_closing=lambda: False, get_write_buffer_size=lambda: 0)
        self.wire = BrowserWire(
            ClientProtocol(parse_uri("ws://browser/"), max_size=LONGEST), ping_interval=None
        )
        self.wire.connection_made(self.transport)
        request = self.wire.protocol.connect()
        self.wire.protocol.send_request(request)
        server = ServerProtocol()
        server.receive_data(b"".join(self.wire.protocol.data_to_send()))
        server.send_response(server.accept(server.events_received()[0]))
        self.handshake = b"".join(server.data_to_send())

    def listen(self):
        self.wire.hear(Ears(heard=self.hear, carry=self.carried.append))

    def hear(self, message):
        assert type(message) is bytes
        self.heard.append(message)
        return b"no" not in message

    def told(self):
        """What a client reads of the frames that were carried to it."""
        return [bytes(frame.data) for frame in read(b"".join(self.carried)) if frame.opcode is TEXT]


class Client:
    """A connection of a client, and what is heard of it past ASGI once it is let in."""

    def __init__(self, transport=None):
        self.heard: list[str] = []
        self.transport = transport or Mock(is_closing=lambda: False, get_write_buffer_size=lambda: 0)
        self.transport.get_extra_info = lambda _: None
        self.accepting, self.accepted, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        config = uvicorn.Config(
            self.app, interface="asgi3", log_config=None, **uvicorn_options(GatewaySettings())
        )
        config.loaded, config.loaded_app = True, self.app
        state = ServerState()
        self.tasks = state.tasks
        self.protocol = GatewayProtocol(config, state, {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.transport)
        library = ClientProtocol(parse_uri("ws://gateway/cdp"))
        library.send_request(library.connect())
        self.protocol.data_received(b"".join(library.data_to_send()))

    async def app(self, _, receive, send):
        await self.accepting.wait()
        await send({"type": "websocket.accept"})
        self.protocol.hear(lambda text: self.heard.append(text))
        self.accepted.set()
        await self.left.wait()
        self.protocol.stop_keepalive()

    async def let_in(self):
        self.accepting.set()
        await self.accepted.wait()


def read(data):
    """The control: the library reads it all."""
    protocol = ClientProtocol(parse_uri("ws://browser/"))
    protocol.state = protocol.state.OPEN
    protocol.parser = super(ClientProtocol, protocol).parse()
    next(protocol.parser)
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [event for event in protocol.events_received() if not isinstance(event, Response)]


def frame(opcode, data=b"", *, fin=True):
    return Frame(opcode, data, fin).serialize(mask=False)


words = st.binary(max_size=300) | st.sampled_from([b"no", b"x" * 125, b"x" * 126, b"x" * 65535, b"y" * 65536])
said = st.lists(
    st.tuples(st.just("text"), words)
    | st.tuples(st.just("pieces"), st.lists(words, min_size=2, max_size=4))
    | st.tuples(st.just("ping"), st.binary(max_size=125)),
    max_size=8,
)


@given(said, st.lists(st.integers(1, 400), max_size=20), st.booleans())
def test_however_it_is_cut_it_comes_out_whole_and_in_order(said, cuts, early):
    async def story():
        one, sent, messages, pings = Story(), b"", [], []
        for kind, what in said:
            if kind == "text":
                sent += frame(TEXT, what)
                messages.append(what)
            elif kind == "ping":
                sent += frame(PING, what)
                pings.append(what)
            else:
                for number, piece in enumerate(what):
                    sent += frame(CONT if number else TEXT, piece, fin=number == len(what) - 1)
                    if piece == b"no":  # a control frame may come between the pieces of a message
                        sent += frame(PING, b"still there?")
                        pings.append(b"still there?")
                messages.append(b"".join(what))
        if not early:
            one.wire.data_received(one.handshake)
            one.listen()
        stream = sent if not early else one.handshake + sent
        for cut in cuts:
            one.wire.data_received(stream[:cut])
            stream = stream[cut:]
        if stream:
            one.wire.data_received(stream)
        if early:
            assert one.heard == []
            one.listen()
        assert one.heard == messages
        assert one.told() == [message for message in messages if b"no" not in message]
        pongs = b"".join(call.args[0] for call in one.transport.write.call_args_list)
        assert pongs.count(b"\x8a") >= len(pings)

    asyncio.run(story())


@given(said, st.lists(st.integers(1, 400), max_size=20), st.booleans())
def test_however_a_client_s_words_are_cut_they_come_out_whole_and_in_order(said, cuts, early):
    async def story():
        one, sent, messages, pings = Client(), b"", [], 0
        for kind, what in said:
            if kind == "ping":
                sent += Frame(PING, what).serialize(mask=True)
                pings += 1
                continue
            parts = [what] if kind == "text" else what
            for number, piece in enumerate(parts):
                opcode, last = CONT if number else TEXT, number == len(parts) - 1
                sent += Frame(opcode, piece.hex().encode(), last).serialize(mask=True)
            messages.append(b"".join(parts).hex())
        before = early and len(sent) < 100_000  # more is not listened to before a client is let in
        if not before:
            await one.let_in()
        stream = sent
        for cut in cuts:
            one.protocol.data_received(stream[:cut])
            stream = stream[cut:]
        one.protocol.data_received(stream)
        if before:
            await one.let_in()
        assert one.heard == messages
        told = b"".join(call.args[0] for call in one.transport.write.call_args_list)
        assert told.count(b"\x8a") >= pings
        one.left.set()
        await asyncio.wait(one.tasks)

    asyncio.run(story())


def test_a_message_in_a_million_pieces_costs_its_length():
    async def story():
        one = Story()
        one.wire.data_received(one.handshake)
        one.listen()
        one.wire.data_received(frame(TEXT, b"[", fin=False))
        pieces = frame(CONT, b"1", fin=False) * 1000
        tracemalloc.start()
        for _ in range(10):
            one.wire.data_received(pieces)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used < 100_000
        one.wire.data_received(frame(CONT, b"]"))
        assert one.told() == [b"[" + b"1" * 10_000 + b"]"]

    asyncio.run(story())


def test_more_than_clients_take_is_not_waited_for():
    async def story(announced):
        one = Story()
        over = []
        one.wire.data_received(one.handshake)
        one.wire.hear(Ears(heard=one.hear, carry=one.carried.append, gone=lambda: over.append(True)))
        one.wire.data_received(frame(TEXT, b"good") + announced)
        assert over
        assert one.heard == [b"good"]

    for first in (0x81, 0x01):
        for length in (LONGEST + 1, 2**63 - 1):
            asyncio.run(story(bytes([first, 127]) + length.to_bytes(8)))


def test_neighbours_are_carried_together_and_nothing_is_framed_again():
    async def story():
        one = Story()
        one.wire.data_received(one.handshake)
        one.listen()
        several = frame(TEXT, b"one") + frame(TEXT, b"x" * 70000) + frame(TEXT, b"three")
        one.wire.data_received(several)
        assert one.carried == [several]

    asyncio.run(story())


def test_what_no_server_may_say_ends_the_connection_after_what_came_before():
    async def story(wrong):
        one = Story()
        one.wire.data_received(one.handshake)
        one.listen()
        one.wire.data_received(frame(TEXT, b"good") + wrong + frame(TEXT, b"late"))
        one.wire.data_received(frame(TEXT, b"later"))
        assert one.heard == [b"good"]
        assert not one.wire._is_open()

    for wrong in (b"\x81\x85maskHELLO", b"\xf1\x00", b"\x83\x00", frame(CONT, b"of nothing"), frame(CLOSE)):
        asyncio.run(story(wrong))


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_no_nonsense_of_a_browser_raises(said):
    async def story():
        one = Story()
        one.wire.data_received(one.handshake)
        one.listen()
        for piece in said:
            one.wire.data_received(piece)
        assert one.told() == [message for message in one.heard if b"no" not in message]

    asyncio.run(story())
