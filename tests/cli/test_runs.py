"""`tabkeeper runs`: what there was, how far it came, what it cost."""

from __future__ import annotations

import asyncio
import json

import pytest

from tabkeeper.cli.app import run
from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.money import Money
from tabkeeper.sites.runs import Gain, Run, Runs

A, B = ("https://a.example/", "a.example"), ("https://b.example/", "b.example")
CONFIG = """
[ledger]
url = "sqlite:///books.db"
[providers.bb]
kind = "local"
[providers.bb.rates]
per_hour = "0.60"
increment = "1m"
[platforms.web]
providers = ["bb"]
"""


@pytest.fixture
def here(tmp_path, monkeypatch, sqlite_url):
    """A folder with a configuration and a fresh ledger."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tabkeeper.toml").write_text(CONFIG)
    return {
        "ledger": {"url": sqlite_url},
        "providers": {"bb": {"kind": "local", "rates": {"per_hour": "0.60", "increment": "1m"}}},
        "platforms": {"web": {"providers": ["bb"]}},
    }


async def history(settings, *, living: bool = False):
    """One run that is committed, and one with a page that failed; gives the ledger if it is to live on."""
    ledger = await Ledger.open(parse_config(settings))
    runs = Runs(ledger)
    done = Run(id="aa11", name="shop", sites=("a.example",))
    (page,) = await runs.start(done, [A])
    await runs.update(done, page, Gain(items=["{}"], seconds=1.5))
    ask = HoldRequest(session_id="s", platform="web", provider="bb", tenant=done.tenant, max_seconds=600)
    await ledger.hold(ask)
    await ledger.settle("s", SessionUsage(seconds=180), reason="done")
    await runs.commit(done)
    left = Run(id="ab22", name="news", sites=("a.example", "b.example"), max_cost=Money.parse("0.50"))
    first, _ = await runs.start(left, [A, B])
    await runs.fail(left, first, "no\nprice", avoid=(), seconds=1, final=True)
    if living:
        return ledger
    await ledger.aclose()
    return None


def said(capsys, *arguments: str):
    assert run(list(arguments)) == 0
    return capsys.readouterr().out


def test_there_are_none_at_first(here, capsys):
    assert "no runs yet" in said(capsys, "runs", "list")
    assert json.loads(said(capsys, "runs", "list", "--json")) == []


def test_the_list_has_the_newest_first_with_pages_and_cost(here, capsys):
    asyncio.run(history(here))
    table = said(capsys, "runs", "list").splitlines()
    assert [line.split()[:3] for line in table[1:]] == [
        ["ab22", "news", "open"],
        ["aa11", "shop", "committed"],
    ]
    newest, oldest = json.loads(said(capsys, "runs", "list", "--json"))
    assert (newest["state"], newest["failed"], newest["pending"]) == ("open", 1, 1)
    assert (newest["max_cost"], newest["cost_per_page"]) == ("0.500000000", None)
    assert (oldest["pages"], oldest["items"]) == (1, 1)
    assert oldest["cost"] == oldest["cost_per_page"] == "0.030000000"
    (only,) = json.loads(said(capsys, "runs", "list", "--name", "shop", "--json"))
    assert only["run"] == "aa11"
    assert len(json.loads(said(capsys, "runs", "list", "--last", "1", "--json"))) == 1


async def test_a_run_that_somebody_works_on_says_so(here, capsys):
    ledger = await history(here, living=True)
    try:
        newest, _ = json.loads(await asyncio.to_thread(said, capsys, "runs", "list", "--json"))
        assert newest["state"] == "running"
    finally:
        await ledger.aclose()


def test_one_is_shown_with_its_sites_and_what_failed(here, capsys):
    asyncio.run(history(here))
    text = said(capsys, "runs", "show", "ab2")
    assert "run ab22 of news: open" in text
    assert "of at most $0.50" in text
    assert "failed after 1: https://a.example/: no price" in text
    assert "--resume" in text
    data = json.loads(said(capsys, "runs", "show", "aa11", "--json"))
    assert data["by_site"][0] == {
        "site": "a.example",
        "pages": 1,
        "pending": 0,
        "failed": 0,
        "items": 1,
        "seconds": 1.5,
        "bytes": 0,
    }
    assert data["starts"][0]["url"] == A[0]
    assert run(["runs", "show", "a"]) == 1
    assert "several runs begin with 'a'" in capsys.readouterr().err
    assert run(["runs", "show", "zz"]) == 1
    assert "there is no run 'zz'" in capsys.readouterr().err
