"""Crawls of a site on this machine, in a real browser: every page once, failures tried elsewhere, money capped."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tabkeeper.config import parse_config
from tabkeeper.errors import BlockedError, BudgetExceededError
from tabkeeper.money import Money
from tabkeeper.sites.command import Order, carry_out

from .loopback import Tree
from .visitor import parse

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]


def settings(folder: Path, **more):
    rates = more.pop("rates", None)
    platform = more.pop("platform", {})
    data = {
        "ledger": {"url": f"sqlite:///{folder}/books.db"},
        "providers": {"local": {"kind": "local", **({"rates": rates} if rates else {})}},
        "platforms": {"web": platform},
        **more,
    }
    return parse_config(data)


def titles(file: Path) -> list[str]:
    return sorted(json.loads(line)["title"] for line in file.read_text().splitlines())


async def test_every_page_is_visited_once_by_sessions_in_parallel(tmp_path):
    crawls = []
    with Tree(16) as tree:
        order = Order(
            name="tree", parse=parse, sites=[tree.start], instance_limit=3, out=tmp_path / "items.jsonl"
        )
        summary = await carry_out(settings(tmp_path), order, crawls.append)
        assert summary.committed
        assert titles(order.out) == tree.items()
        assert set(tree.seen.values()) == {1}
    assert crawls[0]._pool._leases.counts.peak_sessions == 3
    assert (summary.standing.done, summary.standing.items) == (16, 16)
    assert summary.elsewhere == 16
    assert summary.progress.seconds_left == 0
    assert [(one.url, one.done) for one in summary.standing.starts] == [(tree.start, 16)]


async def test_one_site_s_failure_leaves_the_others_and_a_resumed_run_ends_what_was_left(tmp_path):
    with Tree(6) as good, Tree(6, host="localhost") as bad:
        bad.answers = {0: [500, 200], 1: [-500], 5: [410]}
        order = Order(name="two", parse=parse, sites=[good.start, bad.start], out=tmp_path / "items.db")
        first = await carry_out(settings(tmp_path), order)
        assert not first.committed
        by_site = {one.site: one for one in first.standing.sites}
        assert (by_site["127.0.0.1"].done, by_site["127.0.0.1"].failed) == (6, 0)
        assert (by_site["localhost"].done, by_site["localhost"].failed) == (3, 1)
        assert bad.seen[0] == 2, "a page that failed once is visited again"
        assert bad.seen[1] == 3, "and is given up after three visits"
        assert [failure.url for failure in first.standing.failures] == [bad.start.replace("/0", "/1")]

        bad.answers = {}
        again = Order(name="two", parse=parse, resume=True)
        second = await carry_out(settings(tmp_path), again)
        assert second.committed
        assert second.run == first.run
        assert second.out == order.out
        assert good.seen.total() == 6
        with closing(sqlite3.connect(order.out)) as database:
            rows = database.execute("SELECT site, json_extract(item, '$.title') FROM items").fetchall()
        assert sorted(title for site, title in rows if site == "127.0.0.1") == good.items()
        assert sorted(title for site, title in rows if site == "localhost") == [
            f"thing {k}" for k in range(5)
        ]


async def test_a_visitor_that_fails_is_told_of_and_takes_nobody_along(tmp_path):
    async def picky(page, target):
        if target.url.endswith("/2"):
            raise ValueError("no price")
        async for one in parse(page, target):
            yield one

    with Tree(5) as tree:
        order = Order(name="picky", parse=picky, sites=[tree.start], out=tmp_path / "items.jsonl", attempts=2)
        summary = await carry_out(settings(tmp_path), order)
    assert not summary.committed
    assert titles(order.out) == ["thing 0", "thing 1", "thing 3", "thing 4"]
    (failure,) = summary.standing.failures
    assert failure.error == "ValueError: no price"
    assert failure.attempts == 2


async def test_a_run_never_costs_more_than_its_cap_and_goes_on_with_more(tmp_path):
    # A session costs a cent, and each page keeps the first one out that comes to it.
    config = settings(tmp_path, rates={"per_session": "0.01"})

    async def guarded(page, target):
        if target.attempt == 1:
            raise BlockedError("are you human?")
        async for one in parse(page, target):
            yield one

    with Tree(5) as tree:
        order = Order(
            name="poor",
            parse=guarded,
            sites=[tree.start],
            instance_limit=2,
            max_cost=Money.parse("0.035"),
            out=tmp_path / "items.jsonl",
        )
        first = await carry_out(config, order)
        assert isinstance(first.stopped_by, BudgetExceededError)
        assert not first.committed
        assert first.cost == Money.parse("0.03"), "as far as it goes, and no further"
        assert first.standing.done < 5

        more = Order(
            name="poor",
            parse=guarded,
            sites=[tree.start],
            instance_limit=2,
            max_cost=Money.parse("0.20"),
            resume=True,
        )
        second = await carry_out(config, more)
        assert second.committed
        assert Money.parse("0.035") < second.cost <= Money.parse("0.20")
        assert titles(order.out) == tree.items()
