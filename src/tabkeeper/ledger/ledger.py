"""The ledger as the rest of Tabkeeper sees it: hold before a session is created, settle when it is over.

Prices are worked out here, on the caller's side; every write is an operation that the writer carries out.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from tabkeeper.clock import Clock, SystemClock
from tabkeeper.config import BudgetSettings, PoolConfig
from tabkeeper.errors import BudgetExceededError, LedgerUnavailableError, NoPriceError
from tabkeeper.ledger import invariants, processes, registry, schema, sums
from tabkeeper.ledger.alerting import AlertOutbox
from tabkeeper.ledger.budgets import Denial
from tabkeeper.ledger.drift import DriftBook
from tabkeeper.ledger.engines import is_memory, parse_url, read_engine, write_engine
from tabkeeper.ledger.instants import length_us, micros, moment
from tabkeeper.ledger.limits import apply_budgets
from tabkeeper.ledger.operations import LedgerOperations
from tabkeeper.ledger.owners import Owners
from tabkeeper.ledger.periods import Periods
from tabkeeper.ledger.prices import Prices, terms
from tabkeeper.ledger.rates import RateCard, is_free, own_traffic, price
from tabkeeper.ledger.reading import Reading
from tabkeeper.ledger.reconcile import Reconciliation
from tabkeeper.ledger.records import Records
from tabkeeper.ledger.spool import Spool, abandoned, places_for, prefix_for
from tabkeeper.ledger.store import KEPT, Writer
from tabkeeper.ledger.transaction import Transaction
from tabkeeper.ledger.types import (
    Hold,
    HoldRequest,
    LeaseUsage,
    Quality,
    SessionUsage,
    Settlement,
    StateChange,
    TakenOver,
    Violation,
)
from tabkeeper.ledger.windows import LAST_INSTANT
from tabkeeper.money import ZERO, Money

_GRACE = timedelta(seconds=60)
"""A hold outlives the longest life of its session by this much, for the close to be confirmed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Open:
    """What is known of a session of this process that is not settled: enough to price it without a database."""

    card: RateCard
    created_at: datetime
    max_seconds: float


class Ledger:
    """One process's way into the books. Open it with `Ledger.open`; all methods belong to one event loop."""

    process_id: str
    """Our row in the ``process`` table."""
    installation: str
    """Eight hex digits that tell this ledger from others; session ids, and so labels at providers, begin with it."""
    reader: Engine
    """Read-only engine for reports."""
    alerts: AlertOutbox
    """What somebody should hear of, and who has heard."""
    reconciliation: Reconciliation
    """What providers say against what was booked."""
    periods: Periods
    """What providers billed for whole periods against what was booked."""
    drift: DriftBook
    """Where providers' state and ours disagreed."""
    records: Records
    """What is on record of sessions and leases."""
    owners: Owners
    """Which process lives, and whose sessions are nobody's."""

    def __init__(
        self,
        *,
        config: PoolConfig,
        clock: Clock,
        writer: Writer,
        reader: Engine,
        engine: Engine,
        inline: bool,
        process_id: str,
    ) -> None:
        self.process_id = process_id
        self.installation = ""
        self.reader = reader
        self._config = config
        self._clock = clock
        self._writer = writer
        self._engine = engine
        self._reading = Reading(reader, inline=inline)
        self._read = self._reading.read
        self.alerts = AlertOutbox(writer, self._read, clock)
        self.reconciliation = Reconciliation(writer, self._read, clock)
        self.periods = Periods(writer, self._read, clock, process_id)
        self.drift = DriftBook(writer, self._read, clock)
        self.records = Records(self._read, clock)
        self.owners = Owners(writer, self._read, clock, process_id)
        self._prices = Prices(config.providers)
        self._open: dict[str, _Open] = {}
        self._registered = False
        self._closed = False

    @classmethod
    async def open(
        cls,
        config: PoolConfig,
        *,
        clock: Clock | None = None,
        inline: bool = False,
        observe: bool = False,
        installation: str | None = None,
    ) -> Ledger:
        """Open the ledger of a configuration, creating or upgrading its schema if that is allowed.

        Args:
            config: where the ledger is, what providers cost, which budgets hold.
            clock: where time comes from.
            inline: write on the calling thread, at once; always so for SQLite in memory.
            observe: for tools that only look: register no process, take over no prices and no budgets.
            installation: what a new ledger is told from others by; chance if unset.

        Raises:
            SchemaVersionError: the schema is not the expected one and may not, or cannot, be upgraded.
            LedgerUnavailableError: the database cannot be reached or written.
            ConfigError: the address or a price list of the configuration cannot be used.
        """
        url = parse_url(config.ledger.url)
        memory = is_memory(url)
        inline = inline or memory
        engine = write_engine(config.ledger.url)
        reader = engine if memory else read_engine(config.ledger.url)
        prepare = lambda: schema.ensure(engine, auto_upgrade=config.ledger.auto_upgrade)  # noqa: E731
        try:
            await _off_loop(prepare, inline=inline)
        except BaseException:
            engine.dispose()
            reader.dispose()
            raise
        owner = uuid.uuid4().hex
        places = [] if memory else places_for(url)
        spool = Spool(places, prefix_for(url), owner)
        writer = Writer(engine, LedgerOperations(), spool, inline=inline)
        ledger = cls(
            config=config,
            clock=clock or SystemClock(),
            writer=writer,
            reader=reader,
            engine=engine,
            inline=inline,
            process_id=owner,
        )
        try:
            if observe:
                ledger.installation = await ledger._read(registry.installation)
            else:
                await ledger._move_in(installation or secrets.token_hex(4))
                for left in abandoned(places, prefix_for(url)):
                    await ledger._take_over(left.read(), left.remove, left.leave)
        except BaseException:
            await ledger.aclose()
            raise
        return ledger

    async def aclose(self) -> None:
        """Write what is queued, tell that this process ended, stop the writer. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._registered:
                at = self._now()
                await self._writer.call(lambda tx: processes.leave(tx, self.process_id, at))
        except LedgerUnavailableError:
            pass  # The next start finds the process dead by its id.
        finally:
            await self._writer.stop()
            await self._reading.aclose()
            self._engine.dispose()

    async def hold(self, ask: HoldRequest) -> Hold:
        """Set aside the worst case of a session; only then may it be created.

        Returns after COMMIT. The session id decides: asked again with the same content, the same hold comes back.

        Raises:
            BudgetExceededError: a hard budget, or `max_session_cost`, does not allow it; nothing was held.
            NoPriceError: what the session may cost is unknown.
            IdempotencyConflictError: the session id was used for something else.
            LedgerUnavailableError: the database is away.
        """
        now = self._clock.now()
        card_id, listed = await self._card(ask.provider, now)
        card = listed.with_own_proxy(ask.proxy_price, ask.proxy_bytes)
        seconds, amount = self._prices.terms(card_id, card, ask)
        expires = now + timedelta(seconds=seconds) + _GRACE
        operation = {
            "op": "hold",
            "session_id": ask.session_id,
            "platform": ask.platform,
            "provider": ask.provider,
            "tenant": ask.tenant,
            "max_us": length_us(ask.max_seconds),
            "cap_n": None if ask.max_session_cost is None else ask.max_session_cost.nanos,
            "proxy_price": None if ask.proxy_price is None else str(ask.proxy_price),
            "proxy_bytes": ask.proxy_bytes,
            "held_us": length_us(seconds),
            "amount_n": amount.nanos,
            "is_free": is_free(card),
            "rate_card_id": card_id,
            "process_id": self.process_id,
            "at": micros(now),
            "expires_at": micros(expires),
        }
        try:
            outcome = await self._writer.do(operation, keep=False)
        except asyncio.CancelledError:
            # Whoever asked has gone, so nothing will be started on this hold.
            self._writer.start_later(self._void(ask.session_id, "cancelled before it was created"))
            raise
        if isinstance(outcome, Denial):
            raise _exceeded(outcome, ask)
        if outcome.rate_card_id != card_id:
            listed = await self._writer.call(lambda tx: self._prices.book.card(tx, outcome.rate_card_id))
            card = listed.with_own_proxy(ask.proxy_price, ask.proxy_bytes)
        held = Hold(
            session_id=ask.session_id,
            amount=Money(outcome.amount_n),
            max_seconds=outcome.max_us / 1_000_000,
            expires_at=moment(outcome.expires_at),
            card=card,
        )
        self._open[ask.session_id] = _Open(card, moment(outcome.held_at), held.max_seconds)
        return held

    async def activate(
        self,
        session_id: str,
        *,
        provider_session_id: str,
        pid: int | None = None,
        pid_started: float | None = None,
        connect_sealed: str | None = None,
        identity: str | None = None,
    ) -> None:
        """Note that a held session now runs, under which id of the provider's and in which process.

        `connect_sealed` is where it is reached, sealed by a `Vault`: never in clear. It is forgotten at the end.
        `identity` is the keyed hash of whose account is logged in.
        """
        operation = {
            "op": "activate",
            "session_id": session_id,
            "provider_session_id": provider_session_id,
            "pid": pid,
            "pid_started_at": None if pid_started is None else length_us(pid_started),
            "connect_sealed": connect_sealed,
            "identity": identity,
            "at": self._now(),
        }
        await self._writer.do(operation, keep=True)

    async def void(self, session_id: str, *, reason: str) -> None:
        """Give a hold back, on proof that nothing was started. Unknown sessions are let be.

        Raises:
            IdempotencyConflictError: the session is settled already.
        """
        await self._writer.do(self._void(session_id, reason), keep=True)
        self._open.pop(session_id, None)

    async def settle(
        self, session_id: str, usage: SessionUsage, *, reason: str, state: str = "closed"
    ) -> Settlement:
        """Book what a session really used, at most once; asked again, return what was booked.

        If it was booked by an estimate meanwhile, as when this process was taken for dead, the difference is booked
        as an adjustment.

        If the database is away the usage is kept and booked later; the settlement is then `provisional`, priced
        here without allowances and shares.

        Raises:
            LedgerError: the session has no hold.
            IdempotencyConflictError: it was voided, or settled with another measured usage.
        """
        operation = {
            "op": "settle",
            "session_id": session_id,
            "seconds_us": length_us(usage.seconds),
            "proxy_bytes": usage.proxy_bytes,
            "own_bytes": usage.own_proxy_bytes,
            "quality": str(usage.quality),
            "reason": reason,
            "state": state,
            "at": self._now(),
        }
        return await self._settle(session_id, operation, usage)

    async def settle_orphan(
        self, session_id: str, *, reason: str, own_proxy_bytes: int | None = None
    ) -> Settlement:
        """Settle a session whose end nobody saw: as long as it can have lived, but not longer than was held.

        What went through a proxy of its own is `own_proxy_bytes`, or all that was held for if nobody counted.

        Raises:
            LedgerError: the session has no hold.
        """
        opened = self._open.get(session_id)
        age = (self._clock.now() - opened.created_at).total_seconds() if opened else 0.0
        operation = {
            "op": "settle",
            "session_id": session_id,
            "seconds_us": None,
            "proxy_bytes": 0,
            "own_bytes": own_proxy_bytes,
            "quality": str(Quality.ESTIMATE),
            "reason": reason,
            "state": "lost",
            "at": self._now(),
        }
        seconds = max(0.0, min(age, opened.max_seconds if opened else 0.0))
        usage = SessionUsage(seconds=seconds, own_proxy_bytes=own_proxy_bytes)
        return await self._settle(session_id, operation, usage)

    def record_lease(self, usage: LeaseUsage) -> None:
        """Write a row of the usage log, some milliseconds from now; never waits, never raises."""
        self._writer.post("lease", usage)

    def record_state(self, change: StateChange) -> None:
        """Write down a change of state, some milliseconds from now; never waits, never raises."""
        self._writer.post("state", change)

    async def flush(self) -> None:
        """Return when all that was recorded is committed, or kept for later if the database is away."""
        try:
            await self._writer.call(lambda _tx: None)
        except LedgerUnavailableError:
            return

    async def take_over(self, session_id: str) -> TakenOver | None:
        """Go on with a running session that another process began, and has no more; None if it is over.

        Raises:
            LedgerUnavailableError: the database is away.
        """

        def work(tx: Transaction) -> tuple[Any, RateCard] | None:
            row = processes.take_over(tx, session_id, self.process_id)
            return None if row is None else (row, self._prices.book.of(tx, row))

        found = await self._writer.call(work)
        if found is None:
            return None
        row, card = found
        hold = Hold(
            session_id=session_id,
            amount=Money(row.amount_n),
            max_seconds=row.max_us / 1_000_000,
            expires_at=moment(row.expires_at),
            card=card,
        )
        self._open[session_id] = _Open(card, moment(row.created_at), hold.max_seconds)
        return TakenOver(
            provider_session_id=row.provider_session_id,
            connect_sealed=row.connect_sealed,
            created_at=moment(row.created_at),
            hold=hold,
        )

    async def verify(self) -> list[Violation]:
        """Run every invariant over the whole ledger; an empty list means that it is sound."""
        await self.flush()
        return await self._read(invariants.check)

    async def spent(self, *, start: datetime, end: datetime) -> Money:
        """Settled cost of sessions created from `start` (included) to `end` (not)."""
        return await self._read(lambda c: sums.spent(c, micros(start), micros(end)))

    async def apply_budgets(self, budgets: Sequence[BudgetSettings]) -> None:
        """Make these the budgets in force, for all processes, from the next hold on.

        Changed limits keep what was spent; budgets not named are retired.
        """
        at = self._now()
        await self._writer.call(lambda tx: apply_budgets(tx, budgets, at))

    def price_card(self, provider: str) -> RateCard:
        """Return the price list in force for a provider.

        Raises:
            NoPriceError: there is none.
        """
        return self._prices.current(provider, self._clock.now())

    def worst_case(self, ask: HoldRequest) -> Money | None:
        """Return what would be held for a session by today's price list; None if it would be refused."""
        try:
            card = self.price_card(ask.provider).with_own_proxy(ask.proxy_price, ask.proxy_bytes)
            seconds, amount = terms(card, ask.max_seconds, ask.max_session_cost)
        except NoPriceError:
            return None
        return None if seconds is None else amount

    async def release_later(self, session_id: str, *, reason: str, error: str = "") -> None:
        """Note that a provider has not confirmed the end of a session, and why; repeat it for each attempt."""
        operation = {
            "op": "release",
            "session_id": session_id,
            "reason": reason,
            "error": error,
            "at": self._now(),
        }
        await self._writer.do(operation, keep=True)

    async def released(self, session_id: str) -> None:
        """Note that the provider has confirmed the end after all."""
        await self._writer.do({"op": "released", "session_id": session_id, "at": self._now()}, keep=True)

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one transaction of its own, after all that was asked before, and return what it returns.

        For rooms with tables of their own in the same database. `work` runs on the writer's thread and may be
        repeated if the database asks for it.

        Raises:
            LedgerUnavailableError: the database is away; nothing was written.
        """
        outcome: T = await self._writer.call(work)
        return outcome

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Read in a thread. It cannot be cancelled, so the ledger's end waits for it, whoever has left meanwhile."""
        return await self._reading.in_thread(work)

    # -- inside ------------------------------------------------------------------------------------------

    async def _move_in(self, installation: str) -> None:
        now = self._clock.now()
        who = processes.this_process(self.process_id)

        def work(tx: Transaction) -> dict[str, tuple[int, RateCard]]:
            self.installation = registry.settle_in(tx, installation)
            processes.register(tx, who, micros(now))
            apply_budgets(tx, self._config.budgets, micros(now))
            return self._prices.publish_all(tx, now)

        self._prices.remember(await self._writer.call(work))
        self._registered = True

    async def _take_over(
        self, operations: Sequence[Mapping[str, Any]], done: Callable[[], None], undone: Callable[[], None]
    ) -> None:
        """Write what a dead process could not, and only then let go of its file."""
        try:
            await self._writer.call(lambda tx: self._writer.replay(tx, operations))
        except BaseException:
            undone()
            raise
        done()

    async def _card(self, provider: str, now: datetime) -> tuple[int, RateCard]:
        known = self._prices.published(provider, now)
        if known is not None:
            return known
        row: tuple[int, RateCard] = await self._writer.call(
            lambda tx: self._prices.publish(tx, provider, now)
        )
        self._prices.remember({provider: row})
        return row

    def _void(self, session_id: str, reason: str) -> dict[str, Any]:
        return {"op": "void", "session_id": session_id, "reason": reason, "at": self._now()}

    async def _settle(self, session_id: str, operation: Mapping[str, Any], usage: SessionUsage) -> Settlement:
        outcome = await self._writer.do(operation, keep=True)
        opened = self._open.pop(session_id, None)
        if outcome is KEPT:
            cost = ZERO
            if opened is not None:
                traffic = usage.proxy_bytes if opened.card.component("proxy_bytes") else 0
                own = own_traffic(opened.card, usage.own_proxy_bytes)
                cost = price(opened.card, usage.seconds, traffic, quantities=own)
            return Settlement(session_id=session_id, cost=cost, provisional=True)
        return Settlement(
            session_id=session_id,
            cost=Money(outcome.cost_n),
            idle=Money(outcome.idle_n),
            rounding=Money(outcome.rounding_n),
        )

    def _now(self) -> int:
        return micros(self._clock.now())


async def _off_loop(work: Callable[[], T], *, inline: bool) -> T:
    return work() if inline else await asyncio.to_thread(work)


def _exceeded(denial: Denial, ask: HoldRequest) -> BudgetExceededError:
    ends = moment(denial.end_at)
    resets = None if ends >= LAST_INSTANT else ends.astimezone(ZoneInfo(denial.budget.timezone))
    return BudgetExceededError(
        budget=denial.budget.name,
        limit=Money(denial.limit_n),
        spent=Money(denial.spent_n),
        held=Money(denial.held_n),
        needed=Money(denial.needed_n),
        resets_at=resets,
        subject=f'a session of "{ask.platform}" at {ask.provider}',
        on_exceed=denial.budget.on_exceed,
    )
