"""Runs the demo: opens the pool, lets the tasks arrive, closes it, and then checks everything that it promised.

How it looks is in `show`; what a task does with its page is in `work`.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path

from playwright.async_api import Error as PlaywrightError
from sqlalchemy import Engine

from tabkeeper.clock import SystemClock
from tabkeeper.config import PoolConfig, parse_config
from tabkeeper.demo import FULL
from tabkeeper.demo.hosted import Hosted, hosted, reconcile
from tabkeeper.demo.leftovers import Leftovers
from tabkeeper.demo.order import OrderProof, check_order
from tabkeeper.demo.progress import Progress
from tabkeeper.demo.record import Peak, budget_peak, budget_state, paid_sessions, served
from tabkeeper.demo.site import Site
from tabkeeper.demo.trace import Task, make_tasks
from tabkeeper.demo.work import WrongPageError, visit, visit_own
from tabkeeper.errors import BudgetExceededError, ConfigError, TabkeeperError
from tabkeeper.ledger.engines import read_engine
from tabkeeper.ledger.invariants import INVARIANTS
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.money import ZERO, Money
from tabkeeper.pool.lease import Lease
from tabkeeper.pool.pool import SessionPool
from tabkeeper.pool.reconciling import Reconciled
from tabkeeper.reports.books import Books
from tabkeeper.reports.report import CostReport

BUDGET = Money.parse("0.016")
LEAST_BUDGET = Money.parse("0.010")
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `tabkeeper demo` was asked for."""

    folder: Path
    tasks: int = FULL
    seed: int = 2019
    urls: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must have held."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """One hosted provider's own records beside ours."""

    provider: str
    created: int
    """Sessions that the provider made, and would bill."""
    known: int
    """Those of them that the ledger knows."""
    cost: Money
    """What the ledger has booked for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out."""

    checks: tuple[Check, ...]
    report: CostReport
    order: OrderProof
    peak: Peak
    bills: tuple[Bill, ...]
    hosted: Hosted
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return all(check.ok for check in self.checks)


def configure(options: Options, now: datetime, urls: Mapping[str, str]) -> PoolConfig:
    """Make the demo's configuration, with the addresses of its hosted providers, and leave a copy in its folder.

    Raises:
        ConfigError: the folder cannot be used.
    """
    folder = options.folder.resolve()
    limit = max(LEAST_BUDGET, Money(BUDGET.nanos * options.tasks // FULL // 10**6 * 10**6))
    # The day must not end while the demo runs, or its budget would begin anew.
    zone = "UTC" if (now + timedelta(minutes=10)).date() == now.date() else "Asia/Tokyo"
    text = files("tabkeeper.demo").joinpath("demo.toml").read_text(encoding="utf-8")
    for name, value in {
        "limit": limit.text(),
        "zone": zone,
        "url": f"sqlite:///{folder / 'tabkeeper.db'}",
        "marker": marker_of(folder),
        **urls,
    }.items():
        text = text.replace(f"{{{name}}}", value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "tabkeeper.toml").open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{folder} holds a tabkeeper.toml already; give --keep another folder") from None
    except OSError as error:
        raise ConfigError(f"{folder} cannot be used: {error.strerror}") from None
    return parse_config(tomllib.loads(text), "the demo's configuration")


def marker_of(folder: Path) -> str:
    """Return the word by which this demo's browsers are known among all processes."""
    return f"tabkeeper-demo={folder.name}"


async def run(options: Options, progress: Progress) -> Outcome:
    """Run the demo in `options.folder`; `progress` is kept up to date for whoever watches.

    Raises:
        ConfigError: there is no browser, or the folder cannot be used.
    """
    clock = SystemClock()
    offset = clock.now().timestamp() - clock.monotonic()
    marker = marker_of(options.folder.resolve())
    leftovers = Leftovers(marker)
    async with hosted(marker) as providers:
        config = configure(options, clock.now(), providers.urls)
        reader = read_engine(config.ledger.url)
        try:
            with Site() as site:
                async with SessionPool(config) as pool:
                    progress.phase = "working"
                    async with asyncio.TaskGroup() as beside:
                        others = [
                            beside.create_task(_watch(pool, progress, reader, leftovers)),
                            beside.create_task(providers.misbehave()),
                        ]
                        async with asyncio.TaskGroup() as group:
                            for task in progress.tasks:
                                group.create_task(_perform(pool, task, progress, site.url, options.urls))
                        for other in others:
                            other.cancel()
                    leftovers.look()
                    progress.phase = "closing the pool"
            progress.phase = "checking"
            still_paid = providers.left
            progress.budget = budget_state(reader)
            order = check_order(served(reader, offset=offset), aging=config.pool.aging.total_seconds())
            peak = budget_peak(reader)
            providers.bill_more()
            report, books, reconciled = await _audit(config)
            bills = _bills(paid_sessions(reader), providers)
        finally:
            reader.dispose()
    left = await leftovers.wait_until_gone()
    checks = (
        *_counts(options, progress),
        _never_passed(peak),
        _in_order(order, least=1 if options.tasks >= FULL else 0),
        books,
        *_at_providers(options, progress, providers, bills, still_paid),
        _reconciled(reconciled),
        Check(
            name="nothing left running",
            ok=not left and leftovers.browsers > 0,
            detail=f"{leftovers.browsers} processes of browsers were started, {len(left)} are left"
            + (f": {', '.join(left)}" if left else ""),
        ),
    )
    return Outcome(
        checks=checks,
        report=report,
        order=order,
        peak=peak,
        bills=bills,
        hosted=providers,
        seconds=progress.seconds,
    )


async def _perform(pool: SessionPool, task: Task, progress: Progress, base: str, urls: Sequence[str]) -> None:
    await asyncio.sleep(max(0.0, task.arrives - progress.seconds))
    progress.waiting[task.number] = task

    async def work(lease: Lease) -> int:
        page = await lease.new_page()
        return await (visit_own(page, task, urls) if urls else visit(page, task, base))

    try:
        async with pool.get_session(
            task.platform, priority=task.priority, tenant=task.tenant, tags={"task": str(task.number)}
        ) as lease:
            del progress.waiting[task.number]
            progress.running[task.number] = (task, lease.session_id)
            progress.pages += await lease.use(work)
        progress.done[task.platform] += 1
    except BudgetExceededError as error:
        progress.refused[task.platform] += 1
        progress.refusal = progress.refusal or str(error)
    except (TabkeeperError, PlaywrightError, WrongPageError) as error:
        progress.failed[task.platform] += 1
        first_line = str(error).partition("\n")[0]
        progress.failures.append(f"task {task.number} ({task.platform}): {first_line}")
    finally:
        progress.waiting.pop(task.number, None)
        progress.running.pop(task.number, None)


async def _watch(pool: SessionPool, progress: Progress, reader: Engine, leftovers: Leftovers) -> None:
    while True:
        progress.stats = pool.stats()
        progress.budget = await asyncio.to_thread(budget_state, reader)
        await asyncio.to_thread(leftovers.look)
        await asyncio.sleep(_LOOK_SECONDS)


async def _audit(config: PoolConfig) -> tuple[CostReport, Check, list[Reconciled]]:
    """Open the ledger as another program would: reconcile it twice, check its books and take the day's report."""
    async with asyncio.timeout(30):
        ledger = await Ledger.open(config)
        try:
            reconciled = [await reconcile(config, ledger), await reconcile(config, ledger)]
            violations = await ledger.verify()
            report = await Books(ledger, timezone=config.ledger.timezone).report()
        finally:
            await ledger.aclose()
    broken = "; ".join(f"{v.name}: {v.meaning} ({v.rows} rows, such as {v.sample})" for v in violations)
    check = Check(
        name="books add up",
        ok=not violations,
        detail=broken or f"all {len(INVARIANTS)} invariants of the ledger hold",
    )
    return report, check, reconciled


def _counts(options: Options, progress: Progress) -> list[Check]:
    done, refused, failed = (c.total() for c in (progress.done, progress.refused, progress.failed))
    total = len(progress.tasks)
    failures = f"; first failure: {progress.failures[0]}" if progress.failures else ""
    checks = [
        Check(
            name="every task counted",
            # A page of the user's own that fails says nothing about the pool.
            ok=done + refused + failed == total and (not failed or bool(options.urls)),
            detail=f"{done} done + {refused} refused by the budget + {failed} failed = {total} tasks{failures}",
        )
    ]
    if options.tasks >= FULL and not options.urls:
        checks.append(
            Check(
                name="the budget ran out",
                ok=refused > 0 and done > refused,
                detail=f"{refused} tasks got a clear error instead of a browser",
            )
        )
    return checks


def _bills(booked: Mapping[str, Mapping[str, Money]], providers: Hosted) -> tuple[Bill, ...]:
    return tuple(
        Bill(
            provider=name,
            created=len(emulator.sessions),
            known=len(emulator.sessions.keys() & booked.get(name, {}).keys()),
            cost=sum(booked.get(name, {}).values(), ZERO),
        )
        for name, emulator in providers.emulators.items()
    )


def _at_providers(
    options: Options, progress: Progress, providers: Hosted, bills: Sequence[Bill], still_paid: Sequence[str]
) -> list[Check]:
    """Hold what hosted providers wrote down against the ledger."""
    made = ", ".join(f"{bill.created} at {bill.provider}" for bill in bills)
    checks = [
        Check(
            name="no paid session forgotten",
            ok=not still_paid and all(bill.created == bill.known for bill in bills),
            detail=f"{made}: {sum(bill.known for bill in bills)} of them in the ledger, {len(still_paid)} still running"
            + (f" ({', '.join(still_paid)})" if still_paid else ""),
        )
    ]
    if options.tasks >= FULL:
        checks.append(
            Check(
                name="outages were survived",
                ok=providers.refused > 0 and providers.lost > 0 and not progress.failed.total(),
                detail=f"kernel was full {providers.refused} times, the next provider took over; steel dropped "
                f"{providers.lost} answer after creating, the session was found by its label; no task failed",
            )
        )
    return checks


def _reconciled(looks: Sequence[Reconciled]) -> Check:
    first, second = looks
    adjusted = sum(one.adjusted for one in first.providers)
    more = sum((one.difference for one in first.providers), ZERO)
    compared = sum(one.compared for one in first.providers)
    steel = next((one for one in first.providers if one.provider == "steel"), None)
    return Check(
        name="bills were reconciled",
        # Steel has a session in every demo of more than a few tasks, and its bill for the first is too long.
        ok=(steel is None or not steel.compared or (steel.adjusted == 1 and more > ZERO))
        and not any(one.adjusted or one.error for one in second.providers),
        detail=f"{compared} sessions compared with what their providers bill: {adjusted} differed, {more} more is "
        "booked in the budget of its day; a second look finds nothing",
    )


def _never_passed(peak: Peak) -> Check:
    return Check(
        name="the budget was never passed",
        ok=peak.postings > 0 and peak.committed <= peak.limit,
        detail=f"at most {peak.committed} of {peak.limit} was spent or held after any of {peak.postings} postings",
    )


def _in_order(order: OrderProof, *, least: int) -> Check:
    # A full demo in which no pair could be compared, or none was decided by priority, has shown nothing.
    detail = (
        f"{order.compared} pairs of waiting requests compared, {len(order.violations)} violations; "
        f"{order.by_priority} times a later request went first because its priority was higher"
    )
    if order.too_close:
        detail += f"; {order.too_close} pairs too close in time to tell"
    return Check(
        name="the queue kept its order",
        ok=not order.violations and min(order.compared, order.by_priority) >= least,
        detail=detail,
    )


def make_progress(options: Options) -> Progress:
    """Prepare what the demo writes while it runs."""
    return Progress(tasks=make_tasks(options.tasks, options.seed), seed=options.seed)
