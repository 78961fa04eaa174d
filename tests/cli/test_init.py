"""`tabkeeper init`: the file it writes says everything and changes nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from tabkeeper.cli.describe import sections
from tabkeeper.cli.init import template
from tabkeeper.config import PoolConfig, load_config, parse_config

from .conftest import Told

UNCOMMENT = re.compile(r"(?m)^#(?=[a-z\[])")


def test_the_written_file_means_the_defaults(tabkeeper: Callable[..., Told]) -> None:
    told = tabkeeper("init")
    assert (told.code, told.err) == (0, "")
    assert "tabkeeper doctor" in told.out
    assert load_config("tabkeeper.toml", {}) == PoolConfig()


def test_with_every_comment_sign_removed_it_is_still_valid_and_changes_no_default() -> None:
    config = parse_config(tomllib.loads(UNCOMMENT.sub("", template())))
    assert config.pool == PoolConfig().pool
    assert config.ledger == PoolConfig().ledger
    assert {len(config.budgets), len(config.platforms), len(config.tenants)} == {1}
    only_limits = {"max_sessions", "max_uses", "max_session_cost"}
    assert config.platforms["web"].model_dump(exclude=only_limits) == parse_config(
        {"platforms": {"web": {}}}
    ).platforms["web"].model_dump(exclude=only_limits)


def test_every_key_stands_in_it_with_its_meaning() -> None:
    text = " ".join(template().replace("\n# ", " ").split())
    for section in sections():
        for key in section.keys:
            assert re.search(rf"#?{key.name} (= |\(not set\))", text), f"{section.header} {key.name}"
            assert " ".join(key.meaning.split()) in text, f"{section.header} {key.name}"


def test_every_key_has_a_meaning() -> None:
    assert [f"{s.header} {k.name}" for s in sections() for k in s.keys if not k.meaning] == []


def test_a_file_that_exists_is_kept_unless_told_otherwise(tabkeeper: Callable[..., Told]) -> None:
    Path("tabkeeper.toml").write_text("# mine", encoding="utf-8")
    told = tabkeeper("init")
    assert told.code == 2
    assert Path("tabkeeper.toml").read_text(encoding="utf-8") == "# mine"
    assert tabkeeper("init", "--force").code == 0
    assert Path("tabkeeper.toml").read_text(encoding="utf-8") == template()


def test_another_path_can_be_named(tabkeeper: Callable[..., Told]) -> None:
    assert tabkeeper("init", "other.toml").code == 0
    assert load_config("other.toml", {}) == PoolConfig()
    assert not Path("tabkeeper.toml").exists()
