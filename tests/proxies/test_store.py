"""Bindings in the database: shared by processes, forgotten on schedule, written later if the database is away."""

from __future__ import annotations

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.config import parse_config
from tabkeeper.errors import LedgerUnavailableError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.proxies.model import proxy_from_url
from tabkeeper.proxies.pool import ProxyPool
from tabkeeper.proxies.sticky import StickyProxies
from tabkeeper.proxies.store import ProxyStore
from tabkeeper.vault import Vault


def process(clock: VirtualClock, first: str) -> tuple[StickyProxies, ProxyStore]:
    """What one process has in memory; a new key of its gets the proxy `first`."""
    pool = ProxyPool([proxy_from_url(f"http://{n}:80", id=n) for n in "abc"], clock=clock)
    for other in set("abc") - {first}:
        pool.began(other)
    sticky = StickyProxies(pool, clock=clock)
    return sticky, ProxyStore(pool, sticky, Vault(), clock)


@pytest.fixture
async def ledger(ledger_url):
    opened = await Ledger.open(parse_config({"ledger": {"url": ledger_url}}))
    yield opened
    await opened.aclose()


async def keys(ledger: Ledger) -> list[str]:
    return [row.key for row in await ledger.transact(lambda tx: tx.rows("SELECT key FROM proxy_binding"))]


async def test_of_two_processes_that_bind_one_key_the_first_is_kept(ledger) -> None:
    clock = VirtualClock()
    (one, store), (two, other) = process(clock, "a"), process(clock, "b")
    assert one.get("k").id == "a"
    clock.advance(1)
    assert two.get("k").id == "b"
    await other.sync(ledger)  # the later one is written first
    await store.sync(ledger)
    await other.sync(ledger)
    assert (one.get("k").id, two.get("k").id) == ("a", "a")
    assert two.get("k", failed=["a"]).id != "a"
    await other.sync(ledger)
    assert one.get("k").id == "a"  # it has not heard of that, and must not undo it
    await store.sync(ledger)
    await other.sync(ledger)
    await store.sync(ledger)
    assert one.get("k") == two.get("k")
    two.close("k")
    await other.sync(ledger)
    await store.sync(ledger)
    assert one.list() == []


async def test_the_job_forgets_what_is_over_in_memory_and_in_the_database(ledger) -> None:
    clock = VirtualClock()
    sticky, store = process(clock, "a")
    sticky.get("old")
    clock.advance(1800)
    sticky.get("new")
    await store.sync(ledger)
    assert sorted(await keys(ledger)) == ["new", "old"]
    clock.advance(1801)
    await store.sync(ledger)
    assert await keys(ledger) == ["new"]
    assert sticky.stats().expired == 1
    clock.advance(1800)
    other, again = process(clock, "b")  # a process that never knew of it
    await again.sync(ledger)
    assert (await keys(ledger), other.list()) == ([], [])


async def test_what_cannot_be_written_is_written_later(ledger) -> None:
    clock = VirtualClock()
    sticky, store = process(clock, "a")

    class Away:
        async def transact(self, work):
            raise LedgerUnavailableError("away")

    sticky.get("k")
    sticky.failed("k", "refused")
    for step in (store.save, store.sync):
        with pytest.raises(LedgerUnavailableError):
            await step(Away())
    assert sticky.get("k").id == "a"  # nobody waits for a database
    await store.save(ledger)
    later, again = process(clock, "b")
    await again.load(ledger)
    assert later.get("k").id == "a"
    assert later.pool.standing("a").failed == 1


async def test_nothing_changes_while_nothing_happens(ledger) -> None:
    clock = VirtualClock()
    sticky, store = process(clock, "a")
    sticky.get("k")
    sticky.succeeded("k", 0.25)
    await store.sync(ledger)
    before, standing = sticky.list(), sticky.pool.standing("a")
    clock.jump(7200)  # the wall clock alone
    for _ in range(3):
        await store.save(ledger)
    assert (sticky.list(), sticky.pool.standing("a")) == (before, standing)
