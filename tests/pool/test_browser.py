"""Blocking and metering in a real Chromium, against a small server that counts what it was asked for."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tabkeeper.config import ProviderSettings, parse_config
from tabkeeper.errors import LeaseLostError
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.trackers import is_tracker
from tabkeeper.providers.local import LocalProvider

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.usefixtures("whole_browser"),
]

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)
BODY = (
    b"<!doctype html><title>shop</title><link rel=stylesheet href=/style.css><img src=/pixel.png>"
    b"<script src=/app.js></script><p>" + b"x" * 50_000
)
FILES = {
    "/": ("text/html", BODY),
    "/style.css": ("text/css", b"p { color: red }"),
    "/pixel.png": ("image/png", PIXEL),
    "/app.js": ("text/javascript", b"document.title = 'ran'"),
}


@asynccontextmanager
async def website() -> AsyncIterator[tuple[str, Counter[str]]]:
    asked: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = request.split(" ")[1]
        asked[path] += 1
        kind, body = FILES.get(path, ("text/plain", b"nothing here"))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", asked


def pool_of(tmp_path: Path, **platforms: Any) -> SessionPool:
    settings = parse_config(
        {
            "pool": {"max_sessions": 1},
            "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"},
            "platforms": platforms,
        }
    )
    provider = LocalProvider("local", ProviderSettings(kind="local"), state_dir=tmp_path / "state")
    return SessionPool(settings, providers={"local": provider})


async def test_a_platform_blocks_what_it_is_told_to_and_nothing_else(tmp_path: Path) -> None:
    async with (
        website() as (url, asked),
        pool_of(tmp_path, all={}, lean={"block": ["image", "stylesheet"]}) as pool,
    ):
        for platform, expected in [
            ("all", {"/": 1, "/style.css": 1, "/pixel.png": 1, "/app.js": 1}),
            ("lean", {"/": 1, "/app.js": 1}),
        ]:
            asked.clear()
            async with pool.get_session(platform) as lease:
                page = await lease.new_page()
                await page.goto(url)
                assert await page.title() == "ran"
            del asked["/favicon.ico"]
            assert dict(asked) == expected, platform


async def test_bytes_are_counted_per_lease_and_land_in_the_ledger(tmp_path: Path) -> None:
    async with website() as (url, _), pool_of(tmp_path, web={}) as pool:
        for visits in (1, 3):
            async with pool.get_session("web") as lease:
                page = await lease.new_page()
                for _ in range(visits):
                    await page.goto(url)
        await pool._ledger.flush()
        with pool._ledger.reader.connect() as db:
            counted = [row[0] for row in db.execute(text("SELECT bytes FROM lease ORDER BY use_number"))]
        for visits, received in zip((1, 3), counted, strict=True):
            assert visits * len(BODY) <= received <= visits * (len(BODY) + 5_000)


async def test_a_session_ends_before_its_traffic_costs_more_than_was_held(tmp_path: Path) -> None:
    settings = parse_config(
        {
            "pool": {"max_sessions": 1},
            "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"},
            "providers": {"local": {"kind": "local", "rates": {"per_gb": "1000.00", "max_gb": "0.001"}}},
            "platforms": {"web": {}},
            "budgets": [{"name": "daily", "limit": "1.00"}],
        }
    )
    provider = LocalProvider("local", ProviderSettings(kind="local"), state_dir=tmp_path / "state")
    async with website() as (url, _), SessionPool(settings, providers={"local": provider}) as pool:
        with pytest.raises(LeaseLostError, match="traffic cap"):
            async with pool.get_session("web") as lease:
                page = await lease.new_page()
                for _ in range(100):  # 50 kB each: the cap of a megabyte is reached after some twenty
                    await page.goto(url)
        await pool.drain()
        with pool._ledger.reader.connect() as db:
            spent, forced = db.execute(text("SELECT spent_n + held_n, forced_n FROM budget_window")).one()
        assert 800_000_000 < spent <= 1_000_000_000
        assert forced == 0


def test_trackers_are_told_by_their_domain_and_not_by_their_path() -> None:
    assert is_tracker("https://www.googletagmanager.com/gtm.js?id=1")
    assert not is_tracker("https://example.com/doubleclick.net/ad.js")
    assert not is_tracker("https://notdoubleclick.net/")
    assert not is_tracker("data:text/html,hello")
