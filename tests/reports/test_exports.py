"""What was booked, in other people's forms: each adds up to the entries, and the tools it is for accept it."""

import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.types import HoldRequest, LeaseUsage, SessionUsage
from tabkeeper.money import Money
from tabkeeper.reports.as_of import EVERYTHING
from tabkeeper.reports.booked import booked_lines
from tabkeeper.reports.columns import csv_lines, json_lines
from tabkeeper.reports.daily import snapshot
from tabkeeper.reports.figures import Span
from tabkeeper.reports.focus import focus_table
from tabkeeper.reports.hledger import journal
from tabkeeper.reports.lines import lines_table
from tabkeeper.reports.parquet import write_parquet

from .focus_check import violations

START, END = datetime(2026, 10, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
async def books(golden):
    """The golden ledger; a session with tags; corrections of all kinds, some of them a month late."""
    now = golden.clock.now()
    ask = HoldRequest(
        session_id="tagged", platform="web", provider="hosted", tenant="=acme: ltd", max_seconds=600
    )
    await golden.ledger.hold(ask)
    for number, tags in enumerate(({"job": "prices", "run": "1"}, {"job": "prices", "run": "2"})):
        golden.ledger.record_lease(
            LeaseUsage(
                lease_id=f"tagged-{number}", session_id="tagged", use_number=number + 1, platform="web",
                provider="hosted", tenant="acme", priority=0, requested_at=now, granted_at=now, released_at=now,
                waited=0.0, start_age=number * 10.0, end_age=number * 10.0 + 5, is_new=not number, outcome="ok",
                bytes_received=10, tags=tags,
            )
        )  # fmt: skip
    await golden.ledger.settle("tagged", SessionUsage(seconds=61.0), reason="done", state="closed")
    sql = "SELECT id, seconds_us FROM session WHERE ended_at IS NOT NULL AND state <> 'void' ORDER BY id"
    for number, row in enumerate(fetch(golden, sql)):
        if number == 100:
            golden.clock.jump(
                timedelta(days=33).total_seconds()
            )  # the rest is corrected when the month is invoiced
        seconds = max(0, row.seconds_us + (number % 5 - 1) * 45_000_000)
        said = Figures(cost=Money.parse("0.0171")) if number % 7 == 0 else Figures(seconds_us=seconds)
        await golden.ledger.reconciliation.compare(row.id, said)
    return golden


def fetch(story, sql, **values):
    with story.ledger.reader.connect() as conn:
        return conn.execute(text(sql), values).all()


def booked(story, upto=EVERYTHING):
    with snapshot(story.ledger.reader) as conn:
        return list(booked_lines(conn, Span.of(START, END), upto))


def entries(story):
    ((total,),) = fetch(story, "SELECT SUM(amount_n) FROM entry")
    return Money(int(total))


async def test_every_export_adds_up_to_the_entries(books, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    lines, total = booked(books), entries(books)
    assert Money(sum(line.amount.nanos for line in lines)) == total
    as_json = [json.loads(line) for line in json_lines(lines_table(lines))]
    assert sum(Decimal(line["amount"]) for line in as_json) == total.dollars
    assert {line["kind"] for line in as_json} >= {"session", "time", "provider"}
    as_csv = list(csv.DictReader(io.StringIO("".join(csv_lines(lines_table(lines))))))
    assert sum(Decimal(line["amount"]) for line in as_csv) == total.dollars
    assert {line["tenant"] for line in as_csv} >= {"'=acme: ltd"}, "no formula for a spreadsheet"
    for name, table in (("lines", lines_table(lines)), ("focus", focus_table(lines, "1.3"))):
        file = tmp_path / f"{name}.parquet"
        assert write_parquet(table, file) == len(lines)
        column = parquet.read_table(file).column("amount" if name == "lines" else "BilledCost")
        assert str(column.type) == "decimal128(38, 9)"
        assert sum(column.to_pylist()) == total.dollars
        first = file.read_bytes()
        write_parquet(lines_table(lines) if name == "lines" else focus_table(lines, "1.3"), file)
        assert file.read_bytes() == first


async def test_focus_breaks_no_rule_of_the_specification(books):
    lines = booked(books)
    for version in ("1.2", "1.3"):
        rows = list(csv.reader(io.StringIO("".join(csv_lines(focus_table(lines, version))))))
        header, data = (
            rows[0],
            [dict(zip(rows[0], (cell or None for cell in row), strict=True)) for row in rows[1:]],
        )
        assert violations(header, data, version) == []
        assert len(data) == len(lines)
        assert sum(Decimal(row["BilledCost"]) for row in data) == entries(books).dollars
        corrections = [row for row in data if row["ChargeClass"] == "Correction"]
        within = [row for row in data if row["x_EntryKind"] == "adjust" and row["ChargeClass"] is None]
        assert corrections
        assert within
        assert all(row["BillingPeriodStart"] > row["ChargePeriodStart"] for row in corrections)
        assert {row["ChargeCategory"] for row in data} == {"Usage", "Adjustment"}
        (tagged,) = {row["Tags"] for row in data if row["ResourceId"] == "tagged"}
        assert json.loads(tagged) == {"job": "prices", "tabkeeper/platform": "web"}


async def test_a_price_of_many_decimals_fits_the_columns_of_parquet(books, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    line = next(line for line in booked(books) if line.kind == "time" and line.billed_qty % 3_600_000)
    odd = replace(line.price, unit_price=Decimal("0.0123456789"))
    line = replace(line, card=replace(line.card, components=(odd,)), billed_qty=1_000_000)
    file = tmp_path / "one.parquet"
    write_parquet(focus_table([line], "1.3"), file)
    (row,) = parquet.read_table(file).to_pylist()
    assert row["ListUnitPrice"] == odd.unit_price
    assert row["PricingQuantity"] == Decimal("0.27777778")
    assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]


async def test_a_sku_is_the_same_on_every_plan_and_its_price_id_at_every_price(books):
    line = next(line for line in booked(books) if line.kind == "time")
    names = set()
    for day, (plan, price) in enumerate(
        (("acme/small", "0.10"), ("acme/small", "0.12"), ("acme/large", "0.08"))
    ):
        parts = (replace(line.price, unit_price=Decimal(price)),)
        card = replace(line.card, plan=plan, components=parts, effective_from=START + timedelta(days=day))
        (row,) = csv.DictReader(csv_lines(focus_table([replace(line, card=card)], "1.3")))
        assert (row["ListUnitPrice"], row["x_RateCardFrom"]) == (
            price.rstrip("0"),
            f"2026-10-0{day + 1}T00:00:00Z",
        )
        names.add((row["SkuId"], row["SkuPriceId"], row["SkuPriceDetails"]))
    assert names == {
        ("acme/time/Hours", "acme/small/time/Hours", '{"x_Plan": "acme/small"}'),
        ("acme/time/Hours", "acme/large/time/Hours", '{"x_Plan": "acme/large"}'),
    }


async def test_hledger_accepts_the_journal_and_comes_to_the_same_sums(books, tmp_path):
    lines = booked(books)
    file = tmp_path / "books.journal"
    file.write_text("".join(journal(lines, "America/New_York", title="all")), encoding="utf-8")
    assert "2026-10-30 *" in file.read_text(), "the first sessions are of the evening before in New York"
    if shutil.which("hledger") is None:
        pytest.skip(
            "hledger is not installed (scripts/setup installs it where it can): its own check was not run"
        )

    def hledger(*arguments):
        done = subprocess.run(
            ["hledger", "-f", str(file), *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert hledger("check", "--strict", "ordereddates") == ""
    found = list(
        csv.reader(
            io.StringIO(hledger("balance", "expenses", "--depth", "2", "-O", "csv", "-c", "$1.000000000"))
        )
    )
    sums = {row[0].removeprefix("expenses:"): Decimal(row[1].replace("$", "")) for row in found[1:]}
    wanted = fetch(
        books,
        "SELECT s.provider, SUM(e.amount_n) AS n FROM entry e JOIN session s ON s.id = e.session_id GROUP BY 1",
    )
    assert sums.pop("total") == entries(books).dollars
    assert sums == {row.provider: Money(int(row.n)).dollars for row in wanted if row.n}


async def test_an_export_as_of_an_entry_is_the_same_when_more_was_booked_since(books):
    (then,) = fetch(books, "SELECT MAX(id) AS id FROM entry")
    before = "".join(csv_lines(focus_table(booked(books, then.id), "1.3")))
    await books.session(books.clock.now())
    assert "".join(csv_lines(focus_table(booked(books, then.id), "1.3"))) == before
    assert "".join(csv_lines(focus_table(booked(books), "1.3"))) != before
