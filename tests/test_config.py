"""Every kind of mistake in a configuration gives exactly one sentence that names the key and says what to write."""

from __future__ import annotations

import tomllib
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tabkeeper.config import PoolConfig, load_config, parse_config, parse_duration, show_duration
from tabkeeper.errors import ConfigError
from tabkeeper.money import Money


def mistake(toml: str, **environ: str) -> str:
    """Return the sentence that a mistaken file gives."""
    file = Path("tabkeeper.toml")
    file.write_text(toml, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file, environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


MISTAKES = {
    "unknown key": ("[pool]\nmax_session = 3", ["pool.max_session", "did you mean 'max_sessions'?"]),
    "neither shared nor not": ('[pool]\nshared = "maybe"', ["pool.shared", 'write "auto", true or false']),
    "unknown key of a budget": (
        '[[budgets]]\nname = "d"\nlimit = "1"\nzone = "UTC"',
        ["budgets.0.zone", "timezone"],
    ),
    "unknown key of rates": (
        '[providers.local]\nkind = "local"\n[providers.local.rates]\nper_hours = "1"',
        ["providers.local.rates.per_hours", "did you mean 'per_hour'?"],
    ),
    "unknown section": ("[limits]\nx = 1", ["'limits'", "known here: pool, ledger, budgets"]),
    "zone with a typing error": (
        '[ledger]\ntimezone = "Europe/Berln"',
        ["ledger.timezone", "'Europe/Berlin'"],
    ),
    "zone of a budget": (
        '[[budgets]]\nname = "d"\nlimit = "1"\ntimezone = "Mars"',
        ["budgets.0.timezone", "IANA"],
    ),
    "unset variable": ('[ledger]\nurl = "env:NOWHERE_SET"', ["ledger.url", "NOWHERE_SET is not set"]),
    "unset variable in a list": (
        '[platforms.web]\nproviders = ["env:WHICH"]',
        ["platforms.web.providers.0", "WHICH is not set"],
    ),
    "unknown provider": (
        '[platforms.web]\nproviders = ["locl"]',
        ["platforms.web.providers", "no provider 'locl'", "did you mean 'local'?"],
    ),
    "unknown kind of provider": (
        '[providers.x]\nkind = "loca"',
        ["providers.x.kind", "'local', 'cdp', ", "'browserbase', ", " or 'steel'"],
    ),
    "provider without a kind": ("[providers.x]\nheadless = true", ["providers.x.kind"]),
    "hosted provider without a key": (
        '[providers.x]\nkind = "browserbase"',
        ["providers.x", "api_key", "set BROWSERBASE_API_KEY"],
    ),
    "hosted provider with an empty key": (
        '[providers.x]\nkind = "browserbase"\napi_key = " "',
        ["providers.x", "api_key", "env:BROWSERBASE_API_KEY"],
    ),
    "hosted provider with a local key": (
        '[providers.x]\nkind = "browserbase"\napi_key = "k"\nheadless = false',
        ["providers.x", "headless", "browserbase"],
    ),
    "local provider with a hosted key": (
        '[providers.x]\nkind = "local"\nproject_id = "p"',
        ["providers.x", "project_id", "local"],
    ),
    "endpoint without an address": ('[providers.x]\nkind = "cdp"', ["providers.x", "url"]),
    "budget for an unknown platform": (
        '[[budgets]]\nname = "d"\nlimit = "1"\nplatform = "wbe"\n[platforms.web]',
        ["budgets.0.platform", "'wbe'", "did you mean 'web'?"],
    ),
    "budget for an unknown provider": (
        '[[budgets]]\nname = "d"\nlimit = "1"\nprovider = "lokal"',
        ["budgets.0.provider", "'lokal'", "did you mean 'local'?"],
    ),
    "budget for two things": (
        '[[budgets]]\nname = "d"\nlimit = "1"\nprovider = "local"\ntenant = "a"',
        ["budgets.0", "at most one of platform, provider, tenant"],
    ),
    "budget named twice": (
        '[[budgets]]\nname = "d"\nlimit = "1"\n[[budgets]]\nname = "d"\nlimit = "2"',
        ["budgets.0.name", "'d' is used twice"],
    ),
    "zero budget": ('[[budgets]]\nname = "d"\nlimit = "0"', ["budgets.0", "zero refuses everything"]),
    "negative budget": ('[[budgets]]\nname = "d"\nlimit = "-1"', ["budgets.0.limit", "must not be negative"]),
    "zero sessions": ("[pool]\nmax_sessions = 0", ["pool.max_sessions", "greater than or equal to 1"]),
    "zero sessions of a platform": ("[platforms.web]\nmax_sessions = 0", ["platforms.web.max_sessions"]),
    "platform without providers": ("[platforms.web]\nproviders = []", ["platforms.web.providers"]),
    "priorities the wrong way round": ("[pool]\npriorities = [5, -5]", ["pool", "priorities", "[-5, 5]"]),
    "no duration": ('[pool]\nqueue_timeout = "soon"', ["pool.queue_timeout", "'soon'", "'30s'"]),
    "duration with an unknown unit": ('[pool]\nqueue_timeout = "3 weeks"', ["pool.queue_timeout", "'10m'"]),
    "duration of nothing": ('[pool]\nqueue_timeout = "0s"', ["pool.queue_timeout", "longer than zero"]),
    "negative duration": ("[pool]\nqueue_timeout = -3", ["pool.queue_timeout", "longer than zero"]),
    "money as a decimal number": ('[[budgets]]\nname = "d"\nlimit = 5.1', ["budgets.0.limit", 'text, "5.1"']),
    "money that is none": ('[[budgets]]\nname = "d"\nlimit = "five"', ["budgets.0.limit", "'five'"]),
    "money too fine": (
        '[[budgets]]\nname = "d"\nlimit = "0.00000000001"',
        ["budgets.0.limit", "nano-dollar"],
    ),
    "price as a decimal number": (
        '[providers.local]\nkind = "local"\n[providers.local.rates]\nper_hour = 0.12',
        ["providers.local.rates.per_hour", 'text, "0.12"'],
    ),
    "rates and a plan": (
        '[providers.local]\nkind = "local"\nplan = "browserbase/developer"\n[providers.local.rates]',
        ["providers.local", "not both"],
    ),
    "threshold of nothing": (
        '[[budgets]]\nname = "d"\nlimit = "1"\nthresholds = [0]',
        ["budgets.0", "thresholds", "0.8"],
    ),
    "name with a blank": ('[platforms."my site"]', ["platforms"]),
    "no TOML": ("[pool\n", ["tabkeeper.toml is not valid TOML", "line 1"]),
    "plain value for a section": ("pool = 3", ["pool"]),
}


@pytest.mark.parametrize(("toml", "facts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gives_one_sentence_with_the_key_and_what_to_write(toml: str, facts: list[str]) -> None:
    told = mistake(toml)
    assert told.startswith("tabkeeper.toml") or "environment variable" in told
    for fact in facts:
        assert fact in told


def test_a_missing_file_names_the_command_that_writes_one() -> None:
    with pytest.raises(ConfigError, match=r"no file elsewhere\.toml; `tabkeeper init` writes one"):
        load_config("elsewhere.toml", {})


def test_a_directory_instead_of_a_file_is_one_sentence() -> None:
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match="folder cannot be read"):
        load_config("folder", {})


def test_a_file_that_is_no_text_is_one_sentence() -> None:
    Path("tabkeeper.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config("tabkeeper.toml", {})


def test_nothing_at_all_means_the_defaults() -> None:
    assert load_config(None, {}) == PoolConfig() == parse_config({})


def test_a_variable_wins_over_the_file() -> None:
    Path("tabkeeper.toml").write_text("[pool]\nmax_sessions = 3", encoding="utf-8")
    environ = {"TABKEEPER_POOL__MAX_SESSIONS": "7", "TABKEEPER_CONFIG": "ignored here", "OTHER": "x"}
    assert load_config("tabkeeper.toml", environ).pool.max_sessions == 7


def test_a_variable_for_an_unknown_key_is_a_mistake_like_any_other() -> None:
    with pytest.raises(ConfigError, match=r"pool\.max_session.*did you mean 'max_sessions'"):
        load_config(None, {"TABKEEPER_POOL__MAX_SESSION": "7"})


def test_a_variable_that_leads_through_a_plain_value_says_so() -> None:
    Path("tabkeeper.toml").write_text("[pool]\nmax_sessions = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match="TABKEEPER_POOL__MAX_SESSIONS__X does not lead to a setting"):
        load_config("tabkeeper.toml", {"TABKEEPER_POOL__MAX_SESSIONS__X": "7"})


def test_a_secret_comes_from_the_environment_and_is_not_shown() -> None:
    toml = '[providers.far]\nkind = "cdp"\nurl = "env:FAR_URL"'
    Path("tabkeeper.toml").write_text(toml, encoding="utf-8")
    config = load_config("tabkeeper.toml", {"FAR_URL": "wss://far.example/?token=hunter2"})
    url = config.providers["far"].url
    assert url is not None
    assert url.get_secret_value() == "wss://far.example/?token=hunter2"
    assert "hunter2" not in repr(config)


def test_a_secret_is_not_repeated_in_the_sentence_about_a_mistake() -> None:
    told = mistake('[providers.far]\nkind = "cdp"\nurl = "wss://x?token=hunter2"\nplam = "x"')
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1d", 86400),
        (5, 5),
        (0.5, 0.5),
        ("1.5h", 5400),
    ],
)
def test_durations_are_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("seconds", [0, 0.5, 1, 59, 60, 90, 3600, 5400, 86400, 90061])
def test_durations_are_written_as_they_are_read(seconds: float) -> None:
    assert parse_duration(show_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_a_configuration_survives_being_written_and_read_again() -> None:
    toml = """
        [pool]
        shutdown_grace = "0s"
        [[budgets]]
        name = "daily"
        limit = "5.000000001"
        timezone = "America/New_York"
        [providers.local]
        kind = "local"
        [providers.local.rates]
        per_hour = "0.12"
        [platforms.web]
        block = ["image"]
        max_session_cost = "0.50"
    """
    config = parse_config(tomllib.loads(toml))
    assert parse_config(config.model_dump(mode="json", exclude_none=True)) == config
    assert config.budgets[0].limit == Money(5_000_000_001)
    rates = config.providers["local"].rates
    assert rates is not None
    assert rates.per_hour == Decimal("0.12")


def test_values_never_change_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PoolConfig().pool.max_sessions = 99  # type: ignore[misc]
