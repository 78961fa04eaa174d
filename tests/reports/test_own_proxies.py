"""Reports and exports of traffic through proxies of one's own: its price is on no provider's list."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest

from tabkeeper.cli.app import run
from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.rates import OWN_PROXY_KIND
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.reports.booked import booked_lines
from tabkeeper.reports.figures import Span
from tabkeeper.reports.focus import focus_table
from tabkeeper.reports.render_csv import csv_lines

from .focus_check import violations


@pytest.fixture
async def ledger(sqlite_url):
    """A session that moved 25 MB for a dime."""
    opened = await Ledger.open(
        parse_config({"ledger": {"url": sqlite_url}, "providers": {"local": {"kind": "local"}}})
    )
    ask = HoldRequest(
        session_id="s",
        platform="web",
        provider="local",
        tenant="default",
        max_seconds=600,
        proxy_price=Decimal("4.00"),
        proxy_bytes=10**8,
    )
    await opened.hold(ask)
    await opened.settle("s", SessionUsage(seconds=60, own_proxy_bytes=25_000_000), reason="done")
    yield opened
    await opened.aclose()


def test_an_export_has_its_price_and_breaks_no_rule(ledger):
    with ledger.reader.connect() as connection:
        lines = list(booked_lines(connection, Span(0, 2**62), 2**62))
    (own,) = [line for line in lines if line.kind == OWN_PROXY_KIND]
    assert own.price is not None
    assert own.price.unit_price == Decimal("4.00")
    for version in ("1.2", "1.3"):
        header, *rows = csv.reader(io.StringIO("".join(csv_lines(focus_table(lines, version)))))
        told = [dict(zip(header, (cell or None for cell in row), strict=True)) for row in rows]
        assert violations(header, told, version) == []
        (traffic,) = [row for row in told if row["SkuMeter"] == "Traffic through proxies of one's own"]
        assert Decimal(traffic["BilledCost"]) == Decimal("0.10")
        assert Decimal(traffic["PricingQuantity"]) == Decimal("0.025")
        assert traffic["PricingUnit"] == "GB"
        # Whoever sells the browser does not invoice it: not on that account, not by that price list.
        assert {traffic["InvoiceIssuerName"], traffic["ProviderName"], traffic["BillingAccountId"]} == {
            "own proxies"
        }
        assert traffic["ServiceName"] == "Proxies"
        assert traffic["SkuPriceId"] == "own proxies/own_proxy_bytes/GB", "what may change is not in it"
        assert traffic["SkuPriceDetails"] is None


async def test_the_report_names_it(ledger, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tabkeeper.toml").write_text('[ledger]\nurl = "sqlite:///books.db"\n')
    await ledger.flush()
    assert run(["report", "day"]) == 0
    said = capsys.readouterr().out
    assert "traffic through proxies of your own" in said
    assert "$0.10" in said
