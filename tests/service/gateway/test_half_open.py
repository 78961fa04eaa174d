"""Connections of which one end is gone, or takes and says nothing, while the other knows nothing of it."""

import asyncio
import json

import pytest

from tabkeeper.service.gateway import browser, gateway
from tabkeeper.service.gateway.server import GatewayProtocol
from tabkeeper.service.gateway.wire import BrowserWire

from .house import Parrot, call, closed, house

pytestmark = pytest.mark.asyncio(loop_scope="module")

MUCH = json.dumps({"id": 2, "method": "Parrot.word", "params": {"x": "y" * 2**20}})


async def flood(client, times=40) -> None:
    """Say more than sockets hold."""
    for _ in range(times):
        await client.send(MUCH)


def count(monkeypatch, kind, name) -> list[object]:
    """Note each call of a method."""
    calls, called = [], getattr(kind, name)

    def noting(self, *args):
        calls.append(self)
        return called(self, *args)

    monkeypatch.setattr(kind, name, noting)
    return calls


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """The pool is not waited for to hear of the end of a browser: these do not end."""
    monkeypatch.setattr(gateway, "_LOST_SOON", 0)


@pytest.fixture
def elsewhere(monkeypatch):
    """Browsers on this machine are taken for hosted ones."""
    monkeypatch.setattr(browser, "_LOCAL", frozenset())
    monkeypatch.setenv("no_proxy", "*")


async def test_a_browser_that_vanished_is_found_by_its_silence_and_serves_nobody_again(sqlite_url, elsewhere):
    async with house(sqlite_url, parrot=Parrot(), gateway={"ping": "200ms"}) as here:
        async with here.connect("platform=web") as client:
            await client.send('{"id": 1, "method": "Parrot.freeze"}')
            assert await closed(client) == (4002, "the browser gave no sign of life for 0.2 s")
        await here.until(lambda: not here.sessions())
        [row] = await here.usage()
        assert (row["outcome"], row["error"]) == ("failed", "the browser gave no sign of life for 0.2 s")


async def test_a_browser_that_vanished_while_it_was_told_much_is_found_too(sqlite_url, elsewhere):
    """A ping that cannot be sent, because nothing is taken, is as good as one that is not answered."""
    async with house(sqlite_url, parrot=Parrot(), gateway={"ping": "200ms"}) as here:
        async with here.connect("platform=web", ping_interval=None) as client:
            await client.send('{"id": 1, "method": "Parrot.freeze"}')
            talking = asyncio.ensure_future(flood(client))
            code, _ = await closed(client)
            assert code == 4002
            await asyncio.wait([talking])
            talking.exception()
        await here.until(lambda: not here.sessions())


async def test_a_healthy_browser_outlives_its_slow_client(sqlite_url, elsewhere, monkeypatch):
    """While the client reads nothing the browser is not read either, its answers to pings included."""
    full = count(monkeypatch, GatewayProtocol, "pause_writing")
    ask = GatewayProtocol.send_keepalive_ping
    # Before it is full and after, a client that reads nothing, or has much to read, would be taken for gone itself.
    monkeypatch.setattr(
        GatewayProtocol,
        "send_keepalive_ping",
        lambda client: ask(client) if client._held else client.schedule_ping(),
    )
    async with (
        house(sqlite_url, parrot=Parrot(), gateway={"ping": "300ms"}) as here,
        here.connect("platform=web", ping_interval=None) as client,
    ):
        client.transport.pause_reading()
        await client.send(
            json.dumps({"id": 1, "method": "Parrot.flood", "params": {"size": 2**20, "times": 40}})
        )
        await here.until(lambda: full)
        missed = count(monkeypatch, GatewayProtocol, "keepalive_timeout")
        asked = count(monkeypatch, BrowserWire, "_ask")
        await here.until(lambda: len(asked) >= 2 and len(missed) >= 2)
        client.transport.resume_reading()
        while json.loads(await client.recv()).get("id") != 1:
            pass
        assert (await call(client, "Browser.getVersion"))["said"] > 0


async def test_a_healthy_client_outlives_its_slow_browser(sqlite_url, monkeypatch):
    asked = count(monkeypatch, GatewayProtocol, "send_keepalive_ping")
    parrot = Parrot()
    async with (
        house(sqlite_url, parrot=parrot, gateway={"ping": "300ms"}) as here,
        here.connect("platform=web", ping_interval=None) as client,
    ):
        await client.send('{"id": 1, "method": "Parrot.sleep"}')
        talking = asyncio.ensure_future(flood(client))
        await here.until(lambda: len(asked) >= 2)
        assert not talking.done()
        parrot.awake.set()
        await talking
        assert [json.loads(await client.recv())["id"] for _ in range(41)] == [1, *[2] * 40]


async def test_a_browser_that_takes_nothing_is_given_up_as_a_client_is(sqlite_url):
    """One on this machine is asked for no sign of life, and yet may hang."""
    async with house(sqlite_url, parrot=Parrot(), gateway={"stall": "200ms"}) as here:
        async with here.connect("platform=web") as client:
            await client.send('{"id": 1, "method": "Parrot.freeze"}')
            talking = asyncio.ensure_future(flood(client))
            assert await closed(client) == (4002, "the browser stopped reading")
            await asyncio.wait([talking])
            talking.exception()
        await here.until(lambda: not here.sessions())


async def test_a_client_that_leaves_a_browser_which_takes_nothing_gives_its_lease_back(sqlite_url):
    """What is still to be sent to the browser, a goodbye among it, is not waited for."""
    parrot = Parrot()
    async with house(sqlite_url, parrot=parrot, gateway={"ping": "100ms"}, service={"grace": "0s"}) as here:
        client = await here.connect("platform=web").__aenter__()
        await client.send('{"id": 1, "method": "Parrot.freeze"}')
        talking = asyncio.ensure_future(flood(client))
        await here.until(lambda: client.transport.get_write_buffer_size() > 0 and parrot.frozen is not None)
        client.transport.abort()
        await asyncio.wait([talking])
        talking.exception()
        await client.wait_closed()
        await here.until(lambda: not any(one.state == "leased" for one in here.sessions()))


@pytest.mark.parametrize("how", ["FIN", "goodbye"])
async def test_a_browser_that_only_says_it_is_done_is_believed(sqlite_url, how):
    """It closes its half and takes nothing more, or says goodbye and does not hang up."""
    parrot = Parrot()
    async with house(sqlite_url, parrot=parrot) as here, here.connect("platform=web") as client:
        if how == "goodbye":
            goodbye = b"\x88\x02\x03\xe8".hex()
            await client.send(json.dumps({"id": 1, "method": "Parrot.freeze"}))
            await here.until(lambda: parrot.frozen is not None)
            parrot.frozen.write(bytes.fromhex(goodbye))
            assert await closed(client) == (4002, "the browser ended the connection")
        else:
            await client.send('{"id": 1, "method": "Parrot.freeze"}')
            talking = asyncio.ensure_future(flood(client))
            await here.until(
                lambda: parrot.frozen is not None and client.transport.get_write_buffer_size() > 0
            )
            parrot.frozen.write_eof()
            assert await closed(client) == (4002, "the browser ended the connection")
            await asyncio.wait([talking])
            talking.exception()
        await here.until(lambda: not here.sessions())


async def test_a_client_that_reads_nothing_is_not_waited_for_when_its_lease_ends(sqlite_url, monkeypatch):
    monkeypatch.setattr(gateway, "_POLITE", 0.1)
    lost = count(monkeypatch, GatewayProtocol, "connection_lost")
    async with house(sqlite_url, parrot=Parrot()) as here:
        client = await here.connect("platform=web", ping_interval=None).__aenter__()
        try:
            about = await call(client, "Tabkeeper.lease")
            client.transport.pause_reading()
            full = count(monkeypatch, GatewayProtocol, "pause_writing")
            await client.send(
                json.dumps({"id": 1, "method": "Parrot.flood", "params": {"size": 2**20, "times": 40}})
            )
            await here.until(lambda: full)
            await here.pool.release_session(about["sessionId"])
            await here.until(lambda: lost)
        finally:
            client.transport.abort()
            await client.wait_closed()


async def test_a_client_that_talks_on_before_it_is_let_in_is_not_listened_to(sqlite_url):
    """Its pings would be answered, and the answers wait for ever if it reads nothing."""
    async with (
        house(sqlite_url, parrot=Parrot(), pool={"max_sessions": 1}) as here,
        here.connect("platform=web"),
    ):
        host, port = here.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        try:
            path = here.address("platform=web").partition(f":{port}")[2]
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            await here.until(here.pool.waiting)
            ping = b"\x89\xfd" + bytes(4 + 125)
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(ping * 1000)
                    await writer.drain()
        finally:
            writer.close()
            with pytest.raises(ConnectionError):
                await writer.wait_closed()
        await here.until(lambda: not here.pool.waiting())
