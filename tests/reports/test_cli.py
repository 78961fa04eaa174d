"""The commands around reports: what they print, write and refuse."""

import csv
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from tabkeeper.cli.app import run
from tabkeeper.clock import SystemClock, VirtualClock
from tabkeeper.config import load_config
from tabkeeper.ledger.ledger import Ledger

from .story import Story

CONFIG = """
[ledger]
url = "sqlite:///{file}"
timezone = "Europe/Berlin"

[[budgets]]
name = "daily"
limit = "5.00"

[providers.hosted]
kind = "cdp"
url = "ws://127.0.0.1:9"
rates = {{ per_hour = "0.36", increment = "60s" }}

[providers.steel]
kind = "cdp"
url = "ws://127.0.0.1:9"
plan = "steel/launch"
max_gb = "0"

[providers.local]
kind = "local"

[providers.dark]
kind = "cdp"
url = "ws://127.0.0.1:9"
"""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A configuration file without a ledger."""
    path = tmp_path / "tabkeeper.toml"
    path.write_text(CONFIG.format(file=tmp_path / "books.db"))
    monkeypatch.setenv("TABKEEPER_CONFIG", str(path))
    return path


@pytest.fixture
async def today(settings):
    """A ledger with two sessions of this minute and one of the day before yesterday."""
    now = SystemClock().now()
    clock = VirtualClock(now - timedelta(days=2))
    ledger = await Ledger.open(load_config(settings), clock=clock)
    story = Story(ledger, clock)
    await story.session(now - timedelta(days=2))
    clock.jump(1)
    for tenant in ("acme", "globex"):
        await story.session(now, tenant=tenant, seconds=0.5, leases=((0.0, 0.25),))
    await ledger.aclose()
    return now


def test_a_day_is_printed_as_a_table_and_as_json(today, capsys):
    assert run(["report", "day"]) == 0
    page = capsys.readouterr().out
    assert "Europe/Berlin" in page
    assert "acme" in page
    assert run(["report", "day", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["cost"] == "0.012"
    assert found["totals"]["sessions"] == 2
    assert run(["report", "day", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**again, "now": "", "forecasts": []} == {**found, "now": "", "forecasts": []}


def test_a_csv_goes_into_a_file(today, tmp_path, capsys):
    out = tmp_path / "day.csv"
    month = f"{today.astimezone(ZoneInfo('Europe/Berlin')):%Y-%m}"
    assert run(["report", "month", "--date", month, "--format", "csv", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"Wrote the report of {month}" in printed.err
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["tenant"] for row in rows} >= {"acme", "globex"}


def test_a_report_is_a_page_and_a_parquet_file_and_the_same_again_as_of_an_entry(today, tmp_path, capsys):
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        assert run(["report", "day", "--format", "html", "--as-of", "4", "--out", str(page)]) == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert "entry 4." in pages[0].read_text()
    assert run(["report", "day", "--format", "html"]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")
    assert run(["report", "day", "--format", "parquet"]) == 2
    assert run(["report", "day", "--format", "parquet", "--out", str(tmp_path / "day.parquet")]) == 0
    rows = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "day.parquet").to_pylist()
    assert sum(row["cost"] for row in rows) == Decimal("0.012")
    assert {row["tenant"] for row in rows} == {"acme", "globex"}


def test_a_table_in_a_file_is_plain_text(today, tmp_path):
    out = tmp_path / "day.txt"
    assert run(["report", "day", "--out", str(out)]) == 0
    assert "\x1b" not in out.read_text()
    assert "Cost of" in out.read_text()


def test_an_earlier_day_is_found_by_its_date(today, capsys):
    assert run(["report", "day", "--format", "json", "--date", "2020-02-29"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == "2020-02-29"


def test_exports_are_written_and_come_to_the_report_s_cost(today, tmp_path, capsys):
    month = f"{today.astimezone(ZoneInfo('Europe/Berlin')):%Y-%m}"
    assert run(["report", "month", "--date", month, "--json"]) == 0
    cost = Decimal(json.loads(capsys.readouterr().out)["totals"]["cost"])
    assert run(["export", "focus", "--date", month, "--focus", "1.2"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == cost
    assert "HostProviderName" not in rows[0]
    out = tmp_path / "books.journal"
    assert run(["export", "hledger", "--date", month, "--as-of", "2", "--out", str(out)]) == 0
    assert "expenses:hosted:web:time" in out.read_text()
    assert run(["export", "lines", "--format", "json", "--date", month]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(Decimal(line["amount"]) for line in lines) == cost


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "lines", "--format", "parquet"], "name it with --out"),
        (["export", "focus", "--as-of", "99999"], "there is no entry 99999"),
        (["export", "focus", "--as-of", "2999-01-01"], "has not been yet"),
        (["export", "focus", "--as-of", "lately"], "neither the number of an entry nor an instant"),
        (["export", "focus", "--date", "2026-13"], "is no date"),
        (["report", "day", "--date", "yesterday"], "'yesterday' is no date; write it like 2026-11-21"),
        (["report", "day", "--date", "2026-02-30"], "is no date"),
        (["report", "day", "--out", "/nowhere/at/all.txt"], "cannot be written"),
        (["report", "day", "--format", "pdf"], "pdf"),
        (["report", "day", "--format", "csv", "--json"], "contradict each other"),
        (["rates", "list", "nobody"], "there is no built-in price list with 'nobody'"),
    ],
)
def test_bad_requests_get_one_line_and_exit_2(today, capsys, arguments, words):
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1


def test_without_a_ledger_nothing_is_created(settings, capsys):
    assert run(["report", "day"]) == 2
    assert "there is no ledger" in capsys.readouterr().err
    assert not (settings.parent / "books.db").exists()


def test_rates_show_own_providers_first_and_every_built_in_list(settings, capsys):
    assert run(["rates", "list"]) == 0
    page = capsys.readouterr().out
    assert page.index("Your providers") < page.index("Built-in price lists")
    for words in (
        "steel/launch",
        "browserbase/developer",
        "$0.36",
        "free",
        "nobody said",
        "100 h",
        "$0.06000012",
    ):
        assert words in page, words
    assert max(map(len, page.splitlines())) <= 100


def test_rates_of_one_plan_tell_source_and_gaps(settings, capsys):
    assert run(["rates", "list", "anchor"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "2026-07-10" in page
    assert "2026-10-06" in page
    assert "https://anchorbrowser.io/pricing" in page
    assert "so that no budget is passed" in page


def test_rates_as_json_are_exact(settings, capsys):
    assert run(["rates", "list", "kernel", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {card["plan"] for card in found["built_in"]} == {
        "kernel/headful",
        "kernel/headful-gpu",
        "kernel/headless",
    }
    assert found["built_in"][0]["components"][0]["unit_price"] == "0.0000166667"
    assert found["providers"]["dark"] is None


def test_budgets_are_listed_with_their_present_window(today, capsys):
    assert run(["budget", "list"]) == 0
    page = capsys.readouterr().out
    assert "daily" in page
    assert "$5.00" in page
    assert run(["budget", "list", "--json"]) == 0
    (budget,) = json.loads(capsys.readouterr().out)
    assert budget["spent"] == "0.012"
    assert budget["label"] == f"{datetime.now(UTC):%Y-%m-%d}"
