"""Draw the plots of docs/profiles.md and docs/alerts.md: from the code itself, not from figures somebody typed.

Trust is the formula of `tabkeeper.profiles.trust`, minute by minute. A budget is spent on a real ledger in virtual
time, and its alerts are the rows it wrote. With ``--check`` nothing is written; the exit code says what is stale.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from tabkeeper.clock import VirtualClock
from tabkeeper.config import ProfileSettings, parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.profiles.trust import Grade, Record, judge
from tabkeeper.reports.books import Books
from tabkeeper.testing import run_virtual

IMAGES = Path(__file__).parent.parent / "docs" / "img"
WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 536, 44, 262
GREY, BLUE, RED, GREEN = "#94a3b8", "#2563eb", "#dc2626", "#16a34a"

Point = tuple[float, float]


@dataclass
class Plot:
    """A plot with a frame, in which x and y have a range."""

    title: str
    most_x: float
    most_y: float
    drawn: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> Point:
        """Return where a point is drawn."""
        return LEFT + (RIGHT - LEFT) * x / self.most_x, BOTTOM - (BOTTOM - TOP) * y / self.most_y

    def text(self, x: float, y: float, said: str, *, anchor: str = "start", colour: str = "#334155") -> None:
        """Write something."""
        self.drawn.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{said}</text>'
        )

    def line(self, points: Sequence[Point], colour: str, *, dashed: bool = False, wide: float = 2) -> None:
        """Draw a line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self.drawn.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{wide:g}"{dashes}/>'
        )

    def dot(self, x: float, y: float, colour: str) -> None:
        """Mark a point."""
        across, down = self.at(x, y)
        self.drawn.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{colour}"/>')

    def ticks(self, across: dict[float, str], up: dict[float, str]) -> None:
        """Name values along both sides."""
        for x, said in across.items():
            self.text(self.at(x, 0)[0], BOTTOM + 16, said, anchor="middle")
        for y, said in up.items():
            self.line([(0, y), (self.most_x, y)], "#e2e8f0", wide=1)
            self.text(LEFT - 6, self.at(0, y)[1] + 4, said, anchor="end")

    def svg(self) -> str:
        """Return the picture."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            f'font-size="12" fill="#334155">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
            f'<text x="{LEFT}" y="18" font-weight="bold">{self.title}</text>\n'
        )
        return head + "\n".join(self.drawn) + "\n</svg>\n"


# ── trust ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def trust() -> str:
    """Trust by age for each number of failures, until the profile is retired; and the page's example."""
    rules = ProfileSettings().trust_for("shop.example")
    plot = Plot("Trust of a profile used 12 times, by its age and failures in a row", 130, 100)
    plot.ticks({m: f"{m} min" for m in (0, 30, 60, 90, 120)}, {0: "0", 40: "40", 70: "70", 100: "100"})
    for y, said in ((92, "healthy"), (62, "degraded"), (20, "retired")):
        plot.text(RIGHT + 8, plot.at(0, y)[1], said, anchor="end", colour=GREY)
    for failures in range(4):
        records = [Record(age=timedelta(minutes=age), failures=failures, uses=12) for age in range(126)]
        verdicts = [judge(record, rules) for record in records]
        kept = [(float(age), v.score) for age, v in enumerate(verdicts) if v.grade is not Grade.RETIRED]
        name = "1 failure" if failures == 1 else f"{failures} failures"
        said = name if kept else f"{verdicts[0].why}: retired, whatever its age"
        ends = kept[-1] if kept else (1.0, verdicts[0].score)
        plot.line(kept or [ends], BLUE)
        plot.dot(*ends, RED)
        plot.text(plot.at(4, 0)[0], plot.at(0, verdicts[4].score)[1] + (-6 if kept else 4), said)
    example = judge(Record(age=timedelta(minutes=80), failures=2, uses=12), rules)
    again = judge(Record(age=timedelta(minutes=80), uses=13, since_success=timedelta(0)), rules)
    for verdict, said, below in ((example, "the example", 34), (again, "if its next lease succeeds", -6)):
        plot.dot(80, verdict.score, GREEN)
        across, down = plot.at(80, verdict.score)
        plot.text(
            across + 4,
            down + below,
            f"{said}: {verdict.score:g}",
            colour=GREEN,
            anchor="end" if below > 0 else "start",
        )
    plot.text(RIGHT, HEIGHT - 6, "red: the profile is retired", anchor="end", colour=RED)
    return plot.svg()


# ── alerts ──────────────────────────────────────────────────────────────────────────────────────────────────────────

CONFIG = {
    "ledger": {"url": "sqlite://"},
    "providers": {
        "far": {"kind": "cdp", "url": "ws://far.invalid", "rates": {"per_hour": "0.60", "increment": "1m"}}
    },
    "platforms": {"web": {"providers": ["far"]}},
    "budgets": [{"name": "daily", "limit": "1.00", "thresholds": [0.5, 0.8, 1.0]}],
}
SESSIONS = ((5, 15), (7, 17), (9, 19), (30, 40), (50, 60))
"""Begin and end in minutes; the most that each can cost is held: 20 minutes."""


@dataclass
class Day:
    """What the ledger said after every event, and the alerts it wrote. Minutes and dollars."""

    spent: list[Point] = field(default_factory=list)
    held: list[Point] = field(default_factory=list)
    alerts: list[tuple[float, float, str]] = field(default_factory=list)


async def budget_day(clock: VirtualClock) -> Day:
    """Play the sessions on a real ledger."""
    config, day = parse_config(CONFIG), Day()
    ledger = await Ledger.open(config, clock=clock, inline=True)
    began = clock.now()

    def minutes(at: datetime) -> float:
        return (at - began).total_seconds() / 60

    books = Books(ledger, timezone="UTC", clock=clock)

    async def note() -> None:
        (window,) = (await books.standing()).budgets
        spent, held = float(window.spent.dollars), float(window.held.dollars)
        day.spent.append((minutes(clock.now()), spent))
        day.held.append((minutes(clock.now()), spent + held))

    await note()
    events = sorted(
        [(b, n, "hold") for n, (b, _) in enumerate(SESSIONS)]
        + [(e, n, "end") for n, (_, e) in enumerate(SESSIONS)]
    )
    for at, number, what in events:
        await asyncio.sleep(at * 60 - clock.monotonic())
        if what == "hold":
            await ledger.hold(
                HoldRequest(
                    session_id=f"s{number}", platform="web", provider="far", tenant="acme", max_seconds=1200
                )
            )
        else:
            begun, ended = SESSIONS[number]
            await ledger.settle(f"s{number}", SessionUsage(seconds=(ended - begun) * 60.0), reason="idle")
        await note()
    for event, _ in await ledger.alerts.recent(50):
        day.alerts.append(
            (minutes(event.at), event.amount.dollars if event.amount else 0, event.metric or event.kind)
        )
    await ledger.aclose()
    return day


def steps(points: Sequence[Point], end: float) -> list[Point]:
    """Points as a line that holds its value until the next."""
    drawn: list[Point] = []
    for (x, y), (later, _) in zip(points, [*points[1:], (end, 0.0)], strict=True):
        drawn += [(x, y), (later, y)]
    return drawn


def alerts() -> str:
    """What is spent and held of a budget through five sessions, and where the ledger wrote an alert."""
    day = run_virtual(budget_day)
    plot = Plot("A budget of $1.00 a day, five sessions, and its alerts", 70, 1.0)
    plot.ticks({m: f"{m} min" for m in range(0, 71, 10)}, {0: "$0", 0.5: "50 %", 0.8: "80 %", 1.0: "100 %"})
    plot.line(steps(day.held, 70), GREY)
    plot.line(steps(day.spent, 70), BLUE)
    said = {"committed": "spent or held", "spent": "spent"}
    for at, amount, metric in sorted(day.alerts):
        plot.dot(at, float(amount), RED)
        plot.text(
            plot.at(at, 0)[0] + 7,
            plot.at(0, float(amount))[1] + (-9 if at < 35 else 18),
            f"alert: ${amount:.2f} {said[metric]}",
            colour=RED,
            anchor="start" if at < 35 else "middle",
        )
    plot.text(LEFT + 4, HEIGHT - 6, "blue: spent; grey: spent and held")
    return plot.svg()


PLOTS = {"trust.svg": trust, "alerts.svg": alerts}


def main(arguments: Sequence[str]) -> int:
    """Write the plots, or check them."""
    stale = 0
    for name, draw in PLOTS.items():
        path, drawn = IMAGES / name, draw()
        if path.exists() and path.read_text(encoding="utf-8") == drawn:
            continue
        stale += 1
        if "--check" in arguments:
            print(f"{path} is not what the code draws now: run scripts/doc_plots.py", file=sys.stderr)
        else:
            path.write_text(drawn, encoding="utf-8")
            print(f"wrote {path}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
