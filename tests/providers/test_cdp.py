"""A plain CDP endpoint: how its answers become errors, and that its secrets stay where they are."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest

from tabkeeper.config import ProviderSettings
from tabkeeper.errors import (
    ConfigError,
    ProviderAuthError,
    ProviderCapacityError,
    ProviderError,
    ProviderPaymentError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderUnavailableError,
)
from tabkeeper.providers.cdp import CdpProvider
from tabkeeper.providers.redact import redact

SECRET = "s3cret"


class Endpoint:
    """Answers every request with what it was told to, and remembers what was asked."""

    status = 200
    body = json.dumps({"webSocketDebuggerUrl": "ws://0.0.0.0:9222/devtools/browser/abc"})
    extra = ""
    port = 0
    asked = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked = (await reader.readuntil(b"\r\n\r\n")).decode()
            head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.body)}\r\n{self.extra}"
            writer.write(f"{head}Connection: close\r\n\r\n{self.body}".encode())
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


async def provider_at(url: str, losses=lambda *_: None) -> CdpProvider:
    provider = CdpProvider("far", ProviderSettings(kind="cdp", url=url))
    await provider.start(losses)
    return provider


async def test_the_browsers_address_is_reached_the_way_its_endpoint_was(endpoint, tools):
    url = f"http://user:{SECRET}@127.0.0.1:{endpoint.port}/chrome/?token={SECRET}"
    made = await (await provider_at(url)).create(tools.spec())
    expected = f"ws://user:{SECRET}@127.0.0.1:{endpoint.port}/devtools/browser/abc?token={SECRET}"
    assert made.connect_url == expected
    assert endpoint.asked.startswith(f"GET /chrome/json/version?token={SECRET} HTTP/1.1")
    assert "authorization: basic" in endpoint.asked.lower()


async def test_a_websocket_address_is_used_as_it_is_and_nobody_is_asked(endpoint, tools):
    url = f"ws://127.0.0.1:{endpoint.port}/devtools/browser/abc?token={SECRET}"
    provider = await provider_at(url)
    assert (await provider.create(tools.spec())).connect_url == url
    assert [c.ok for c in await provider.check()] == [True]
    assert endpoint.asked == "", "a handshake could start a browser that costs money"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, "", ProviderAuthError),
        (403, "", ProviderAuthError),
        (402, "", ProviderPaymentError),
        (429, "", ProviderRateLimitError),
        (503, "", ProviderCapacityError),
        (502, "", ProviderUnavailableError),
        (404, "", ProviderRequestError),
        (500, "Host header is specified and is not an IP address or localhost.", ProviderRequestError),
        (200, "<html>", ProviderRequestError),
        (200, "[]", ProviderRequestError),
        (200, '{"webSocketDebuggerUrl": 7}', ProviderRequestError),
    ],
)
async def test_every_refusal_is_its_own_error_and_tells_no_secret(
    endpoint, tools, caplog, status, body, kind
):
    caplog.set_level(logging.DEBUG)
    endpoint.status, endpoint.body, endpoint.extra = status, body, "Retry-After: 7\r\n"
    provider = await provider_at(f"http://user:{SECRET}@127.0.0.1:{endpoint.port}/{SECRET}?token={SECRET}")
    with pytest.raises(ProviderError) as caught:
        await provider.create(tools.spec())
    assert type(caught.value) is kind
    assert await provider.list() == []
    checks = await provider.check()
    assert [c.ok for c in checks] == [False]
    assert SECRET in endpoint.asked, "control: the endpoint does get it"
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.__cause__} {checks} {caplog.text}"
    if kind is ProviderRateLimitError:
        assert caught.value.retry_after == 7


async def test_an_endpoint_that_nobody_serves_is_unavailable(tools, unused_tcp_port):
    provider = await provider_at(f"http://127.0.0.1:{unused_tcp_port}/?token={SECRET}")
    with pytest.raises(ProviderUnavailableError, match=r"http://127\.0\.0\.1:\d+/… cannot be reached"):
        await provider.create(tools.spec())
    far = await provider_at(f"ws://127.0.0.1:{unused_tcp_port}/?token={SECRET}")
    [check] = await far.check()
    assert not check.ok
    assert SECRET not in repr(check)


async def test_a_session_reported_lost_is_lost_once(losses, tools):
    provider = await provider_at("ws://127.0.0.1:1", losses)
    await provider.create(tools.spec("s1"))
    provider.report_lost("s1", "connection lost")
    provider.report_lost("s1", "connection lost")
    assert not provider.alive("s1")
    assert losses.told == [("s1", "connection lost")]


@pytest.mark.parametrize("url", ["ftp://host", "127.0.0.1:9222", "http://", "ws://host:port"])
def test_an_address_of_another_kind_is_refused(url):
    with pytest.raises(ConfigError, match=r"^providers\.far\.url: "):
        CdpProvider("far", ProviderSettings(kind="cdp", url=url))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://u:p@host.example/a?b=c#d", "wss://host.example/…"),
        ("http://[::1]:9222/x", "http://[::1]:9222/…"),
        ("nonsense s3cret", "?://?/…"),
        ("ws://host:s3cret/", "(an address that cannot be read)"),
    ],
)
def test_only_scheme_host_and_port_are_ever_shown(url, shown):
    assert redact(url) == shown
