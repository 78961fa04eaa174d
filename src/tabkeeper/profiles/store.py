"""Where profiles are kept: restored to leases, saved after success, retired when their trust is gone.

One lease at a time may write a profile; others that want it meanwhile get a copy. Both are decided in the database,
in one transaction each, so they hold between processes, too.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from tabkeeper.clock import Clock
from tabkeeper.config import ProfileSettings
from tabkeeper.profiles.figures import ProfileStats, figures
from tabkeeper.profiles.rows import (
    COLUMNS,
    Statements,
    claim,
    give_up,
    live_row,
    micros,
    micros_of,
    retire,
    to_profile,
)
from tabkeeper.profiles.state import BrowserState, Profile, ProfileKey
from tabkeeper.profiles.trust import Grade, Verdict, judge
from tabkeeper.vault import Vault

T = TypeVar("T")

KEEP_RETIRED = timedelta(days=7)
"""How long a retired profile stays in lists, without its state."""
NEEDS_KEY = "profiles hold cookies, so they are stored"
"""Beginning of the message where there is no key."""


class Database(Protocol):
    """Where the tables are; `tabkeeper.ledger.ledger.Ledger` is one."""

    async def transact(self, work: Callable[[Statements], T]) -> T:
        """Run `work` in one transaction and return what it returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A profile lent to a lease."""

    key: ProfileKey
    holder: str
    """The lease's id."""
    source: str | None
    """Which profile the lease began with; None if there was none to restore."""
    state: BrowserState | None
    may_write: bool
    """False while another lease may: this one has a copy."""


class ProfileStore:
    """The profiles in one database.

    Args:
        database: with the ledger's schema.
        vault: seals what is stored.
        clock: where time comes from.
        settings: how far profiles are trusted.
    """

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: ProfileSettings) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._settings = settings
        self._known: dict[ProfileKey, Profile] = {}
        self._visits = self._restored = 0

    def require_key(self) -> None:
        """See to it that profiles can be stored.

        Raises:
            ConfigError: there is no key.
        """
        self._vault.require(NEEDS_KEY)

    def judge(self, profile: Profile) -> Verdict:
        """Grade a profile as of now."""
        if profile.retired_at is not None:
            return Verdict(0.0, Grade.RETIRED, profile.retired_why)
        return judge(profile.record(self._clock.now()), self._settings.trust_for(profile.key.site))

    # ── a lease's use of a profile ─────────────────────────────────────────────────────────────────────────────────

    async def begin(self, key: ProfileKey, holder: str, until: datetime) -> Visit:
        """Lend a profile to a lease, to be written by it if no other lease may.

        Args:
            key: which.
            holder: the lease's id.
            until: when the right to write ends by itself.

        Raises:
            ConfigError: there is no key.
            SealedError: it was saved with a key that is not at hand.
            LedgerUnavailableError: the database is away.
        """
        self.require_key()
        now = self._now()

        def work(tx: Statements) -> tuple[Profile | None, str | None, bool]:
            may_write = claim(tx, key, holder, micros(until), now)
            profile = self._live(tx, key)
            if profile is None:
                return None, None, may_write
            row = tx.row("SELECT sealed FROM profile WHERE id = :id", id=profile.id)
            assert row is not None
            state = BrowserState.from_text(self._vault.open(row.sealed), key)  # before its use is counted
            tx.run("UPDATE profile SET uses = uses + 1 WHERE id = :id", id=profile.id)
            return self._live(tx, key) or profile, state.to_text(key), may_write

        profile, text, may_write = await self._database.transact(work)
        self._remember(key, profile)
        self._visits += 1
        self._restored += text is not None
        return Visit(
            key=key,
            holder=holder,
            source=None if profile is None else profile.id,
            state=None if text is None else BrowserState.from_text(text, key),
            may_write=may_write,
        )

    async def succeeded(self, visit: Visit, state: BrowserState | None) -> bool:
        """Note a success and save what the lease made of the profile; False if it was not this lease's to write.

        Raises:
            ValueError: the state is larger than `profiles.max_bytes`; the success is noted all the same.
            LedgerUnavailableError: the database is away.
        """
        text = None if state is None else state.to_text(visit.key)
        too_large = text is not None and len(text) > self._settings.max_bytes
        now = self._now()

        def work(tx: Statements) -> tuple[bool, Profile | None]:
            mine = give_up(tx, visit.key, visit.holder)
            live = self._live(tx, visit.key)
            if live is not None:
                tx.run(
                    "UPDATE profile SET failures = 0, succeeded_at = :now WHERE id = :id", now=now, id=live.id
                )
            # A profile that was retired meanwhile must not come back through the lease that still had it.
            unchanged = visit.source == (None if live is None else live.id)
            written = mine and unchanged and text is not None and not too_large
            if written:
                assert text is not None
                self._write(tx, visit.key, text, live, now)
            return written, self._live(tx, visit.key)

        written, profile = await self._database.transact(work)
        self._remember(visit.key, profile)
        if too_large:
            assert text is not None
            raise ValueError(
                f"the state of {visit.key} has {len(text):,} bytes, more than profiles.max_bytes "
                f"({self._settings.max_bytes:,}), and was not saved"
            )
        return written

    async def failed(self, visit: Visit) -> None:
        """Count a failure against the profile the lease began with, and retire it if that is one too many.

        Raises:
            LedgerUnavailableError: the database is away.
        """

        def work(tx: Statements) -> Profile | None:
            give_up(tx, visit.key, visit.holder)
            if visit.source is not None:
                tx.run(
                    "UPDATE profile SET failures = failures + 1 WHERE id = :id AND retired_at IS NULL",
                    id=visit.source,
                )
            return self._live(tx, visit.key)

        self._remember(visit.key, await self._database.transact(work))

    async def left(self, visit: Visit, *, unused: bool = False) -> None:
        """Give up the right to write; the lease ended in a way that says nothing about the profile.

        Args:
            visit: what the lease began with.
            unused: it was never restored, so it counts as no use either.

        Raises:
            LedgerUnavailableError: the database is away.
        """

        def work(tx: Statements) -> None:
            give_up(tx, visit.key, visit.holder)
            if unused and visit.source is not None:
                tx.run("UPDATE profile SET uses = uses - 1 WHERE id = :id AND uses > 0", id=visit.source)

        await self._database.transact(work)

    # ── for people ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def all(self, *, retired: bool = False) -> list[Profile]:
        """Return all profiles, by tenant, site and proxy; retired ones of the last days too if asked."""
        only = "" if retired else " WHERE retired_at IS NULL"
        query = f"SELECT {COLUMNS} FROM profile{only} ORDER BY tenant, site, proxy, created_at"  # noqa: S608 - ours
        return await self._database.transact(lambda tx: [to_profile(row) for row in tx.rows(query)])

    async def read(self, key: ProfileKey) -> tuple[Profile, BrowserState] | None:
        """Return a profile and its state without counting a use; None if there is none.

        Raises:
            ConfigError, SealedError: it cannot be opened.
        """
        self.require_key()

        def work(tx: Statements) -> tuple[Profile, str] | None:
            row = live_row(tx, key, more=", sealed")
            return None if row is None else (to_profile(row), row.sealed)

        found = await self._database.transact(work)
        if found is None:
            return None
        return found[0], BrowserState.from_text(self._vault.open(found[1]), key)

    async def put(self, key: ProfileKey, state: BrowserState) -> None:
        """Store a state as a new profile, retiring the one there is.

        Raises:
            ConfigError: there is no key.
        """
        self.require_key()
        now, text = self._now(), state.to_text(key)

        def work(tx: Statements) -> Profile | None:
            retire(tx, key, "replaced by an import", now)
            self._write(tx, key, text, None, now)
            return self._live(tx, key)

        self._remember(key, await self._database.transact(work))

    async def retire(self, key: ProfileKey, why: str = "retired by hand") -> bool:
        """Retire a profile and forget its state; False if there is none."""
        now = self._now()
        done = await self._database.transact(lambda tx: retire(tx, key, why, now))
        self._known.pop(key, None)
        return done

    async def refresh(self) -> None:
        """Look at what other processes saved, so that `stats` knows it."""
        if not self._vault.has_keys:
            return
        self._known = {profile.key: profile for profile in await self.all()}

    def stats(self) -> ProfileStats:
        """Count profiles by grade, as far as this process has seen them."""
        graded = [(profile, self.judge(profile).grade) for profile in self._known.values()]
        return figures(graded, self._clock.now(), self._visits, self._restored)

    # ── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _live(self, tx: Statements, key: ProfileKey) -> Profile | None:
        """Return the profile of a key, unless its time is up: then it is retired here and now."""
        row = live_row(tx, key)
        if row is None:
            return None
        profile = to_profile(row)
        verdict = self.judge(profile)
        if verdict.grade is not Grade.RETIRED:
            return profile
        retire(tx, key, verdict.why, self._now())
        return None

    def _write(self, tx: Statements, key: ProfileKey, text: str, live: Profile | None, now: int) -> None:
        sealed = self._vault.seal(text)
        if live is not None:
            tx.run(
                "UPDATE profile SET sealed = :sealed, saved_at = :now WHERE id = :id",
                sealed=sealed,
                now=now,
                id=live.id,
            )
            return
        tx.run("DELETE FROM profile WHERE retired_at < :before", before=now - micros_of(KEEP_RETIRED))
        tx.run(
            "INSERT INTO profile (id, tenant, site, proxy, created_at, saved_at, succeeded_at, failures, uses, sealed) "
            "VALUES (:id, :tenant, :site, :proxy, :now, :now, :now, 0, 1, :sealed)",
            id=f"p{secrets.token_hex(10)}",
            now=now,
            sealed=sealed,
            **key._asdict(),
        )

    def _remember(self, key: ProfileKey, profile: Profile | None) -> None:
        if profile is None:
            self._known.pop(key, None)
        else:
            self._known[key] = profile

    def _now(self) -> int:
        return micros(self._clock.now())
