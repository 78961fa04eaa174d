"""`tabkeeper alerts`: a list that tells who has heard, and a trial of the channels."""

import asyncio
import json
import sys

import pytest

from tabkeeper.cli.app import main, run
from tabkeeper.config import load_config
from tabkeeper.ledger.ledger import Ledger

from .receiver import receiving


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, *urls):
    hooks = "".join(f'[[alerts.webhooks]]\nname = "h{i}"\nurl = "{url}"\n' for i, url in enumerate(urls))
    (folder / "tabkeeper.toml").write_text(f'[ledger]\nurl = "sqlite:///l.db"\n{hooks}')


def test_a_trial_tells_which_channel_took_it(folder, capsys):
    with receiving() as good, receiving() as bad:
        bad.refuse = [(403, {})]
        write(folder, good.url, bad.url)
        assert run(["alerts", "test"]) == 1
        said = capsys.readouterr().out
        assert said.splitlines() == ["webhook:h0: taken", "webhook:h1: NOT taken: answered 403"]
        assert good.took[0]["body"]["kind"] == "test"
        assert run(["alerts", "test", "--channel", "h0", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [{"channel": "webhook:h0", "ok": True, "error": None}]


def test_a_hook_in_the_folder_where_the_command_is_called_is_found(folder, capsys, monkeypatch):
    (folder / "hooks_of_mine.py").write_text("def tell(alert):\n    print('heard of', alert.kind)\n")
    (folder / "tabkeeper.toml").write_text('[alerts]\nhooks = ["hooks_of_mine:tell"]\n')
    monkeypatch.setattr("sys.path", [one for one in sys.path if one])
    monkeypatch.setattr("sys.argv", ["tabkeeper", "alerts", "test"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().out) == (
        0,
        "heard of test\nhook:hooks_of_mine:tell: taken\n",
    )


@pytest.mark.parametrize(
    ("urls", "asked", "words"), [((), [], "nobody to tell"), (("http://x/",), ["nix"], "known: h0")]
)
def test_a_trial_with_nobody_to_tell_is_one_clear_line(folder, capsys, urls, asked, words):
    write(folder, *urls)
    assert run(["alerts", "test", *(f"--channel={name}" for name in asked)]) == 2
    assert words in capsys.readouterr().err


def test_the_list_shows_what_happened_and_who_has_heard(folder, capsys):
    write(folder)
    asyncio.run(_tell_two(load_config("tabkeeper.toml")))
    assert run(["alerts", "list"]) == 0
    said = capsys.readouterr().out
    assert "a lease is held" in said
    assert "ops (tried 1 times: answered 500)" in said
    assert run(["alerts", "list", "--undelivered", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)
    assert (only["key"], only["channels"][0]["state"]) == ("k2", "pending")


async def _tell_two(config):
    from datetime import timedelta

    ledger = await Ledger.open(config)
    outbox = ledger.alerts
    outbox.tell("leak", "k1", "a lease is held")
    outbox.tell("leak", "k2", "another is held")
    await ledger.flush()
    ((first, _), _) = await outbox.recent(2)
    await outbox.open_channel("ops", since=first.at - timedelta(days=1))
    claimed = await outbox.claim("ops", most=5, hold=timedelta(seconds=9), keep=timedelta(days=2))
    await outbox.delivered(claimed[0][0], "ops")
    await outbox.failed(claimed[1][0], "ops", error="answered 500", again_in=timedelta(seconds=60))
    await ledger.aclose()
