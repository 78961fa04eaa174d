"""`tabkeeper proxies`: what is stored, what is shown, and what never is."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from tabkeeper.cli.app import run
from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.vault import new_key

SECRET = "hush-hush"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A ledger, a key, and a configuration with one proxy."""
    url = f"sqlite:///{tmp_path}/books.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TABKEEPER_KEY", new_key())
    monkeypatch.setenv("PROXY_1", f"http://me:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("LOGIN", f"you:{SECRET}")
    (tmp_path / "tabkeeper.toml").write_text(
        f'[ledger]\nurl = "{url}"\n[security]\nkeys = ["env:TABKEEPER_KEY"]\n'
        '[[proxies]]\nid = "own"\nurl = "env:PROXY_1"\ngeo = "us"\nprice_per_gb = "0.40"\n'
    )

    async def make():
        await (await Ledger.open(parse_config({"ledger": {"url": url}}))).aclose()

    asyncio.run(make())
    return tmp_path


def told(capsys, *arguments: str, code: int = 0) -> str:
    assert run(["proxies", *arguments]) == code
    out = capsys.readouterr()
    assert SECRET not in out.out + out.err
    return out.out + out.err


def test_added_listed_retired_and_no_password_anywhere(here, capsys):
    told(
        capsys,
        "add",
        "eu",
        f"socks5://me:{SECRET}@proxy.example:1080",
        "--type",
        "residential",
        "--geo",
        "de",
    )
    told(capsys, "add", "us", "http://proxy.example:8080", "--credentials", "env:LOGIN", "--weight", "3")
    listed = json.loads(told(capsys, "list", "--json"))
    assert [(one["id"], one["from"], one["health"]) for one in listed] == [
        ("eu", "database", "unknown"),
        ("own", "configuration", "unknown"),
        ("us", "database", "unknown"),
    ]
    assert "socks5://proxy.example:1080" in told(capsys, "list")
    with sqlite3.connect(here / "books.db") as database:
        assert SECRET not in "\n".join(database.iterdump())
    assert "there is a proxy 'us' already" in told(capsys, "add", "us", "http://a:1", code=1)
    assert "the configuration has a proxy 'own'" in told(capsys, "add", "own", "http://a:1", code=1)
    told(capsys, "retire", "eu")
    assert "in the configuration; remove it there" in told(capsys, "retire", "own", code=1)
    assert "there is no proxy 'eu'" in told(capsys, "retire", "eu", code=1)
    assert "eu" not in [one["id"] for one in json.loads(told(capsys, "list", "--json"))]


def test_what_cannot_be_used_says_why(here, capsys, monkeypatch):
    told(capsys, "add", "us", "http://proxy.example:8080", "--credentials", "env:LOGIN")
    monkeypatch.delenv("LOGIN")
    row = json.loads(told(capsys, "list", "--json"))[-1]
    assert row["health"] == "not usable"
    assert "LOGIN is not set" in row["note"]
    assert "is not set, or empty" in told(
        capsys, "add", "b", "http://a:1", "--credentials", "env:LOGIN", code=2
    )
    assert "such as env:PROXY_LOGIN" in told(capsys, "add", "b", "http://a:1", "--credentials", "x:y", code=2)
    assert "begins with http://" in told(capsys, "add", "b", "ftp://a:1", code=2)
    assert "is no id" in told(capsys, "add", "a b", "http://a:1", code=2)
    assert "not a price" in told(capsys, "add", "b", "http://a:1", "--price-per-gb", "1,5", code=2)


def test_without_a_key_a_password_is_not_stored(here, capsys):
    (here / "tabkeeper.toml").write_text(f'[ledger]\nurl = "sqlite:///{here}/books.db"\n')
    assert "only encrypted, and no key is set" in told(
        capsys, "add", "eu", f"http://me:{SECRET}@proxy.example:1", code=2
    )


def test_a_probe_is_noted(here, capsys):
    assert "what to ask for is not known" in told(capsys, "probe", code=2)
    out = told(capsys, "probe", "own", "--url", "http://127.0.0.1:9/", code=1)
    assert "own: failed, ConnectError" in out
    row = next(one for one in json.loads(told(capsys, "list", "--json")) if one["id"] == "own")
    assert row["failed"] == 1
    assert "ConnectError" in row["note"]
