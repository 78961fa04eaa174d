"""Who is let in, who is refused before the upgrade and why, and what ends a conversation: sockets, and a parrot."""

import asyncio
import json
import logging
import socket as sockets

import pytest
from websockets.exceptions import InvalidStatus

from tabkeeper.service.gateway.server import GatewayProtocol
from tabkeeper.service.gateway.wire import BrowserWire

from .house import ACME, LOOKER, MAIN, Parrot, call, closed, house

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refused(connecting) -> tuple[int, dict]:
    with pytest.raises(InvalidStatus) as told:
        async with connecting:
            pass
    response = told.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, json.loads(response.body)


async def test_a_short_message_waits_for_no_acknowledgement_of_the_one_before(sqlite_url, monkeypatch):
    # asyncio turns Nagle's algorithm off for its own listeners only; with it, a page took 15 ms longer.
    ends = []

    def noting(kind):
        made = kind.connection_made

        def note(self, transport):
            ends.append((kind.__name__, transport.get_extra_info("socket")))
            made(self, transport)

        monkeypatch.setattr(kind, "connection_made", note)

    noting(GatewayProtocol)
    noting(BrowserWire)
    async with house(sqlite_url, parrot=Parrot()) as here, here.connect("platform=web") as socket:
        await call(socket, "Browser.getVersion")
        told = {name: end.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY) != 0 for name, end in ends}
    assert told == {"GatewayProtocol": True, "BrowserWire": True}


@pytest.mark.parametrize(("believed", "scheme"), [("127.0.0.1", "wss"), ("192.0.2.1", "ws")])
async def test_a_proxy_that_is_not_listed_is_not_believed(sqlite_url, believed, scheme):
    async with (
        house(sqlite_url, parrot=Parrot(), service={"forwarders": [believed]}) as here,
        here.http() as http,
    ):
        told = await http.get(
            "/json/version", params={"platform": "web"}, headers={"X-Forwarded-Proto": "https"}
        )
        assert told.json()["webSocketDebuggerUrl"].startswith(f"{scheme}://")


async def test_wrong_addresses_tokens_and_tenants_are_refused_before_the_upgrade(sqlite_url):
    async with house(sqlite_url, parrot=Parrot(), platforms={"web": {}, "mail": {}}) as here:
        for query, token, status, words in [
            ("platform=web", "", 401, "Bearer"),
            ("platform=web", "tk_wrong", 401, "not known"),
            ("platform=web", LOOKER, 403, "scope"),
            ("platform=web&tenant=other", ACME, 403, "tenant"),
            ("", MAIN, 422, "platform"),
            ("platform=wep", MAIN, 422, "'web'"),
            ("platform=web&prioritee=5", MAIN, 422, "'priority'"),
            ("platform=web&priority=high", MAIN, 422, "whole number"),
            ("platform=web&timeout=soon", MAIN, 422, "duration"),
            ("platform=web&platform=mail", MAIN, 422, "twice"),
            ("platform=web&max_cost=much", MAIN, 422, ""),
            ("platform=web&block=images", MAIN, 422, "'image'"),
            ("lease=nobody", MAIN, 404, "no such lease"),
            ("platform=web&tag.x=" + "y" * 5000, MAIN, 400, "characters"),
        ]:
            got, problem = await refused(here.connect(query, token))
            assert (got, words in problem["detail"]) == (status, True), (query, problem)
        status, _ = await refused(here.connect("platform=web", origin="https://evil.example"))
        assert status == 403
        assert here.pool.stats().leases == 0


async def test_a_full_queue_is_429_and_a_spent_budget_402_before_the_upgrade(sqlite_url):
    budget = {"name": "daily", "limit": "1.00"}
    async with house(
        sqlite_url,
        parrot=Parrot(),
        pool={"max_sessions": 1, "max_queued": 1},
        platforms={"web": {}, "dear": {"providers": ["gold"]}},
        providers={
            "local": {"kind": "local"},
            "gold": {"kind": "local", "isolation": "process", "rates": {"per_session": "5"}},
        },
        budgets=[budget],
    ) as here:
        async with here.connect("platform=web") as first:
            assert (await call(first, "Browser.getVersion"))["said"] > 0
            waiting = asyncio.ensure_future(here.connect("platform=web&timeout=60s").__aenter__())
            await here.until(lambda: here.pool.waiting())
            status, problem = await refused(here.connect("platform=web"))
            assert (status, problem["type"]) == (429, "urn:tabkeeper:problem:queue-full")
            assert "1 requests wait" in problem["detail"]
            waiting.cancel()
            await here.until(lambda: not here.pool.waiting())
            status, problem = await refused(here.connect("platform=web&timeout=300ms"))
            assert (status, problem["type"]) == (429, "urn:tabkeeper:problem:queue-timeout")
            assert problem["waited_seconds"] >= 0.3
        status, problem = await refused(here.connect("platform=dear"))
        assert (status, problem["budget"], problem["limit"]) == (402, "daily", "1.00")


async def test_nothing_is_closed_under_those_who_share_an_identity(sqlite_url):
    async with house(
        sqlite_url, parrot=Parrot(), platforms={"web": {"identity": "shared", "keep": "always"}}
    ) as here:
        async with here.connect("platform=web&identity=ada") as one:
            about = await call(one, "Tabkeeper.lease")
            async with here.connect("platform=web&identity=ada") as two:
                assert (await call(two, "Tabkeeper.lease"))["sessionId"] == about["sessionId"]
            assert (await call(one, "Browser.getVersion"))["said"] > 0
        await here.until(lambda: not here.sessions())


async def test_a_client_that_leaves_the_queue_frees_its_place(sqlite_url):
    async with (
        house(sqlite_url, parrot=Parrot(), pool={"max_sessions": 1}) as here,
        here.connect("platform=web"),
    ):
        waiting = asyncio.ensure_future(here.connect("platform=web").__aenter__())
        await here.until(lambda: here.pool.waiting())
        waiting.cancel()
        await here.until(lambda: not here.pool.waiting())


async def test_a_lease_ends_with_a_goodbye_and_outlives_a_broken_connection(sqlite_url):
    parrot = Parrot()
    async with house(sqlite_url, parrot=parrot, pool={"max_sessions": 1}, service={"grace": "30s"}) as here:
        async with here.connect("platform=web&priority=3&tag.job=7") as client:
            await call(client, "Browser.getVersion")
            about = await call(client, "Tabkeeper.lease")
            assert (about["platform"], about["tenant"]) == ("web", "default")
            client.transport.abort()
        await here.until(lambda: parrot.connections == 0)
        assert [one.state for one in here.sessions()] == ["leased"]

        # Whoever shows the token comes back, without a place in the queue: it is full, and so is the pool.
        status, _ = await refused(here.connect(f"lease={about['token']}", token=ACME))
        assert status == 404, "another tenant's lease is none"
        async with here.connect(f"lease={about['token']}", token="") as client:
            again = await call(client, "Tabkeeper.lease")
            assert (again["id"], again["sessionId"]) == (about["id"], about["sessionId"])
        await here.until(lambda: [one.state for one in here.sessions()] == ["idle"])
        status, _ = await refused(here.connect(f"lease={about['token']}"))
        assert status == 404
        [row] = await here.usage()
        assert (row["outcome"], row["priority"], json.loads(row["tags"])["job"]) == ("ok", 3, "7")


async def test_after_the_grace_period_the_lease_of_a_vanished_client_is_over(sqlite_url):
    async with house(sqlite_url, parrot=Parrot(), service={"grace": "50ms"}) as here:
        async with here.connect("platform=web") as client:
            await call(client, "Browser.getVersion")
            client.transport.abort()
        await here.until(lambda: [one.state for one in here.sessions()] == ["idle"])
        [row] = await here.usage()
        assert (row["outcome"], row["error"]) == ("failed", "its client fell silent")


async def test_what_ends_a_lease_is_told_by_the_close_code(sqlite_url):
    async with house(
        sqlite_url,
        parrot=Parrot(),
        providers={"local": {"kind": "local", "isolation": "process", "rates": {"per_hour": "36"}}},
    ) as here:
        async with here.connect("platform=web&max_duration=1s") as client:
            assert await closed(client) == (4001, "the lease's time is up")
        async with here.connect("platform=web&max_cost=0.02") as client:
            assert await closed(client) == (4003, "its max_cost of 0.02 is spent")
        async with here.connect("platform=web") as client:
            about = await call(client, "Tabkeeper.lease")
            await here.pool.close_session(about["sessionId"])
            assert await closed(client) == (4002, "closed by request")
        async with here.connect("platform=web") as client:
            about = await call(client, "Tabkeeper.lease")
            await here.pool.release_session(about["sessionId"])
            code, _ = await closed(client)
            assert code == 4000
        async with here.connect("platform=web") as client:
            await client.send(json.dumps({"id": 1, "method": "Parrot.hangUp"}))
            assert await closed(client) == (4002, "the browser ended the connection")
        async with here.connect("platform=web") as client:
            await client.send(b"\x00\x01")
            assert (await closed(client))[0] == 1003


async def test_a_client_can_give_its_lease_back_in_words_and_say_how_it_went(sqlite_url):
    async with house(sqlite_url, parrot=Parrot()) as here:
        for method, params in (
            ("Browser.close", {}),
            ("Tabkeeper.release", {"success": False, "reason": "blocked"}),
        ):
            async with here.connect("platform=web") as client:
                assert await call(client, method, **params) == {}
                assert (await closed(client))[0] == 1000
            await here.until(lambda: not any(one.state == "leased" for one in here.sessions()))
        async with here.connect("platform=web") as client:
            await client.send('{"id": 5, "method": "Tabkeeper.nonsense"}')
            assert json.loads(await client.recv())["error"]["code"] == -32601
        rows = await here.usage()
        assert [(row["outcome"], row["error"]) for row in rows][:2] == [("ok", None), ("failed", "blocked")]
        assert "Browser.close" not in "".join(here.parrot.heard), "it would end the browser of all"


async def test_a_client_that_stops_reading_holds_up_the_browser_not_our_memory(sqlite_url):
    """Nothing is read ahead but what the sockets hold; after a while the client is dropped."""
    parrot, most = Parrot(), 200 * 2**20
    async with house(sqlite_url, parrot=parrot, gateway={"stall": "1s"}, service={"grace": "0s"}) as here:
        client = await here.connect("platform=web").__aenter__()
        try:
            client.transport.pause_reading()
            flood = {"id": 1, "method": "Parrot.flood", "params": {"size": 2**20, "times": most // 2**20}}
            await client.send(json.dumps(flood))
            await here.until(lambda: not any(one.state == "leased" for one in here.sessions()))
            assert parrot.flooded < 40 * 2**20, "the browser had to wait"
            [row] = await here.usage()
            assert row["outcome"] == "failed"
        finally:
            client.transport.abort()
            await client.wait_closed()

        # The control: a client that reads gets it all.
        parrot.flooded = 0
        async with here.connect("platform=web") as client:
            flood["params"] = {"size": 2**20, "times": 60}
            await client.send(json.dumps(flood))
            while json.loads(await client.recv()).get("id") != 1:
                pass
            assert parrot.flooded > 60 * 2**20


def watch(monkeypatch, kind: type, name: str) -> tuple[list[int], asyncio.Event]:
    """What waits to be sent after each message, and when a client was first held up."""
    waiting, held, send, hold = [], asyncio.Event(), getattr(kind, name), GatewayProtocol.hold

    def sent(self, message):
        send(self, message)
        waiting.append(self.transport.get_write_buffer_size())

    def holding(self):
        hold(self)
        held.set()

    monkeypatch.setattr(kind, name, sent)
    monkeypatch.setattr(GatewayProtocol, "hold", holding)
    return waiting, held


async def test_a_browser_that_stops_reading_holds_up_the_client_not_our_memory(sqlite_url, monkeypatch):
    parrot = Parrot()
    waiting, held = watch(monkeypatch, BrowserWire, "say")
    async with house(sqlite_url, parrot=parrot) as here, here.connect("platform=web") as client:
        await client.send('{"id": 1, "method": "Parrot.sleep"}')
        # The parrot's own queue comes first: more than that must be held up by the sockets.
        words = json.dumps({"id": 2, "method": "Parrot.word", "params": {"x": "y" * 2**20}})

        async def talk():
            for _ in range(80):
                await client.send(words)

        talking = asyncio.ensure_future(talk())
        await asyncio.wait_for(held.wait(), 60)
        for _ in range(300):
            await asyncio.sleep(0)
        assert not talking.done()
        parrot.awake.set()
        await talking
        answers = [json.loads(await client.recv())["id"] for _ in range(81)]
        assert answers == [1, *[2] * 80], "nothing was lost"
    assert max(waiting) < 8 * 2**20


async def test_a_client_that_only_asks_and_never_reads_costs_no_memory(sqlite_url, monkeypatch):
    """Some answers are ours, so holding up the browser would not be enough."""
    waiting, held = watch(monkeypatch, GatewayProtocol, "carry")
    async with house(sqlite_url, parrot=Parrot(), service={"grace": "0s"}) as here:
        client = await here.connect("platform=web").__aenter__()
        client.transport.pause_reading()
        question = json.dumps({"id": "x" * 2**19, "method": "Tabkeeper.lease"})

        async def ask():
            for _ in range(160):
                await client.send(question)

        asking = asyncio.ensure_future(ask())
        try:
            await asyncio.wait_for(held.wait(), 60)
            for _ in range(300):
                await asyncio.sleep(0)
            assert not asking.done()
        finally:
            asking.cancel()
            client.transport.abort()
            await client.wait_closed()
        await here.until(lambda: not any(one.state == "leased" for one in here.sessions()))
    assert max(waiting) < 8 * 2**20


async def test_a_message_that_is_too_long_is_refused_and_a_long_one_passes(sqlite_url):
    async with house(
        sqlite_url, parrot=Parrot(), gateway={"max_message_mb": 2}, service={"grace": "0s"}
    ) as here:
        async with here.connect("platform=web") as client:
            assert (await call(client, "Browser.getVersion", text="x" * (3 * 2**19)))["said"] > 3 * 2**19
            await client.send("x" * (2**21 + 1))
            assert (await closed(client))[0] == 1009
        await here.until(lambda: not any(one.state == "leased" for one in here.sessions()))


async def test_a_half_open_connection_is_found_by_its_silence(sqlite_url):
    """A peer that vanished without a FIN neither answers pings nor closes: a raw socket that does nothing."""
    async with house(sqlite_url, parrot=Parrot(), gateway={"ping": "100ms"}, service={"grace": "0s"}) as here:
        host, port = here.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(
                f"GET /cdp?platform=web&token={MAIN} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "Sec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            await here.until(lambda: not any(one.state == "leased" for one in here.sessions()))
        finally:
            writer.close()
            await writer.wait_closed()


async def test_tokens_never_reach_the_log_and_addresses_of_browsers_never_reach_clients(sqlite_url, caplog):
    caplog.set_level(logging.DEBUG)
    async with house(sqlite_url, parrot=Parrot()) as here:
        async with here.connect("platform=web") as client:
            said = json.dumps(await call(client, "Tabkeeper.lease"))
        async with here.http(None) as http:
            found = await http.get(f"/cdp/json/version?platform=web&token={MAIN}")
            said += (await http.get(f"/cdp/json/list?token={MAIN}")).text
        here.parrot.port = 1  # nobody listens there
        await here.pool.close_session(here.sessions()[0].id)
        status, problem = await refused(here.connect("platform=web"))
        assert status == 502
        said += json.dumps(problem)
        assert "secret" not in said
    assert found.json()["webSocketDebuggerUrl"] == here.address("platform=web")
    told = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("tabkeeper"))
    assert MAIN not in told
    assert "key=secret" not in told
    told = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("uvicorn"))
    assert MAIN not in told
