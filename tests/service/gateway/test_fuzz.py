"""Frames of all kinds and halves of them, from clients and from browsers: nothing breaks, and nothing is left."""

import asyncio
import gc
import json
import logging
from contextlib import asynccontextmanager
from random import Random

import psutil
import pytest
from tests.conftest import PROOF
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode

from tabkeeper.service.gateway import gateway

from .house import MAIN, Parrot, call, house
from .nonsense import frame, halves, stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMES = 1500 if PROOF else 50
AT_ONCE = 8


@asynccontextmanager
async def unbroken(sqlite_url, caplog):
    """Run a house; at its end nothing was logged as a fault, and all is as it was before anybody came."""
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    try:
        async with house(
            sqlite_url, parrot=Parrot(), pool={"max_sessions": AT_ONCE}, service={"grace": "0s"}
        ) as here:
            async with here.connect("platform=web") as client:  # what is made once is there
                assert (await call(client, "Browser.getVersion"))["said"] > 0
            await here.until(lambda: not leased(here) and here.parrot.connections == 0)
            process = psutil.Process()
            before, files, memory = len(asyncio.all_tasks()), process.num_fds(), process.memory_info().rss
            yield here
            async with here.connect("platform=web") as client:
                assert (await call(client, "Browser.getVersion"))["said"] > 0
            await here.until(lambda: not leased(here) and here.parrot.connections == 0, 60)
            assert len(here.app.state.rooms.desk) == 0
            # A leak would be one for each piece; threads of the ledger may have opened it meanwhile.
            await here.until(lambda: len(asyncio.all_tasks()) < before + 10, 60)
            await here.until(lambda: process.num_fds() < files + 30, 60)
            gc.collect()
            assert process.memory_info().rss - memory < 100 * 2**20, "messages that were only announced"
    finally:
        loop.set_exception_handler(None)
    assert faults == []
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


def leased(here) -> bool:
    return any(one.state == "leased" for one in here.sessions())


async def side_by_side(work, pieces) -> None:
    """Do the work for each piece, a few at a time."""
    left = list(reversed(pieces))

    async def one_after_the_other():
        while left:
            piece = left.pop()
            try:
                async with asyncio.timeout(60):
                    await work(piece)
            except BaseException as error:
                error.add_note(f"the piece was {piece.hex()}")
                raise

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())


def pieces(*, masked: bool) -> list[bytes]:
    chance = Random(7)
    goodbye = frame(Opcode.TEXT, b"\xff", masked=masked) + frame(Opcode.CLOSE, b"\x03\xe8", masked=masked)
    cut = halves(masked=masked)[:: 1 if PROOF else 9]
    return [goodbye, *cut, *(stream(chance, masked=masked) for _ in range(TIMES))]


async def test_no_nonsense_of_clients_breaks_anything_or_leaves_anything(sqlite_url, caplog):
    """Half of them say it before they are let in, and half go without a word, or without reading what they are told."""
    chance = Random(11)
    async with unbroken(sqlite_url, caplog) as here:
        host, port = here.url.removeprefix("http://").split(":")
        upgrade = (
            f"GET /cdp?platform=web&timeout=60s&token={MAIN} HTTP/1.1\r\nHost: {host}:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        ).encode()

        async def say(piece: bytes) -> None:
            reader, writer = await asyncio.open_connection(host, int(port))
            early, goes = chance.random() < 0.3, chance.random() < 0.3
            try:
                writer.write(upgrade + piece if early else upgrade)
                if not early:
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
                    writer.write(piece)
                if goes:
                    writer.transport.abort()
                else:
                    writer.write_eof()
                    await reader.read()
            except ConnectionError:
                pass
            finally:
                writer.close()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)

        await side_by_side(say, pieces(masked=True))

        async with here.connect("platform=web") as client:
            for text in (
                "",
                "{",
                "[]",
                "null",
                '{"id":1}',
                '{"id":{},"method":7}',
                '{"method":"x","params":[]}',
            ):
                await client.send(text)
            await client.send("[" * 100_000)
            await client.send('{"id":1,"method":"A.b","params":' + '{"a":' * 5000 + "1" + "}" * 5001)
            assert (await call(client, "Browser.getVersion"))["said"] > 0


async def test_no_nonsense_of_browsers_breaks_anything_or_leaves_anything(sqlite_url, caplog, monkeypatch):
    """A browser says it, and hangs up; its client is told, by the gateway or by its own library."""
    monkeypatch.setattr(gateway, "_LOST_SOON", 0)
    codes = set()
    async with unbroken(sqlite_url, caplog) as here:

        async def utter(piece: bytes) -> None:
            async with here.connect("platform=web&timeout=60s") as client:
                said = {"id": 1, "method": "Parrot.utter", "params": {"bytes": piece.hex()}}
                await client.send(json.dumps(said))
                with pytest.raises(ConnectionClosed) as told:
                    while True:
                        await client.recv()
                end = told.value.rcvd or told.value.sent
                codes.add(None if end is None else end.code)

        await side_by_side(utter, pieces(masked=False))
    assert codes <= {4002, 1007}, "what is no text is passed on as it is, and the client says so"
    assert 4002 in codes


async def test_nonsense_in_answer_to_our_own_questions_costs_the_session_and_no_more(sqlite_url, caplog):
    """What the gateway asks before a client comes, and after it has left."""
    chance = Random(3)
    answers = ["null", "[]", '{"id":%d}', '{"id":%d,"result":[]}', '{"id":%d,"error":7}', '{"id":%d,"result":{}}',
               '{"id":%d,"result":{"targetInfos":[1],"browserContextIds":[[]],"cookies":[{}]}}', "{", "[" * 100_000,
               '{"id":%d,"result":{"targetInfos":7,"browserContextIds":7,"cookies":7}}']  # fmt: skip
    async with unbroken(sqlite_url, caplog) as here:

        async def talk(_: bytes) -> None:
            try:
                async with here.connect("platform=web&timeout=60s") as client:
                    await call(client, "Browser.getVersion")
            except InvalidStatus as error:
                told.append((error.response.status_code, error.response.body))

        told: list[tuple[int, bytes]] = []
        for answer in answers:
            here.parrot.nonsense = answer
            here.parrot.first = chance.randrange(6)
            await side_by_side(talk, [b""] * 3)
        here.parrot.nonsense = ""
    assert {status for status, _ in told} == {502}
    assert not any(b"secret" in body for _, body in told), "no refusal names the browser's address"
