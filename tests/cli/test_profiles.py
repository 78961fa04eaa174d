"""`tabkeeper profiles`: figures for all to see, contents only for who asks, files that need a passphrase."""

import asyncio
import json
import stat

import pytest

from tabkeeper.cli.app import run
from tabkeeper.clock import SystemClock
from tabkeeper.config import parse_config
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.profiles.state import BrowserState, ProfileKey
from tabkeeper.profiles.store import ProfileStore
from tabkeeper.vault import Vault, new_key

SECRET = "cookie-that-logs-in"
STATE = BrowserState(
    storage={
        "cookies": [{"name": "sid", "value": SECRET, "domain": ".shop.example", "path": "/"}],
        "origins": [{"origin": "https://shop.example", "localStorage": [{"name": "t", "value": SECRET}]}],
    },
    user_agent="Agent/1",
)


@pytest.fixture
def here(tmp_path, sqlite_url, monkeypatch):
    """A ledger with one profile, and the command line on it."""
    key = new_key()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TABKEEPER_KEY", key)
    monkeypatch.setenv("PHRASE", "correct horse")
    monkeypatch.setenv("WRONG", "correct house")
    (tmp_path / "tabkeeper.toml").write_text(
        f'[ledger]\nurl = "{sqlite_url}"\n[security]\nkeys = ["env:TABKEEPER_KEY"]\n'
    )

    async def fill():
        ledger = await Ledger.open(parse_config({"ledger": {"url": sqlite_url}}))
        store = ProfileStore(ledger, Vault([key]), SystemClock(), parse_config({}).profiles)
        await store.put(ProfileKey("acme", "shop.example"), STATE)
        await ledger.aclose()

    asyncio.run(fill())
    return tmp_path


def told(capsys, *arguments: str, code: int = 0) -> str:
    assert run(["profiles", *arguments]) == code
    out = capsys.readouterr()
    return out.out + out.err


def test_lists_and_shows_tell_of_contents_but_not_the_contents(here, capsys):
    listed = told(capsys, "list")
    assert "shop.example" in listed
    assert "healthy" in listed
    shown = told(capsys, "show", "shop.example", "--tenant", "acme")
    assert '{".shop.example": 1}' in shown
    assert "https://shop.example" in shown
    everything = (
        listed
        + shown
        + told(capsys, "list", "--json")
        + told(capsys, "show", "shop.example", "--tenant=acme", "--json")
    )
    assert SECRET not in everything
    assert SECRET in told(capsys, "show", "shop.example", "--tenant", "acme", "--cookies")


def test_a_profile_travels_in_a_file_that_only_its_passphrase_opens(here, capsys):
    told(capsys, "export", "shop.example", "p.json", "--tenant", "acme", "--passphrase-env", "PHRASE")
    written = here / "p.json"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert SECRET not in written.read_text()
    assert "cannot be written" in told(
        capsys, "export", "shop.example", "p.json", "--tenant=acme", "--plain", code=2
    ), "it does not overwrite"
    assert "does not open" in told(capsys, "import", "p.json", "--passphrase-env", "WRONG", code=2)
    told(
        capsys,
        "import",
        "p.json",
        "--tenant",
        "zorg",
        "--site",
        "Shop2.example",
        "--passphrase-env",
        "PHRASE",
    )
    shown = json.loads(told(capsys, "show", "shop2.example", "--tenant=zorg", "--json", "--cookies"))
    assert shown["storage"] == STATE.storage


def test_a_plain_file_must_be_asked_for_and_says_so(here, capsys):
    assert "NOT encrypted" in told(capsys, "export", "shop.example", "p.json", "--tenant=acme", "--plain")
    assert SECRET in (here / "p.json").read_text()
    assert "stored" in told(capsys, "import", "p.json")


def test_a_retired_profile_is_gone_and_listed_only_on_request(here, capsys):
    told(capsys, "retire", "shop.example", "--tenant", "acme")
    assert told(capsys, "list") == "no profiles\n"
    assert "retired by hand" in told(capsys, "list", "--retired")
    for command in (["show", "shop.example"], ["retire", "shop.example"], ["export", "shop.example", "x"]):
        assert "there is no profile" in told(capsys, *command, "--tenant=acme", code=2)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        '{"form": "tabkeeper-profile"}',
        '{"form": "tabkeeper-profile", "sealed": "x", "salt": "%"}',
    ],
)
def test_a_file_of_another_kind_is_told(here, capsys, content):
    (here / "p.json").write_text(content)
    said = told(capsys, "import", "p.json", "--passphrase-env=PHRASE", code=2)
    assert said.count("\n") == 1


def test_an_address_is_not_a_site(here, capsys):
    assert "without https://" in told(capsys, "show", "https://shop.example/cart", code=2)
