"""Runs as the database keeps them: nothing counts twice, nothing is lost, one process at a time."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from tabkeeper.config import parse_config
from tabkeeper.errors import BudgetExceededError, RunError, RunLostError
from tabkeeper.ledger.ledger import Ledger
from tabkeeper.ledger.types import HoldRequest, SessionUsage
from tabkeeper.money import Money
from tabkeeper.sites.finds import Finds, Mark
from tabkeeper.sites.runs import Gain, Run, Runs

A, B = ("https://a.example/", "a.example"), ("https://b.example/", "b.example")


@asynccontextmanager
async def opened(url: str, **more):
    settings = {
        "ledger": {"url": url},
        "providers": {"bb": {"kind": "local", "rates": {"per_hour": "0.60", "increment": "1m"}}},
        "platforms": {"web": {"providers": ["bb"]}},
        **more,
    }
    ledger = await Ledger.open(parse_config(settings))
    try:
        yield ledger
    finally:
        await ledger.aclose()


def run(name: str = "shop", max_cost: str | None = None, run_id: str = "r1") -> Run:
    cap = None if max_cost is None else Money.parse(max_cost)
    return Run(id=run_id, name=name, sites=("a.example", "b.example"), max_cost=cap)


async def test_a_run_ends_with_each_page_once_and_each_item_once(ledger_url):
    async with opened(ledger_url) as ledger:
        runs, one = Runs(ledger), run()
        first, second = await runs.start(one, [A, B, A])
        new = await runs.update(
            one, first, Gain(items=['{"x":1}'], pages=[("https://a.example/2", "a.example"), A])
        )
        assert [(page.url, page.depth, page.origin) for page in new] == [("https://a.example/2", 1, first.n)]
        again = await runs.update(
            one, first, Gain(items=['{"x":1}'], pages=[("https://a.example/3", "a.example")])
        )
        assert again == [], "what is done twice counts once"
        with pytest.raises(RunError, match="2 pending"):
            await runs.commit(one)
        await runs.update(one, second, Gain(items=['{"x":2}', '{"x":3}']))
        await runs.update(one, new[0], Gain())
        standing = await runs.standing(one)
        assert (standing.done, standing.pending, standing.failed, standing.items) == (3, 0, 0, 3)
        assert [(s.url, s.done) for s in standing.starts] == [(A[0], 2), (B[0], 1)]
        assert [(item.n, item.body) for item in await Finds(ledger).items(one, 0)] == [
            (1, '{"x":1}'),
            (2, '{"x":2}'),
            (3, '{"x":3}'),
        ]
        await runs.commit(one)
        assert (await runs.standing(one)).committed
        assert await Finds(ledger).items(one, 0) == []
        with pytest.raises(RunError, match="no run of 'shop' to resume"):
            await runs.resume("shop")


async def test_a_page_that_was_given_up_keeps_the_run_open_and_is_tried_anew(ledger_url):
    async with opened(ledger_url) as ledger:
        runs, one = Runs(ledger), run()
        first, second = await runs.start(one, [A, B])
        await runs.fail(one, first, "HTTP 500", avoid={"p1"}, seconds=1, final=False)
        await runs.fail(one, first, "HTTP 500", avoid={"p1", "p2"}, seconds=1, final=True)
        await runs.update(one, second, Gain())
        with pytest.raises(RunError, match="1 failed"):
            await runs.commit(one)
        (told,) = (await runs.standing(one)).failures
        assert (told.url, told.attempts, told.error) == (A[0], 2, "HTTP 500")
    async with opened(ledger_url) as ledger:
        found, pages = await Runs(ledger).resume("shop")
        assert found == one
        assert [(page.url, page.attempts, page.avoid) for page in pages] == [(A[0], 0, frozenset())]


async def test_one_process_works_on_a_run_at_a_time(ledger_url):
    async with opened(ledger_url) as first, opened(ledger_url) as second:
        one = run()
        (page,) = await Runs(first).start(one, [A])
        with pytest.raises(RunError, match="worked on by another process"):
            await Runs(second).resume("shop")
        # As if the first had been taken for dead, and was not.
        await first.transact(
            lambda tx: tx.run("UPDATE process SET ended_at = 1 WHERE id = :id", id=first.process_id)
        )
        await Runs(second).resume("shop")
        for late in (
            Runs(first).update(one, page, Gain(items=["1"])),
            Runs(first).fail(one, page, "late", avoid=(), seconds=0, final=True),
            Finds(first).marked(one, Mark(outlet="x", items=1)),
            Runs(first).commit(one),
        ):
            with pytest.raises(RunLostError):
                await late
        assert (await Runs(second).standing(one)).items == 0


def ask(session_id: str, tenant: str) -> HoldRequest:
    return HoldRequest(session_id=session_id, platform="web", provider="bb", tenant=tenant, max_seconds=600)


async def test_a_run_s_cap_holds_whatever_other_processes_are_configured_with(ledger_url):
    async with opened(ledger_url) as ledger:
        runs, one = Runs(ledger), run(max_cost="0.15")
        await runs.start(one, [A])
        await ledger.hold(ask("s1", one.tenant))  # 10 cents
        async with opened(ledger_url, budgets=[{"name": "daily", "limit": "9.00"}]) as other:
            with pytest.raises(BudgetExceededError, match="run-r1"):
                await other.hold(ask("s2", one.tenant))
            await other.hold(ask("s3", "somebody else"))
        await ledger.settle("s1", SessionUsage(seconds=60), reason="done")
        await ledger.hold(ask("s4", one.tenant))
        await ledger.settle("s4", SessionUsage(seconds=600), reason="done")
        assert await runs.cost(one) == Money.parse("0.11")
        with pytest.raises(BudgetExceededError):
            await ledger.hold(ask("s5", one.tenant))
    async with opened(ledger_url) as ledger:
        more, (page,) = await Runs(ledger).resume("shop", max_cost=Money.parse("0.21"))
        await ledger.hold(ask("s6", more.tenant))
        with pytest.raises(BudgetExceededError):
            await ledger.hold(ask("s7", more.tenant))
        await ledger.settle("s6", SessionUsage(seconds=600), reason="done")
        await Runs(ledger).update(more, page, Gain())
        await Runs(ledger).commit(more)
        assert await ledger.verify() == []
        assert not await ledger.transact(
            lambda tx: tx.rows("SELECT * FROM budget WHERE name = 'run-r1' AND effective_to IS NULL")
        )


async def test_what_was_written_out_is_known_after_a_restart(sqlite_url):
    async with opened(sqlite_url) as ledger:
        runs, one = Runs(ledger), run()
        await runs.start(one, [A])
        assert await Finds(ledger).mark(one, "items.jsonl") == Mark(outlet="items.jsonl")
        await Finds(ledger).marked(one, Mark(outlet="items.jsonl", items=4, bytes=99))
        assert await Finds(ledger).mark(one, "items.jsonl") == Mark(outlet="items.jsonl", items=4, bytes=99)
        assert await Finds(ledger).mark(one, "other.jsonl") == Mark(outlet="other.jsonl")
