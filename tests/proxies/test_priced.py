"""Proxies with a price: every byte through them is counted on the way, booked, and bounded by what was held."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from tabkeeper.config import parse_config
from tabkeeper.money import Money
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.relay import Relay
from tabkeeper.proxies.model import proxy_from_url
from tabkeeper.sites.command import Order, carry_out

from .servers import RealProxy

pytestmark = pytest.mark.timeout(120)

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
HEAVY = 300_000
"""Bytes of a page's body."""


@asynccontextmanager
async def answering(body: int, **how):
    """Serve pages of a size, which link to the next ones; gives the port."""

    async def answer(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1]
                number = int(path.strip(b"/") or 0) if path.strip(b"/").isdigit() else 0
                page = b'<title>heavy</title><a href="/%d">next</a>' % (number + 1)
                page += b"x" * max(0, body - len(page))
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
                )
                writer.write(page)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, **how)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def settings(folder, proxy, *, max_gb, price="4.00"):
    return parse_config(
        {
            "ledger": {"url": f"sqlite:///{folder}/books.db"},
            "proxies": [{"id": "one", "url": proxy, "price_per_gb": price}],
            "proxy_pool": {"max_gb": max_gb},
            "platforms": {"web": {"proxies": ["*"]}},
        }
    )


def lines(ledger):
    with ledger.reader.connect() as connection:
        rows = connection.execute(
            text("SELECT raw_qty, amount_n FROM entry_line WHERE kind = 'own_proxy_bytes'")
        )
        return [(int(row.raw_qty), int(row.amount_n)) for row in rows]


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("scheme", ["http", "socks5"] if PROOF else ["socks5"])
async def test_what_went_through_the_proxy_is_booked_at_its_price(tmp_path, sqlite_url, scheme):
    proxy = RealProxy(tmp_path, "one").start()
    try:
        async with answering(HEAVY) as port:
            async with SessionPool(settings(tmp_path, proxy.url(scheme), max_gb="0.01")) as pool:
                async with pool.get_session("web") as lease:
                    page = await lease.new_page()
                    await page.goto(f"http://127.0.0.1:{port}/")
                    assert await page.title() == "heavy"
                    running = next(iter(pool.stats().open_sessions))
                    assert running.cost >= Money(4 * HEAVY)
            assert proxy.saw(port) >= 1, "the relay leads to the proxy"
            async with SessionPool(settings(tmp_path, proxy.url(scheme), max_gb="0.01")) as pool:
                ((moved, amount),) = lines(pool.database)
        assert HEAVY < moved < 3 * HEAVY
        assert amount == 4 * moved
    finally:
        proxy.stop()


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
async def test_a_run_whose_pages_are_heavy_ends_before_it_costs_more_than_its_cap(tmp_path, sqlite_url):
    # A session may move a megabyte, for $0.004, and the run may cost $0.01: two of these, and then no more.
    proxy = RealProxy(tmp_path, "one").start()

    async def parse(page, target):
        yield {"title": await page.title()}
        yield await page.locator("a").get_attribute("href")

    try:
        async with answering(HEAVY) as port:
            order = Order(
                name="heavy",
                parse=parse,
                sites=[f"http://127.0.0.1:{port}/"],
                instance_limit=2,
                max_cost=Money.parse("0.01"),
                out=tmp_path / "items.jsonl",
            )
            config = settings(tmp_path, proxy.url(), max_gb="0.001")
            summary = await carry_out(config, order)
        assert not summary.committed
        assert summary.stopped_by is not None
        assert summary.standing.done >= 2
        assert Money.parse("0.004") < summary.cost <= Money.parse("0.01")
        assert len(order.out.read_text().splitlines()) == summary.standing.items
        async with SessionPool(config) as pool:
            booked = lines(pool.database)
            assert sum(amount for _, amount in booked) == summary.cost.nanos
            assert all(moved <= 900_000 for moved, _ in booked), "cut when nine tenths have passed"
            assert await pool.database.verify() == []
    finally:
        proxy.stop()


async def through(relay_at, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(relay_at.host, relay_at.port)
    try:
        writer.write(b"GET http://127.0.0.1:%d%s HTTP/1.1\r\nHost: x\r\n\r\n" % (port, path.encode()))
        found = b""
        while len(found) < 10_000_000:
            try:
                more = await reader.read(65536)
            except ConnectionError:
                break
            if not more:
                break
            found += more
        return found
    finally:
        writer.close()


@pytest.mark.parametrize("most", [1, 999, 50_000, 123_457])
async def test_a_relay_takes_in_not_one_byte_more_than_may_pass(most):
    spent = []
    async with answering(1_000_000) as port:
        # The site itself stands in for the proxy: a relay reads nothing of what it passes on.
        relay = Relay(proxy_from_url(f"http://127.0.0.1:{port}"), most, lambda: spent.append(1))
        at = await relay.open()
        found = await asyncio.gather(*(through(at, port, f"/{n}") for n in range(3)))
        assert sum(map(len, found)) < most or most == 1
        assert relay.moved == most
        assert relay.close() == most
        assert spent == [1]


async def test_a_relay_to_a_proxy_that_is_gone_breaks_off_and_costs_nothing():
    relay = Relay(proxy_from_url("http://127.0.0.1:9"), 1000, lambda: None)
    at = await relay.open()
    assert await through(at, 1, "/") == b""
    assert relay.close() == 0


async def test_a_relay_speaks_tls_to_a_proxy_that_asks_for_it(tmp_path, monkeypatch):
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    async with answering(5_000, ssl=served) as port:
        relay = Relay(proxy_from_url(f"https://127.0.0.1:{port}"), 100_000, lambda: None)
        at = await relay.open()
        assert at.scheme == "http", "the way to the relay stays on this machine"
        reader, writer = await asyncio.open_connection(at.host, at.port)
        writer.write(b"GET /7 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'href="/8"' in await reader.readuntil(b"</a>")
        writer.close()
        assert relay.close() > 0


def self_signed(folder: Path) -> Path:
    """Write a key and a certificate for this machine into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "proxy.pem"
    file.write_bytes(private + certificate.public_bytes(pem))
    return file
