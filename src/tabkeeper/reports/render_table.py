"""A cost report for a terminal: readable at 100 columns, without colour, and by somebody in a hurry.

Money of a column is cut to the same number of places, so that the points stand under each other; exact
figures are in JSON and CSV.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tabkeeper.money import Money
from tabkeeper.reports.render_notable import notable_tables
from tabkeeper.reports.render_parts import (
    NONE,
    ROWS,
    bar,
    counted,
    cut,
    hours_text,
    line,
    moment_text,
    money_column,
    quantity_text,
    span_text,
    spark,
    str_money,
    usual_table,
    wait_text,
)
from tabkeeper.reports.render_trend import has_trend, trend_table
from tabkeeper.reports.report import (
    BudgetFigures,
    ComponentFigures,
    CostReport,
    ForecastFigures,
    Moment,
    Usage,
)
from tabkeeper.reports.report import Group as UsageGroup

__all__ = [
    "COMPONENTS",
    "TENANT_RULE",
    "WIDTH",
    "back_test_text",
    "bar",
    "budget_notes",
    "budget_table",
    "delta_text",
    "foot_lines",
    "head_texts",
    "money_column",
    "others",
    "print_report",
    "render_table",
    "spark",
    "str_money",
]

WIDTH = 100
"""Columns that the report is laid out for; it is never wider."""

COMPONENTS = {
    "session": "sessions created",
    "time": "session time",
    "units": "units of time",
    "gb_second": "memory over time",
    "proxy_bytes": "traffic",
    "own_proxy_bytes": "traffic through proxies of your own",
    "provider": "beyond what its quantities explain",
}
"""What people call the kinds of lines."""

_SESSION_COLUMNS = ("Cost", "Share", "Sessions", "Leases", "Hours", "Idle", "Failed")
_LEASE_COLUMNS = ("Cost", "Share", "Leases", "Hours leased", "Sessions", "Idle", "Failed")

TENANT_RULE = (
    "Leases and their cost count for who leased; sessions and idle cost for whose request made them."
)


def render_table(report: CostReport) -> RenderableType:
    """Lay a report out for `rich.console.Console.print`."""
    parts: list[RenderableType] = [Group(_head(report), _key_figures(report))]
    if report.timeline and any(moment.sessions for moment in report.timeline):
        parts.append(_timeline(report.period, report.timeline))
    if not report.totals.sessions and not report.totals.leases:
        parts.append(line("Nothing was settled in this period.", style="italic"))
    for title, groups in (
        ("Platform", report.platforms),
        ("Provider", report.providers),
        ("Tenant", report.tenants),
    ):
        if groups:
            parts.append(_usage_table(title, groups, report.totals))
    if has_trend(report.trend):
        parts.append(trend_table(report.trend, report.now))
    if report.components:
        parts.append(_component_table(report.components))
    parts.append(_waste(report))
    parts.extend(notable_tables(report))
    if report.budgets:
        parts.append(_budget_table(report.budgets))
    if report.forecasts:
        parts.append(_forecast_table(report.forecasts))
    parts.append(_foot(report))
    return Group(*(_below(part) for part in parts[:-1]), parts[-1])


def print_report(report: CostReport, console: Console) -> None:
    """Print to a console, in at most `WIDTH` columns."""
    console.print(render_table(report), width=min(WIDTH, console.width))


def budget_table(budgets: Sequence[BudgetFigures]) -> RenderableType:
    """Lay out budgets alone, as in the report."""
    return _budget_table(budgets) if budgets else line("There is no budget. Add one as [[budgets]].")


def _below(part: RenderableType) -> RenderableType:
    return Padding(part, (0, 0, 1, 0))


def _head(report: CostReport) -> RenderableType:
    title, bounds = head_texts(report)
    top = Table.grid(expand=True)
    top.add_column()
    top.add_column(justify="right")
    top.add_row(Text(title, style="bold"), Text(report.timezone, style="bold"))
    return Group(Rule(style="dim"), top, Text(bounds, style="dim"), Rule(style="dim"))


def head_texts(report: CostReport) -> tuple[str, str]:
    """Return what the report is of, and its bounds, length and state."""
    first = report.start.astimezone(ZoneInfo(report.timezone))
    name = f"{first:%A} {first.day} {first:%B %Y}" if report.period == "day" else f"{first:%B %Y}"
    state = (
        f"open, {span_text((report.end - report.now).total_seconds())} left" if report.is_open else "closed"
    )
    if report.now < report.start:
        state = "not begun"
    bounds = f"{report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M} UTC · {_length(report)} · {state}"
    return f"Cost of {name}", bounds


def _length(report: CostReport) -> str:
    if report.period == "day":
        unusual = "" if report.hours == 24 else " (clocks change)"
        return f"{report.hours:g} hours{unusual}"
    return f"{round(report.hours / 24)} days"


def _key_figures(report: CostReport) -> RenderableType:
    totals = report.totals
    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in range(6):
        grid.add_column(justify="left", ratio=1)
    billed = f"{hours_text(report.billed_seconds)} h billed" if totals.session_seconds else ""
    reuse, wait = totals.reuse_rate, totals.average_wait
    cells = [
        ("Spent", str_money(totals.cost), delta_text(report)),
        ("Sessions", f"{totals.sessions:,}", f"{totals.failed_sessions:,} failed"),
        ("Leases", f"{totals.leases:,}", f"{totals.failed_leases:,} failed"),
        ("Browser hours", f"{hours_text(totals.session_seconds)} h", billed),
        ("Reuse", NONE if reuse is None else f"{reuse:.1%}", counted(totals.reused, "lease")),
        ("Average wait", NONE if wait is None else wait_text(wait), ""),
    ]
    grid.add_row(*(Text(name, style="dim") for name, _, _ in cells))
    grid.add_row(*(Text(value, style="bold") for _, value, _ in cells))
    grid.add_row(*(Text(more, style="dim") for _, _, more in cells))
    return grid


def delta_text(report: CostReport) -> str:
    """Compare with the period before."""
    before = report.previous.to_date if report.previous.to_date is not None else report.previous.cost
    name = report.previous.label[5:] if report.period == "day" else report.previous.label
    if before:
        return f"{report.delta.nanos / before.nanos:+.1%} vs {name}"
    if report.previous.cost:
        return "$0.00 till then"
    return f"$0.00 {'on' if report.period == 'day' else 'in'} {name}"


def _timeline(period: str, moments: Sequence[Moment]) -> RenderableType:
    costs = [moment.cost.nanos for moment in moments]
    counts = [moment.sessions for moment in moments]
    what = "Cost" if any(costs) else "Sessions"
    each = "hour" if period == "day" else "day"
    best = max(range(len(moments)), key=lambda i: (costs[i] if any(costs) else counts[i], -i))
    peak = str_money(moments[best].cost) if any(costs) else counted(counts[best], "session")
    text = Text(f"{what} by {each}  ", style="dim")
    text.append(spark(costs if any(costs) else counts), style="cyan")
    text.append(f"  most: {peak} {'at' if period == 'day' else 'on'} {moments[best].label}", style="dim")
    return text


def _usage_table(title: str, groups: Sequence[UsageGroup], totals: Usage) -> RenderableType:
    # A session may serve several tenants, so a tenant's hours are those of its leases, which it pays for.
    by_lease = title == "Tenant"
    table = usual_table(title)
    for name in _LEASE_COLUMNS if by_lease else _SESSION_COLUMNS:
        table.add_column(name, justify="left" if name == "Share" else "right", no_wrap=True)
    shown = list(groups) if len(groups) <= ROWS else [*groups[: ROWS - 1], others(groups[ROWS - 1 :])]
    costs = money_column([group.cost for group in shown])
    idle = money_column([group.idle for group in shown])
    failed = money_column([group.failed for group in shown])
    for row, group in enumerate(shown):
        seconds, all_seconds = (
            (usage.leased_seconds if by_lease else usage.session_seconds) for usage in (group, totals)
        )
        part, whole = (group.cost.nanos, totals.cost.nanos) if totals.cost else (seconds, all_seconds)
        share = part / whole if whole else 0.0
        sessions, leases, hours = f"{group.sessions:,}", f"{group.leases:,}", hours_text(seconds)
        table.add_row(
            cut(group.name, 22),
            costs[row],
            f"{bar(share, width=6 if by_lease else 10)} {share:4.0%}",
            *((leases, hours, sessions) if by_lease else (sessions, leases, hours)),
            idle[row],
            failed[row],
        )
    return Group(table, line(TENANT_RULE, style="dim")) if by_lease else table


def others(groups: Sequence[UsageGroup]) -> UsageGroup:
    """Add groups up under one name."""
    money = {name: Money(sum(getattr(g, name).nanos for g in groups)) for name in ("cost", "idle", "failed")}
    return UsageGroup(
        name=f"({len(groups)} others)",
        **money,
        sessions=sum(group.sessions for group in groups),
        leases=sum(group.leases for group in groups),
        session_seconds=sum(group.session_seconds for group in groups),
        leased_seconds=sum(group.leased_seconds for group in groups),
    )


def _component_table(components: Sequence[ComponentFigures]) -> RenderableType:
    table = usual_table("Component")
    table.add_column("Provider", no_wrap=True)
    for name in ("Cost", "Used", "Billed", "Included"):
        table.add_column(name, justify="right", no_wrap=True)
    costs = money_column([part.amount for part in components])
    for cost, part in zip(costs, components, strict=True):
        table.add_row(
            COMPONENTS.get(part.kind, part.kind),
            cut(part.provider, 22),
            cost,
            quantity_text(part.kind, part.raw_qty),
            quantity_text(part.kind, part.billed_qty),
            quantity_text(part.kind, part.included_qty) if part.included_qty else NONE,
        )
    return table


def _waste(report: CostReport) -> RenderableType:
    totals = report.totals
    table = usual_table("Paid for, not used")
    table.add_column("Cost", justify="right", no_wrap=True)
    table.add_column("Share", no_wrap=True)
    table.add_column("What it is", style="dim")
    rows = (
        ("idle", totals.idle, "sessions that waited for work"),
        ("rounding", totals.rounding, "billing steps and minimums"),
        ("failures", totals.failed, "leases and sessions that did not end well"),
    )
    amounts = money_column([amount for _, amount, _ in rows])
    for cost, (name, amount, meaning) in zip(amounts, rows, strict=True):
        share = amount.nanos / totals.cost.nanos if totals.cost else 0.0
        table.add_row(name, cost, f"{bar(share, width=10)} {share:4.0%}", meaning)
    return table


def _budget_table(budgets: Sequence[BudgetFigures]) -> RenderableType:
    table = usual_table("Budget")
    table.add_column("Window", no_wrap=True)
    for name in ("Limit", "Spent", "Held"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Used", no_wrap=True)
    table.add_column("Refused", justify="right", no_wrap=True)
    columns = (
        money_column([budget.limit for budget in budgets]),
        money_column([budget.spent for budget in budgets]),
        money_column([budget.held for budget in budgets]),
    )
    for row, budget in enumerate(budgets):
        limit = budget.limit.nanos or 1
        used = bar(budget.spent.nanos / limit, budget.held.nanos / limit, 14)
        style = "red" if budget.used >= 1 else "yellow" if budget.used >= 0.8 else "green"
        table.add_row(
            f"{cut(budget.name, 20)}{'' if budget.mode == 'hard' else ' (soft)'}",
            budget.label,
            *(column[row] for column in columns),
            Text.assemble((used, style), f" {budget.used:4.0%}"),
            NONE if budget.denied is None else f"{budget.denied:,}",
        )
    notes = [note for budget in budgets for note in budget_notes(budget)]
    return Group(table, *(line(note, style="dim") for note in notes))


def budget_notes(budget: BudgetFigures) -> Iterable[str]:
    """Yield what else there is to say of a budget."""
    if budget.scope != "pool":
        yield f"{budget.name} counts only {budget.scope}."
    if budget.forced:
        yield f"{budget.name}: {budget.forced} came in without being admitted (cost beyond a hold, or a lower limit)."
    if budget.windows > 1 and (budget.denied_in_period or budget.forced_in_period):
        yield (
            f"{budget.name}, all {budget.windows} windows of the period: {budget.denied_in_period or 0:,} refused, "
            f"{budget.forced_in_period} forced."
        )


def _forecast_table(forecasts: Sequence[ForecastFigures]) -> RenderableType:
    table = usual_table("Expected at the end of")
    for name in ("So far", "P10", "Forecast", "P90", "Run-rate"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [(part.spent, part.p10, part.p50, part.p90, part.run_rate) for part in forecasts]
    flat = money_column([amount for row in rows for amount in row])
    for i, part in enumerate(forecasts):
        table.add_row(f"the {part.period} ({part.label})", *flat[5 * i : 5 * i + 5])
    notes = [f"{forecasts[0].note[:1].upper()}{forecasts[0].note[1:]}."]
    notes += [back_test_text(part) for part in forecasts if part.error is not None]
    return Group(table, *(line(note, style="dim") for note in notes))


def back_test_text(part: ForecastFigures) -> str:
    """Tell how well the same forecast would have done before."""
    assert part.error is not None
    return (
        f"At this hour of the last {part.tested_days} days it was off by {part.error:.0%} of what came "
        f"({part.bias or 0:+.0%} on average); {part.covered} of them ended between P10 and P90."
    )


def _foot(report: CostReport) -> RenderableType:
    return Text("\n".join(foot_lines(report)), style="dim")


def foot_lines(report: CostReport) -> list[str]:
    """Return how the figures came about, and as of when."""
    holds, quality = report.holds, report.quality
    before = report.previous
    lines = [f"Before: no session in {before.label}."]
    if before.sessions or before.cost:
        lines = [
            f"Before: {str_money(before.cost)} for {counted(before.sessions, 'session')} in {before.label}"
        ]
        if before.to_date is not None:
            lines[0] += f", of which {str_money(before.to_date)} up to the same point"
        lines[0] += "."
    lines.append(f"{report.attribution[:1].upper()}{report.attribution[1:]}.")
    if holds.open and holds.oldest_at is not None:
        age = span_text(max(0.0, (report.now - holds.oldest_at).total_seconds()))
        lines.append(
            f"Held now: {holds.amount} for {counted(holds.open, 'open session')}; the oldest for {age} "
            f"(session {holds.oldest_session})."
        )
    else:
        lines.append("Held now: nothing; no session is open.")
    if quality.estimated_sessions:
        are = "is an estimate" if quality.estimated_sessions == 1 else "are estimates"
        lines.append(
            f"Data: {quality.estimated_sessions:,} of {counted(report.totals.sessions, 'session')} "
            f"({quality.estimated_cost}) {are}, because nobody saw the end; the rest is measured."
        )
    else:
        lines.append("Data: every session's end was seen; no estimates.")
    if quality.adjusted_sessions and quality.adjusted_at is not None:
        sign = "+" if quality.adjusted_cost.nanos > 0 else ""
        lines.append(
            f"Adjusted since: {counted(quality.adjusted_sessions, 'session')} by {sign}{quality.adjusted_cost}, after "
            f"what was known when they ended; the latest {moment_text(quality.adjusted_at)}."
        )
    if not report.totals.cost and report.totals.sessions:
        lines.append(
            "All of it ran where nothing is charged; rates of your own are set under [providers.NAME.rates]."
        )
    if not report.timeline:
        lines.append("No timeline: days of this zone do not begin on a whole hour of UTC.")
    lines.append(f"As of {moment_text(report.now)}, entry {report.watermark:,}.")
    return lines
