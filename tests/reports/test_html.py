"""The page: every figure of the report's, nothing from elsewhere, nothing that a name could smuggle in."""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from playwright.async_api import async_playwright

from tabkeeper.config import ProviderSettings
from tabkeeper.money import Money
from tabkeeper.providers.chromium import find_browser
from tabkeeper.reports import facts
from tabkeeper.reports.daily import build_report
from tabkeeper.reports.html.page import render_html
from tabkeeper.reports.html.plots import plots
from tabkeeper.reports.html.tables import tables
from tabkeeper.reports.render_json import read_json, render_json
from tabkeeper.reports.render_parts import str_money

SMUGGLED = "<script>alert(1)</script>"


def report(story, period="day", day=date(2026, 11, 1), zone="America/New_York"):
    return build_report(story.ledger.reader, period=period, zone=zone, now=story.clock.now(), day=day)


def pages_text(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html.split("</style>")[1]).split())


async def test_a_page_shows_what_the_report_says_and_loads_nothing(golden):
    await golden.session(golden.clock.now(), tenant=SMUGGLED)
    found = report(golden, "month")
    page = render_html(found)
    assert page == render_html(read_json(render_json(found))), (
        "the kept report makes the same page, to the byte"
    )
    shown = pages_text(page)
    assert str_money(found.totals.cost) in shown
    for group in (*found.platforms, *found.providers):
        assert f"{group.name} {str_money(group.cost)}"[: len(group.name) + 4] in shown
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert not re.search(r"""(src|href)=|url\(|@import|https?:""", page)
    assert f"entry {found.watermark:,}" in shown


async def test_days_of_25_and_23_hours_have_as_many_bars_and_add_up(golden):
    found = report(golden)
    assert (found.hours, len(found.timeline)) == (25.0, 25)
    assert "25 hours (clocks change)" in pages_text(render_html(found))
    assert [len(one.costs) for one in found.provider_costs] == [25] * len(found.provider_costs)
    assert sum(cost.nanos for one in found.provider_costs for cost in one.costs) == found.totals.cost.nanos
    assert found.days[-1].cost == found.totals.cost
    spring = report(golden, day=date(2026, 3, 8))
    assert (spring.hours, len(spring.timeline)) == (23.0, 23)
    assert plots(spring) == []


async def test_bars_tell_what_became_of_the_hours_and_what_one_costs(golden):
    found = report(golden, "month", zone="UTC")
    said = {}
    for plot in plots(found)[-2:]:
        words = [one.text for one in ET.fromstring(str(plot.svg)).iter("text")]
        said[plot.title] = dict(zip(words[::2], words[1::2], strict=True))
    hours = {
        name: float(one.removesuffix(" h")) for name, one in said["From hours leased to hours billed"].items()
    }
    billing = [cell for cell in found.cells if cell.provider != "local"]  # its time is free
    assert hours["billed"] == pytest.approx(sum(one.billed_seconds for one in billing) / 3600, abs=0.006)
    assert hours["leased"] == pytest.approx(sum(one.leased_seconds for one in billing) / 3600, abs=0.006)
    assert sum(list(hours.values())[:3]) == pytest.approx(hours["billed"], abs=0.02)
    prices = next(table for table in tables(found) if table.title == "Providers")
    assert said["An hour at each provider"] == {
        str(row[0]): row[-1] for row in reversed(prices.rows) if row[0] != "local"
    }
    free = found.model_copy(update={"components": (), "providers": ()})
    assert len(plots(free)) == len(plots(found)) - 2


async def test_details_are_those_of_the_ledger(golden):
    found = report(golden, "month", zone="UTC")
    costs = found.session_costs
    with golden.ledger.reader.connect() as conn:
        sql = "SELECT s.id, s.cost_n FROM session s JOIN hold h ON h.session_id = s.id WHERE h.state = 'settled' "
        sql += "AND s.created_at >= 1793491200000000 ORDER BY s.cost_n DESC, s.id"
        rows = [(str(row[0]), int(row[1])) for row in conn.exec_driver_sql(sql)]
    assert datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1e6 == 1793491200000000
    assert [(one.session_id, one.cost.nanos) for one in costs.dearest] == rows[:10]
    assert costs.p95 == Money(sorted(cost for _, cost in rows)[-(-len(rows) * 95 // 100) - 1])
    assert costs.average == Money(sum(cost for _, cost in rows) // len(rows))
    assert {one.kind: one.number for one in found.alerts}.keys() >= {"threshold", "denied", "estimate"}
    daily = next(budget for budget in found.budgets if budget.name == "ever")
    assert daily.peak is not None
    assert daily.peak >= daily.spent + daily.held


async def test_a_window_with_very_many_postings_is_not_gone_through(golden, monkeypatch):
    monkeypatch.setattr(facts, "MOST_POSTINGS", 3)
    found = report(golden)
    assert {one.peak for one in found.budgets} == {None}
    assert "Budgets" in render_html(found)
    # Nor are all entries, to find the first.
    with golden.ledger.reader.connect() as conn:
        plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {facts._FIRST.text}", {"upto": 2**63 - 1}).all()
    assert ["ix_entry_effective_at" in row[3] for row in plan] == [True]


async def test_a_day_of_nothing_is_a_page_too(story):
    page = pages_text(render_html(report(story, day=date(2025, 5, 5), zone="Asia/Kathmandu")))
    assert "Nothing was settled in this period." in page
    assert "$0.00" in page


@pytest.mark.browser
async def test_a_real_browser_shows_it_without_a_complaint_in_light_dark_and_print(golden, tmp_path: Path):
    found = report(golden, day=date(2026, 11, 2))
    file = tmp_path / "report.html"
    file.write_text(render_html(found), encoding="utf-8")
    for plot in plots(found):
        ET.fromstring(str(plot.svg))
    said, asked = [], []
    async with async_playwright() as playwright:
        binary = str(find_browser("local", ProviderSettings(kind="local")))
        browser = await playwright.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        try:
            grounds = []
            for scheme in ("light", "dark"):
                page = await browser.new_page(viewport={"width": 1100, "height": 800}, color_scheme=scheme)
                page.on("console", lambda message: said.append(message.text))
                page.on("pageerror", lambda error: said.append(str(error)))
                page.on("request", lambda request: asked.append(request.url))
                await page.goto(file.as_uri())
                grounds.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
                wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
                assert not wide, "nothing sticks out"
            assert await page.inner_text("dd >> nth=0") == str_money(found.totals.cost)
            assert await page.locator("svg").count() == len(plots(found))
            right = await page.eval_on_selector_all(
                "section:first-of-type td:last-child",
                "cells => new Set(cells.map(c => c.getBoundingClientRect().right)).size",
            )
            assert right == 1, "figures of a column end at one edge"
            pdf = await page.pdf(prefer_css_page_size=True)
            assert pdf.startswith(b"%PDF")
        finally:
            await browser.close()
    assert said == []
    assert asked == [file.as_uri()] * 2
    assert grounds == ["rgb(255, 255, 255)", "rgb(17, 21, 28)"]
