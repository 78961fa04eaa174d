"""Whose sessions were left behind, who said goodbye, and what waits for a provider's word."""

import pytest

from tabkeeper.clock import VirtualClock
from tabkeeper.ledger.ledger import Ledger

from .builders import NOON, ask, config, opened, query, tamper


@pytest.fixture
async def left_behind(ledger_url):
    """A session whose ledger is still open in this living process; tests bend the process's row."""
    other = await Ledger.open(config(ledger_url), clock=VirtualClock(NOON))
    await other.hold(ask("theirs"))
    await other.activate("theirs", provider_session_id="p-1", pid=4, pid_started=5.5)
    async with opened(ledger_url, clock=VirtualClock(NOON)) as ledger:
        yield ledger
    await other.aclose()


async def _orphans(ledger):
    return [orphan.session_id for orphan in await ledger.owners.orphans()]


async def test_a_living_owner_has_no_orphans(left_behind):
    assert await _orphans(left_behind) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE process SET pid = 4194303",
        "UPDATE process SET pid_started_at = pid_started_at - 10000000",
        "UPDATE process SET ended_at = 1",
        "UPDATE process SET host = 'elsewhere', heartbeat_at = 0",
    ],
    ids=["no such process", "a namesake", "it left", "not heard of for long"],
)
async def test_a_dead_owner_leaves_orphans(ledger_url, left_behind, change):
    tamper(ledger_url, change)
    (orphan,) = await left_behind.owners.orphans()
    assert (orphan.session_id, orphan.provider_session_id) == ("theirs", "p-1")
    assert (orphan.pid, orphan.pid_started, orphan.created_at) == (4, 5.5, NOON)
    await left_behind.settle_orphan("theirs", reason="owner died")
    assert await left_behind.owners.orphans() == []


async def test_an_owner_on_another_machine_lives_while_its_heart_beats(ledger_url, left_behind):
    tamper(ledger_url, "UPDATE process SET host = 'elsewhere'")
    assert await _orphans(left_behind) == []


async def test_a_session_whose_end_is_not_confirmed_waits_in_the_outbox(ledger_url):
    async with opened(ledger_url) as ledger:
        await ledger.hold(ask())
        await ledger.activate("s", provider_session_id="theirs")
        for error in ("500", "timeout"):
            await ledger.release_later("s", reason="idle", error=error)
        row = "SELECT provider, provider_session_id, attempts, last_error, confirmed_at FROM release_outbox"
        assert query(ledger_url, row) == [("bb", "theirs", 2, "timeout", None)]
        await ledger.released("s")
        assert query(ledger_url, "SELECT COUNT(*) FROM release_outbox WHERE confirmed_at IS NOT NULL") == [
            (1,)
        ]
        await ledger.settle_orphan("s", reason="confirmed late")
