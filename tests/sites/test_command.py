"""What `tabkeeper run` refuses, and which sites and sessions it takes."""

from __future__ import annotations

import pytest

from tabkeeper.cli.app import run
from tabkeeper.config import parse_config
from tabkeeper.sites.command import platform_of, sites_of


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "mine.py").write_text("async def parse(page, target):\n    yield {}\n")
    (tmp_path / "full.jsonl").write_text("{}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine"], "names no function; write it like my_scraper:parse"),
        (["mine.py:other"], "cannot be loaded"),
        (["nowhere_at_all:parse"], "cannot be loaded"),
        (["mine.py:parse"], "name the sites: --sites=a.com,b.com"),
        (["mine.py:parse", "--sites", "not a site"], "is not a site's domain"),
        (["mine.py:parse", "--sites", "ftp://a.example/"], "is no address of a page"),
        (["mine.py:parse", "--sites", "a.example", "--max-cost", "much"], "is no amount of dollars"),
        (["mine.py:parse", "--sites", "a.example", "--max-cost", "0"], "must be above zero"),
        (["mine.py:parse", "--sites", "a.example", "--platform", "no"], "there is no platform 'no'"),
        (["mine.py:parse", "--sites", "a.example", "--out", "full.jsonl"], "full.jsonl is not empty"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_begins(arguments, said, capsys, tmp_path):
    assert run(["run", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*.db"))


def test_there_is_nothing_to_resume_at_first(capsys):
    assert run(["run", "mine.py:parse", "--sites", "a.example", "--resume"]) == 1
    assert "there is no run of 'mine.py:parse' to resume" in capsys.readouterr().err


def test_sites_have_their_settings_and_those_that_nobody_set_bear_what_the_run_has():
    config = parse_config({"sites": {"a.example": {"max_sessions": 2, "start": ["https://a.example/s"]}}})
    assert [site.domain for site in sites_of(config, (), 7).all()] == ["a.example"]
    a, b = sites_of(config, ["a.example", "https://b.example/x#y"], 7).all()
    assert (a.settings.max_sessions, a.start) == (2, ("https://a.example/s",))
    assert (b.settings.max_sessions, b.start) == (7, ("https://b.example/x",))
    (www,) = sites_of(config, ["https://www.a.example/other"], 7).all()
    assert (www.domain, www.start) == ("a.example", ("https://www.a.example/other",))


def test_the_only_platform_is_taken_and_without_any_there_is_one_of_all_providers():
    assert platform_of(parse_config({"platforms": {"shop": {}}}), "")[1] == "shop"
    config, name = platform_of(parse_config({}), "")
    assert config.platforms[name].providers == ("local",)
