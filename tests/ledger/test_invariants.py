"""A sound ledger passes every invariant; each, broken on purpose, is caught by its name."""

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.ledger.comparing import Figures
from tabkeeper.ledger.invariants import INVARIANTS

from .builders import NOON, ask, lease, opened, tamper, used

DROP = {
    "sqlite": [
        f"DROP TRIGGER {t}_no_{v}" for t in ("entry", "entry_line", "posting") for v in ("update", "delete")
    ],
    "postgresql": [f"DROP TRIGGER {t}_append_only ON {t}" for t in ("entry", "entry_line", "posting")],
}

# What to break, and who must notice (others may, too: most money is counted twice).
MUTATIONS = {
    "I01": ["UPDATE budget_window SET held_n = held_n + 1"],
    "I02": ["UPDATE budget_window SET spent_n = spent_n + 1"],
    "I03": ["UPDATE budget_window SET forced_n = forced_n + 1"],
    "I04": ["UPDATE budget_window SET limit_n = 1"],
    "I05": ["UPDATE hold SET amount_n = amount_n + 1 WHERE state = 'open'"],
    "I06": ["UPDATE posting SET d_held_n = d_held_n - 1 WHERE d_held_n < 0"],
    "I07": ["UPDATE hold SET amount_n = amount_n + 1 WHERE state = 'settled'"],
    "I08": ["UPDATE hold SET state = 'open' WHERE session_id = 'done'"],
    "I09": ["UPDATE entry_line SET amount_n = amount_n + 1 WHERE kind = 'time'"],
    "I10": ["UPDATE rollup_hour SET cost_n = cost_n + 1"],
    "I11": ["UPDATE hold SET rate_card_id = (SELECT id FROM rate_card WHERE provider = 'local')"],
    "I12": [
        (
            "INSERT INTO rate_card (provider, plan, effective_from, effective_to, fingerprint, document, imported_at) "
            "VALUES ('bb', 'bb', 5, 6, '', '', 0)"
        )
    ],
    "I13": [
        (
            "INSERT INTO budget_window (budget_id, start_at, end_at, label, mode, limit_n) "
            "SELECT budget_id, start_at + 1, end_at, 'again', mode, limit_n FROM budget_window"
        )
    ],
    "I14": ["UPDATE posting SET d_spent_n = d_spent_n + 1 WHERE d_spent_n > 0 AND window_id = 1"],
    "I15": [
        (
            "INSERT INTO alert_event (dedupe_key, kind, at, window_id, metric, share_ppm) "
            "SELECT 'twice', kind, at, window_id, metric, share_ppm FROM alert_event WHERE kind = 'threshold' LIMIT 1"
        )
    ],
    "I16": ["UPDATE entry SET corrects_id = id"],
    "I17": ["UPDATE lease SET cost_n = -1"],
    "I18": ["UPDATE session SET ended_at = 1 WHERE id = 'open'"],
    "I19": ["UPDATE posting SET d_spent_n = d_spent_n + 1 WHERE d_spent_n > 0"],
    "I20": ["DELETE FROM alert_event WHERE metric = 'spent'"],
    "I22": ["UPDATE allowance SET used_qty = used_qty + 1"],
    "I26": ["UPDATE session SET idle_n = idle_n + 1 WHERE id = 'done'"],
    "I27": ["UPDATE session SET cost_n = cost_n + 1 WHERE id = 'done'"],
    "I28": ["DELETE FROM posting WHERE d_spent_n > 0 AND window_id = 1"],
    "I29": ["UPDATE rollup_hour SET rounding_n = rounding_n + 1"],
    "I31": ["UPDATE entry SET effective_at = effective_at + 1 WHERE kind = 'adjust'"],
    "I32": ["UPDATE rollup_hour SET tenant = 'somebody else' WHERE tenant = 'acme'"],
    "I33": ["UPDATE recon_item SET theirs_n = theirs_n + 1"],
    "I34": ["UPDATE entry SET quality = 'measured' WHERE kind = 'adjust'"],
    "I35": ["UPDATE session SET quality = 'measured' WHERE id = 'dear'"],
    "I30": ["UPDATE rollup_day SET bytes = bytes + 1"],
    "I37": [
        (
            "INSERT INTO recon_period (provider, start_at, end_at, checked_at, booked_n, session_id) "
            "VALUES ('bb', 1, 2, 3, 1, 'done')"
        )
    ],
    "I36": ["UPDATE entry_share SET cost_n = cost_n + 1"],
}


async def _busy(ledger):
    """One session of every kind of end, on two budgets."""
    for name in ("done", "gone", "late", "open"):
        await ledger.hold(ask(name))
    ledger.record_lease(lease("done", 1, 0, 60))
    await ledger.settle("done", used(150), reason="idle")
    await ledger.void("gone", reason="refused")
    await ledger.settle_orphan("late", reason="lost")
    await ledger.hold(ask("included", provider="plan"))
    await ledger.settle("included", used(150), reason="idle")
    await ledger.hold(ask("dear"))
    ledger.record_lease(lease("dear", 1, 0, 60, tenant="acme"))
    await ledger.settle("dear", used(60), reason="idle")
    await ledger.reconciliation.compare("dear", Figures(seconds_us=170_000_000))


@pytest.mark.parametrize("name", [invariant.name for invariant in INVARIANTS])
async def test_a_mutation_of_each_invariant_is_caught_by_name(ledger_url, name):
    budgets = [{"name": "day", "limit": "0.55", "thresholds": [0.01, 0.5]}, {"name": "month", "limit": "9"}]
    rates = {"per_hour": "0.60", "included_hours": "1"}
    plan = {"kind": "cdp", "url": "ws://u.invalid", "rates": rates}
    clock = VirtualClock(NOON)
    async with opened(ledger_url, budgets=budgets, plan=plan, clock=clock, check=False) as ledger:
        await _busy(ledger)
        assert await ledger.verify() == []
        tamper(ledger_url, *DROP["sqlite" if ledger_url.startswith("sqlite") else "postgresql"])
        tamper(ledger_url, *MUTATIONS[name])
        found = {violation.name: violation for violation in await ledger.verify()}
        assert name in found
        assert found[name].rows >= 1
        assert found[name].sample
        assert found[name].meaning


def test_every_invariant_has_a_mutation():
    assert sorted(MUTATIONS) == [invariant.name for invariant in INVARIANTS]
