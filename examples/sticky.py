"""Sticky sessions: each visitor keeps its own proxy, from many threads, through a failure and a restart. No browser."""

import tempfile
from concurrent.futures import ThreadPoolExecutor

from tabkeeper import StickyProxies

PROXIES = [f"http://ada:secret@10.0.0.{number}:8080" for number in range(1, 6)]  # or env:… in tabkeeper.toml


def main(database: str) -> None:
    with StickyProxies.open(database, PROXIES, ttl="30m", fallback="least_used") as sticky:
        with ThreadPoolExecutor(8) as threads:
            seen = list(threads.map(lambda _: sticky.get("ada's cart").id, range(1000)))
        print(f"1000 requests of one key, proxies: {len(set(seen))}")

        first = sticky.get("ben's cart")
        # httpx.get("https://shop.example", proxy=first.url) raised: tell it, and ask again
        second = sticky.get("ben's cart", failed=[first.id])
        print(f"another proxy after a failure: {second != first}")

    with StickyProxies.open(database, PROXIES) as sticky:
        again = sticky.get("ben's cart")
        print(f"the same after a restart: {again == second}")
        print(f"keys: {[binding.key for binding in sticky.list()]}")


with tempfile.TemporaryDirectory() as folder:
    main(f"sqlite:///{folder}/proxies.db")
