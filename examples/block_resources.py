"""A platform that does not load images uses less traffic. The page comes from a small server in this process."""

import asyncio
import tempfile

from tabkeeper import LedgerSettings, PlatformSettings, PoolConfig, SessionPool

IMAGE = b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 100_000 + b"</svg>"
PAGE = b"<title>shop</title><link rel=icon href=data:,><img src=/picture.svg>"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    is_image = b"picture" in await reader.readline()
    while await reader.readline() not in {b"\r\n", b""}:
        pass
    kind, body = (b"image/svg+xml", IMAGE) if is_image else (b"text/html", PAGE)
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (kind, len(body)) + body)
    await writer.drain()
    writer.close()


async def main(folder: str) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    config = PoolConfig(
        platforms={"full": PlatformSettings(), "lean": PlatformSettings(block=("image", "font", "media"))},
        ledger=LedgerSettings(url=f"sqlite:///{folder}/tabkeeper.db"),
    )
    pool = SessionPool(config)
    async with pool, server:
        for platform in ("full", "lean"):
            async with pool.get_session(platform) as session:
                page = await session.new_page()
                await page.goto(url)
    report = await pool.ledger.report()
    for usage in report.platforms:
        print(f"{usage.name}: {usage.bytes / 1000:.0f} kB received")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
