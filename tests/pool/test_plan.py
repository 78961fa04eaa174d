"""Stories of the planner, one behaviour each; some were bugs that the walks of `test_plan_walk.py` found."""

from __future__ import annotations

from typing import Any

import pytest

from tabkeeper.pool.model import Close, Create, Grant, Refuse, Rules, Session, State

from .builders import Table, platform_rules, pool_rules

TWO_PLATFORMS = {"shop": platform_rules(), "mail": platform_rules()}


def warm(table: Table, platform: str = "shop", tenant: str = "default") -> Session:
    """Ask, create and grant: return a leased session."""
    before = set(table.lent)
    table.ask(platform, tenant=tenant)
    session = table.ready(list(table.creating.values())[-1])
    table.loop.settle()
    assert set(table.lent) - before == {session.id}
    return session


def idle(table: Table, platform: str = "shop", tenant: str = "default") -> Session:
    session = warm(table, platform, tenant)
    table.release(session)
    table.loop.settle()
    assert session.state is State.IDLE
    return session


def refusal(table: Table) -> Refuse:
    return next(action for action in table.log if isinstance(action, Refuse))


def test_a_first_request_gets_a_session_of_its_own():
    table = Table(pool_rules())
    request = table.ask()
    session = table.ready()
    table.loop.settle()
    assert table.log == [Create(session), Grant(request, session, 1)]


def test_the_most_recently_used_session_is_reused():
    table = Table(pool_rules())
    first, second = warm(table), warm(table)
    table.release(second)
    table.pass_time(1)
    table.release(first)
    table.pass_time(1)
    table.ask()
    assert first.state is State.LEASED
    assert second.state is State.IDLE


def test_who_comes_back_finds_its_session_while_it_is_idle_and_any_other_if_not():
    table = Table(pool_rules())
    for _ in range(3):
        table.ask()
    first, second, third = table.ready(), table.ready(), table.ready()
    table.settle()
    for session in (first, second, third):
        table.release(session)
    table.settle()
    table.ask(wants=first.id)
    assert set(table.lent) == {first.id}
    table.ask(wants=first.id)
    assert set(table.lent) == {first.id, third.id}
    table.ask(wants="s99")
    assert set(table.lent) == {first.id, second.id, third.id}


def test_one_session_lives_for_an_identity_and_its_requests_take_turns():
    table = Table(pool_rules())
    asked = [table.ask(identity="ada") for _ in range(10)]
    assert len(table.creating) == 1
    session = table.ready()
    table.settle()
    for number in range(10):
        assert table.lent == {session.id: (asked[number], number + 1)}
        table.release(session)
        table.settle()
    table.ask(identity="ada", tenant="acme")
    table.ask(identity="bob")
    assert len(table.creating) == 2, "another tenant's, and another identity, are others"


def test_a_new_session_of_an_identity_waits_for_the_end_of_the_old_one():
    table = Table(pool_rules())
    table.ask(identity="ada")
    old = table.ready()
    table.settle()
    table.release(old, keep=False)
    waiting = table.ask(identity="ada")
    assert waiting.covered_by is old
    assert not table.creating
    table.closed(old)
    table.settle()
    assert len(table.creating) == 1


TAKEN = {"shop": platform_rules(evict_in_use=True), "mail": platform_rules()}


def lend(table: Table, platform: str = "shop", **wanted: Any) -> Session:
    request = table.ask(platform, **wanted)
    session = table.ready(list(table.creating.values())[-1])
    table.settle()
    assert table.lent[session.id][0] is request
    return session


def test_in_use_the_least_important_holder_loses_its_session_to_a_more_important_request():
    table = Table(pool_rules(TAKEN, max_sessions=4))
    lend(table, priority=2)
    table.pass_time(1)
    first, second = lend(table, priority=1), lend(table, priority=1)
    kept = lend(table, "mail", priority=-5)
    equal = table.ask("mail", priority=1)
    assert not table.closing, "nobody loses to an equal; and who may not be taken from is left alone"
    table.withdraw(equal)
    asked = table.ask("mail", priority=2)
    assert (first.state, first.reason) == (State.DRAINING, "evicted in use"), (
        "the one that has it for longest"
    )
    assert (second.state, kept.state) == (State.LEASED, State.LEASED)
    table.closed(first)
    table.settle()
    made = table.ready()
    table.settle()
    assert table.lent[made.id][0] is asked


def test_a_session_that_idles_makes_room_before_one_in_use():
    table = Table(pool_rules(TAKEN, max_sessions=2))
    busy = lend(table, priority=-1)
    resting = lend(table, "mail")
    table.release(resting)
    table.ask(priority=5)
    assert (busy.state, resting.reason) == (State.LEASED, "evicted")


def test_nobody_loses_a_session_unless_it_is_so_set():
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=1))
    lend(table, priority=-100)
    table.ask("mail", priority=100)
    assert not table.closing


def test_who_waited_long_does_not_lose_its_session_to_those_it_was_served_before():
    table = Table(pool_rules(TAKEN, max_sessions=1, aging=10.0))
    busy = lend(table, "mail")
    table.ask(timeout=300)
    table.pass_time(55)
    table.release(busy, keep=False)
    table.closed(busy)
    table.settle()
    mine = table.ready()
    table.settle()
    table.pass_time(1)
    table.ask(priority=5)
    assert mine.state is State.LEASED, "waiting made it as important"
    table.ask("mail", priority=6)
    assert mine.reason == "evicted in use"


def test_callers_of_one_identity_take_turns_however_important():
    table = Table(pool_rules({"shop": platform_rules(evict_in_use=True)}, max_sessions=1))
    session = lend(table, identity="ada")
    table.ask(identity="ada", priority=9)
    assert session.state is State.LEASED
    table.ask(priority=1)
    assert session.reason == "evicted in use", "another's need is another thing"


def test_a_lease_that_somebody_more_important_shares_is_as_important():
    table = Table(pool_rules({"shop": platform_rules(evict_in_use=True)}, max_sessions=1))
    session = lend(table, identity="ada")
    table.view.share(session, 3)
    table.ask(priority=3)
    assert session.state is State.LEASED
    table.ask(priority=4)
    assert session.state is State.DRAINING


def test_without_money_nobody_loses_a_session():
    table = Table(pool_rules(TAKEN, max_sessions=2))
    lend(table)
    refused = table.ask("mail", priority=5)
    table.denied(effect="refuse")
    table.withdraw(refused)
    other = lend(table)
    table.ask("mail", priority=5)
    assert other.state is State.LEASED


def test_who_lost_a_session_has_room_under_its_tenants_limit_at_once():
    platforms = {"shop": platform_rules(evict_in_use=True, max_sessions=1), "mail": platform_rules()}
    table = Table(pool_rules(platforms, max_sessions=2, tenant_limits={"beta": 1}))
    resting = lend(table, "mail")
    table.release(resting)
    table.settle()
    lost = lend(table, tenant="beta")
    waiting = table.ask("mail", tenant="beta")
    assert resting.state is State.IDLE, "its tenant has a lease already"
    table.ask(priority=1)
    assert lost.reason == "evicted in use"
    assert table.lent[resting.id][0] is waiting


def test_a_burst_of_callers_costs_one_decision_and_one_session_each():
    table = Table(pool_rules())
    for _ in range(5):
        table.ask(settle=False)
    table.loop.settle()
    assert table.board.steps == 1
    assert len(table.creating) == 5


def test_at_the_cap_eleven_callers_of_two_platforms_make_one_eviction_and_never_eleven_sessions():
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=10))
    sessions = [warm(table) for _ in range(10)]
    table.release(sessions[3])
    table.loop.settle()
    table.ask("mail")
    assert [s.id for s in table.closing.values()] == [sessions[3].id]
    assert not table.creating
    assert len(table.view.sessions) == 10
    table.closed()
    table.loop.settle()
    assert [s.lane.platform for s in table.creating.values()] == ["mail"]
    assert len(table.view.sessions) == 10


def test_a_session_released_meanwhile_serves_the_first_and_the_creation_serves_the_next():
    table = Table(pool_rules())
    held = warm(table)
    first = table.ask()
    table.release(held)
    table.loop.settle()
    second = table.ask()
    assert table.fate[first.id] == "granted"
    assert len(table.creating) == 1, "the creation begun for the first is there for the second"
    table.ready()
    table.loop.settle()
    assert table.fate[second.id] == "granted"


def test_a_release_after_reclaim_does_not_touch_the_new_holder():
    table = Table(pool_rules())
    session = warm(table)
    table.release(session)
    table.loop.settle()
    holder = table.ask()
    assert not table.board.released(session, 1, keep=True, reason="late")
    table.loop.settle()
    assert table.lent[session.id] == (holder, 2)


def test_a_lease_that_is_never_released_is_reported_and_then_reclaimed():
    table = Table(pool_rules(leak_after=20.0))
    table.ask(lease_seconds=30)
    session = table.ready()
    table.pass_time(300)
    told = [type(action).__name__ for action in table.log]
    assert told[-4:] == ["ReportLeak", "Reclaim", "Close", "GiveUpPlace"]
    assert session.state is State.CLOSED


def test_who_waits_until_the_deadline_is_told_what_stood_in_the_way():
    table = Table(pool_rules(max_sessions=1))
    warm(table)
    table.ask(timeout=5)
    table.pass_time(5)
    assert "all 1 sessions" in refusal(table).blocked_by
    assert refusal(table).position == 1


# ── bugs that the walks found ───────────────────────────────────────────────────────────────────────────────────────


def test_a_request_without_patience_begins_no_creation_and_is_answered_at_once():
    table = Table(pool_rules())
    request = table.ask(timeout=0)
    assert table.fate[request.id] == "refused"
    assert not table.creating
    assert table.board.steps == 1


def test_a_request_without_patience_gets_what_is_idle():
    table = Table(pool_rules())
    idle(table)
    request = table.ask(timeout=0)
    assert table.fate[request.id] == "granted"


def test_nobody_is_evicted_for_a_request_whose_time_is_up():
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=1))
    session = warm(table)
    waiting = table.ask("shop")
    table.ask("mail", priority=5, timeout=0, settle=False)
    table.release(session)
    table.loop.settle()
    assert table.fate[waiting.id] == "granted"


def test_a_tenant_at_its_limit_is_served_from_an_idle_session_once_its_other_lease_ends():
    table = Table(pool_rules(TWO_PLATFORMS, tenant_limits={"acme": 1}))
    in_mail = warm(table, "mail", "beta")
    in_shop = warm(table, "shop", "acme")
    waiting = table.ask("mail", tenant="acme")
    table.release(in_mail)
    table.loop.settle()
    assert waiting.waiting, "acme holds all it may"
    table.release(in_shop)
    table.loop.settle()
    assert table.lent == {in_mail.id: (waiting, 2)}


def test_a_tenant_held_back_by_its_limit_is_offered_again_when_others_went_before_it():
    """Its place among the lanes was forgotten when a later request of its lane was helped first."""
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=2, tenant_limits={"acme": 1}))
    mine = warm(table, "mail", "acme")
    table.ask("shop", tenant="acme", settle=False)
    table.ask("shop", tenant="beta")
    shop = table.ready()
    table.loop.settle()
    assert shop.state is State.LEASED
    table.release(mine, keep=False)
    table.loop.settle()
    table.closed()
    table.loop.settle()
    assert [s.lane.platform for s in table.creating.values()] == ["shop"]


def test_a_tenant_held_back_by_its_limit_keeps_its_place_before_other_lanes():
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=2, tenant_limits={"acme": 1}))
    mine, other = warm(table, "mail", "acme"), warm(table, "mail", "beta")
    table.ask("shop", tenant="acme", priority=5, settle=False)
    table.ask("shop", tenant="beta", priority=0, settle=False)
    table.ask("mail", tenant="zorg", priority=3, settle=False)
    table.ask("mail", tenant="zorg", priority=3, settle=False)
    table.release(other, keep=False)
    table.loop.settle()
    table.closed(other)
    table.loop.settle()
    assert [s.lane.platform for s in table.creating.values()] == ["mail"], "acme holds all it may"
    table.release(mine, keep=False)
    table.loop.settle()
    table.closed(mine)
    table.loop.settle()
    assert [s.covers and s.covers.priority for s in table.creating.values()] == [3, 5]


def test_no_creation_is_begun_beside_one_that_is_meant_for_nobody():
    table = Table(pool_rules(tenant_limits={"acme": 1}))
    held = warm(table, tenant="acme")
    gone = table.ask()
    table.withdraw(gone)
    table.loop.settle()
    table.ask(tenant="acme")  # may not be promised anything now
    table.ask(tenant="beta")
    assert len(table.creating) == 1, "beta can have the creation that nobody waits for"
    table.release(held, keep=False)
    table.loop.settle()
    assert len(table.creating) == 2


def test_a_platform_that_is_full_tries_to_evict_again_when_its_provider_is_back():
    table = Table(
        pool_rules({"shop": platform_rules(max_sessions=1)}, owning_tenants=frozenset({"acme", "beta"}))
    )
    of_acme = idle(table, tenant="acme")
    table.view.providers["hosted"].retry_at = table.now + 5
    table.view.wake_at_least(table.now + 5)
    table.ask(tenant="beta")
    assert of_acme.state is State.IDLE
    table.pass_time(5)
    assert of_acme.reason == "evicted"


def test_a_full_platform_evicts_the_longest_idle_session_whoever_owns_it():
    owners = frozenset({"acme", "beta", "zorg"})
    table = Table(pool_rules({"shop": platform_rules(max_sessions=2)}, owning_tenants=owners))
    of_acme, of_beta = warm(table, tenant="acme"), warm(table, tenant="beta")
    table.release(of_beta)
    table.pass_time(1)
    table.release(of_acme)
    table.pass_time(1)
    table.ask(tenant="zorg")
    assert of_beta.reason == "evicted"
    assert of_acme.state is State.IDLE


def test_nobody_waits_for_a_place_to_become_free_while_there_is_room():
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=2))
    slow, other = idle(table), warm(table, "mail")
    waiting = table.ask("mail")
    assert waiting.covered_by is slow
    table.release(other, keep=False)
    table.loop.settle()
    table.closed(other)
    table.loop.settle()
    assert [s.covers for s in table.creating.values()] == [waiting]
    assert slow.covers is None


def test_a_failed_creation_that_was_closed_before_is_not_blamed_on_who_waits_for_its_place():
    table = Table(pool_rules(max_sessions=1))
    table.ask()
    session = table.creating["s1"]
    table.board.end(session, "closed by hand")
    table.loop.settle()
    request = session.covers
    assert request is not None, "the place is meant for the request"
    assert table.failed(session) is None
    assert request.failures == 0


def test_a_step_ahead_evicts_nobody_for_a_lane_that_has_just_been_refused_by_a_budget():
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=2))
    shop = warm(table)
    refused = table.ask("mail")
    table.denied(effect="refuse", wait=60)
    table.withdraw(refused)
    warm(table)
    waiting = table.ask("shop")
    table.ask("mail", priority=5)
    table.release(shop)
    table.loop.settle()
    assert table.fate[waiting.id] == "granted"


def test_a_lane_that_can_pay_again_evicts_at_once():
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=2))
    refused, other = table.ask("mail", settle=False), table.ask("mail")
    first, second = table.creating.values()
    table.denied(first, effect="refuse", wait=60)
    table.withdraw(refused)
    shop = idle(table)
    third = table.ask("mail")
    assert shop.state is State.IDLE, "a budget has just said no"
    table.board.held(second, 1000)
    table.loop.settle()
    assert shop.covers is third
    assert other.covered_by is second


@pytest.mark.parametrize("limit", ["pool", "platform", "provider"])
def test_a_whole_step_ahead_takes_the_next_place_whatever_limit_is_full(limit: str):
    rules: dict[str, Rules] = {
        "pool": pool_rules(max_sessions=1, owning_tenants=frozenset({"acme"})),
        "platform": pool_rules({"shop": platform_rules(max_sessions=1)}, owning_tenants=frozenset({"acme"})),
        "provider": pool_rules(provider_limits={"hosted": 1}, owning_tenants=frozenset({"acme"})),
    }
    table = Table(rules[limit])
    shared = warm(table)
    ahead = table.ask(tenant="acme", priority=1)
    table.ask(priority=0)
    table.release(shared)
    table.loop.settle()
    assert shared.covers is ahead
    assert [type(action) for action in table.log[-1:]] == [Close]


def test_a_step_ahead_evicts_nothing_where_it_has_room_elsewhere():
    platforms = {"shop": platform_rules("hosted"), "mail": platform_rules("hosted", "local")}
    table = Table(pool_rules(platforms, provider_limits={"hosted": 1}))
    shop = warm(table)
    table.ask("shop", settle=False)
    table.ask("mail", priority=5, settle=False)
    table.release(shop)
    table.loop.settle()
    assert shop.state is State.LEASED
    assert [s.provider for s in table.creating.values()] == ["local"]


def test_timers_are_swept_when_they_pay_for_it_however_far_their_instants_are():
    """Instants of nobody in particular (a budget's reset) stay until they come; each sweep went over all of them."""
    table = Table(pool_rules())
    looked = 0
    useful = table.view._useful

    def counted(entry):
        nonlocal looked
        looked += 1
        return useful(entry)

    table.view._useful = counted
    for n in range(5000):
        table.view.wake_at_least(1e6 + n)
    assert looked < 2 * 5000
    for _ in range(2000):
        session = warm(table) if not table.lent else table.view.sessions[next(iter(table.lent))]
        table.release(session)
        table.ask()
    assert len(table.view._timers) < 2 * 5000 + 600


# ── fault n: a steady stream of high priority ───────────────────────────────────────────────────────────────────────


def serve_a_stream(aging: float) -> tuple[str, float]:
    """Serve one place to a stream of priority 5 and one request of priority 0; return its fate and when."""
    table = Table(pool_rules(max_sessions=1, aging=aging))
    busy = warm(table)
    quiet = table.ask(priority=0, timeout=120)
    table.ask(priority=5)  # so that one of the stream always waits
    for _ in range(120):
        table.ask(priority=5)
        table.pass_time(1)
        if quiet.id in table.fate:
            break
        if busy.id in table.lent:
            table.release(busy)
            table.loop.settle()
    return table.fate[quiet.id], table.now


def test_fault_n_low_priority_is_served_before_its_deadline_beside_a_steady_stream_of_high_priority():
    fate, at = serve_a_stream(aging=10.0)
    assert fate == "granted"
    assert 50 <= at <= (5 - 0 + 1) * 10.0 + 2, (
        "served before anybody who came more than six steps of ageing later"
    )


def test_fault_n_control_without_ageing_low_priority_starves():
    fate, at = serve_a_stream(aging=1e9)
    assert fate == "refused"
    assert at == 120


def test_fault_n_low_priority_of_another_platform_does_not_starve_either():
    table = Table(pool_rules(TWO_PLATFORMS, max_sessions=1))
    busy = warm(table)
    quiet = table.ask("mail", priority=0, timeout=120)
    table.ask("shop", priority=5)
    while quiet.id not in table.fate:
        table.ask("shop", priority=5)
        table.pass_time(1)
        for session in list(table.closing.values()):
            table.closed(session)
        for session in list(table.creating.values()):
            table.ready(session)
        table.loop.settle()
        if busy.id in table.lent:
            table.release(busy)
            table.loop.settle()
    assert table.fate[quiet.id] == "granted"
    assert table.now <= 66


def test_a_session_that_was_used_as_often_as_it_may_be_is_closed_at_its_release():
    table = Table(pool_rules({"shop": platform_rules(max_uses=2)}))
    session = warm(table)
    table.release(session)
    table.ask()
    assert session.state is State.LEASED
    table.release(session)
    table.loop.settle()
    assert session.state is State.DRAINING
    table.ask()
    assert len(table.creating) == 1


def test_by_value_the_session_of_the_platform_that_is_asked_for_rarely_goes_first_though_it_was_used_last():
    kept = platform_rules(keep="always", session_ttl=7200.0)
    table = Table(pool_rules({"shop": kept, "mail": kept, "maps": kept}, max_sessions=2, eviction="value"))
    of_mail = idle(table, "mail")
    for _ in range(3):
        table.pass_time(50)  # mail is asked for every fifty seconds, the shop every two
        table.ask("mail")
        table.release(of_mail)
    of_shop = idle(table)
    for _ in range(40):
        table.pass_time(2)
        table.ask()
        table.release(of_shop)
    table.ask("mail")
    table.release(of_mail)
    table.loop.settle()
    assert of_shop.idle_since <= of_mail.idle_since
    table.ask("maps")
    assert of_mail.reason == "evicted"
    assert of_shop.state is State.IDLE
