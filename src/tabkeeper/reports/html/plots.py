"""The report's plots, as SVG that takes its colours from the page: light, dark and print look right. Pure.

Every mark tells its figure when it is pointed at, and every plot has a sentence for those who do not see it; the
figures themselves stand in tables beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate

from markupsafe import Markup

from tabkeeper.money import ZERO, Money
from tabkeeper.reports.html.bars import hours_plot, price_plot
from tabkeeper.reports.html.svg import HEIGHT, WIDTH, Plot, svg, tag, text
from tabkeeper.reports.render_parts import money_column, str_money
from tabkeeper.reports.report import BudgetFigures, CostReport, ForecastFigures, Moment

_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 12, 24
_MOST_SERIES = 5
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def plots(report: CostReport) -> list[Plot]:
    """Draw what there is something to draw of."""
    found = (
        _course(report),
        _by_provider(report),
        _days(report),
        _heat(report),
        hours_plot(report),
        price_plot(report),
    )
    return [plot for plot in found if plot is not None]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where marks go: steps from left to right, nano-dollars upwards."""

    steps: int
    top: int

    def x(self, step: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * step / self.steps

    def y(self, nanos: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(nanos, self.top) / self.top

    def axes(self, labels: Sequence[tuple[float, str]]) -> Markup:
        """Draw lines with amounts, and labels below."""
        ticks = _ticks(self.top)
        out = Markup()
        for tick, label in zip(ticks, money_column([Money(tick) for tick in ticks]), strict=True):
            y = self.y(tick)
            out += tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid")
            out += text(_LEFT - 8, y + 4, label, "end")
        for step, label in labels:
            out += text(self.x(step), HEIGHT - 7, label, "middle")
        return out


def _course(report: CostReport) -> Plot | None:
    """Spending added up over the period, beside earlier periods, the budget, and where it is expected to end."""
    parts = report.timeline
    if not parts or not report.totals.cost:
        return None
    begun = [moment for moment in parts if moment.start <= report.now]
    course = list(accumulate(moment.cost.nanos for moment in begun))
    forecast = next((one for one in report.forecasts if one.period == report.period), None)
    budget = _pool_budget(report)
    band = report.band
    tallest = max(
        course[-1],
        *(amount.nanos for amount in (*band.high, *band.middle)[-1:]),
        forecast.p90.nanos if forecast and forecast.p90 else 0,
    )
    # A limit far above all that was spent would press the course flat; then it is only named.
    limit = budget.limit.nanos if budget and budget.limit.nanos <= 4 * tallest else 0
    frame = _Frame(len(parts), _nice(max(tallest, limit)))
    marks = frame.axes(_step_labels(report))
    legend = [("line c1", f"this {report.period}")]
    if band.low:
        edge = [(n + 1, amount.nanos) for n, amount in enumerate(band.high)]
        back = [(n + 1, amount.nanos) for n, amount in enumerate(band.low)]
        marks += tag("polygon", points=_points(frame, [(0, 0), *edge, *reversed(back)]), class_="band")
        legend.append(("band", f"same weekday, last {band.periods} weeks"))
    if band.middle:
        points = [(0, 0), *((n + 1, amount.nanos) for n, amount in enumerate(band.middle))]
        marks += tag("polyline", points=_points(frame, points), class_="middle")
        legend.append(("middle", "their median" if band.low else "the month before"))
    if limit and budget:
        y = frame.y(limit)
        marks += tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="limit")
        legend.append(("limit", f"budget {budget.name}, {str_money(budget.limit)}"))
    points = [(0, 0), *((n + 1, nanos) for n, nanos in enumerate(course))]
    marks += tag("polyline", points=_points(frame, points), class_="line c1")
    for number, moment in enumerate(begun):
        said = f"{_name(report, moment)}: {str_money(Money(course[number]))} so far"
        marks += tag("circle", said, cx=frame.x(number + 1), cy=frame.y(course[number]), r=7, class_="touch")
    if forecast and forecast.p10 is not None:
        marks += _whisker(frame, len(parts) - 0.15, forecast)
        legend.append(("whisker", "forecast, P10 to P90"))
    note = f"{str_money(report.totals.cost)} {'so far' if report.is_open else 'in all'}."
    if budget and not limit:
        note += f" The limit of {str_money(budget.limit)} (budget {budget.name}) is far above."
    return Plot(
        "Spent so far, added up" if report.is_open else "Spent, added up",
        svg(marks, note),
        note,
        tuple(legend),
    )


def _by_provider(report: CostReport) -> Plot | None:
    """The timeline as stacked bars."""
    parts = report.timeline
    if not parts or not report.provider_costs:
        return None
    series = [(one.name, [amount.nanos for amount in one.costs]) for one in report.provider_costs]
    if len(series) > _MOST_SERIES:
        rest = [costs for _, costs in series[_MOST_SERIES - 1 :]]
        others = [sum(column) for column in zip(*rest, strict=True)]
        series = [*series[: _MOST_SERIES - 1], (f"{len(rest)} others", others)]
    sums = [sum(column) for column in zip(*(costs for _, costs in series), strict=True)]
    if max(sums) <= 0:
        return None
    frame = _Frame(len(parts), _nice(max(sums)))
    marks = frame.axes(_step_labels(report))
    for number, moment in enumerate(parts):
        below = 0
        for place, (name, costs) in enumerate(series):
            cost = max(0, costs[number])
            if cost:
                said = f"{_name(report, moment)}, {name}: {str_money(Money(cost))}"
                marks += _bar(frame, number, (below, below + cost), f"fill c{place + 1}", said)
            below += cost
    each = "hour" if report.period == "day" else "day"
    dearest = max(range(len(parts)), key=lambda n: (sums[n], -n))
    note = f"Dearest {each}: {_name(report, parts[dearest])}, {str_money(Money(sums[dearest]))}."
    legend = tuple((f"fill c{place + 1}", name) for place, (name, _) in enumerate(series))
    return Plot(f"Cost by {each} and provider", svg(marks, note), note, legend)


def _days(report: CostReport) -> Plot | None:
    """The last thirty days, and where today is expected to end."""
    days = report.days
    if len(days) < 2 or not any(day.cost for day in days):
        return None
    forecast = next((one for one in report.forecasts if one.period == "day"), None)
    expected = forecast.p90.nanos if forecast and forecast.p90 else 0
    frame = _Frame(len(days), _nice(max(expected, *(day.cost.nanos for day in days))))
    every = max(1, -(-len(days) // 8))
    labels = [
        (n + 0.5, f"{date.fromisoformat(day.label):%b} {date.fromisoformat(day.label).day}")
        for n, day in enumerate(days)
        if (len(days) - 1 - n) % every == 0
    ]
    marks = frame.axes(labels)
    legend = [("fill c1", "a day")]
    if forecast and forecast.p50 is not None:
        last = len(days) - 1
        said = f"{days[-1].label}: expected {str_money(forecast.p50)}"
        marks += _bar(frame, last, (0, forecast.p50.nanos), "expected", said)
        legend.append(("expected", "expected of today"))
    for number, day in enumerate(days):
        if day.cost:
            marks += _bar(
                frame, number, (0, day.cost.nanos), "fill c1", f"{day.label}: {str_money(day.cost)}"
            )
    if forecast and forecast.p10 is not None:
        marks += _whisker(frame, len(days) - 0.5, forecast)
        legend.append(("whisker", "P10 to P90"))
    known = days[:-1] if report.is_open and report.now < _end_of(report) else days
    mean = Money(sum(day.cost.nanos for day in known) // len(known))
    note = f"{len(known)} whole days, {str_money(mean)} each on average."
    return Plot("Day by day", svg(marks, note), note, tuple(legend))


def _heat(report: CostReport) -> Plot | None:
    """When money is spent: weekdays and hours."""
    known = [cost.nanos for row in report.heat.costs for cost in row if cost is not None]
    if max(known, default=0) <= 0:
        return None
    top, wide, high = max(known), (WIDTH - 46 - _RIGHT) / 24, 27
    marks = Markup()
    dearest = ("", 0)
    for row, (day, costs) in enumerate(zip(_DAYS, report.heat.costs, strict=True)):
        marks += text(38, _TOP + row * high + 17, day, "end")
        for hour, cost in enumerate(costs):
            nanos = 0 if cost is None else max(0, cost.nanos)
            said = f"{day} {hour:02d}:00: {'no history' if cost is None else f'{str_money(cost)} on average'}"
            dearest = max(dearest, (f"{day} {hour:02d}:00", nanos), key=lambda one: one[1])
            place = {
                "x": 46 + hour * wide + 1,
                "y": _TOP + row * high + 1,
                "width": wide - 2,
                "height": high - 2,
            }
            marks += tag("rect", said, **place, rx=2, class_="cell")
            if nanos:
                shade = round(0.12 + 0.88 * nanos / top, 3)
                marks += tag("rect", said, **place, rx=2, class_="fill c1", fill_opacity=shade)
    for hour in range(0, 24, 3):
        marks += text(46 + (hour + 0.5) * wide, HEIGHT - 7, f"{hour:02d}", "middle")
    note = f"Dearest in the last {report.heat.weeks} weeks: {dearest[0]}, {str_money(Money(dearest[1]))} on average."
    return Plot(f"Cost by weekday and hour, {report.timezone}", svg(marks, note), note)


def _pool_budget(report: CostReport) -> BudgetFigures | None:
    """Find the tightest budget that counts everything in just this period."""
    fitting = [
        budget
        for budget in report.budgets
        if budget.scope == "pool" and budget.starts_at == report.start and budget.resets_at == report.end
    ]
    return min(fitting, key=lambda budget: budget.limit.nanos, default=None)


def _end_of(report: CostReport) -> datetime:
    return report.trend.days[-1].end if report.trend.days else report.end


def _step_labels(report: CostReport) -> list[tuple[float, str]]:
    parts = report.timeline
    if report.period == "day":
        return [(n, moment.label) for n, moment in enumerate(parts) if moment.label[:2] in _FULL_HOURS]
    return [(n + 0.5, str(int(day.label[8:]))) for n, day in enumerate(parts) if n % 3 == 0]


_FULL_HOURS = {f"{hour:02d}" for hour in range(0, 24, 3)}


def _name(report: CostReport, moment: Moment) -> str:
    return (
        moment.label if report.period == "month" else f"{moment.label} to {int(moment.label[:2]) + 1:02d}:00"
    )


def _whisker(frame: _Frame, step: float, forecast: ForecastFigures) -> Markup:
    low, middle, high = (
        frame.y((amount or ZERO).nanos) for amount in (forecast.p10, forecast.p50, forecast.p90)
    )
    x = frame.x(step)
    said = f"expected {forecast.p50}, between {forecast.p10} and {forecast.p90}"
    return (
        tag("line", said, x1=x, x2=x, y1=low, y2=high, class_="whisker")
        + tag("line", x1=x - 5, x2=x + 5, y1=low, y2=low, class_="whisker")
        + tag("line", x1=x - 5, x2=x + 5, y1=high, y2=high, class_="whisker")
        + tag("circle", said, cx=x, cy=middle, r=3.5, class_="expectation")
    )


def _bar(frame: _Frame, step: int, reach: tuple[int, int], class_: str, said: str) -> Markup:
    left, right = frame.x(step), frame.x(step + 1)
    gap = min(2.0, (right - left) * 0.15)
    base, y = (frame.y(nanos) for nanos in reach)
    return tag(
        "rect",
        said,
        x=left + gap,
        y=y,
        width=right - left - 2 * gap,
        height=max(base - y, 0.5),
        class_=class_,
    )


def _points(frame: _Frame, points: Sequence[tuple[float, int]]) -> str:
    return " ".join(f"{frame.x(step):.1f},{frame.y(nanos):.1f}" for step, nanos in points)


def _nice(top: int) -> int:
    """Round up to a figure that divides well."""
    step = _step(top)
    return max(1, -(-top // step) * step)


def _ticks(top: int) -> list[int]:
    step = _step(top)
    return list(range(0, top + 1, step))


def _step(top: int) -> int:
    """Choose a round distance of which three to six fit."""
    power = int(10 ** max(0, len(str(max(1, top // 4))) - 1))
    return power * next(times for times in (1, 2, 5, 10) if top <= 5 * power * times)
