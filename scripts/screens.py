"""Takes the pictures of the dashboard and of a report's page in docs/img: Chromium, a service, a ledger with a past.

.venv/bin/python scripts/screens.py [FOLDER]

The pool's providers only count, so that nothing is paid; everything that is shown comes from the ledger and the pool.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

from playwright.async_api import Page, ViewportSize, async_playwright

from tabkeeper.clock import SystemClock, VirtualClock
from tabkeeper.config import PoolConfig, ProviderSettings, ServiceSettings, parse_config
from tabkeeper.errors import BudgetExceededError
from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, LeaseUsage, SessionUsage
from tabkeeper.pool.lease import Lease
from tabkeeper.pool.pool import SessionPool
from tabkeeper.providers.chromium import find_browser
from tabkeeper.reports.books import Books
from tabkeeper.reports.days import DayReports
from tabkeeper.service import create_app
from tabkeeper.service.server import serving
from tabkeeper.testing import FakeProvider

IMAGES = Path(__file__).parents[1] / "docs" / "img"
ZONE = ZoneInfo("Europe/Berlin")
WEEKS = 9
RATES = {"browserbase": "0.12", "kernel": "0.06", "steel": "0.10"}
SHAPE = [2, 1, 1, 1, 1, 1, 2, 3, 5, 7, 9, 8, 7, 8, 7, 6, 7, 5, 4, 3, 2, 2, 1, 1]
"""Sessions in each hour of a weekday."""
VISITS = 12
VISIT_SECONDS = 4.0
"""Short leases before the picture, so that the last hour has something to show."""


def config(url: str) -> PoolConfig:
    """Make the configuration of the pool that is shown."""
    return parse_config(
        {
            "ledger": {"url": url, "timezone": ZONE.key},
            "pool": {"max_sessions": 6, "keep": "fixed"},
            "platforms": {
                "shop": {"providers": ["steel"], "max_sessions": 2},
                "portal": {"providers": ["kernel"], "max_sessions": 2},
                "news": {"providers": ["browserbase"]},
            },
            "providers": {
                name: {
                    "kind": "local",
                    "rates": {"per_hour": rate, "per_session": "0.002", "increment": "60s"},
                }
                for name, rate in RATES.items()
            },
            "budgets": [
                {"name": "daily", "limit": "1.10", "timezone": ZONE.key, "thresholds": [0.5, 0.8, 1.0]},
                {"name": "acme", "limit": "1.00", "tenant": "acme", "timezone": ZONE.key},
                {
                    "name": "monthly",
                    "limit": "45.00",
                    "period": "month",
                    "timezone": ZONE.key,
                    "mode": "soft",
                },
            ],
        }
    )


@dataclass
class Past:
    """Writes weeks of sessions as a pool would have."""

    ledger: Ledger
    clock: VirtualClock
    rng: Random
    number: int = 0

    async def write(self, until: datetime) -> None:
        """Let weeks pass, each day's report kept when it is over."""
        books = Books(self.ledger, timezone=ZONE.key, clock=self.clock)
        reports = DayReports(self.ledger, books, zone=ZONE.key, clock=self.clock, tell=False)
        day = ""
        for when in self._instants(until):
            self._at(when)
            if when.astimezone(ZONE).date().isoformat() != day:
                day = when.astimezone(ZONE).date().isoformat()
                await self.ledger.flush()
                await reports.run()
            try:
                await self._session(when)
            except BudgetExceededError:
                continue
        self._at(until)
        await self.ledger.flush()

    def _instants(self, until: datetime) -> Iterator[datetime]:
        first = (until - timedelta(weeks=WEEKS)).replace(minute=0, second=0, microsecond=0)
        wild = (until.astimezone(ZONE) - timedelta(days=1)).date()
        for hour in range(int((until - first) / timedelta(hours=1)) + 1):
            start = first + timedelta(hours=hour)
            local = start.astimezone(ZONE)
            most = SHAPE[local.hour] * (0.7 if local.weekday() > 4 else 1.0)
            most *= 3 if (local.date(), local.hour) == (wild, 15) else self.rng.uniform(0.8, 1.25)
            seconds = sorted(self.rng.uniform(0, 3500) for _ in range(max(1, round(most))))
            yield from (
                at for s in seconds if (at := start + timedelta(seconds=s)) < until - timedelta(minutes=12)
            )

    def _at(self, when: datetime) -> None:
        self.clock.jump(max(0.0, (when - self.clock.now()).total_seconds()))

    async def _session(self, when: datetime) -> None:
        rng = self.rng
        self.number += 1
        session = f"s0d34{self.number:08x}"
        platform, provider = rng.choice([("shop", "steel"), ("portal", "kernel"), ("news", "browserbase")])
        tenant = rng.choice(["acme", "globex", "globex"])
        seconds = rng.uniform(60, 420)
        await self.ledger.hold(
            HoldRequest(
                session_id=session, platform=platform, provider=provider, tenant=tenant, max_seconds=600
            )
        )
        await self.ledger.activate(session, provider_session_id=f"p{self.number}")
        at = 0.8
        for number in range(rng.randint(1, 3)):
            end = min(seconds - 0.1, at + rng.uniform(15, 140))
            self.ledger.record_lease(
                LeaseUsage(
                    lease_id=f"{session}.{number + 1}", session_id=session, use_number=number + 1, platform=platform,
                    provider=provider, tenant=tenant, priority=0, requested_at=when + timedelta(seconds=at - 0.5),
                    granted_at=when + timedelta(seconds=at), released_at=when + timedelta(seconds=end), waited=0.5,
                    start_age=at, end_age=end, is_new=number == 0, outcome="failed" if rng.random() < 0.04 else "ok",
                    bytes_received=rng.randint(10_000, 900_000), place="worker.py:42",
                    tags={"job": rng.choice(["prices", "stock", "reviews"])},
                )
            )  # fmt: skip
            at = end + rng.uniform(0.5, 20)
            if at > seconds - 1:
                break
        self._at(when + timedelta(seconds=seconds))
        await self.ledger.settle(session, SessionUsage(seconds=seconds), reason="idle long enough")

    async def correct(self, before: datetime) -> None:
        """Have a provider bill some sessions of the day before yesterday otherwise."""
        day = (before.astimezone(ZONE) - timedelta(days=2)).replace(hour=10)

        def some(engine: object) -> list[str]:
            with engine.connect() as connection:  # type: ignore[attr-defined]
                sql = f"SELECT id FROM session WHERE created_at >= {int(day.timestamp())}000000 LIMIT 4"
                return [row.id for row in connection.exec_driver_sql(sql)]

        for session in await Books(self.ledger, timezone=ZONE.key, clock=self.clock).query(some):
            await self.ledger.reconciliation.compare(session, Figures(seconds_us=900_000_000))


async def write_past(settings: PoolConfig, until: datetime) -> None:
    """Fill a ledger."""
    clock = VirtualClock(until - timedelta(weeks=WEEKS, hours=1))
    ledger = await Ledger.open(settings, clock=clock)
    try:
        past = Past(ledger, clock, Random(7))
        await past.write(until)
        await past.correct(until)
    finally:
        await ledger.aclose()


@asynccontextmanager
async def busy(pool: SessionPool) -> AsyncIterator[None]:
    """Have five sessions leased, one idle, one caller waiting."""
    asked = [
        ("shop", "acme"),
        ("shop", "globex"),
        ("portal", "globex"),
        ("portal", "globex"),
        ("news", "acme"),
    ]
    leases: list[Lease] = [
        await pool.get_session(platform, tenant=tenant, place=f"worker {tenant}-{n}", max_duration=timedelta(minutes=5))
        for n, (platform, tenant) in enumerate([*asked, ("news", "default")])
    ]  # fmt: skip
    await leases.pop().release()
    for n in range(VISITS):
        async with pool.get_session("news", tenant="acme", place=f"worker acme-{n}"):
            await asyncio.sleep(VISIT_SECONDS * Random(n).uniform(0.3, 1.7))
    waiting = asyncio.ensure_future(
        pool.get_session("shop", tenant="acme", place="worker acme-5", timeout=600)
    )
    try:
        await asyncio.sleep(VISIT_SECONDS)
        yield
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        for lease in leases:
            await lease.release()


async def take(page: Page, where: str, name: str, folder: Path, *, wait: str) -> None:
    """Go to a part of the dashboard, or to a page, and take its picture."""
    await page.goto(where)
    await page.wait_for_selector(wait)
    await asyncio.sleep(2)
    await page.screenshot(path=folder / f"{name}.png")
    print(f"wrote {folder / name}.png")


async def main(folder: Path) -> None:
    """Write the ledger, serve it, and take all pictures."""
    now = datetime.now(UTC)
    yesterday = (now.astimezone(ZONE) - timedelta(days=1)).date()
    wide: ViewportSize = {"width": 1200, "height": 1000}
    with tempfile.TemporaryDirectory() as made:
        settings = config(f"sqlite:///{made}/books.db")
        await write_past(settings, now - timedelta(minutes=1))
        clock = SystemClock()
        pool = SessionPool(settings, providers={name: FakeProvider(name, clock) for name in RATES})
        quiet = ServiceSettings(port=0)
        async with (
            serving(create_app(pool, quiet, open_=True), quiet) as url,
            async_playwright() as playwright,
        ):
            binary = str(find_browser("local", ProviderSettings(kind="local")))
            browser = await playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
            light = await browser.new_page(viewport=wide, locale="en-GB", color_scheme="light")
            dark = await browser.new_page(viewport=wide, locale="en-GB", color_scheme="dark")
            phone = await browser.new_page(
                viewport={"width": 390, "height": 844}, locale="en-GB", device_scale_factor=2
            )
            live = "#live.is-live"
            await light.goto(f"{url}/#now")  # it draws the last hour from now on
            async with busy(pool):
                await take(light, f"{url}/#now", "dashboard-now", folder, wait=live)
                await light.set_viewport_size({"width": 1200, "height": 420})
                await take(
                    light, f"{url}/#alerts", "dashboard-alerts", folder, wait="#alert-list tbody td + td"
                )
                await light.set_viewport_size(wide)
                await take(dark, f"{url}/#money", "dashboard-money-dark", folder, wait="#spend canvas")
                await take(phone, f"{url}/#now", "dashboard-phone", folder, wait=live)
                await light.set_viewport_size({"width": 1200, "height": 1120})
                await take(light, f"{url}/reports/day/{yesterday}.html", "report-page", folder, wait="svg")
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES))
