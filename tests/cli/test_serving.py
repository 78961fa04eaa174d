"""`tabkeeper doctor` on money: a configuration that can never serve is not ready, and the arrow says what to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tabkeeper.cli.serving import serving
from tabkeeper.config import parse_config

from .conftest import Told

PAID = {"kind": "local", "rates": {"per_session": "0.01", "per_hour": "0.36"}}
"""The longest session by default, 15 min 10 s, may cost $0.101."""

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def found(**data: object) -> list[tuple[str, str, str, str]]:
    """Name, level, detail and advice of all findings."""
    everything = {"providers": {"local": PAID}, "platforms": {"shop": {}}, **data}
    return [(f.name, f.level, f.detail, f.advice) for f in serving(parse_config(everything), NOW)]


def budget(limit: str, **more: object) -> dict[str, object]:
    return {"name": "daily", "limit": limit, **more}


CHANGE = "raise it, or shorten session_ttl, lease_timeout, or set max_session_cost"
TOO_DEAR = 'one session may cost $0.101, budget "daily" is $0.05'


def test_what_fits_is_told_with_its_worst_case() -> None:
    fits = ("shop at local", "ok", "one session may cost $0.101 (it lives 15m10s at most)", "")
    assert found() == [fits]
    assert found(budgets=[budget("0.101")]) == [fits], "to the last nano-dollar"
    assert found(providers={"local": {"kind": "local"}}) == [("shop at local", "ok", "costs nothing", "")]


@pytest.mark.parametrize("scope", [{}, {"platform": "shop"}, {"provider": "local"}, {"period": "month"}])
def test_a_budget_below_one_session_is_a_failure(scope: dict[str, str]) -> None:
    assert found(budgets=[budget("0.05", **scope)]) == [("shop at local", "fail", TOO_DEAR, CHANGE)]


def test_a_budget_that_does_not_refuse_or_does_not_apply_is_none_of_it() -> None:
    others = {
        "providers": {"local": PAID, "other": PAID},
        "platforms": {"shop": {}, "mail": {"providers": ["other"]}},
    }
    for scope in ({"platform": "mail"}, {"provider": "other"}):
        levels = {name: level for name, level, _, _ in found(**others, budgets=[budget("0.05", **scope)])}
        assert levels == {"shop at local": "ok", "mail at other": "fail"}
    assert found(budgets=[budget("0.05", mode="soft")])[0][1] == "ok"


def test_a_cap_makes_a_session_fit_and_one_too_low_is_a_failure() -> None:
    capped = {"platforms": {"shop": {"max_session_cost": "0.04"}}}
    ((_, level, detail, _),) = found(**capped, budgets=[budget("0.05")])
    assert (level, detail) == ("ok", "one session may cost $0.04 (it lives 5m at most)")
    ((_, level, detail, advice),) = found(platforms={"shop": {"max_session_cost": "0.01"}})
    assert (level, advice) == ("fail", "raise platforms.shop.max_session_cost")
    assert detail == "the shortest session may cost $0.0101, max_session_cost is $0.01"


def test_shorter_times_of_the_platform_count() -> None:
    short = {"session_ttl": "1m", "lease_timeout": "30s"}
    assert found(platforms={"shop": short}, budgets=[budget("0.05")])[0][1] == "ok"


def test_a_budget_that_falls_back_to_free_browsers_only_warns() -> None:
    both = {
        "providers": {"paid": PAID, "local": {"kind": "local"}},
        "platforms": {"shop": {"providers": ["paid", "local"]}},
    }
    levels = [
        (level, detail)
        for _, level, detail, _ in found(**both, budgets=[budget("0.05", on_exceed="fallback")])
    ]
    assert levels == [("warn", f"{TOO_DEAR}; so all goes to local"), ("ok", "costs nothing")]
    assert found(**both, budgets=[budget("0.05")])[0][1] == "fail", "deny refuses, free provider or not"
    assert found(budgets=[budget("0.05", on_exceed="fallback")])[0][1] == "fail", (
        "there is nothing to fall back to"
    )


@pytest.mark.parametrize(
    ("provider", "says", "advice"),
    [
        (
            {},
            "nobody knows what provider 'far' costs",
            "set providers.far.rates (all zero if it is free) or a plan",
        ),
        ({"rates": {"per_gb": "8"}}, "nothing limits it", 'set max_gb ("0" if there is none)'),
        ({"plan": "steel/lunch"}, "no built-in price list 'steel/lunch'", "did you mean 'steel/launch'?"),
    ],
)
def test_a_missing_price_an_unknown_plan_and_traffic_without_bound_are_failures(
    provider: dict[str, object], says: str, advice: str
) -> None:
    far = {"kind": "cdp", "url": "ws://127.0.0.1:9", **provider}
    ((_, level, detail, tip),) = found(providers={"far": far}, platforms={"shop": {"providers": ["far"]}})
    assert (level, says in detail, tip) == ("fail", True, advice), detail


def test_a_provider_without_a_price_that_nobody_uses_may_stay() -> None:
    far = {"kind": "cdp", "url": "ws://127.0.0.1:9"}
    assert [level for _, level, _, _ in found(providers={"local": PAID, "far": far})] == ["ok"]


def test_no_platform_at_all_is_a_warning() -> None:
    ((name, level, detail, advice),) = found(platforms={})
    assert (name, level) == ("platforms", "warn")
    assert "nothing can be leased" in detail
    assert "[platforms.web]" in advice


def test_a_budget_for_a_tenant_that_nobody_knows_is_a_warning_with_the_nearest_name() -> None:
    *_, (name, level, detail, advice) = found(budgets=[budget("5", tenant="acmee")], tenants={"acme": {}})
    assert (name, level, advice) == ("budget daily", "warn", "did you mean 'acme'?")
    assert "'acmee'" in detail
    assert found(budgets=[budget("5", tenant="x")])[-1][3] == "check the name, or add [tenants.x]"
    assert len(found(budgets=[budget("5", tenant="acme")], tenants={"acme": {}})) == 1


def test_a_tenant_whose_budget_admits_no_session_is_a_warning_since_others_are_served() -> None:
    ((_, level, detail, _),) = found(budgets=[budget("0.05", tenant="acme")], tenants={"acme": {}})
    assert (level, detail) == ("warn", 'one session may cost $0.101, budget "daily" of tenant acme is $0.05')


def test_the_doctor_says_so_and_is_not_ready(folder: Path, tabkeeper: Callable[..., Told]) -> None:
    toml = """
    [[budgets]]
    name = "daily"
    limit = "0.05"
    [providers.local]
    kind = "local"
    rates = { per_session = "0.01", per_hour = "0.36" }
    [platforms.shop]
    """
    (folder / "tabkeeper.toml").write_text(toml, encoding="utf-8")
    told = tabkeeper("doctor", "--no-start")
    assert told.code == 1
    assert "Ready" not in told.out
    words = " ".join(told.out.split())
    assert f"fail shop at local {TOO_DEAR} → {CHANGE}" in words
    checks = json.loads(tabkeeper("doctor", "--no-start", "--json").out)
    assert checks["ok"] is False
