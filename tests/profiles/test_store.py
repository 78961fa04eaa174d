"""Profiles in a real database: saved, restored, retired, never written by two, and never readable without the key."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProfileSettings, parse_config
from tabkeeper.errors import ConfigError, SealedError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.profiles.state import BrowserState, ProfileKey
from tabkeeper.profiles.store import ProfileStore
from tabkeeper.vault import Vault, new_key

KEY = new_key()
SHOP = ProfileKey("acme", "shop.example")
HOUR = 3600.0


def state(value: str = "1") -> BrowserState:
    cookie = {"name": "sid", "value": f"cookie-{value}", "domain": "shop.example", "path": "/"}
    return BrowserState(
        storage={"cookies": [cookie], "origins": []},
        user_agent="Agent/1",
        viewport={"width": 800, "height": 600},
    )


def value_of(found: BrowserState | None) -> str | None:
    return None if found is None else found.storage["cookies"][0]["value"]


class Desk:
    """A store with a clock that is moved by hand."""

    def __init__(self, ledger: Ledger, clock: VirtualClock, settings: ProfileSettings, *keys: str) -> None:
        self.ledger, self.clock = ledger, clock
        self.store = ProfileStore(ledger, Vault(keys), clock, settings)
        self._leases = 0

    async def visit(self, key: ProfileKey = SHOP, holder: str | None = None, seconds: float = 60):
        self._leases += 1
        until = self.clock.now() + timedelta(seconds=seconds)
        return await self.store.begin(key, holder or f"lease-{self._leases}", until)

    async def use(self, value: str | None = None, key: ProfileKey = SHOP) -> str | None:
        """One lease: what it found; it saves `value`, or fails without one."""
        visit = await self.visit(key)
        if value is None:
            await self.store.failed(visit)
        else:
            assert await self.store.succeeded(visit, state(value))
        return value_of(visit.state)


@asynccontextmanager
async def desk(url, *keys, **settings):
    clock = VirtualClock()
    ledger = await Ledger.open(parse_config({"ledger": {"url": url}}), clock=clock)
    try:
        yield Desk(ledger, clock, ProfileSettings(**settings), *(keys or (KEY,)))
    finally:
        await ledger.aclose()


async def test_what_a_success_saved_the_next_lease_finds_and_no_other_tenant_site_or_proxy(ledger_url):
    async with desk(ledger_url) as d:
        assert await d.use("a") is None
        assert await d.use("b") == "cookie-a"
        for other in (SHOP._replace(tenant="zorg"), SHOP._replace(site="example"), SHOP._replace(proxy="p1")):
            assert await d.use("x", other) is None
        assert await d.use("c") == "cookie-b"
        visit = await d.visit()
        assert visit.state is not None
        assert visit.state.context_options()["user_agent"] == "Agent/1"
        assert visit.state.context_options()["viewport"] == {"width": 800, "height": 600}


async def test_a_failure_saves_nothing_and_three_in_a_row_retire_the_profile_for_good(ledger_url):
    async with desk(ledger_url) as d:
        await d.use("a")
        await d.use()
        await d.use()
        assert await d.use("b") == "cookie-a", "two failures are not three, and a success forgives them"
        for _ in range(3):
            assert await d.use() == "cookie-b"
        assert await d.use("new") is None
        old, new = await d.store.all(retired=True)
        assert (old.retired_why, new.retired_at) == ("3 failures in a row", None)
        with d.ledger.reader.connect() as db:
            assert db.execute(text("SELECT COUNT(*) FROM profile WHERE sealed IS NOT NULL")).scalar() == 1


async def test_a_profile_too_old_is_never_restored(ledger_url):
    async with desk(ledger_url, sites={"young.example": {"max_age": "10m"}}) as d:
        young = SHOP._replace(site="young.example")
        await d.use("a")
        await d.use("y", young)
        d.clock.advance(601)
        assert await d.use("b") == "cookie-a"
        assert await d.use("z", young) is None
        d.clock.advance(2 * HOUR - 600)
        assert await d.use("c") is None


async def test_what_was_begun_and_never_restored_is_no_use_of_a_profile_and_leaves_it_free(ledger_url):
    async with desk(ledger_url) as d:
        await d.use("a")
        [before] = await d.store.all()
        for unused, uses in ((False, before.uses + 1), (True, before.uses + 1), (True, before.uses + 1)):
            await d.store.left(await d.visit(), unused=unused)
            [profile] = await d.store.all()
            assert (profile.uses, profile.failures) == (uses, 0)
        assert (await d.visit()).may_write


async def test_two_leases_never_write_one_profile(ledger_url):
    async with desk(ledger_url) as d:
        await d.use("a")
        first, second = await d.visit(), await d.visit()
        assert (first.may_write, second.may_write) == (True, False)
        assert value_of(second.state) == "cookie-a", "the second has a copy"
        assert not await d.store.succeeded(second, state("second"))
        assert await d.store.succeeded(first, state("first"))
        assert not await d.store.succeeded(first, state("late")), "the right to write is used up"
        assert await d.use("b") == "cookie-first"


async def test_the_right_to_write_ends_by_itself_and_its_late_owner_writes_nothing(ledger_url):
    async with desk(ledger_url) as d:
        await d.use("a")
        dead = await d.visit(seconds=60)
        d.clock.advance(61)
        heir = await d.visit()
        assert heir.may_write
        assert not await d.store.succeeded(dead, state("dead"))
        assert await d.store.succeeded(heir, state("heir"))
        assert await d.use("b") == "cookie-heir"


async def test_a_profile_retired_under_a_lease_does_not_come_back_through_it(ledger_url):
    async with desk(ledger_url) as d:
        await d.use("a")
        visit = await d.visit()
        assert await d.store.retire(SHOP)
        assert not await d.store.succeeded(visit, state("a, again"))
        assert await d.use("b") is None


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "control"])
async def test_of_many_leases_at_once_in_two_processes_the_writers_follow_one_another(ledger_url, guarded):
    """Each writer adds one to what it found. With the lock no addition is lost; the control loses some."""
    async with desk(ledger_url) as d, desk(ledger_url) as other:
        await d.use("0")
        written = 0

        async def lease(here: Desk, number: int) -> None:
            nonlocal written
            visit = await here.visit(holder=f"{id(here)}-{number}")
            await asyncio.sleep(0.001 * (number % 3))
            found = value_of(visit.state)
            assert found is not None
            count = int(found.removeprefix("cookie-"))
            if guarded:
                saved = await here.store.succeeded(visit, state(str(count + 1)))
                written += saved
            else:
                await blind_write(here, str(count + 1))
                written += 1

        for round_ in range(6):
            await asyncio.gather(*(lease(here, round_ * 10 + n) for n in range(4) for here in (d, other)))
        found = await d.store.read(SHOP)
        assert found is not None
        final = int(value_of(found[1]).removeprefix("cookie-"))
        assert written >= 6
        assert (final == written) == guarded


async def blind_write(here: Desk, value: str) -> None:
    sealed = Vault([KEY]).seal(state(value).to_text(SHOP))
    await here.ledger.transact(
        lambda tx: tx.run("UPDATE profile SET sealed = :s WHERE retired_at IS NULL", s=sealed)
    )


async def test_the_database_s_file_shows_neither_cookie_nor_key(sqlite_url, tmp_path: Path):
    async with desk(sqlite_url) as d:
        await d.use("a")
        raw = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"shop.example" in raw, "this look would miss what it looks for"
        for secret in (KEY, "cookie-a", "Agent/1"):
            assert secret.encode() not in raw


async def test_with_another_key_or_moved_to_another_tenant_a_profile_does_not_open(sqlite_url):
    async with desk(sqlite_url) as d, desk(sqlite_url, new_key()) as stranger:
        await d.use("a")
        with pytest.raises(SealedError):
            await stranger.visit()
        assert (await d.visit()).may_write, "who could not open it holds nothing"
        await d.ledger.transact(lambda tx: tx.run("UPDATE profile SET tenant = 'zorg'"))
        with pytest.raises(SealedError, match="saved for another"):
            await d.visit(SHOP._replace(tenant="zorg"))


async def test_without_a_key_profiles_are_refused_in_one_sentence(sqlite_url):
    async with desk(sqlite_url) as d:
        bare = ProfileStore(d.ledger, Vault(), d.clock, ProfileSettings())
        with pytest.raises(
            ConfigError, match="profiles hold cookies, so they are stored only encrypted, and no key"
        ):
            await bare.begin(SHOP, "lease", d.clock.now())


async def test_a_state_too_large_is_not_saved_and_the_success_still_counts(sqlite_url):
    async with desk(sqlite_url, max_bytes=1000) as d:
        await d.use("a")
        await d.use()
        visit = await d.visit()
        with pytest.raises(ValueError, match=r"profiles\.max_bytes"):
            await d.store.succeeded(visit, state("x" * 1000))
        [profile] = await d.store.all()
        assert profile.failures == 0
        assert await d.use("b") == "cookie-a"


async def test_figures_count_what_is_there(sqlite_url):
    async with desk(sqlite_url) as d, desk(sqlite_url) as other:
        other.clock.advance(0)
        await d.use("a")
        await d.use("b")
        for _ in range(2):
            await d.use()
        await d.use("x", SHOP._replace(site="new.example"))
        d.clock.advance(80 * 60)
        stats = d.store.stats()
        assert (stats.total, stats.healthy, stats.degraded) == (2, 1, 1)
        assert stats.average_age_minutes == 80
        assert stats.average_uses == 2.5
        assert stats.reuse_rate == 3 / 5
        assert other.store.stats().total == 0
        await other.store.refresh()
        assert other.store.stats().total == 2
        d.clock.advance(40 * 60)
        assert d.store.stats().total == 0


def test_a_state_s_repr_and_its_profile_s_show_no_cookie():
    assert "cookie" not in repr(state())
    with pytest.raises(SealedError, match="another version"):
        BrowserState.from_text(json.dumps(json.loads(state().to_text(SHOP)) | {"form": 2}))
