"""The report's figures and tables as text in cells: what stands where, and which way it is aligned. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from tabkeeper.ledger.rates import BYTE_KINDS
from tabkeeper.money import Money
from tabkeeper.reports.detail import Raised
from tabkeeper.reports.render_notable import Notable, restated_part, unusual_part
from tabkeeper.reports.render_parts import (
    NONE,
    ROWS,
    counted,
    hours_text,
    money_column,
    quantity_text,
    span_text,
    str_money,
    wait_text,
)
from tabkeeper.reports.render_table import (
    COMPONENTS,
    TENANT_RULE,
    back_test_text,
    budget_notes,
    delta_text,
    others,
)
from tabkeeper.reports.report import BudgetFigures, CostReport, Group


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that stands by itself, and a word about it."""

    name: str
    value: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Used:
    """How far a budget is used, as shares of its limit."""

    spent: float
    held: float

    @property
    def said(self) -> str:
        """The share in words."""
        return f"{self.spent + self.held:.0%}"


Cell = str | Used


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """A table: the first `words` columns are words, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Cell]]
    words: int = 1
    notes: list[str] = field(default_factory=list)
    is_wide: bool = False


def key_figures(report: CostReport) -> list[Figure]:
    """Return what is looked at first."""
    totals, costs = report.totals, report.session_costs
    hours = hours_text(totals.session_seconds)
    good = totals.leases - totals.failed_leases
    traffic = sum(part.billed_qty for part in report.components if part.kind in BYTE_KINDS)
    found = [
        Figure("Spent", str_money(totals.cost), delta_text(report)),
        *_comparisons(report),
        Figure("Sessions", f"{totals.sessions:,}", f"{totals.failed_sessions:,} failed"),
        Figure("Leases", f"{totals.leases:,}", f"{totals.failed_leases:,} failed"),
        Figure("Browser hours", f"{hours} h", f"{hours_text(report.billed_seconds)} h billed"),
        Figure(
            "Reuse",
            NONE if totals.reuse_rate is None else f"{totals.reuse_rate:.1%}",
            counted(totals.reused, "lease"),
        ),
        Figure(
            "Average wait",
            NONE if totals.average_wait is None else wait_text(totals.average_wait),
            "from request to lease",
        ),
    ]
    if costs.average is not None:
        p95 = f"95 of 100 at most {str_money(costs.p95)}" if costs.p95 is not None else ""
        found.append(Figure("A session", str_money(costs.average), p95))
    if good:
        found.append(
            Figure("A good lease", str_money(Money(totals.cost.nanos // good)), f"of {good:,} that went well")
        )
    if totals.session_seconds and totals.cost:
        an_hour = Money(round(totals.cost.nanos * 3600 / totals.session_seconds))
        found.append(
            Figure("A browser hour", str_money(an_hour), f"{traffic / 1e9:,.2f} GB billed" if traffic else "")
        )
    return found


def _comparisons(report: CostReport) -> list[Figure]:
    found = []
    if report.week_ago is not None:
        found.append(
            Figure(
                "A week ago",
                str_money(report.week_ago),
                "to the same point" if report.is_open else "the same weekday",
            )
        )
    if report.period == "day":
        found.append(Figure("Month to date", str_money(report.month_to_date), report.label[:7]))
    found += [
        Figure("Expected", str_money(one.p50), f"{str_money(one.p10)} to {str_money(one.p90)}")
        for one in report.forecasts
        if one.period == report.period and one.p10 is not None and one.p50 is not None and one.p90 is not None
    ]
    return found


def tables(report: CostReport) -> list[HtmlTable]:
    """Return the tables that have rows."""
    found = [
        _budgets(report),
        _forecasts(report),
        _waste(report),
        _usage("Platforms", report.platforms, report),
        _providers(report),
        _usage("Tenants", report.tenants, report),
        _components(report),
        _tags(report),
        _trend(report),
        _dearest(report),
        _reconciled(report),
        _notable(restated_part(report)),
        _notable(unusual_part(report)),
        _alerts(report),
    ]
    return [table for table in found if table.rows]


def _budgets(report: CostReport) -> HtmlTable:
    budgets = report.budgets
    limits, spent, held, peaks = (
        money_column(column)
        for column in (
            [one.limit for one in budgets],
            [one.spent for one in budgets],
            [one.held for one in budgets],
            [one.peak for one in budgets],
        )
    )
    rows: list[list[Cell]] = [
        [
            one.name if one.mode == "hard" else f"{one.name} (soft)",
            one.scope,
            one.label,
            limits[n],
            spent[n],
            held[n],
            Used(one.spent.nanos / (one.limit.nanos or 1), one.held.nanos / (one.limit.nanos or 1)),
            peaks[n],
            NONE if one.denied is None else f"{one.denied:,}",
            _lasts(report, one),
        ]
        for n, one in enumerate(budgets)
    ]
    notes = [
        note
        for one in budgets
        for note in budget_notes(one)
        if not note.endswith(f"counts only {one.scope}.")
    ]
    refused = sum(one.denied_in_period or 0 for one in budgets)
    if refused and report.session_costs.average:
        about = Money(report.session_costs.average.nanos * refused)
        notes.append(
            f"{refused:,} sessions were refused: about {str_money(about)} at the average session's cost."
        )
    columns = ("Budget", "Counts", "Window", "Limit", "Spent", "Held", "Used", "Peak", "Refused", "Lasts")
    return HtmlTable("Budgets", columns, rows, words=3, notes=notes)


def _lasts(report: CostReport, budget: BudgetFigures) -> str:
    """Tell for how many days the rest lasts at last week's mean, of a budget that counts everything."""
    known = [cost.nanos for cost in report.trend.total.costs[:-1] if cost is not None]
    if budget.scope != "pool" or budget.period == "day" or not known or sum(known) <= 0:
        return NONE
    return f"{budget.left.nanos * len(known) / sum(known):,.0f} days"


def _forecasts(report: CostReport) -> HtmlTable:
    rows = []
    for part in report.forecasts:
        amounts = [part.spent, part.p10, part.p50, part.p90, part.run_rate]
        rows.append(
            [
                f"the {part.period} ({part.label})",
                *(NONE if one is None else str_money(one) for one in amounts),
            ]
        )
    notes = (
        [f"{report.forecasts[0].note[:1].upper()}{report.forecasts[0].note[1:]}."] if report.forecasts else []
    )
    notes += [back_test_text(part) for part in report.forecasts if part.error is not None]
    columns = ("Expected at the end of", "So far", "P10", "Forecast", "P90", "Run-rate")
    return HtmlTable("Forecast", columns, [list(row) for row in rows], notes=notes)


def _usage(title: str, groups: Sequence[Group], report: CostReport) -> HtmlTable:
    by_lease = title == "Tenants"
    shown = _first(groups)
    costs, idle, failed = (
        money_column([getattr(group, name) for group in shown]) for name in ("cost", "idle", "failed")
    )
    rows: list[list[Cell]] = [
        [
            group.name,
            costs[n],
            _share(group.cost, report.totals.cost),
            f"{group.sessions:,}",
            f"{group.leases:,}",
            hours_text(group.leased_seconds if by_lease else group.session_seconds),
            idle[n],
            failed[n],
        ]
        for n, group in enumerate(shown)
    ]
    hours = "Hours leased" if by_lease else "Hours"
    columns = (title[:-1], "Cost", "Share", "Sessions", "Leases", hours, "Idle", "Failed")
    return HtmlTable(title, columns, rows, notes=[TENANT_RULE] if by_lease and rows else [])


def _providers(report: CostReport) -> HtmlTable:
    found = _usage("Providers", report.providers, report)
    shown = _first(report.providers)
    prices = money_column(
        [
            Money(round(group.cost.nanos * 3600 / group.session_seconds)) if group.session_seconds else None
            for group in shown
        ]
    )
    rows = [[*row, price] for row, price in zip(found.rows, prices, strict=True)]
    return HtmlTable(found.title, (*found.columns, "An hour"), rows)


def _components(report: CostReport) -> HtmlTable:
    parts = report.components
    costs = money_column([part.amount for part in parts])
    rows: list[list[Cell]] = [
        [
            part.provider,
            COMPONENTS.get(part.kind, part.kind),
            costs[n],
            quantity_text(part.kind, part.raw_qty),
            quantity_text(part.kind, part.billed_qty),
            quantity_text(part.kind, part.included_qty) if part.included_qty else NONE,
        ]
        for n, part in enumerate(parts)
    ]
    columns = ("Provider", "For", "Cost", "Used", "Billed", "Included")
    return HtmlTable("What providers bill", columns, rows, words=2)


def _waste(report: CostReport) -> HtmlTable:
    totals = report.totals
    if not totals.cost:
        return HtmlTable("Paid for, not used", (), [])
    parts = (
        ("idle", "sessions that waited for work", totals.idle),
        ("rounding", "billing steps and minimums", totals.rounding),
        ("failures", "leases and sessions that did not end well", totals.failed),
    )
    costs = money_column([amount for _, _, amount in parts])
    rows: list[list[Cell]] = [
        [name, meaning, costs[n], _share(amount, totals.cost)]
        for n, (name, meaning, amount) in enumerate(parts)
    ]
    notes = ["Parts of the cost; they may overlap, so do not add them up."]
    return HtmlTable(
        "Paid for, not used", ("Part", "What it is", "Cost", "Share"), rows, words=2, notes=notes
    )


def _trend(report: CostReport) -> HtmlTable:
    trend = report.trend
    if not any(trend.total.costs):
        return HtmlTable("The last seven days", (), [])
    lines = [*trend.platforms[:ROWS], trend.total]
    flat = money_column([cost for row in lines for cost in (*row.costs, row.total)])
    wide = len(trend.days) + 1
    rows: list[list[Cell]] = [
        [row.name, *flat[n * wide : (n + 1) * wide], row.change or NONE] for n, row in enumerate(lines)
    ]
    columns = ("Platform", *(day.label[5:] for day in trend.days), "Total", "Change")
    return HtmlTable(
        "The last seven days", columns, rows, notes=["Change: the last day against the mean of those before."]
    )


def _dearest(report: CostReport) -> HtmlTable:
    place = ZoneInfo(report.timezone)
    sessions = report.session_costs.dearest
    costs = money_column([one.cost for one in sessions])
    form = "%H:%M:%S" if report.period == "day" else "%m-%d %H:%M"
    rows: list[list[Cell]] = [
        [
            one.session_id,
            one.platform,
            one.provider,
            one.tenant,
            one.outcome,
            f"{one.began.astimezone(place):{form}}",
            span_text(one.seconds),
            f"{one.leases:,}",
            costs[n],
        ]
        for n, one in enumerate(sessions)
    ]
    columns = ("Session", "Platform", "Provider", "Tenant", "Ended", "Began", "Lived", "Leases", "Cost")
    return HtmlTable("Dearest sessions", columns, rows, words=5)


def _tags(report: CostReport) -> HtmlTable:
    shown = report.tags[:ROWS]
    costs = money_column([one.cost for one in shown])
    rows: list[list[Cell]] = [
        [one.tag, one.value, f"{one.leases:,}", costs[n]] for n, one in enumerate(shown)
    ]
    notes = [f"The first {ROWS} of {len(report.tags)}."] if len(report.tags) > ROWS else []
    return HtmlTable("Tags of leases", ("Tag", "Value", "Leases", "Cost"), rows, words=2, notes=notes)


def _reconciled(report: CostReport) -> HtmlTable:
    parts = report.reconciled
    ours, theirs = money_column([one.ours for one in parts]), money_column([one.theirs for one in parts])
    rows: list[list[Cell]] = [
        [
            one.provider,
            f"{one.sessions:,}",
            f"{one.waiting:,}",
            ours[n],
            theirs[n],
            NONE if one.capture is None else f"{one.capture:.1%}",
            f"{one.adjusted:,}",
            f"{one.past:,}",
        ]
        for n, one in enumerate(parts)
    ]
    columns = (
        "Provider",
        "Compared",
        "Waiting",
        "Booked",
        "Billed",
        "Captured",
        "Adjusted",
        "Past tolerance",
    )
    return HtmlTable("Compared with providers", columns, rows)


def _notable(part: Notable) -> HtmlTable:
    rows: list[list[Cell]] = [list(row) for row in part.rows]
    return HtmlTable(part.title, part.columns, rows, notes=[part.note])


def _alerts(report: CostReport) -> HtmlTable:
    place = ZoneInfo(report.timezone)
    rows: list[list[Cell]] = [
        [
            f"{one.at.astimezone(place):%m-%d %H:%M}",
            one.kind.replace("_", " "),
            ", ".join(part for part in (one.budget, one.session_id) if part) or NONE,
            _raised_text(one),
        ]
        for one in report.raised
    ]
    total = sum(one.number for one in report.alerts if one.kind != "daily_report")
    notes = [f"The latest {len(rows)} of {total:,}."] if total > len(rows) else []
    return HtmlTable("Alerts", ("At", "Kind", "About", "What"), rows, words=4, notes=notes, is_wide=True)


def _raised_text(one: Raised) -> str:
    if one.kind == "threshold" and one.share is not None and one.limit is not None:
        return f"{one.share * 100:.12g} % of {str_money(one.limit)}: {str_money(one.amount)}"
    if one.kind == "denied" and one.limit is not None:
        return f"refused what may cost {str_money(one.amount)}, of {str_money(one.limit)}; the first of its window"
    return f"{one.detail} ({str_money(one.amount)})" if one.detail and one.amount else one.detail or NONE


def _first(groups: Sequence[Group]) -> list[Group]:
    return list(groups) if len(groups) <= ROWS else [*groups[: ROWS - 1], others(groups[ROWS - 1 :])]


def _share(part: Money, whole: Money) -> str:
    return f"{part.nanos / whole.nanos:.0%}" if whole else NONE
