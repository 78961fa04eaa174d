"""Traffic through proxies of one's own in the books: held before, booked after, never beyond what was held."""

from __future__ import annotations

import json
import os
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tabkeeper.config import RateSettings
from tabkeeper.errors import BudgetExceededError, IdempotencyConflictError
from tabkeeper.ledger.cards import card_from_settings
from tabkeeper.ledger.comparing import Figures, bill_of
from tabkeeper.ledger.rates import OWN_PROXY_KIND, own_traffic, price, worst_case
from tabkeeper.ledger.types import Quality
from tabkeeper.money import Money

from .builders import ask, opened, used

PROOF = os.environ.get("TABKEEPER_PROOF") == "1"
GB = 10**9
CAP = GB // 10
"""What a session of these tests may move."""
FOUR = {"proxy_price": Decimal("4.00"), "proxy_bytes": CAP}
CENTS = Money.parse("0.10")
"""Ten minutes of the provider."""


def lines_of(ledger, session_id="s"):
    with ledger.reader.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT n.kind, SUM(n.raw_qty) AS raw, SUM(n.amount_n) AS amount FROM entry e "
                "JOIN entry_line n ON n.entry_id = e.id WHERE e.session_id = :s GROUP BY n.kind"
            ),
            {"s": session_id},
        )
        return {row.kind: (int(row.raw), Money(int(row.amount))) for row in rows}


async def test_a_session_holds_all_it_may_move_and_pays_for_what_it_moved(ledger_url):
    async with opened(ledger_url) as ledger:
        held = await ledger.hold(ask(**FOUR))
        assert held.amount == CENTS + Money.parse("0.40")
        assert await ledger.hold(ask(**FOUR)) == held, "asked again it is the same hold"
        with pytest.raises(IdempotencyConflictError, match="proxy"):
            await ledger.hold(ask(proxy_price=Decimal(5), proxy_bytes=CAP))
        booked = await ledger.settle("s", used(60, own_proxy_bytes=25_000_000), reason="done")
        assert booked.cost == Money.parse("0.01") + Money.parse("0.10")
        assert lines_of(ledger)[OWN_PROXY_KIND] == (25_000_000, Money.parse("0.10"))


async def test_what_nobody_counted_is_booked_as_all_that_was_held_for_until_it_is_known(ledger_url):
    async with opened(ledger_url) as ledger:
        await ledger.hold(ask(**FOUR))
        await ledger.settle_orphan("s", reason="its process died")
        assert lines_of(ledger)[OWN_PROXY_KIND] == (CAP, Money.parse("0.40"))
        await ledger.settle("s", used(60, own_proxy_bytes=1_000_000), reason="measured")
        assert lines_of(ledger)[OWN_PROXY_KIND] == (1_000_000, Money.parse("0.004"))


async def test_a_provider_s_figures_leave_it_alone(ledger_url):
    async with opened(ledger_url) as ledger:
        await ledger.hold(ask(**FOUR))
        await ledger.settle("s", used(60, own_proxy_bytes=25_000_000), reason="done")
        said = Figures(seconds_us=120_000_000, cost=Money.parse("0.03"))
        compared = await ledger.reconciliation.compare("s", said)
        assert compared is not None
        assert compared.theirs == Money.parse("0.03") + Money.parse("0.10")
        assert lines_of(ledger)[OWN_PROXY_KIND] == (25_000_000, Money.parse("0.10"))


async def test_a_budget_refuses_a_session_whose_traffic_it_could_not_pay(ledger_url):
    budget = {"name": "day", "limit": "0.45", "period": "day"}
    async with opened(ledger_url, budgets=[budget]) as ledger:
        with pytest.raises(BudgetExceededError) as refused:
            await ledger.hold(ask(**FOUR))
        assert refused.value.needed == Money.parse("0.50")
        await ledger.hold(ask("without"))


async def test_a_session_that_another_process_takes_over_keeps_the_price_it_was_held_at(postgres_url):
    async with opened(postgres_url, check=False) as ledger:
        await ledger.hold(ask(**FOUR))
        taken = await ledger.take_over("s")
        assert taken is not None
        part = taken.hold.card.component(OWN_PROXY_KIND)
        assert part is not None
        assert (part.unit_price, part.cap_qty) == (Decimal("4.00"), CAP)


async def test_what_was_kept_in_a_file_is_booked_the_same(ledger_url):
    settle = {"op": "settle", "proxy_bytes": 0, "quality": "measured", "reason": "x", "state": "closed"}
    async with opened(ledger_url) as ledger:
        await ledger.hold(ask("now", **FOUR))
        await ledger.hold(ask("older", **FOUR))
        at = ledger._now()
        kept = [
            {**settle, "session_id": "now", "seconds_us": 60_000_000, "own_bytes": 25_000_000, "at": at},
            # As a version wrote it that knew of no such traffic.
            {**settle, "session_id": "older", "seconds_us": 60_000_000, "at": at},
        ]
        kept = json.loads(json.dumps(kept))
        for _ in range(2):
            await ledger._writer.call(lambda tx: ledger._writer.replay(tx, kept))
        assert lines_of(ledger, "now")[OWN_PROXY_KIND] == (25_000_000, Money.parse("0.10"))
        assert lines_of(ledger, "older")[OWN_PROXY_KIND] == (CAP, Money.parse("0.40"))


PRICES = st.decimals(min_value="0.01", max_value="50", places=2)
QUANTITIES = st.integers(0, CAP)


@given(PRICES, QUANTITIES, st.integers(0, 600), QUANTITIES)
def test_no_traffic_within_the_bound_costs_more_than_was_held(each, moved, seconds, told):
    rates = RateSettings(per_hour=Decimal("0.60"))
    card = card_from_settings(rates).with_own_proxy(each, CAP)
    held = worst_case(card, 600)
    cost = price(card, seconds, quantities=own_traffic(card, moved))
    assert cost <= held
    assert cost.nanos - price(card, seconds).nanos == round(Decimal(moved) * each), (
        "a byte costs nano-dollars"
    )
    assert price(card, 600, quantities=own_traffic(card, None)) == held, "unknown is the worst case"
    bill = bill_of(
        card,
        Figures(proxy_bytes=told, own_bytes=None),
        seconds_us=seconds * 1_000_000,
        proxy_bytes=0,
        own_bytes=moved,
        included_left={},
    )
    assert sum(line.amount.nanos for line in bill if line.kind == OWN_PROXY_KIND) == cost.nanos - (
        price(card, seconds).nanos
    )


@settings(max_examples=100 if PROOF else 8)
@given(
    PRICES, st.lists(st.tuples(QUANTITIES, st.integers(0, 600)), min_size=1, max_size=8), st.integers(1, 9)
)
async def test_a_budget_is_never_passed_whatever_sessions_move(each, sessions, times):
    one = worst_case(
        card_from_settings(
            RateSettings(per_hour=Decimal("0.60"), increment="1m", minimum="1m")
        ).with_own_proxy(each, CAP),
        600,
    )
    limit = Money(one.nanos * times // 2)
    budget = {"name": "run", "limit": str(limit.dollars), "period": "total"}
    async with opened("sqlite://", budgets=[budget]) as ledger:
        spent = 0
        for number, (moved, seconds) in enumerate(sessions):
            name = f"s{number}"
            try:
                await ledger.hold(ask(name, proxy_price=each, proxy_bytes=CAP))
            except BudgetExceededError:
                assert spent + one.nanos > limit.nanos
                continue
            quality = Quality.MEASURED
            booked = await ledger.settle(
                name, used(seconds, own_proxy_bytes=moved, quality=quality), reason="done"
            )
            spent += booked.cost.nanos
            assert spent <= limit.nanos
