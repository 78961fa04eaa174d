"""What a browser says comes out as it went in, however the network cuts it: beside the library's own reading."""

import asyncio
from unittest.mock import Mock

from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from tabkeeper.service.gateway.wire import BrowserWire, Ears

TEXT, CONT, PING, CLOSE = Opcode.TEXT, Opcode.CONT, Opcode.PING, Opcode.CLOSE


class Story:
    """A browser that answers a handshake, and what a listener hears of it; messages with "no" are for nobody."""

    def __init__(self):
        self.heard: list[bytes] = []
        self.carried: list[bytes] = []
        self.transport = Mock(is_closing=lambda: False)
        self.wire = BrowserWire(ClientProtocol(parse_uri("ws://browser/")), ping_interval=None)
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
    | st.tuples(st.just("pieces"), st.lists(words, min_size=2, max_size=3))
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
